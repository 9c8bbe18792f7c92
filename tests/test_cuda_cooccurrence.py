"""Co-occurrence counts of ids on a GPU, in the simulator: the bits of the reference, however the rows are cut."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.ops import _cooccurrence_device
from tests.cooccurrences import assert_canonical, assert_same_bits, flat, ragged, zipf_text
from tests.simulated import SimulatedLibrary, host


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.delenv("FASTNLP_BACKEND", raising=False)
    return SimulatedLibrary()


@pytest.fixture
def kernels():
    return implementation("cooccurrence", "cuda")


@pytest.fixture(params=[0, 2, 50, 10**9], ids=["no row is dense", "as it is", "many rows are dense", "all are"])
def dense(request, kernels, monkeypatch):
    monkeypatch.setattr(kernels, "DENSE", request.param)


def small_pieces(monkeypatch, work=1, piece=50):
    monkeypatch.setattr(_cooccurrence_device, "_WORK", work)
    monkeypatch.setattr(_cooccurrence_device, "_PIECE", piece)
    monkeypatch.setattr(_cooccurrence_device, "_BLOCK", 7)


def both(gpu, ids, offsets, size, **options):
    """The counts by the reference and by the GPU."""
    given = {"vocab_size": size, "boundaries": offsets, **options}
    expected = fastnlp.cooccurrence(ids, **given, backend="reference")
    return expected, fastnlp.cooccurrence(gpu.on_device(ids, readonly=True), **given)


SIDES = [{}, {"symmetric": False}, {"symmetric": False, "side": "left"}, {"format": "upper"}]


@pytest.mark.usefixtures("dense")
@pytest.mark.parametrize("window", [1, 4, 25])
@pytest.mark.parametrize("options", SIDES, ids=lambda options: "-".join(map(str, options.values())) or "symmetric")
def test_counts_are_those_of_the_reference(gpu, window, options, rng):
    documents = [words[:120] for words in ragged(rng, size=60)]
    expected, found = both(gpu, *flat(documents), 61, window=window, **options)  # a word does not occur
    assert expected.nnz > 60
    assert_canonical(found, (61, 61))
    assert_same_bits(found, expected)


@pytest.mark.usefixtures("dense")
@pytest.mark.parametrize("work", [1, 4000, 1 << 30])
def test_rows_that_are_counted_batch_by_batch(gpu, work, monkeypatch, rng):
    small_pieces(monkeypatch, work)
    ids, offsets = zipf_text(rng, 200, 25)
    expected, found = both(gpu, ids, offsets, 25, window=3)
    assert_same_bits(found, expected)
    counted = gpu.launches.count("cooccurrence_pairs.list_pairs") + gpu.launches.count("cooccurrence_dense.add_pairs")
    if work == 1:  # not much more than a row at a time
        assert counted > 10
    if work == 1 << 30:
        assert counted <= 2


@pytest.mark.parametrize("weighting", ["uniform", "harmonic", [0.5, 0, 3, 0.25]])
@pytest.mark.parametrize("oov", ["gap", "close"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_gaps_weights_and_dtypes(gpu, weighting, oov, dtype, monkeypatch, rng):
    small_pieces(monkeypatch)
    ids, offsets = flat(ragged(rng, size=40, gaps=True))
    if dtype == np.uint16:
        ids = np.maximum(ids, 0)
    expected, found = both(gpu, ids.astype(dtype), offsets, 40, window=4, weighting=weighting, oov=oov)
    assert_same_bits(found, expected)


def test_all_words_unknown_and_documents_at_the_ends_of_pieces(gpu, monkeypatch):
    small_pieces(monkeypatch, piece=4)
    ids = np.array([-1, -1, -1, -1, 0, 1, -1, 2, 2, -1, -1, -1, -1], np.int32)
    for offsets in ([0, 13], [0, 4, 8, 12, 13], [0, 0, 4, 4, 6, 7, 7, 13, 13]):
        for oov in ("close", "gap"):
            assert_same_bits(*both(gpu, ids, np.array(offsets), 3, window=2, oov=oov))
    assert_same_bits(*both(gpu, ids[:4], np.array([0, 4]), 3, window=2, oov="close"))
    assert_same_bits(*both(gpu, ids[:4], np.array([0, 4]), 3, window=2, oov="gap"))


@pytest.mark.parametrize(("ids", "size"), [([], 0), ([], 4), ([3], 4), ([0, 0, 0, 0], 1), ([1, 1], 2)])
def test_next_to_no_text(gpu, ids, size):
    ids = np.array(ids, np.int32)
    assert_same_bits(*both(gpu, ids, None, size))


@pytest.mark.usefixtures("dense")
def test_rows_of_some_words(gpu, monkeypatch, rng):
    small_pieces(monkeypatch, 3000)
    ids, offsets = zipf_text(rng, 300, 40)
    for rows in ([], [7], rng.permutation(40)[:25]):
        expected, found = both(gpu, ids, offsets, 40, window=3, rows=np.array(rows, np.int64))
        assert_same_bits(found, expected)


def test_formats_files_and_several_parts(gpu, tmp_path, monkeypatch, rng):
    ids, offsets = zipf_text(rng, 500, 30)
    given = {"vocab_size": 30, "boundaries": offsets, "window": 4}
    there = gpu.on_device(ids)
    exact = fastnlp.cooccurrence(there, **given, format="counts")
    expected = fastnlp.cooccurrence(ids, **given, format="counts", backend="reference")
    assert exact.counts.dtype == np.uint64
    assert_array_equal(exact.counts, expected.counts)
    assert_same_bits((exact + exact).matrix(), (expected + expected).matrix())
    fastnlp.cooccurrence(there, **given, out=tmp_path / "gpu.bin")
    fastnlp.cooccurrence(ids, **given, out=tmp_path / "cpu.bin", backend="reference")
    assert (tmp_path / "gpu.bin").read_bytes() == (tmp_path / "cpu.bin").read_bytes()
    monkeypatch.setattr(_cooccurrence_device, "_MOST", 170)
    told = []
    parts = fastnlp.cooccurrence(
        there, **given, spill=tmp_path / "runs", progress=lambda done, total: told.append(done / total)
    )
    assert_same_bits(parts, expected.matrix())
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(list((tmp_path / "runs").glob("run-*"))) == 3
    before = len(gpu.launches)
    assert_same_bits(fastnlp.cooccurrence(there, **given, spill=tmp_path / "runs"), parts)
    assert "cooccurrence_dense.add_pairs" not in gpu.launches[before:]  # it went on from what was finished


def test_a_budget_for_the_gpu(gpu, rng):
    ids, offsets = zipf_text(rng, 400, 30)
    given = {"vocab_size": 30, "boundaries": offsets, "window": 3}
    expected = fastnlp.cooccurrence(ids, **given, backend="reference")
    assert_same_bits(fastnlp.cooccurrence(gpu.on_device(ids), **given, memory="1MB"), expected)
    with pytest.raises(ValueError, match=r"memory must be at least 1 MB for this text and vocabulary, got 0\.003 MB"):
        fastnlp.cooccurrence(gpu.on_device(ids), **given, memory=3000)


def test_a_gpu_without_memory_names_the_budget(gpu, monkeypatch, rng):
    ids, _ = zipf_text(rng, 200, 30)

    def full(x):
        raise MemoryError("full")

    monkeypatch.setattr(gpu, "nonzero", full)
    with pytest.raises(MemoryError, match=r"full \(a budget takes less, such as memory='500MB'\)"):
        fastnlp.cooccurrence(gpu.on_device(ids), vocab_size=30)


def test_plans_keep_to_their_budgets(gpu):
    text = _cooccurrence_device.DeviceText(gpu.zeros(9, np.int32), np.array([0, 9]), 1000, None)
    text.size, width = 10**9, 1000
    rows = importlib.import_module("fastnlp.ops._cooccurrence_rows")
    question = rows.Question(10, np.ones(11, np.uint64), True, True, False, np.arange(width), width)
    assert _cooccurrence_device.plan_of(text, question, None).parts == 1
    for memory in (10**8, 10**9, 8 * 10**9, 10**10):
        plan = _cooccurrence_device.plan_of(text, question, memory)
        assert plan.places * plan.parts >= text.size
        assert 0.5 * memory < plan.scratch + 8 * plan.places <= memory or plan.parts == 1


def test_corpora_and_boundaries_on_the_gpu(gpu, rng):
    ids, offsets = zipf_text(rng, 200, 20)

    class Corpus:
        vocab = range(20)

    corpus = Corpus()
    corpus.ids, corpus.offsets = gpu.on_device(ids), gpu.on_device(offsets)
    expected = fastnlp.cooccurrence(ids, vocab_size=20, boundaries=offsets, window=2, backend="reference")
    assert_same_bits(fastnlp.cooccurrence(corpus, window=2), expected)


def test_bad_input_is_told_as_on_the_cpu(gpu, monkeypatch, rng):
    small_pieces(monkeypatch, piece=8)
    for wrong, options in ((5, {}), (-1, {}), (-2, {"oov": "gap"}), (2**40, {})):
        ids = np.arange(40) % 5
        ids[[17, 30]] = wrong
        with pytest.raises(ValueError, match=rf"the ids hold {wrong} at 17, outside \[0, vocab_size=5\)") as reference:
            fastnlp.cooccurrence(ids, vocab_size=5, backend="reference", **options)
        with pytest.raises(ValueError, match="outside") as cuda:
            fastnlp.cooccurrence(gpu.on_device(ids), vocab_size=5, **options)
        assert str(cuda.value) == str(reference.value)
    ids = gpu.on_device(np.arange(4))
    with pytest.raises(TypeError, match="the ids must be integers, got float32"):
        fastnlp.cooccurrence(ids.astype(np.float32), vocab_size=4)
    with pytest.raises(ValueError, match="one axis"):
        fastnlp.cooccurrence(ids.reshape(2, 2), vocab_size=4)
    with pytest.raises(TypeError, match="does not run on arrays on the GPU"):
        fastnlp.cooccurrence(ids, vocab_size=4, backend="cpu")
    with pytest.raises(TypeError, match="does not run on arrays on the CPU"):
        fastnlp.cooccurrence(np.arange(4), vocab_size=4, backend="cuda")


def test_kernels_count_blocks_of_rows_to_their_slots(gpu, kernels, rng):
    """The contract of the kernels, which `cooccurrence` does not use in full here."""
    ids, offsets = zipf_text(rng, 150, 12)
    stream = gpu.empty(ids.size + offsets.size, np.int32)
    kernels.lay_out(gpu.on_device(ids), offsets, 12, stream)
    expected = np.empty(stream.size, np.int32)
    reference = implementation("cooccurrence", "reference")
    reference.lay_out(ids, offsets, 12, expected)
    assert_array_equal(host(stream), expected)
    edges = np.array([0, 70, stream.size])
    counts = gpu.empty((2, 12), np.int64)
    kernels.histogram(stream, edges, counts)
    assert_array_equal(host(counts)[0], np.bincount(expected[:70][expected[:70] >= 0], minlength=12))
    totals = host(counts).sum(axis=0)
    starts = np.concatenate([[0], np.cumsum(totals)])
    cursors, positions = gpu.on_device(starts[:-1] + np.array([[0], [1]]) * host(counts)[0]), gpu.empty(150, np.int32)
    kernels.locate(stream, edges, cursors, positions)
    assert_array_equal(expected[host(positions)], np.repeat(np.arange(12), totals))
    words, weights = rng.permutation(12), np.array([0, 6, 3, 2], np.uint64)
    rows, slots = np.array([0, 0, 5, 11, 12]), np.array([3, 4, 75, 150, 170])
    found = np.full(12, -7), gpu.full(170, -7, np.int32), gpu.full(170, -7, np.int64)
    kernels.count(stream, starts, positions, words, weights, True, False, False, rows, slots, *found)
    wanted = np.full(12, -7), np.full(170, -7, np.int32), np.full(170, 7, np.uint64)
    places = host(positions).astype(np.uint32)
    reference.count(expected, starts, places, words, weights, True, False, False, rows, slots, *wanted)
    assert_array_equal(found[0], wanted[0])
    for block in range(4):
        mine = slice(slots[block], slots[block] + found[0][rows[block] : rows[block + 1]].sum())
        assert_array_equal(host(found[1])[mine], wanted[1][mine])
        assert_array_equal(host(found[2])[mine].view(np.uint64), wanted[2][mine])
    assert host(found[1])[:3].tolist() == [-7, -7, -7]
