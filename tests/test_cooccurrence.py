"""`cooccurrence`: against exact fractions pair by pair, and the counts of the original C program."""

from __future__ import annotations

import importlib
import lzma
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from tests.numerics import frozen


def pair_by_pair(documents, size, window, symmetric, weighting):
    """The definition, in fractions; each rounded once at the end."""
    total = {}
    for words in documents:
        for p, left in enumerate(words):
            for q in range(p + 1, min(p + window + 1, len(words))):
                weight = Fraction(1, q - p) if weighting == "harmonic" else Fraction(1)
                pairs = [(left, words[q])] + ([(words[q], left)] if symmetric else [])
                for pair in pairs:
                    total[pair] = total.get(pair, 0) + weight
    dense = np.zeros((size, size))
    for pair, value in total.items():
        dense[pair] = float(value)
    return dense


def flat(documents):
    ids = np.array([word for words in documents for word in words], np.int32)
    return ids, np.cumsum([0, *map(len, documents)])


def assert_canonical(matrix, size):
    assert matrix.shape == (size, size)
    assert matrix.dtype == np.float64
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert (matrix.data > 0).all()
    rows = np.repeat(np.arange(size, dtype=np.int64), np.diff(matrix.indptr))
    assert (np.diff(rows * size + matrix.indices) > 0).all()


def assert_same_bits(a, b):
    for name in ("indptr", "indices", "data"):
        assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.fixture
def threads():
    before = fastnlp.get_num_threads()
    yield fastnlp.set_num_threads
    fastnlp.set_num_threads(before)


@pytest.mark.parametrize("window", [1, 2, 7, 20])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("weighting", ["harmonic", "uniform"])
def test_pair_by_pair(window, symmetric, weighting, backend, rng):
    # Empty documents at both ends and in a row, documents of one word, of less than a window, and of many windows; a
    # vocabulary of more than a word of the bitmap, with words that do not occur.
    lengths = [0, 1, 2, 0, 0, 5, 8, 1, 19, 21, 400, 0]
    documents = [(rng.zipf(1.5, n) % 150).tolist() for n in lengths]
    ids, boundaries = flat(documents)
    options = {"window": window, "symmetric": symmetric, "weighting": weighting, "backend": backend}
    counts = fastnlp.cooccurrence(ids, vocab_size=160, boundaries=boundaries, **options)
    assert_canonical(counts, 160)
    expected = pair_by_pair(documents, 160, window, symmetric, weighting)
    assert expected.max() > 1
    assert_array_equal(counts.toarray(), expected)


def test_hand_values(backend):
    #      a b a c       a-b 1, b-a 1, a-a 1/2 (twice: a pair of equal words), a-c 1 and 1/3, b-c 1/2
    counts = fastnlp.cooccurrence([0, 1, 0, 2], vocab_size=3, window=3, backend=backend)
    assert_array_equal(counts.toarray(), [[1, 2, 4 / 3], [2, 0, 0.5], [4 / 3, 0.5, 0]])
    following = fastnlp.cooccurrence([0, 1, 0, 2], vocab_size=3, window=3, symmetric=False, backend=backend)
    assert_array_equal(following.toarray(), [[0.5, 1, 4 / 3], [1, 0, 0.5], [0, 0, 0]])


def test_both_sides_are_the_one_side_and_its_transpose(backend, rng):
    ids = rng.integers(0, 50, 3000)
    one = fastnlp.cooccurrence(ids, vocab_size=50, weighting="uniform", symmetric=False, backend=backend)
    both = fastnlp.cooccurrence(ids, vocab_size=50, weighting="uniform", backend=backend)
    assert_array_equal(both.toarray(), one.toarray() + one.toarray().T)


def test_no_words(backend):
    for ids in ([], np.empty(0, np.int64)):
        counts = fastnlp.cooccurrence(ids, vocab_size=5, backend=backend)
        assert counts.shape == (5, 5)
        assert counts.nnz == 0
    assert fastnlp.cooccurrence([], vocab_size=0, backend=backend).shape == (0, 0)
    assert fastnlp.cooccurrence([], vocab_size=3, boundaries=[0, 0, 0], backend=backend).nnz == 0
    assert fastnlp.cooccurrence([2], vocab_size=3, backend=backend).nnz == 0


def test_a_corpus_brings_its_own(backend):
    corpus = SimpleNamespace(ids=np.array([0, 1, 2], np.int32), offsets=np.array([0, 2, 3]), vocab=["a", "b", "c", "d"])
    counts = fastnlp.cooccurrence(corpus, backend=backend)
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 1
    assert_array_equal(counts.toarray(), expected)
    encoded = fastnlp.encode(["a b a", "b"], fastnlp.build_vocab(["a b a", "b"], min_count=1))
    assert fastnlp.cooccurrence(encoded, backend=backend).sum() == 5


def test_layouts_are_read_and_left_alone(backend, rng):
    ids = rng.integers(0, 9, 200)
    expected = fastnlp.cooccurrence(ids, vocab_size=9, backend=backend)
    dtypes = [ids.astype(dtype) for dtype in (np.uint8, np.int16, ">i4", np.uint64)]
    for layout in (ids.tolist(), frozen(ids), frozen(ids.astype(np.int32)), np.repeat(ids, 2)[::2], *dtypes):
        assert_same_bits(fastnlp.cooccurrence(layout, vocab_size=9, backend=backend), expected)


@pytest.mark.parametrize("symmetric", [True, False])
def test_same_bits_everywhere(symmetric, threads, backend, rng, monkeypatch):
    ids = np.minimum(rng.zipf(1.2, 60_000), 3000) - 1
    boundaries = np.concatenate([[0], np.sort(rng.integers(0, ids.size, 700)), [ids.size]])
    options = {"vocab_size": 3000, "symmetric": symmetric, "boundaries": boundaries}
    expected = fastnlp.cooccurrence(ids, backend="reference", **options)
    assert expected.nnz > 50_000
    for n in (1, 2, 3, 8):
        threads(n)
        assert_same_bits(fastnlp.cooccurrence(ids, backend=backend, **options), expected)
    # However the work is cut: many blocks and batches; a word whose occurrences come in several parts.
    module = importlib.import_module("fastnlp.ops.cooccurrence")  # hidden by the function of its name
    monkeypatch.setattr(module, "_BLOCK", 1)
    monkeypatch.setattr(module, "_SCRATCH", 20_000)
    monkeypatch.setattr(implementation("cooccurrence", "reference"), "PAIRS", 1000)
    assert_same_bits(fastnlp.cooccurrence(ids, backend=backend, **options), expected)


def test_one_large_vocabulary_with_few_words(backend):
    ids = np.array([299_999, 0, 150_000, 0])
    counts = fastnlp.cooccurrence(ids, vocab_size=300_000, window=2, backend=backend)
    assert_canonical(counts, 300_000)
    assert counts[0, 0] == 1.0
    assert counts[299_999, 150_000] == 0.5
    assert counts[150_000].sum() == 2.5


def test_counts_beyond_float_accumulators(backend):
    # A running float64 sum of a million thirds is not the float64 nearest to a third of a million.
    ids = np.tile([0, 1, 1, 2], 1_000_000)
    boundaries = np.arange(0, ids.size + 1, 4)
    counts = fastnlp.cooccurrence(ids, vocab_size=3, window=3, boundaries=boundaries, backend=backend)
    assert counts[0, 2] == float(Fraction(1_000_000, 3))
    assert counts[0, 1] == 1_500_000


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_kernels_write_only_their_slots(dtype, backend):
    kernels = implementation("cooccurrence", backend)
    stream = np.array([-1, 0, 1, 0, -1], np.int32)
    starts, positions = np.array([0, 2, 3, 3]), np.array([1, 3, 2], dtype)
    sizes, indices, counts = np.full(3, -7), np.full(12, -7, np.int32), np.full(12, 7, np.uint64)
    rows, slots = np.array([0, 1, 3]), np.array([0, 4, 10])
    kernels.count(stream, starts, positions, np.array([0, 2, 1], np.uint64), True, rows, slots, sizes, indices, counts)
    assert_array_equal(sizes, [2, 1, 0])
    assert_array_equal(indices, [0, 1, -7, -7, 0, *[-7] * 7])
    assert_array_equal(counts, [2, 4, 7, 7, 4, *[7] * 7])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ids": [0, 3]}, ValueError, r"hold 3 at 1, outside \[0, vocab_size=3\)"),
        ({"ids": [0, -1]}, ValueError, "hold -1 at 1"),
        ({"ids": [0.0, 1.0]}, TypeError, "integers, got float64"),
        ({"ids": [True, False]}, TypeError, "integers, got bool"),
        ({"ids": [[0, 1]]}, ValueError, "one axis"),
        ({"ids": np.array([2**63], np.uint64)}, ValueError, "outside"),
        ({"vocab_size": None}, ValueError, "vocab_size is needed"),
        ({"vocab_size": -1}, ValueError, "vocab_size must be at least 0"),
        ({"vocab_size": 2.5}, TypeError, "vocab_size must be an integer"),
        ({"window": 0}, ValueError, "window must be at least 1"),
        ({"window": 21}, ValueError, "window must be at most 20, got 21: beyond, the exact sums"),
        ({"window": 2.5}, TypeError, "window must be an integer"),
        ({"weighting": "linear"}, ValueError, "'harmonic' or 'uniform', got 'linear'"),
        ({"symmetric": "no"}, TypeError, "symmetric must be True or False"),
        ({"boundaries": [0, 1]}, ValueError, "ascend from 0 to the number of ids, 2"),
        ({"boundaries": [1, 2]}, ValueError, "ascend from 0"),
        ({"boundaries": [0, 2, 1, 2]}, ValueError, "ascend from 0"),
        ({"ids": np.ma.masked_array([0, 1], [False, True])}, TypeError, "the ids is a masked array"),
        ({"ids": [[0], [1, 2]]}, ValueError, "the ids cannot be read as an array"),
        ({"boundaries": []}, ValueError, "ascend from 0"),
        ({"boundaries": [0.0, 2.0]}, TypeError, "boundaries must be integers"),
        ({"ids": SimpleNamespace(ids=[0], offsets=[0, 1], vocab=["a"])}, ValueError, "a corpus brings its own"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"ids": [0, 1], "vocab_size": 3, **change}
    with pytest.raises(error, match=message):
        fastnlp.cooccurrence(arguments.pop("ids"), **arguments)


def test_counts_that_could_overflow_are_refused(monkeypatch):
    monkeypatch.setattr("fastnlp.ops.cooccurrence.lcm", lambda *distances: 2**60)
    assert fastnlp.cooccurrence([0, 1], vocab_size=2, window=2).sum() == 2
    with pytest.raises(ValueError, match="a word that occurs 8 times could overflow at window 2"):
        fastnlp.cooccurrence([0] * 8, vocab_size=2, window=2)


@pytest.mark.parametrize(("file", "window", "symmetric"), [("w10.sym1", 10, True), ("w5.sym0", 5, False)])
def test_the_original_program(file, window, symmetric, corpus_file, backend):
    record = np.dtype([("row", "<i4"), ("column", "<i4"), ("count", "<f8")])
    with lzma.open(corpus_file(f"cooccur/cooc.{file}.dw1.bin.xz")) as packed:
        expected = np.frombuffer(packed.read(), record)
    words = [line.split()[0] for line in corpus_file("cooccur/vocab.txt").read_text("utf-8").splitlines()]
    index = {word: i for i, word in enumerate(words)}
    lines = corpus_file("cooccur/corpus.txt").read_text("utf-8").split("\n")
    ids, boundaries = flat([[index[word] for word in line.split() if word in index] for line in lines])
    options = {"window": window, "symmetric": symmetric, "boundaries": boundaries}
    counts = fastnlp.cooccurrence(ids, vocab_size=len(words), backend=backend, **options).tocoo()
    assert_array_equal(counts.row + 1, expected["row"])
    assert_array_equal(counts.col + 1, expected["column"])
    np.testing.assert_allclose(counts.data, expected["count"], rtol=1e-11)
