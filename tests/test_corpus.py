"""`encode`, `build_corpus` and `Corpus`: texts as the ids of their words."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from fastnlp import Corpus, Vocabulary, build_corpus, build_vocab, encode, get_num_threads, set_num_threads
from fastnlp.text import encoding
from tests.texts import CHINESE, TEXT, documents, text_file

pytestmark = pytest.mark.usefixtures("either_backend")


def same(a: Corpus, b: Corpus) -> bool:
    """Whether two corpora are equal in all they hold."""
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("ids", "offsets", "sentences"))
    facts = ("tokenizer", "lower", "normalize", "exclude", "n_tokens")
    return (
        arrays
        and a.n_oov == b.n_oov
        and a.vocab == b.vocab
        and all(getattr(a.vocab, name) == getattr(b.vocab, name) for name in facts)
    )


def test_encode_closes_gaps_and_keeps_lines():
    vocab = build_vocab(TEXT.splitlines(), min_count=1)
    small = Vocabulary(["the", "mat", "cat"], [3, 1, 1])
    corpus = encode(TEXT.splitlines(), small)
    assert documents(corpus) == ["the cat", "the mat", "", "the"]
    assert corpus.n_oov == 3
    assert len(corpus) == 5
    assert corpus.ids.dtype == np.int32
    assert corpus.offsets.dtype == np.int64
    np.testing.assert_array_equal(corpus.offsets, [0, 2, 4, 4, 5])
    np.testing.assert_array_equal(corpus.document(1), [0, 1])
    np.testing.assert_array_equal(corpus.document(-1), [0])
    assert corpus.nbytes == 5 * 4 + 5 * 8
    assert "5 tokens, 4 documents, 3 tokens not" in repr(corpus)
    with pytest.raises(IndexError, match="document 4"):
        corpus.document(4)
    assert documents(encode(TEXT.splitlines(), vocab)) == TEXT.splitlines()


def test_words_out_of_the_vocabulary_may_keep_their_places():
    vocab = Vocabulary(["the", "mat"], [3, 1])
    corpus = encode(TEXT.splitlines(), vocab, oov="gap")
    np.testing.assert_array_equal(corpus.ids, [0, -1, -1, -1, 0, 1, 0, -1])
    np.testing.assert_array_equal(corpus.offsets, [0, 3, 6, 6, 8])
    assert corpus.n_oov == encode(TEXT.splitlines(), vocab).n_oov == 4


BLANKS = ["", " ", "a b", "oov", "\u3000", "", "oov", "c", "\t"]


@pytest.mark.parametrize(
    ("documents", "offsets"),
    [
        ("line", [0, 0, 0, 2, 2, 2, 2, 2, 3, 3, 3, 4]),
        ("blank line", [0, 2, 3, 4]),  # not where only a word that is left out stands
        ("file", [0, 3, 4]),
    ],
)
def test_documents_and_sentences(tmp_path, documents, offsets, small_blocks):
    vocab = Vocabulary(["a", "b", "c"], [1, 1, 1])
    paths = [text_file(tmp_path, "\n".join(BLANKS), "1"), text_file(tmp_path, "oov\na\n", "2")]
    corpus = encode(paths, vocab, documents=documents)
    np.testing.assert_array_equal(corpus.offsets, offsets)
    np.testing.assert_array_equal(corpus.sentences, [0, 0, 0, 2, 2, 2, 2, 2, 3, 3, 3, 4])
    assert (corpus.sentences is corpus.offsets) == (documents == "line")
    assert corpus.nbytes == 4 * 4 + 8 * (12 if documents == "line" else 12 + len(offsets))
    gaps = encode(paths, vocab, documents=documents, oov="gap")
    assert gaps.n_documents == corpus.n_documents
    assert gaps.ids.size == corpus.ids.size + corpus.n_oov
    np.testing.assert_array_equal(gaps.sentences, [0, 0, 0, 2, 3, 3, 3, 4, 5, 5, 6, 7])


def test_a_long_line_is_no_blank_one_and_one_document(tmp_path, small_blocks):
    text = "a" + " " * 50 + "b\n" + " " * 50 + "\nb" + " " * 99
    corpus = encode(text_file(tmp_path, text), Vocabulary(["a", "b"], [1, 2]), documents="blank line")
    np.testing.assert_array_equal(corpus.offsets, [0, 2, 3])
    np.testing.assert_array_equal(corpus.sentences, [0, 2, 2, 3])


@pytest.mark.parametrize("lines", [["", " "], ["x"], ["x", "", "x", "", ""]])
def test_documents_without_a_known_word(lines):
    vocab = Vocabulary(["a"], [1])
    count = {"line": len(lines), "blank line": sum(map(bool, map(str.strip, lines))), "file": 1}
    for kind, n in count.items():
        for given in (lines, [line.split() for line in lines]):
            assert encode(given, vocab, documents=kind).n_documents == n


TEXTS = [
    "the cat sat on the mat the end\n\n the cat",
    CHINESE,
    "Cafe\u0301 CAFÉ\r\n cafe\u3000the\u00a0end",
    "x",
]


@pytest.mark.parametrize(
    "options",
    [
        {"lower": True, "normalize": "NFC"},
        {"tokenizer": "words"},
        {"tokenizer": "auto", "oov": "gap"},
        {"tokenizer": str.split, "max_size": 2},
        {"exclude": ["the"], "documents": "blank line"},
        {"min_count": 2, "documents": "file", "oov": "gap"},
    ],
)
@pytest.mark.parametrize("limit", [1 << 30, 40, 0])
def test_build_corpus_is_build_vocab_and_encode(tmp_path, monkeypatch, small_blocks, options, limit):
    monkeypatch.setattr(encoding, "_IN_MEMORY", limit)
    monkeypatch.setattr(encoding, "_BESIDE_OUT", limit)
    options = {"min_count": 1} | options
    paths = [text_file(tmp_path, text, f"{i}.txt") for i, text in enumerate(TEXTS)]
    of_vocab = {k: v for k, v in options.items() if k not in ("oov", "documents")}
    of_encode = {k: v for k, v in options.items() if k in ("oov", "documents")}
    sources = [paths, str(tmp_path / "?.txt"), TEXTS[0].split("\n")]
    if not {"lower", "tokenizer"} & set(options):
        sources.append([text.split() for text in TEXTS])
    for source in sources:
        vocab = build_vocab(source, **of_vocab)
        corpus = build_corpus(source, **options)
        assert same(corpus, encode(source, vocab, **of_encode))
        assert isinstance(corpus.ids, np.memmap) == (limit < 4 * len(corpus))
        out = build_corpus(source, out=tmp_path / "ids.bin", **options)
        assert same(out, corpus)
        np.testing.assert_array_equal(np.fromfile(tmp_path / "ids.bin", np.int32), corpus.ids)
    assert sorted(os.listdir(tmp_path)) == ["0.txt", "1.txt", "2.txt", "3.txt", "ids.bin"]


def test_one_pass_over_what_can_be_read_once():
    corpus = build_corpus((line for line in TEXT.splitlines()), min_count=1)
    assert documents(corpus) == TEXT.splitlines()


def test_the_same_bits_for_any_number_of_threads(tmp_path, rng, small_blocks):
    words = [f"w{i}é" for i in rng.zipf(1.3, 3000) if i < 10**6]
    text = "".join(word + ("\n" if i % 7 else " ") for i, word in enumerate(words))
    path = text_file(tmp_path, text)
    before = get_num_threads()
    try:
        results = []
        for n in (1, 2, 3, 8):
            set_num_threads(n)
            results.append(build_corpus(path, min_count=2))
            assert same(results[0], results[-1])
            assert same(results[0], encode(path, build_vocab(path, min_count=2)))
    finally:
        set_num_threads(before)
    counts = Counter(text.split())
    assert results[0].vocab.index.keys() == {word for word, count in counts.items() if count > 1}
    expected = [results[0].vocab.index[word] for word in text.split() if counts[word] > 1]
    np.testing.assert_array_equal(results[0].ids, expected)


def test_an_interrupted_call_leaves_nothing(tmp_path, small_blocks):
    path = text_file(tmp_path, "some words\n" * 100)
    vocab = build_vocab(path)

    def interrupt(done, total):
        if done > 500:
            raise KeyboardInterrupt

    (tmp_path / "ids").write_text("old")
    for call in (lambda **o: encode(path, vocab, **o), lambda **o: build_corpus(path, **o)):
        with pytest.raises(KeyboardInterrupt):
            call(out=tmp_path / "ids", progress=interrupt)
    assert sorted(os.listdir(tmp_path)) == ["ids", "text.txt"]
    assert (tmp_path / "ids").read_text() == "old"


@pytest.mark.parametrize("options", [{}, {"documents": "file", "oov": "gap", "lower": True, "normalize": "NFC"}])
def test_a_saved_corpus_is_loaded_as_it_was(tmp_path, options):
    corpus = build_corpus(TEXT.splitlines(), min_count=2, exclude=("cat",), **options)
    for _ in range(2):  # the second one takes the place of the first
        corpus.save(tmp_path / "corpus")
    loaded = Corpus.load(tmp_path / "corpus")
    assert same(loaded, corpus)
    assert isinstance(loaded.ids, np.memmap)
    assert (loaded.sentences is loaded.offsets) == (corpus.sentences is corpus.offsets)
    assert os.listdir(tmp_path) == ["corpus"]
    none = encode(["x"], corpus.vocab)
    none.save(str(tmp_path / "none"))
    assert same(Corpus.load(tmp_path / "none"), none)


def test_places_where_no_corpus_is_saved_or_found(tmp_path):
    corpus = build_corpus(TEXT.splitlines(), min_count=1)
    (tmp_path / "mine").mkdir()
    file = text_file(tmp_path / "mine")
    for taken in (tmp_path / "mine", file):
        with pytest.raises(FileExistsError, match="something that is no corpus"):
            corpus.save(taken)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        corpus.save(tmp_path / "none" / "corpus")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Corpus.load(tmp_path / "none")
    with pytest.raises(ValueError, match="mine is no saved corpus"):
        Corpus.load(tmp_path / "mine")
    with pytest.raises(ValueError, match="cannot hold the word"):
        build_corpus([["new york"]], min_count=1).save(tmp_path / "corpus")
    corpus.save(tmp_path / "corpus")
    for name in sorted(os.listdir(tmp_path / "corpus")):
        whole = (tmp_path / "corpus" / name).read_bytes()
        for damaged in (whole[:-3], b"", b"[1]"):
            (tmp_path / "corpus" / name).write_bytes(damaged)
            with pytest.raises(ValueError, match="corpus is no saved corpus, or is damaged"):
                Corpus.load(tmp_path / "corpus")
        (tmp_path / "corpus" / name).write_bytes(whole)
    assert sorted(os.listdir(tmp_path)) == ["corpus", "mine"]


def test_words_that_no_text_holds_do_no_harm():
    vocab = Vocabulary(["new york", "a", "\ud800", "", "b\u2003c", "b"], [1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(encode(["a b new york c"], vocab, oov="gap").ids, [1, 5, -1, -1, -1])
    np.testing.assert_array_equal(encode([["new york", "b", "b\u2003c", "?"]], vocab, oov="gap").ids, [0, 5, 4, -1])


def test_a_text_without_a_known_word_is_empty_documents(tmp_path):
    vocab = Vocabulary(["x"], [1])
    for out in (None, tmp_path / "ids"):
        corpus = encode(["a b", "c"], vocab, out=out)
        assert len(corpus) == 0
        assert corpus.n_documents == 2
        assert corpus.n_oov == 3


def test_encode_takes_up_the_tokenizer_of_the_vocabulary(tmp_path):
    vocab = build_vocab([CHINESE], tokenizer="auto", min_count=1)
    assert vocab.tokenizer == "characters"
    assert encode([CHINESE], vocab).n_oov == 0
    assert len(encode([CHINESE], vocab, tokenizer="whitespace")) == 0
    vocab.save(tmp_path / "vocab.txt")
    loaded = Vocabulary.load(tmp_path / "vocab.txt")
    assert encode([CHINESE], loaded).n_oov == 2  # the tokenizer is not in the file: lines between white space


@pytest.mark.parametrize("limit", [0, 40, 1 << 30])
def test_ids_on_disk_are_the_same_ids(monkeypatch, tmp_path, small_blocks, limit):
    monkeypatch.setattr(encoding, "_IN_MEMORY", limit)
    lines = [f"w{i % 7} w{i % 3}" for i in range(50)]
    vocab = build_vocab(lines, min_count=1)
    expected = [vocab.index[word] for line in lines for word in line.split()]
    corpus = encode(lines, vocab)
    assert isinstance(corpus.ids, np.memmap) == (limit < 400)
    np.testing.assert_array_equal(corpus.ids, expected)
    kept = encode(lines, vocab, out=tmp_path / "ids.bin")
    assert isinstance(kept.ids, np.memmap)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "ids.bin", np.int32), expected)
    np.testing.assert_array_equal(kept.offsets, corpus.offsets)
    assert os.listdir(tmp_path) == ["ids.bin"]


def test_a_full_temporary_folder(monkeypatch, tmp_path):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(encoding, "_IN_MEMORY", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    vocab = Vocabulary(["a"], [1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written to .* set TMPDIR") as raised:
            encode(["a " * 5000], vocab)
        with pytest.raises(OSError, match=r"could not be written .*ids"):
            encode(["a " * 5000], vocab, out=tmp_path / "ids")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path)
    assert os.listdir(tmp_path) == []


def test_encode_checks_its_arguments():
    vocab = Vocabulary(["a"], [1])
    with pytest.raises(TypeError, match="make one with build_vocab"):
        encode(["a"], {"a": 0})
    with pytest.raises(ValueError, match="tokenizer must be one of"):
        encode(["a"], vocab, tokenizer="x")
    for option in ({"oov": "keep"}, {"documents": "page"}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be one of .*, got"):
            encode(["a"], vocab, **option)
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be one of .*, got"):
            build_corpus(["a"], **option)
    with pytest.raises(ValueError, match="sentences must rise from 0"):
        Corpus(np.zeros(3, np.int32), np.array([0, 3], np.int64), vocab, sentences=np.array([0, 2], np.int64))
    with pytest.raises(ValueError, match="rise from 0"):
        Corpus(np.zeros(3, np.int32), np.array([0, 2], np.int64), vocab)
    with pytest.raises(ValueError, match="rise from 0"):
        Corpus(np.zeros(3, np.int32), np.array([0, 2, 1, 3], np.int64), vocab)
    with pytest.raises(TypeError, match="ids must be an array of one axis of int32"):
        Corpus(np.zeros(3), np.array([0, 3], np.int64), vocab)
    with pytest.raises(TypeError, match="vocab"):
        Corpus(np.zeros(3, np.int32), np.array([0, 3], np.int64), ["a"])


def test_a_generator_that_was_read_is_an_error_that_says_so():
    lines = (line for line in ["a b", "b a"])
    vocab = build_vocab(lines, min_count=1)
    with pytest.raises(ValueError, match="used up"):
        encode(lines, vocab)
