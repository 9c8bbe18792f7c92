"""`cooccurrence`: against exact fractions pair by pair, and the counts of the original C program."""

from __future__ import annotations

import importlib
import lzma
from fractions import Fraction
from math import lcm
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from tests.cooccurrences import (
    assert_canonical,
    assert_same_bits,
    flat,
    harmonic,
    pair_by_pair,
    ragged,
    zipf_text,
)
from tests.numerics import frozen

# Hidden by the function of its name.
rows_module, plan_module = (importlib.import_module(f"fastnlp.ops._cooccurrence_{name}") for name in ("rows", "plan"))


@pytest.fixture
def threads():
    before = fastnlp.get_num_threads()
    yield fastnlp.set_num_threads
    fastnlp.set_num_threads(before)


@pytest.fixture
def cpu_kernels():
    pytest.importorskip("numba", reason="numba is not installed")
    return importlib.import_module("fastnlp.kernels.cpu._jit")


@pytest.mark.parametrize("window", [1, 2, 7, 20])
@pytest.mark.parametrize("sides", ["both", "left", "right"])
@pytest.mark.parametrize("weighting", ["harmonic", "uniform"])
def test_pair_by_pair(window, sides, weighting, backend, rng):
    # A vocabulary of more than a word of the bitmap, with words that do not occur.
    documents = ragged(rng)
    ids, boundaries = flat(documents)
    side = {"symmetric": True} if sides == "both" else {"symmetric": False, "side": sides}
    options = {"window": window, "weighting": weighting, "backend": backend, **side}
    counts = fastnlp.cooccurrence(ids, vocab_size=160, boundaries=boundaries, **options)
    assert_canonical(counts, (160, 160))
    weights = harmonic(window) if weighting == "harmonic" else [Fraction(1)] * window
    expected = pair_by_pair(documents, 160, weights, ("left", "right") if sides == "both" else (sides,))
    assert expected.max() > 1
    assert_array_equal(counts.toarray(), expected)


@pytest.mark.parametrize("window", [21, 50, 1000])
def test_wide_windows_count_in_fixed_point(window, backend, rng):
    documents = ragged(rng)
    ids, boundaries = flat(documents)
    counts = fastnlp.cooccurrence(ids, vocab_size=160, boundaries=boundaries, window=window, backend=backend)
    weights = [Fraction(round(Fraction(2**31, d)), 2**31) for d in range(1, min(window, 400) + 1)]
    assert_array_equal(counts.toarray(), pair_by_pair(documents, 160, weights))
    np.testing.assert_allclose(counts.toarray(), pair_by_pair(documents, 160, harmonic(min(window, 400))), rtol=1e-7)


@pytest.mark.parametrize(
    "weights",
    [
        [5, 4, 3, 2, 1],
        [1.0, 0.5, 0.25, 0.125, 2**-31],
        [0, 0, 3, 0, 1],
        [1e-9, 1 / 3, 0.1, 0, 2**-40],
        [3e40, 1e39, 7e30, 2e40, 1e20],
        np.array([0.5, 0.25, 0.1, 0.3, 0.7], np.float32),
    ],
)
def test_weights_of_ones_own(weights, backend, rng):
    documents = ragged(rng, gaps=True)
    ids, boundaries = flat(documents)
    options = {"window": 5, "weighting": weights, "boundaries": boundaries, "oov": "gap", "backend": backend}
    counts = fastnlp.cooccurrence(ids, vocab_size=160, **options)
    given = [Fraction(float(w)) for w in weights]
    unit = Fraction(2) ** (31 - _power(max(given)))  # brings the largest into [2^31, 2^32)
    expected = pair_by_pair(documents, 160, [round(w * unit) / unit for w in given])
    assert_array_equal(counts.toarray(), expected)
    assert_canonical(counts, (160, 160))


def _power(value):
    """The power of two at or below a fraction."""
    power = value.numerator.bit_length() - value.denominator.bit_length()
    return power if Fraction(2) ** power <= value else power - 1


@pytest.mark.parametrize("sides", ["both", "left", "right"])
def test_words_outside_the_vocabulary(sides, backend, rng):
    documents = ragged(rng, gaps=True)
    ids, boundaries = flat(documents)
    side = {"symmetric": True} if sides == "both" else {"symmetric": False, "side": sides}
    options = {"vocab_size": 160, "window": 4, "boundaries": boundaries, "backend": backend, **side}
    counted = ("left", "right") if sides == "both" else (sides,)
    kept = fastnlp.cooccurrence(ids, oov="gap", **options).toarray()
    assert_array_equal(kept, pair_by_pair(documents, 160, harmonic(4), counted))
    closed = fastnlp.cooccurrence(ids, oov="close", **options).toarray()
    dropped = [[word for word in words if word >= 0] for words in documents]
    assert_array_equal(closed, pair_by_pair(dropped, 160, harmonic(4), counted))
    assert (closed != kept).any()
    known = np.maximum(ids, 0)
    for oov in ("gap", "close"):  # nothing to do
        assert_same_bits(fastnlp.cooccurrence(known, oov=oov, **options), fastnlp.cooccurrence(known, **options))


def test_some_rows_are_those_of_all(backend, rng):
    ids, boundaries = zipf_text(rng, 20_000, 500)
    options = {"vocab_size": 500, "boundaries": boundaries, "backend": backend}
    full = fastnlp.cooccurrence(ids, **options)
    for wanted in ([7], [499, 0, 3, 250], np.array([], np.int32), rng.permutation(500)):
        some = fastnlp.cooccurrence(ids, rows=wanted, **options)
        assert_canonical(some, (len(wanted), 500))
        assert_same_bits(some, full[np.asarray(wanted, np.int64)])


def test_formats(backend, rng):
    ids, boundaries = zipf_text(rng, 20_000, 500)
    options = {"vocab_size": 500, "boundaries": boundaries, "backend": backend}
    full = fastnlp.cooccurrence(ids, **options)
    coo = fastnlp.cooccurrence(ids, format="coo", **options)
    assert coo.format == "coo"
    assert_same_bits(coo.tocsr(), full)
    upper = fastnlp.cooccurrence(ids, format="upper", **options)
    assert_canonical(upper, (500, 500))
    assert_array_equal(upper.toarray(), np.triu(full.toarray()))
    counts = fastnlp.cooccurrence(ids, format="counts", **options)
    assert counts.counts.dtype == np.uint64
    assert_array_equal(counts.counts / lcm(*range(1, 11)), full.data)


def test_boundaries(backend, rng):
    ids, sentences = flat(ragged(rng))
    offsets = sentences[[0, 5, 9, -1]]
    corpus = SimpleNamespace(ids=ids, offsets=offsets, sentences=sentences, vocab=range(150))
    count = {"vocab_size": 150, "backend": backend}
    pairs = [(None, offsets), ("sentences", sentences), (False, [0, ids.size]), (sentences[::2], sentences[::2])]
    results = []
    for boundaries, expected in pairs:
        expected = np.append(expected[expected[:] != ids.size] if boundaries is not False else [0], ids.size)
        given = np.append(boundaries[boundaries != ids.size], ids.size) if hasattr(boundaries, "size") else boundaries
        counts = fastnlp.cooccurrence(corpus, boundaries=given, backend=backend)
        assert_same_bits(counts, fastnlp.cooccurrence(ids, boundaries=expected, **count))
        results.append(counts.sum())
    assert len(set(results)) == len(results)
    assert_same_bits(fastnlp.cooccurrence(ids, boundaries=False, **count), fastnlp.cooccurrence(ids, **count))


def test_a_corpus_keeps_its_gaps(backend):
    corpus = SimpleNamespace(ids=np.array([0, -1, 1], np.int32), offsets=np.array([0, 3]), vocab=["a", "b"])
    assert fastnlp.cooccurrence(corpus, backend=backend)[0, 1] == 0.5
    assert fastnlp.cooccurrence(corpus, oov="close", backend=backend)[0, 1] == 1.0


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
    ends, wanted = np.array([0, 7, 50, 90, 200, 200]), np.array([3, 8, 1])
    options = {"vocab_size": 9, "weighting": np.arange(10.0), "backend": backend}
    expected = fastnlp.cooccurrence(ids, boundaries=ends, rows=wanted, **options)
    for layout in (frozen, lambda x: np.repeat(x, 2)[::2], lambda x: x.astype(">i4"), list):
        assert_same_bits(fastnlp.cooccurrence(ids, boundaries=layout(ends), rows=layout(wanted), **options), expected)


def test_calls_make_no_kernel_signature_that_is_not_declared(rng, cpu_kernels):
    ids, boundaries = zipf_text(rng, 3000, 50)
    with pytest.MonkeyPatch.context() as patch:
        for places in (1000, 1 << 30):
            patch.setattr(plan_module, "_MOST", places)
            for given in (ids, frozen(ids), ids.astype(np.int64)):
                for change in ({"rows": frozen(np.array([1, 2]))}, {"symmetric": False}, {"format": "counts"}):
                    options = {"vocab_size": 50, "boundaries": frozen(boundaries), "backend": "cpu", **change}
                    counts = fastnlp.cooccurrence(given, **options)
    assert (counts + counts).nnz == counts.nnz
    checked = 0
    for kernel, declared in cpu_kernels.KERNELS:
        if kernel.py_func.__module__.endswith("cooccurrence"):
            (made,) = kernel.signatures
            assert made == cpu_kernels.normalize_signature(declared[0])[0]
            checked += 1
    assert checked == 5


@pytest.mark.parametrize("symmetric", [True, False])
def test_same_bits_everywhere(symmetric, threads, backend, rng, monkeypatch):
    ids, boundaries = zipf_text(rng, 60_000, 3000)
    options = {"vocab_size": 3000, "symmetric": symmetric, "boundaries": boundaries}
    expected = fastnlp.cooccurrence(ids, backend="reference", **options)
    assert expected.nnz > 50_000
    for n in (1, 2, 3, 8):
        threads(n)
        assert_same_bits(fastnlp.cooccurrence(ids, backend=backend, **options), expected)
    # However the work is cut: many blocks and batches; a word whose occurrences come in several parts.
    monkeypatch.setattr(rows_module, "_BLOCK", 1)
    monkeypatch.setattr(rows_module, "_PIECES", 3)
    monkeypatch.setattr(plan_module, "_SCRATCH", 20_000)
    monkeypatch.setattr(implementation("cooccurrence", "reference"), "PAIRS", 1000)
    assert_same_bits(fastnlp.cooccurrence(ids, backend=backend, **options), expected)


def test_one_large_vocabulary_with_few_words(backend):
    ids = np.array([299_999, 0, 150_000, 0])
    counts = fastnlp.cooccurrence(ids, vocab_size=300_000, window=2, backend=backend)
    assert_canonical(counts, (300_000, 300_000))
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


def test_kernels_write_only_their_slots(backend):
    kernels = implementation("cooccurrence", backend)
    stream = np.full(7, -9, np.int32)
    kernels.lay_out(np.array([0, 1, -1, 0], np.int32), np.array([0, 0, 4]), 3, stream)
    assert_array_equal(stream, [-1, -1, 0, 1, 3, 0, -1])
    edges, cursors = np.array([2, 4, 6]), np.full((2, 3), 9, np.uint32)
    kernels.histogram(stream, edges, cursors)
    assert_array_equal(cursors, [[1, 1, 0], [1, 0, 0]])
    cursors[:], positions = [[0, 2, 3], [1, 3, 3]], np.full(3, 99, np.uint32)
    kernels.locate(stream, edges, cursors, positions)
    assert_array_equal(positions, [2, 5, 3])
    assert_array_equal(cursors, [[1, 3, 3], [2, 3, 3]])

    sizes, indices, counts = np.full(3, -7), np.full(12, -7, np.int32), np.full(12, 7, np.uint64)
    starts, words, weights = np.array([0, 2, 3, 3]), np.array([0, 2, 1]), np.array([0, 3, 2, 1], np.uint64)
    rows, slots = np.array([0, 1, 3]), np.array([0, 4, 10])
    options = (words, weights, True, True, False)
    kernels.count(stream, starts, positions, *options, rows, slots, sizes, indices, counts)
    assert_array_equal(sizes, [2, 0, 1])
    assert_array_equal(indices[[0, 1, 4]], [0, 1, 0])
    assert_array_equal(counts[[0, 1, 4]], [2, 5, 5])
    assert_array_equal(indices[6:], -7)
    assert_array_equal(counts[6:], 7)

    begins, overflows = np.array([[0, 2, 2], [2, 4, 5]]), np.array([True, True])
    columns, values = np.array([0, 2, 1, 2, 0], np.int32), np.array([1, 2, 3, 4, 5], np.uint64)
    sizes, indices, counts = np.full(2, -7), np.full(6, -7, np.int32), np.full(6, 7, np.uint64)
    rows, slots = np.array([0, 1, 2]), np.array([0, 4, 5])
    kernels.add(begins, columns, values, 3, rows, slots, sizes, indices, counts, overflows)
    assert_array_equal(sizes, [3, 1])
    assert_array_equal(indices, [0, 1, 2, -7, 0, -7])
    assert_array_equal(counts, [1, 3, 6, 7, 5, 7])
    assert_array_equal(overflows, False)
    values[[1, 3]] = 2**63
    kernels.add(begins, columns, values, 3, rows, slots, sizes, indices, counts, overflows)
    assert_array_equal(overflows, [True, False])


def test_progress_is_told(backend, rng, monkeypatch):
    ids, boundaries = zipf_text(rng, 20_000, 500)
    monkeypatch.setattr(plan_module, "_SCRATCH", 10_000)
    told = []
    fastnlp.cooccurrence(
        ids, vocab_size=500, boundaries=boundaries, progress=lambda *now: told.append(now), backend=backend
    )
    assert len(told) > 5
    assert told == sorted(told)
    assert told[-1] == (20_000, 20_000)
    ids[::3] = -1
    fastnlp.cooccurrence(ids, vocab_size=500, oov="gap", rows=[4], progress=lambda *now: told.append(now))
    assert told[-1] == (20_000, 20_000)  # places that no row was counted for, too


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ids": [0, 3]}, ValueError, r"hold 3 at 1, outside \[0, vocab_size=3\)"),
        ({"ids": [0, -1]}, ValueError, "hold -1 at 1, .*oov='close' drops"),
        ({"ids": [0, -2], "oov": "gap"}, ValueError, "hold -2 at 1"),
        ({"ids": [0, 3], "oov": "close"}, ValueError, "hold 3 at 1"),
        ({"oov": "drop"}, ValueError, "oov must be 'close', 'gap' or None"),
        ({"side": "up"}, ValueError, "side must be 'right' or 'left'"),
        ({"format": "csc"}, ValueError, "format must be one of csr, coo, upper, counts"),
        ({"format": "upper", "symmetric": False}, ValueError, "'upper' is for symmetric counts of all words"),
        ({"format": "upper", "rows": [0]}, ValueError, "'upper' is for symmetric counts of all words"),
        ({"rows": [3]}, ValueError, r"rows hold 3, outside \[0, vocab_size=3\)"),
        ({"rows": [1, 1]}, ValueError, "rows hold an id twice"),
        ({"rows": [0.5]}, TypeError, "rows must be integers"),
        ({"memory": "many"}, ValueError, "memory must be bytes or a size such as '256MB'"),
        ({"memory": 0}, ValueError, "memory must be at least 1"),
        ({"memory": 1.5}, TypeError, "memory must be an integer"),
        ({"memory": "1MB"}, ValueError, r"memory must be at least \d+ MB for this text and vocabulary, got 1 MB"),
        ({"ids": [0.0, 1.0]}, TypeError, "integers, got float64"),
        ({"ids": [True, False]}, TypeError, "integers, got bool"),
        ({"ids": [[0, 1]]}, ValueError, "one axis"),
        ({"ids": np.array([2**63], np.uint64)}, ValueError, "outside"),
        ({"vocab_size": None}, ValueError, "vocab_size is needed"),
        ({"vocab_size": -1}, ValueError, "vocab_size must be at least 0"),
        ({"vocab_size": 2.5}, TypeError, "vocab_size must be an integer"),
        ({"window": 0}, ValueError, "window must be at least 1"),
        ({"window": 2.5}, TypeError, "window must be an integer"),
        ({"weighting": "linear"}, ValueError, "'harmonic', 'uniform' or an array of 10 weights, got 'linear'"),
        ({"weighting": [1.0, 0.5]}, ValueError, r"shape \(10,\) for window 10, got shape \(2,\)"),
        ({"weighting": [1.0, -0.5], "window": 2}, ValueError, "0 or more, got -0.5 for distance 2"),
        ({"weighting": [np.nan, 1], "window": 2}, ValueError, "finite numbers, 0 or more, got nan for distance 1"),
        ({"weighting": [0, 0], "window": 2}, ValueError, "largest weight must be between"),
        ({"weighting": ["a", "b"], "window": 2}, TypeError, "an array of numbers"),
        ({"symmetric": "no"}, TypeError, "symmetric must be True or False"),
        ({"boundaries": [0, 1]}, ValueError, "ascend from 0 to the number of ids, 2"),
        ({"boundaries": [1, 2]}, ValueError, "ascend from 0"),
        ({"boundaries": [0, 2, 1, 2]}, ValueError, "ascend from 0"),
        ({"ids": np.ma.masked_array([0, 1], [False, True])}, TypeError, "the ids is a masked array"),
        ({"ids": [[0], [1, 2]]}, ValueError, "the ids cannot be read as an array"),
        ({"boundaries": []}, ValueError, "ascend from 0"),
        ({"boundaries": "lines"}, ValueError, "boundaries must be 'sentences', an array"),
        ({"boundaries": "sentences"}, ValueError, "needs a corpus that knows its sentences"),
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
    monkeypatch.setattr(importlib.import_module("fastnlp.ops.cooccurrence"), "_SUM", 2 * (2 + 1) * 8)
    options = {"vocab_size": 2, "window": 2, "weighting": [2, 1]}
    assert fastnlp.cooccurrence([0, 1] * 5, **options).sum() > 0
    with pytest.raises(ValueError, match="a word that occurs 8 times could overflow at this window"):
        fastnlp.cooccurrence([0] * 8, **options)


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
