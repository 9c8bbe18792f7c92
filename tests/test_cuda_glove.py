"""GloVe on a GPU, in the simulator: the same visits as on the CPU, and the same bits in whatever order threads run."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.kernels.cuda._glove_diagonals import train_diagonals
from fastnlp.ops import _glove_device, _glove_grid
from tests import simt
from tests.simulated import SimulatedLibrary, host
from tests.test_glove import NAMES, random_counts


def dealt(rng, words, blocks):
    """Words dealt to blocks in any way."""
    size = -(-words // blocks)
    label = rng.permutation(blocks * size)[:words].astype(np.int32)
    block, place = np.divmod(label, np.int32(size))
    inverse = np.full((blocks, size), -1, np.int32)
    inverse[block, place] = np.arange(words)
    return block, place, inverse


def arranged(matrix, dealing):
    """The reference's entries, for outputs that are filled with garbage."""
    blocks, size = dealing[2].shape
    starts = np.full(blocks * blocks * size + 1, -7)
    places = np.full((matrix.nnz, 2), 999, np.uint16)
    values = np.full((matrix.nnz, 2), np.nan, np.float32)
    csr = matrix.indptr.astype(np.int64), matrix.indices, matrix.data
    implementation("glove", "reference").arrange(*csr, *dealing, 10.0, 0.7, starts, places, values)
    return places, values, starts


def arranged_on_gpu(gpu, matrix, dealing):
    blocks, size = dealing[2].shape
    starts = gpu.empty(blocks * blocks * size + 1, np.int64)
    places, values = gpu.empty(matrix.nnz, np.int32), gpu.empty((matrix.nnz, 2), np.float32)
    csr = [gpu.on_device(a, readonly=True) for a in (matrix.indptr.astype(np.int64), matrix.indices, matrix.data)]
    block, place = gpu.on_device(dealing[0]), gpu.on_device(dealing[1])
    implementation("glove", "cuda").arrange(*csr, block, place, dealing[2], 10.0, 0.7, starts, places, values)
    return places, values, starts


@pytest.mark.parametrize(("words", "blocks"), [(60, 1), (60, 2), (60, 7), (23, 23), (1, 1)])
def test_entries_are_arranged_as_by_the_reference(words, blocks, rng):
    matrix = random_counts(rng, words) if words > 1 else random_counts(rng, 3, 1.0)[[0]][:, [0]].tocsr()
    matrix.data[:1] = 1e-3  # a weight far below one
    dealing, gpu = dealt(rng, words, blocks), SimulatedLibrary()
    places, values, starts = arranged(matrix, dealing)
    found = arranged_on_gpu(gpu, matrix, dealing)
    assert_array_equal(host(found[2]), starts)
    assert_array_equal(host(found[0]).view(np.uint16).reshape(-1, 2), places)
    assert_array_equal(host(found[1]), values)
    assert not gpu.waits


def state_of(rng, words, features, dim):
    x, y = (rng.standard_normal((words, features)).astype(np.float32) / 3 for _ in range(2))
    gx, gy = (1 + rng.random((words, features), np.float32) for _ in range(2))
    for z, g in ((x, gx), (y, gy)):
        z[:, dim + 1 :], g[:, dim + 1 :] = 0, 1e38
    return x, y, gx, gy


def trained(gpu, entries, state, blocks, visits, limits, rate, name="train"):
    """Train copies of a state; return them, the losses and what failed."""
    places, values, starts = entries
    packed = places.astype(np.int32) @ np.array([1, 1 << 16], np.int32)
    inputs = [gpu.on_device(a, readonly=True) for a in (packed, values, starts)]
    parameters, limits = [gpu.on_device(z) for z in state], gpu.on_device(limits)
    told = []
    for s, diagonals in visits:
        cost, failed = gpu.empty(blocks, np.float64), gpu.empty(blocks, np.int64)
        train = getattr(implementation("glove", "cuda"), name)
        train(*inputs, s, gpu.on_device(diagonals), *parameters, limits, rate, cost, failed)
        told.append((host(cost), host(failed)))
    return [host(z) for z in parameters], np.array([t[0] for t in told]), np.array([t[1] for t in told])


@pytest.mark.parametrize(
    ("blocks", "dim", "features", "clip"), [(1, 3, 8, 100), (3, 50, 56, 0.02), (5, 131, 136, 100), (2, 390, 392, 0.1)]
)
def test_visits_are_those_of_the_reference(blocks, dim, features, clip, rng):
    matrix, dealing = random_counts(rng, 26), dealt(rng, 26, blocks)
    size, entries = dealing[2].shape[1], arranged(matrix, dealing)
    state = state_of(rng, blocks * size, features, dim)
    limits = np.where(np.arange(features) < dim, clip, np.inf).astype(np.float32)
    visits = [(int(s), rng.permutation(size)[: size - 1 or 1].astype(np.int32)) for s in rng.permutation(blocks)]
    expected = [z.copy() for z in state]
    cost, failed = np.full((len(visits), blocks), np.nan), np.full((len(visits), blocks), 7)
    for k, (s, diagonals) in enumerate(visits):
        implementation("glove", "reference").train(*entries, s, diagonals, *expected, limits, 0.05, cost[k], failed[k])
    found, losses, wrong = trained(SimulatedLibrary(), entries, state, blocks, visits, limits, 0.05)
    assert_array_equal(wrong, failed)
    assert_allclose(losses, cost, rtol=1e-5)
    for mine, theirs, before in zip(found, expected, state, strict=True):
        assert np.abs(theirs - before).max() > 1e-3  # something was learned
        assert_allclose(mine, theirs, rtol=2e-6, atol=2e-6)


def test_the_same_bits_in_any_order_of_blocks_and_threads(rng):
    matrix, dealing = random_counts(rng, 40), dealt(rng, 40, 4)
    entries, state = arranged(matrix, dealing), state_of(rng, 40, 24, 20)
    limits = np.full(24, 100, np.float32)
    visits = [(s, rng.permutation(10).astype(np.int32)) for s in range(2)]
    several = [
        trained(SimulatedLibrary(seed=seed, most_threads=128), entries, state, 4, visits, limits, 0.05)
        for seed in (0, 100)
    ]
    for other in several[1:]:
        for a, b in zip(several[0][0], other[0], strict=True):
            assert_array_equal(a, b)
        assert_array_equal(several[0][1], other[1])
    few = trained(SimulatedLibrary(most_threads=32), entries, state, 4, visits, limits, 0.05)
    for a, b in zip(several[0][0], few[0], strict=True):  # nor on the number of warps
        assert_array_equal(a, b)


def test_entries_that_share_a_row_are_a_race_the_simulator_sees(rng):
    matrix, dealing = random_counts(rng, 12, 1.0), dealt(rng, 12, 1)
    places, values, starts = arranged(matrix, dealing)
    places[:, 0] = 0  # all in one row
    state = state_of(rng, 12, 8, 3)
    with pytest.raises(Exception, match="race"):
        trained(
            SimulatedLibrary(), (places, values, starts), state, 1, [(0, np.arange(4, dtype=np.int32))],
            np.full(8, 100, np.float32), 0.05,
        )  # fmt: skip


def test_diagonals_need_the_barrier_between_them(rng):
    """Without it the simulator sees two warps at one vector."""
    matrix, dealing = random_counts(rng, 12, 1.0), dealt(rng, 12, 1)
    places, values, starts = arranged(matrix, dealing)
    packed = places.astype(np.int32) @ np.array([1, 1 << 16], np.int32)
    state = state_of(rng, 12, 8, 3)
    given = (packed, values, starts, 0, 1, 12, np.arange(12, dtype=np.int32), 12, *state, 8)
    given = (*given, np.full(8, 100, np.float32), 0.05, np.empty(1), np.empty(1, np.int64))
    simt.launch(train_diagonals, 1, 64, given)
    with pytest.raises(simt.SimtError, match="race"):
        simt.launch(train_diagonals, 1, 64, given, replace={"any_thread": lambda flag: False})


def test_a_block_stops_at_a_loss_that_is_not_finite(rng):
    matrix, dealing = random_counts(rng, 30, 0.5), dealt(rng, 30, 3)
    entries, state = arranged(matrix, dealing), state_of(rng, 30, 8, 5)
    diagonals = np.arange(10, dtype=np.int32)
    bounds = entries[2][:11]  # of block 0
    bad = int(bounds[np.flatnonzero(np.diff(bounds) > 0)[2]])
    for value in (np.nan, np.inf):
        entries[1][bad, 0] = value
        _, losses, failed = trained(
            SimulatedLibrary(), entries, state, 3, [(0, diagonals)], np.full(8, 100, np.float32), 0.05
        )
        assert_array_equal(failed, [[bad, -1, -1]])
        assert np.isfinite(losses).all()


def test_hogwild_learns_the_same(rng):
    """Alone, a diagonal of a block is trained by one warp, entry by entry: the very steps of the other way."""
    matrix, dealing = random_counts(rng, 30), dealt(rng, 30, 3)
    entries, state = arranged(matrix, dealing), state_of(rng, 30, 136, 130)
    limits = np.full(136, 100, np.float32)
    one = [(s, np.array([4], np.int32)) for s in (0, 2, 1)]
    gpu = SimulatedLibrary(races=False)
    found, losses, failed = trained(gpu, entries, state, 3, one, limits, 0.05, "train_hogwild")
    wanted, costs, _ = trained(SimulatedLibrary(), entries, state, 3, one, limits, 0.05)
    assert_allclose(losses, costs, rtol=1e-6)
    assert_array_equal(failed, -1)
    for a, b in zip(found, wanted, strict=True):
        assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    visits = [(s, np.arange(10, dtype=np.int32)) for s in (0, 1, 2)] * 2
    losses = trained(gpu, entries, state, 3, visits, limits, 0.05, "train_hogwild")[1].sum(axis=1)
    assert losses[-3:].sum() < 0.7 * losses[:3].sum()


@pytest.fixture
def gpu(monkeypatch):
    """A simulated GPU in the place of CuPy's, blocks of at most 7 words and visits of 3 diagonals."""
    library = SimulatedLibrary(races=False, most_threads=32)
    monkeypatch.setattr(_glove_device, "cupy_library", lambda: library)
    monkeypatch.setattr(_glove_grid, "_BLOCK", 7)
    monkeypatch.setattr(_glove_grid, "_VISIT", 3)
    return library


def fitted(counts, backend, **options):
    more = {name: options.pop(name) for name in ("initial", "pull", "frozen", "hogwild") if name in options}
    return fastnlp.GloVe(dim=5, x_max=10, **{"epochs": 2, **options}).fit(counts, backend=backend, **more)


@pytest.mark.parametrize("at_once", [1, 50, 1 << 25])
def test_fit_is_that_of_the_cpu(gpu, at_once, monkeypatch, rng):
    monkeypatch.setattr(_glove_device, "_AT_ONCE", at_once)
    counts = random_counts(rng, 20)
    expected, model = fitted(counts, "reference"), fitted(counts, "cuda")
    assert_allclose(model.loss_, expected.loss_, rtol=1e-5)
    for name in NAMES:
        assert_allclose(getattr(model, name), getattr(expected, name), rtol=1e-5, atol=3e-6)
    assert len(gpu.waits) <= {1: 100, 50: 50}.get(at_once, 8)  # a cost, a failure and two vectors an epoch


def test_fit_with_vectors_that_are_pulled_and_frozen(gpu, rng):
    counts = random_counts(rng, 20)
    start = fitted(counts, "reference", seed=5, epochs=1)
    frozen = np.arange(20) % 3 == 0
    options = {"initial": start, "pull": 0.3, "frozen": frozen, "epochs": 3}
    expected, model = fitted(counts, "reference", **options), fitted(counts, "cuda", **options)
    for name in NAMES:
        assert_allclose(getattr(model, name), getattr(expected, name), rtol=1e-5, atol=5e-6)
    assert_array_equal(model.word_vectors[frozen], start.word_vectors[frozen])


def test_a_broken_off_training_goes_on_to_the_same_bits(gpu, tmp_path, monkeypatch, rng):
    monkeypatch.setattr(_glove_device, "_AT_ONCE", 20)
    monkeypatch.setattr(importlib.import_module("fastnlp.ops.glove"), "_TELL", 0.0)
    counts, file = random_counts(rng, 20), tmp_path / "model"
    whole = fastnlp.GloVe(dim=5, epochs=2).fit(counts, backend="cuda")

    def break_off(done, epochs, loss):
        if done > 1.4:
            raise KeyboardInterrupt

    first, broken = fastnlp.GloVe(dim=5, epochs=1).fit(counts, backend="cuda"), fastnlp.GloVe(dim=5, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(counts, checkpoint=file, progress=break_off, backend="cuda")
    for name in NAMES:
        assert_array_equal(getattr(broken, name), getattr(first, name))
    assert fastnlp.GloVe.load(file).loss_ == broken.loss_ == whole.loss_[:1]
    model = fastnlp.GloVe(dim=5, epochs=2).fit(counts, resume=file, backend="cuda")
    assert model.loss_ == whole.loss_
    for name in NAMES:
        assert_array_equal(getattr(model, name), getattr(whole, name))


def test_a_training_that_diverges_names_the_pair(gpu, rng):
    counts = random_counts(rng, 20)
    counts.data[:] = 1e30
    with pytest.raises(FloatingPointError, match=r"diverged in epoch 1 of 2 at the pair .*row") as cuda:
        fitted(counts, "cuda", lr=1e30, bias_lr=None, grad_clip=None)
    with pytest.raises(FloatingPointError) as reference:
        fitted(counts, "reference", lr=1e30, bias_lr=None, grad_clip=None)
    assert str(cuda.value) == str(reference.value)


def test_vectors_that_are_not_finite_are_found(rng):
    gpu = SimulatedLibrary()
    for value in (np.nan, np.inf, -np.inf, 3e38):
        for at in (0, 5, 38, 399):
            x = rng.standard_normal((50, 8)).astype(np.float32)
            x.flat[at] = value
            found = gpu.zeros(1, np.int64)
            implementation("glove", "cuda").find_infinite(gpu.on_device(x), found)
            assert host(found)[0] == (not np.isfinite(value))


def test_a_gpu_without_memory_says_what_takes_less(gpu, monkeypatch, rng):
    def full(x):
        raise MemoryError("full")

    monkeypatch.setattr(gpu, "sort", full)
    with pytest.raises(MemoryError, match=r"full \(fewer words, fewer counts or a smaller dim take less"):
        fitted(random_counts(rng, 20), "cuda")


def test_without_cupy_the_remedy_is_told(monkeypatch, rng):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, found=importlib.util.find_spec: (
        None if name == "cupy" else found(name)
    ))  # fmt: skip
    with pytest.raises(ImportError, match=r"needs CuPy, which is not installed: pip install 'fastnlp-kernels\[cuda\]'"):
        fitted(random_counts(rng, 20), "cuda")


def test_hogwild_is_asked_for(gpu, rng):
    counts = random_counts(rng, 20)
    assert fitted(counts, "cuda", hogwild=True).loss_[1] < fitted(counts, "reference", epochs=1).loss_[0]
    with pytest.raises(ValueError, match="hogwild=True is for backend='cuda', got backend='reference'"):
        fitted(counts, "reference", hogwild=True)
    with pytest.raises(TypeError, match="hogwild"):
        fitted(counts, "cuda", hogwild=1)
