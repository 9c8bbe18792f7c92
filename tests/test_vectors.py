"""`KeyedVectors`: words, neighbours and analogies."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from fastnlp import KeyedVectors, build_vocab
from fastnlp.text import _neighbours


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


def test_many_words_and_every_number_of_neighbours(rng):
    x = rng.standard_normal((7001, 8)).astype(np.float32)
    x[rng.integers(0, 7001, 500)] = x[17]  # many that are equal
    keyed = KeyedVectors([f"w{i}" for i in range(7001)], x)
    expected = cosines(keyed, x[0].astype(np.float64))
    expected[0] = -2
    order = np.lexsort((np.arange(7001), -expected.round(13)))
    for topn in (1, 2, 10, 13, 14, 500, 6999, 7000, 9000):
        found = [keyed.index[word] for word, _ in keyed.most_similar("w0", topn=topn)]
        assert len(found) == min(topn, 7000)
        np.testing.assert_allclose(expected[found], expected[order[: len(found)]], rtol=0, atol=1e-12)
    equal = [i for i in range(7001) if i != 17 and (x[i] == x[17]).all()]
    assert [keyed.index[word] for word, _ in keyed.most_similar("w17", topn=len(equal))] == equal


def test_vectors_that_float32_cannot_decide(rng):
    x = rng.standard_normal((3000, 6)).astype(np.float32)
    scales = rng.choice(np.float32([1e-40, 1e-30, 1, 1e30, 3e37]), (3000, 1))
    x = (x * scales).astype(np.float32)
    keyed = KeyedVectors([f"w{i}" for i in range(3000)], x)
    for query in ([1.0, 2, 3, 4, 5, 6], x[4], x[5]):
        expected = cosines(keyed, np.asarray(query, np.float64))
        found = [keyed.index[word] for word, _ in keyed.most_similar(query, topn=25)]
        assert found == np.argsort(-expected, kind="stable")[:25].tolist()


# Many queries


@pytest.mark.parametrize("cells", [1, 1700, 1 << 24])
def test_batches_give_what_single_queries_give(keyed, monkeypatch, cells):
    monkeypatch.setattr(_neighbours, "_CELLS", cells)
    queries = ["w1", ["w2", "w3"], keyed["w4"], [keyed["w5"], "w6"], keyed.vectors[7].tolist(), ("w8",)]
    negative = [(), "w9", ["w10", "w11"], keyed["w12"], (), [keyed["w13"]]]
    expected = [keyed.most_similar(p, negative=n, topn=4) for p, n in zip(queries, negative, strict=True)]
    assert keyed.most_similar_batch(queries, negative=negative, topn=4) == expected
    array = keyed.vectors[:9]
    assert keyed.most_similar_batch(array) == [keyed.most_similar(row) for row in array]
    assert keyed.most_similar_batch(["w1", "w2"]) == [keyed.most_similar("w1"), keyed.most_similar("w2")]
    assert keyed.most_similar_batch([]) == []


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (["w1"], {}, TypeError, "positive must be a list of queries, got 'w1'"),
        ([["w1", "x"]], {}, KeyError, "'x' is not among"),
        ([["w1", "w2"]], {"negative": ["w3"]}, ValueError, "an entry for each of the 2 queries, got 1"),
        ([["w1", []]], {}, ValueError, "hold nothing"),
        ([["w1"]], {"topn": 0}, ValueError, "topn must be at least 1"),
    ],
)
def test_batches_are_checked(keyed, args, options, error, message):
    with pytest.raises(error, match=message):
        keyed.most_similar_batch(*args, **options)


def test_similarities(keyed):
    a, b = ["w1", "w2", keyed["w3"]], ["w4", keyed["w2"], "w1"]
    found = keyed.similarities(a, b)
    assert found.dtype == np.float64
    assert found.tolist() == [keyed.similarity(x, y) for x, y in zip(a, b, strict=True)]
    assert keyed.similarities([], []).shape == (0,)
    for wrong in ((["w1"], ["w1", "w2"]), ("w1", "w2")):
        with pytest.raises(ValueError, match="lists of the same length"):
            keyed.similarities(*wrong)


# Analogies


def shifted(keyed, word) -> np.ndarray:
    return (1 + cosines(keyed, keyed[word].astype(np.float64))) / 2


@pytest.mark.parametrize(
    ("positive", "negative"), [(["w1", "w2"], ["w3"]), (["w4"], []), (["w1", "w2", "w5"], ["w3", "w6"]), ([], ["w7"])]
)
def test_most_similar_cosmul_against_a_full_sort(keyed, positive, negative):
    scores = np.ones(500)
    for word in positive:
        scores *= shifted(keyed, word)
    scores /= np.prod([shifted(keyed, word) for word in negative], axis=0) + 1e-3
    scores[[keyed.index[word] for word in positive + negative]] = -1
    best = np.argsort(-scores)
    for topn in (1, 10, 499):
        found = keyed.most_similar_cosmul(positive, negative=negative, topn=topn)
        wanted = best[: min(topn, 500 - len(positive + negative))]
        assert [word for word, _ in found] == [f"w{i}" for i in wanted]
        np.testing.assert_allclose([score for _, score in found], scores[wanted], rtol=1e-11)


def test_most_similar_cosmul_with_odd_vectors():
    vectors = [[1, 0], [3e38, 3e38], [1e-40, 2e-40], [math.nan, 0], [0, 0], [1, 1], [-1, 1], [-1, 0]]
    keyed = KeyedVectors(["man", "king", "tiny", "nan", "zero", "other", "queen", "woman"], vectors)
    found = keyed.most_similar_cosmul(["king", "woman"], negative="man")
    assert [word for word, _ in found] == ["queen", "zero", "tiny", "other"]
    with pytest.raises(ValueError, match="hold nothing"):
        keyed.most_similar_cosmul([])
    with pytest.raises(KeyError, match="'x' is not among"):
        keyed.most_similar_cosmul("x")


def test_analogy(keyed):
    add, mul = keyed.analogy("w1", "w2", "w3"), keyed.analogy("w1", "w2", "w3", topn=3, method="3CosMul")
    assert add == keyed.most_similar(["w2", "w3"], negative=["w1"])
    assert mul == keyed.most_similar_cosmul(["w2", "w3"], negative=["w1"], topn=3)
    with pytest.raises(ValueError, match="method must be one of '3CosAdd', '3CosMul', got 'add'"):
        keyed.analogy("w1", "w2", "w3", method="add")


def test_doesnt_match():
    keyed = KeyedVectors(["a", "b", "c", "d"], [[1, 0.1], [5, 0], [0.2, 0.01], [-0.1, 1]])
    assert keyed.doesnt_match(["a", "b", "d", "c"]) == "d"
    assert keyed.doesnt_match(word for word in "abd") == "d"
    assert keyed.doesnt_match(["a"]) == "a"
    with pytest.raises(KeyError, match="'x' is not among"):
        keyed.doesnt_match(["a", "x"])
    with pytest.raises(ValueError, match="words hold nothing"):
        keyed.doesnt_match([])


def test_get(keyed):
    np.testing.assert_array_equal(keyed.get("w3"), keyed["w3"])
    assert keyed.get("x") is None
    assert keyed.get("x", keyed["w1"]) is not None
    np.testing.assert_array_equal(keyed.get("x", keyed["w1"]), keyed["w1"])


def test_pickles(keyed):
    keyed.most_similar("w1")
    again = pickle.loads(pickle.dumps(keyed))
    assert again.words == keyed.words
    assert again.most_similar("w1") == keyed.most_similar("w1")


# Arguments


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
