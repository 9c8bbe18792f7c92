"""`KeyedVectors`: neighbours, files, and agreement with people's judgements."""

from __future__ import annotations

import gzip
import math
import os
import struct

import numpy as np
import pytest

from fastnlp import KeyedVectors, build_vocab
from fastnlp.text import _neighbours, evaluate_similarity, vectors

NAMES = {"glove": "v.txt", "word2vec": "v.vec", "word2vec-binary": "v.bin", "npz": "v.npz"}


@pytest.fixture
def keyed(rng) -> KeyedVectors:
    return KeyedVectors([f"w{i}" for i in range(500)], rng.standard_normal((500, 20)).astype(np.float32))


def cosines(keyed: KeyedVectors, query: np.ndarray) -> np.ndarray:
    x = keyed.vectors.astype(np.float64)
    return x @ query / (np.linalg.norm(x, axis=1) * np.linalg.norm(query))


# Neighbours


def test_words_and_vectors(keyed):
    assert len(keyed) == 500
    assert "w3" in keyed
    assert "x" not in keyed
    assert keyed.words[7] == "w7"
    assert list(keyed) == list(keyed.words)
    np.testing.assert_array_equal(keyed["w7"], keyed.vectors[7])
    assert keyed.vectors.dtype == np.float32
    assert "500 words, 20 features" in repr(keyed)
    with pytest.raises(KeyError, match="'W12' is not among the 500 words; close to it are 'w12'"):
        keyed["W12"]


def test_vectors_are_a_read_only_view(rng):
    given = rng.standard_normal((3, 2)).astype(np.float32)
    keyed = KeyedVectors(build_vocab(["a b c"], min_count=1), given)
    assert np.shares_memory(keyed.vectors, given)
    assert given.flags.writeable
    assert not keyed.vectors.flags.writeable
    assert KeyedVectors(["a"], [[1, 2]]).vectors.dtype == np.float32


def test_most_similar_against_a_full_sort(keyed):
    for word in ("w0", "w17", "w499"):
        expected = cosines(keyed, keyed[word].astype(np.float64))
        expected[keyed.index[word]] = -2
        best = np.argsort(-expected)[:10]
        found = keyed.most_similar(word)
        assert [name for name, _ in found] == [f"w{i}" for i in best]
        np.testing.assert_allclose([cosine for _, cosine in found], expected[best], rtol=1e-12)
        assert all(type(cosine) is float for _, cosine in found)


def test_queries_of_several_words_and_vectors(keyed):
    def unit(word):
        x = keyed[word].astype(np.float64)
        return x / np.linalg.norm(x)

    expected = cosines(keyed, unit("w1") + unit("w2") - unit("w3"))
    expected[[1, 2, 3]] = -2
    best = [f"w{i}" for i in np.argsort(-expected)[:5]]
    for positive, negative in (
        (["w1", "w2"], ["w3"]),
        (("w1", "w2"), "w3"),
        (["w1", "w2", keyed["w5"] * 0], {"w3"}),
    ):
        assert [word for word, _ in keyed.most_similar(positive, negative=negative, topn=5)] == best
    for query in (keyed["w1"], list(map(float, keyed["w1"])), [keyed["w1"]], keyed.vectors[1:2]):
        assert keyed.most_similar(query, topn=1)[0] == ("w1", pytest.approx(1.0, abs=1e-6))
    assert keyed.most_similar((), negative="w1", topn=500)[-1][1] > -1


def test_similarity(keyed):
    a, b = keyed["w1"].astype(np.float64), keyed["w2"].astype(np.float64)
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert keyed.similarity("w1", "w2") == pytest.approx(expected, rel=1e-12)
    assert keyed.similarity("w1", b) == pytest.approx(expected, rel=1e-12)
    assert keyed.similarity("w1", "w1") == pytest.approx(1.0, abs=1e-15)
    assert keyed.similarity("w1", np.zeros(20)) == 0.0


def test_ties_stand_in_the_order_of_the_words(rng):
    row = rng.standard_normal(33).astype(np.float32)
    keyed = KeyedVectors([f"w{i}" for i in range(101)], np.tile(row, (101, 1)))
    assert [word for word, _ in keyed.most_similar("w2", topn=5)] == ["w0", "w1", "w3", "w4", "w5"]
    assert len(keyed.most_similar("w2", topn=1000)) == 100


def test_zero_vectors_have_cosine_zero():
    keyed = KeyedVectors(["zero", "one", "minus"], [[0, 0], [1, 0], [-1, 0]])
    assert keyed.most_similar("one") == [("zero", 0.0), ("minus", -1.0)]
    assert keyed.most_similar("zero") == [("one", 0.0), ("minus", 0.0)]


def test_vectors_that_are_not_finite_are_left_out():
    keyed = KeyedVectors(["a", "b", "nan", "inf"], [[1, 0], [1, 1], [math.nan, 1], [math.inf, 1]])
    assert [word for word, _ in keyed.most_similar("a")] == ["b"]
    for query in ("nan", "inf", [math.nan, 0.0]):
        with pytest.raises(ValueError, match="not finite"):
            keyed.most_similar(query)
    assert KeyedVectors(["a", "nan"], [[1.0], [math.nan]]).most_similar("a") == []


def test_very_long_and_very_short_vectors():
    keyed = KeyedVectors(
        ["a", "b", "c", "d"], np.array([[1, 1], [3e38, 3e38], [1e-30, 1e-30], [1e38, -1e38]], np.float32)
    )
    assert keyed.most_similar("a") == [("b", pytest.approx(1)), ("c", pytest.approx(1)), ("d", pytest.approx(0))]
    assert keyed.most_similar("b", topn=1) == [("a", pytest.approx(1))]
    assert keyed.similarity("b", "c") == pytest.approx(1)


def test_sums_that_overflow_in_float32():
    alternating = np.tile(np.float32([3e38, -3e38]), 1 << 15)
    keyed = KeyedVectors(["a", "b", "c"], [np.ones(1 << 16), alternating, np.full(1 << 16, 3e38)])
    assert keyed.most_similar("a") == [("c", pytest.approx(1)), ("b", pytest.approx(0))]


def test_blocks_of_rows_give_the_same(keyed, monkeypatch):
    expected = keyed.most_similar("w5", topn=7)
    monkeypatch.setattr(_neighbours, "_ROWS", 3)
    assert KeyedVectors(keyed.words, keyed.vectors).most_similar("w5", topn=7) == expected


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (["x"], {}, KeyError, "'x' is not among the 500 words"),
        ([["w1", "x"]], {}, KeyError, "'x' is not"),
        (["w1"], {"topn": 0}, ValueError, "topn must be at least 1, got 0"),
        (["w1"], {"topn": 2.5}, TypeError, "topn"),
        ([()], {}, ValueError, "hold nothing"),
        ([np.zeros(3)], {}, ValueError, r"shape \(20,\)"),
        ([[b"w1"]], {}, ValueError, "a word or a vector"),
    ],
)
def test_queries_are_checked(keyed, args, options, error, message):
    with pytest.raises(error, match=message):
        keyed.most_similar(*args, **options)


@pytest.mark.parametrize(
    ("words", "given", "error", "message"),
    [
        (["a"], [[1.0], [2.0]], ValueError, r"shape \(1, D\)"),
        (["a"], [1.0], ValueError, "one row a word"),
        (["a"], [[]], ValueError, "one row a word"),
        ([], np.zeros((0, 3)), ValueError, "one row a word"),
        (["a", "a"], [[1.0], [2.0]], ValueError, "words must hold each word once"),
        (["a", 3], [[1.0], [2.0]], TypeError, "word 1 is int"),
        (["a"], [["1"]], TypeError, "vectors must be numbers"),
        ("ab", [[1.0], [2.0]], TypeError, "a list of str"),
    ],
)
def test_arguments_are_checked(words, given, error, message):
    with pytest.raises(error, match=message):
        KeyedVectors(words, given)


# Files


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (1500, 3)])
def test_files_give_back_every_bit(tmp_path, rng, format, shape):
    bits = rng.integers(0, 1 << 32, shape, dtype=np.uint32).view(np.float32)
    bits = np.where(np.isfinite(bits), bits, np.float32(-0.0))
    bits.flat[:1] = np.float32(0.1)
    words = ["a\u00a0b", "\u0085", "中文", *map(str, range(shape[0]))][: shape[0]]
    keyed = KeyedVectors(words, bits)
    path = tmp_path / NAMES[format]
    keyed.save(path)
    for loaded in (KeyedVectors.load(path), KeyedVectors.load(str(path), format=format)):
        assert loaded.words == keyed.words
        np.testing.assert_array_equal(loaded.vectors.view(np.uint32), keyed.vectors.view(np.uint32))
    assert os.listdir(tmp_path) == [path.name]


def test_what_the_files_hold(tmp_path):
    keyed = KeyedVectors(["a", "é"], [[1, -0.5], [0.1, 2]])
    text = "a 1 -0.5\né 0.100000001 2\n".encode()
    for name, content in (
        ("v.txt", text),
        ("v.vec", b"2 2\n" + text),
        ("v.bin", b"2 2\na " + struct.pack("<2f", 1, -0.5) + "\né ".encode() + struct.pack("<2f", 0.1, 2) + b"\n"),
    ):
        keyed.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    keyed.save(tmp_path / "other", format="word2vec")
    assert (tmp_path / "other").read_bytes() == b"2 2\n" + text


@pytest.mark.parametrize("format", ["glove", "word2vec"])
def test_not_a_number_survives_text(tmp_path, format):
    keyed = KeyedVectors(["a", "b"], [[math.nan, 1], [math.inf, -math.inf]])
    keyed.save(tmp_path / "v", format=format)
    np.testing.assert_array_equal(KeyedVectors.load(tmp_path / "v", format=format).vectors, keyed.vectors)


def test_files_of_other_programs(tmp_path):
    path = tmp_path / "v.txt"
    for content in (
        b"3 2\na 1 2\n. . 3 4\nc 5 6",
        b"a 1 2 \r\n. . 3 4 \r\nc 5 6 \r\n",
        b"3 2\r\na 1 2\n. . 3 4\nc 5 6\n",
    ):
        path.write_bytes(content)
        loaded = KeyedVectors.load(path)
        assert loaded.words == ("a", ". .", "c")
        np.testing.assert_array_equal(loaded.vectors, [[1, 2], [3, 4], [5, 6]])
        (tmp_path / "v.txt.gz").write_bytes(gzip.compress(content))
        assert KeyedVectors.load(tmp_path / "v.txt.gz").words == loaded.words
    (tmp_path / "v.vec").write_bytes(b"2 2\na 1 2\nb 3 4\n<unk> 5 6\n")  # GloVe's header does not count <unk>
    assert KeyedVectors.load(tmp_path / "v.vec").words == ("a", "b", "<unk>")
    (tmp_path / "v.bin").write_bytes(b"2 1\na " + struct.pack("<f", 1) + b"b " + struct.pack("<f", 2))  # no line ends
    assert KeyedVectors.load(tmp_path / "v.bin").words == ("a", "b")


def test_a_binary_file_in_small_blocks(tmp_path, keyed, monkeypatch):
    keyed.save(tmp_path / "v.bin")
    monkeypatch.setattr(vectors.vector_files.reading, "BLOCK", 7)
    loaded = KeyedVectors.load(tmp_path / "v.bin")
    assert loaded.words == keyed.words
    np.testing.assert_array_equal(loaded.vectors, keyed.vectors)


def test_words_that_stand_there_twice_or_are_not_utf8(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(b"a 1 2\nb 3 4\na 5 6\nf\xfc 7 8\n")
    with pytest.warns(UserWarning, match="1 words stand there twice .*, 1 are not UTF-8") as caught:
        loaded = KeyedVectors.load(path)
    assert len(caught) == 1
    assert loaded.words == ("a", "b", "f\ufffd")
    np.testing.assert_array_equal(loaded.vectors, [[1, 2], [3, 4], [7, 8]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.txt", b"", "is empty"),
        ("v.txt", b"a 1 2\nb 3\n", "line 2"),
        ("v.txt", b"a 1 2\nb 3 x\n", "line 2"),
        ("v.txt", b"a 1 2\nb 3 4\nc 5 6 7\n", "line 3"),
        ("v.txt", b"a 1 2\n\nb 3 4\n", "line 2"),
        ("v.txt", b"a\nb\n", "line 1"),
        ("v.txt", b"a\t1\t2\nb\t3\t4\n", "line 1"),
        ("v.txt", b" 1 2\na 1 2\nb 1 2\n", "line 1"),
        ("v.txt", b"5 2\na 1 2\nb 3 4\n", "is truncated: its header says 5 words, it holds 2"),
        ("v.txt", b"2 3\na 1 2\nb 3 4\n", "the header says 3 numbers a word, the lines hold 2"),
        ("v.vec", b"a 1 2\nb 3 4\n", r'header "V D"'),
        ("v.bin", b"", "is empty"),
        ("v.bin", b"a 1 2\n", "is this a word2vec binary file"),
        ("v.bin", b"3 2\na 12345678", "is truncated: its header says 3 words, it holds 1"),
        ("v.bin", b"99999999999 300\na 12345678", "is truncated"),
        ("v.bin", b"0 3\n", "holds no words"),
        ("v.vec", b"0 3\n", "v.vec"),
        ("v.npz", b"PK\3\4rest", "is not an npz file"),
        ("v.npz", b"text", "is not an npz file"),
        ("v.npz", b"", "is not an npz file"),
        ("v.txt.gz", gzip.compress(b"a 1 2\n" * 99)[:-9], "truncated or corrupt"),
    ],
)
def test_malformed_files_name_the_path_and_the_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        KeyedVectors.load(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("suffix", ["txt", "vec", "bin", "npz"])
def test_very_long_words_come_back(tmp_path, suffix):
    words = KeyedVectors(["x" * 3_000_000, "b"], np.eye(2))
    words.save(tmp_path / f"v.{suffix}")
    assert KeyedVectors.load(tmp_path / f"v.{suffix}").words == words.words


def test_an_npz_of_other_things(tmp_path):
    np.savez(tmp_path / "v.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="is not an npz file of word vectors"):
        KeyedVectors.load(tmp_path / "v.npz")


@pytest.mark.parametrize(("field", "value"), [(6, 200), (10, 99), (42, 255)])
def test_an_npz_whose_directory_is_damaged(tmp_path, keyed, field, value):
    path = tmp_path / "v.npz"
    keyed.save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + field] = value  # the version, the method, and where the first array stands
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"v\.npz is not an npz file of word vectors, or is damaged"):
        KeyedVectors.load(path)


def test_names_and_formats_are_checked(tmp_path, keyed):
    for path, format, message in (
        ("v.csv", None, r"suffix of .*v\.csv is none of \.txt"),
        ("v.txt", "text", "format must be one of 'glove'"),
        ("v.txt.gz", None, "would not be packed"),
    ):
        with pytest.raises(ValueError, match=message):
            keyed.save(tmp_path / path, format=format)
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        KeyedVectors.load(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        KeyedVectors.load(tmp_path / "none.txt")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("word", ["new york", "a\nb", ""])
def test_only_npz_takes_any_word(tmp_path, word):
    keyed = KeyedVectors([word, "x"], [[1], [2]])
    keyed.save(tmp_path / "v.npz")
    assert KeyedVectors.load(tmp_path / "v.npz").words == (word, "x")
    for name in ("v.txt", "v.vec", "v.bin"):
        with pytest.raises(ValueError, match=r"cannot hold the word .*npz"):
            keyed.save(tmp_path / name)


def test_a_full_disk_leaves_the_old_file(tmp_path, keyed):
    resource = pytest.importorskip("resource")
    path = tmp_path / "v.txt"
    path.write_text("old 1 2\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written .*v\.txt"):
            keyed.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old 1 2\n"
    assert os.listdir(tmp_path) == ["v.txt"]


# Agreement with people's judgements


def test_evaluate_similarity(tmp_path):
    keyed = KeyedVectors(["a", "b", "c", "d"], [[1, 0], [1, 0.1], [1, 1], [0, 1]])
    path = tmp_path / "pairs.txt"
    for content in (
        "a\tb\t9\nA\tc\t5.5\na\td\t1\na\tnone\t3\n",
        "word 1,word 2,mean\na,b,9\nA, c,5.5\na,d,1\n\na,none,3\n",
        "# of people\r\na b 9 n\r\nA  c 5.5 n\r\na d 1 n\r\na none 3 n\r\n",
        "\ufeffa b 9\nA c 5.5\na d 1\na none 3\n",
    ):
        path.write_text(content, newline="")
        result = evaluate_similarity(keyed, path)
        assert result == (pytest.approx(1.0), 4, 3)
    path.write_text("a b 1\na c 5.5\na d 9\n")
    assert evaluate_similarity(keyed, path).spearman == pytest.approx(-1.0)
    for content in ("a b 1\na none 2\n", "a b 1\na c 1\n", "x y 1\n"):
        path.write_text(content)
        assert math.isnan(evaluate_similarity(keyed, path).spearman)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a b 1\na b\n", "line 2"), ("a b 1\na b x\n", "line 2"), ("# none\n", "holds no pairs"), ("", "is empty")],
)
def test_malformed_similarity_files(tmp_path, content, message):
    path = tmp_path / "pairs.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        evaluate_similarity(KeyedVectors(["a"], [[1]]), path)
    assert "pairs.txt" in str(raised.value)


def test_evaluate_similarity_wants_keyed_vectors(tmp_path):
    with pytest.raises(TypeError, match="KeyedVectors"):
        evaluate_similarity({"a": [1]}, tmp_path / "pairs.txt")


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("EN-MEN-TR-3k.txt", 3000),
        ("EN-MTurk-771.txt", 771),
        ("EN-RG-65.txt", 65),
        ("EN-SIMLEX-999.txt", 999),
        ("EN-WS-353-ALL.txt", 353),
        ("zh/similarity.txt", None),
    ],
)
def test_real_similarity_files(corpus_file, rng, name, pairs):
    path = corpus_file("eval") / name
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    words = sorted({word.strip() for line in lines for word in line[:2]})
    keyed = KeyedVectors(words, rng.standard_normal((len(words), 50)))
    result = evaluate_similarity(keyed, path)
    assert result.pairs == result.covered == len(lines) == (pairs or len(lines))
    assert abs(result.spearman) < 0.4
