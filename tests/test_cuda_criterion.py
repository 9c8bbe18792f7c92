"""Cross-entropy on a GPU with every option, in the simulator, against the reference in float64."""

import itertools

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

from fastnlp.kernels.cuda import cross_entropy
from fastnlp.kernels.reference import cross_entropy as reference
from fastnlp.ops._criterion import Criterion, Stats
from tests.simulated import SimulatedLibrary, host

DTYPES = ["float32", "float16", "bfloat16"]
EPS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
LEAST = {"float32": 2.0**-126, "float16": 2.0**-25, "bfloat16": 2.0**-126}
OPTIONS = {
    "smoothing": {"label_smoothing": 0.2},
    "weight": {"weight": True},
    "temperature": {"temperature": 0.6},
    "softcap": {"softcap": 3.0},
    "z loss": {"z_loss": True},
}
NAMES = ("loss", "lse", "nll", "entropy", "argmax", "dx")


def run(
    logits,
    target,
    dtype="float32",
    *,
    label_smoothing=0.0,
    weight=None,
    temperature=1.0,
    softcap=None,
    z_loss=False,
    stats=True,
    scale=None,
    offset=0,
    pitch=None,
    place="out",
    mask=None,
    processors=3,
    threads=32,
    seed=0,
):
    """Return what the GPU tells of the rows, and what the reference does of the same numbers in float64 and float32.

    `target` is class indices, or distributions; `place`: where dx goes, "none" for the forward pass alone.
    """
    gpu = SimulatedLibrary(processors=processors, most_threads=threads, seed=seed)
    n, classes = np.shape(logits)
    x = gpu.on_device(logits, dtype, offset=offset, pitch=pitch, readonly=place != "in")
    given = host(x)
    rng = np.random.default_rng(7)
    scale = rng.uniform(0.5, 2, n) if scale is None else scale
    scale = np.asarray(scale, np.float32)
    squared = rng.uniform(0.01, 0.1, n).astype(np.float32) if z_loss else None
    if weight is True:
        weight = rng.uniform(0.2, 3, classes)
    target = np.asarray(target)
    probabilities = target if target.ndim == 2 else None
    indices = target if target.ndim == 1 else mask

    def send(array, dtype, **how):
        return None if array is None else gpu.on_device(array, dtype, readonly=True, **how)

    p = send(probabilities, dtype, offset=offset, pitch=pitch)
    criterion = Criterion(send(indices, "int64"), p, send(weight, "float32"), label_smoothing, temperature, softcap)
    told = Stats(gpu.empty(n, "float32"), gpu.empty(n, "float32"), gpu.empty(n, "int64")) if stats else None
    loss, lse = gpu.empty(n, "float32"), gpu.empty(n, "float32")
    if place == "none":
        dx = None
        cross_entropy.forward(x, criterion, loss, lse, told)
    else:
        dx = x if place == "in" else gpu.on_device(np.full((n, classes), np.nan), dtype, pitch=pitch)
        factors = (send(scale, "float32"), send(squared, "float32"))
        cross_entropy.gradient(x, criterion, *factors, loss, lse, told, dx)
    assert gpu.waits == []
    found = dict(zip(NAMES, (loss, lse, *(told or (None,) * 3), dx), strict=True))
    found = {name: host(array) for name, array in found.items() if array is not None}
    found["kernels"] = gpu.launches

    def oracle(kind):
        """Return what the reference says of the rows that count."""
        rows = np.arange(n) if indices is None else np.flatnonzero(indices >= 0)
        xs = given[rows].astype(kind)
        criterion = Criterion(
            None if probabilities is not None else indices[rows],
            None if probabilities is None else host(p)[rows].astype(kind),
            None if weight is None else weight.astype(np.float32).astype(kind),
            label_smoothing,
            temperature,
            softcap,
        )
        results = [np.zeros(n, kind) for _ in range(4)] + [np.full(n, -1), np.zeros((n, classes), kind)]
        if len(rows):
            part = [np.empty((len(rows), *a.shape[1:]), a.dtype) for a in results]
            z = None if squared is None else squared[rows].astype(kind)
            reference.gradient(xs, criterion, scale[rows].astype(kind), z, *part[:2], Stats(*part[2:5]), part[5])
            for whole, rows_of in zip(results, part, strict=True):
                whole[rows] = rows_of
        return {**dict(zip(NAMES, results, strict=True)), "terms": terms(results[4], results[5], rows)}

    def terms(top, dx, rows):
        """Return how large the numbers are of which each element of dx is a sum."""
        q = np.zeros((n, classes))
        if probabilities is None:
            q[rows, indices[rows]] = 1
        else:
            q[rows] = host(p)[rows]
        q = (1 - label_smoothing) * q + label_smoothing / max(1, classes)
        q *= (scale / temperature)[:, None] if weight is None else (scale / temperature)[:, None] * weight
        of_top = np.zeros((n, classes))
        if classes:
            of_top[rows, top[rows]] = q[rows].sum(1)
        return np.abs(dx) + 2 * q + of_top

    return found, oracle(np.float64), oracle(np.float32)


def assert_right(outcome, dtype="float32", *, ulps=32):
    """As near the truth as the reference in float32, and 32 roundings of the terms, most of them in the exponents.

    NaN, infinities and indices are the same.
    """
    found, truth, naive = outcome
    for name in NAMES:
        if name not in found:
            continue
        actual, wanted, plain = (np.asarray(part[name], np.float64) for part in (found, truth, naive))
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(actual[~finite], wanted[~finite], name)
        if name == "argmax":
            np.testing.assert_array_equal(actual, wanted, name)
            continue
        with np.errstate(invalid="ignore"):
            missed, error = np.abs(plain - wanted), np.abs(actual - wanted)
        size = np.maximum(1, np.abs(wanted))
        if name == "dx":
            size = truth["terms"]
        allowed = missed + ulps * 2.0**-24 * size
        if name == "dx":
            allowed = allowed + EPS[dtype] * np.abs(wanted) + LEAST[dtype]
        wrong = finite & ~(error <= allowed)
        assert not wrong.any(), (
            f"{name} at {np.argwhere(wrong)[:3].tolist()}: {actual[wrong][:3]} instead of {wanted[wrong][:3]}, "
            f"error {error[wrong][:3]} over {allowed[wrong][:3]}"
        )


def distributions(rng, n, classes):
    p = rng.random((n, classes)) ** 3
    p[:, :: max(2, classes // 5)] = 0
    p[:, -1] += 0.01
    return 0.9 * p / p.sum(1, keepdims=True)


def targets(rng, kind, n, classes):
    return rng.integers(0, classes, n) if kind == "indices" else distributions(rng, n, classes)


@pytest.mark.parametrize("kind", ["indices", "distributions"])
@pytest.mark.parametrize("names", [(), *itertools.combinations(OPTIONS, 1), *itertools.combinations(OPTIONS, 2)])
def test_every_option_and_every_two(rng, kind, names):
    """Aligned rows with a tail."""
    options = {name: value for one in names for name, value in OPTIONS[one].items()}
    logits = 3 * rng.standard_normal((4, 43))
    outcome = run(logits, targets(rng, kind, 4, 43), pitch=48, place="in", **options)
    assert_right(outcome)
    assert np.abs(outcome[1]["dx"]).max() > 0.05
    forward = run(logits, targets(rng, kind, 4, 43), pitch=48, place="none", **options)
    assert_right(forward)


@pytest.mark.parametrize("kind", ["indices", "distributions"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stats", [True, False])
def test_all_options_at_once(rng, kind, dtype, stats):
    options = {name: value for one in OPTIONS.values() for name, value in one.items()}
    logits = 3 * rng.standard_normal((5, 100))
    for place in ("out", "in", "none"):
        outcome = run(logits, targets(rng, kind, 5, 100), dtype, pitch=104, place=place, stats=stats, **options)
        assert_right(outcome, dtype)


@pytest.mark.parametrize("kind", ["indices", "distributions"])
@pytest.mark.parametrize("classes", [1, 2, 7, 8, 9, 24, 257, 300])
def test_any_number_of_classes(rng, kind, classes):
    """On 32 threads a round is 256 classes; the tail may be a class, a vector, or a round and more of single ones."""
    logits = 2 * rng.standard_normal((3, classes))
    for pitch in (-(-classes // 8) * 8, -(-classes // 8) * 8 + 1):
        for dtype, softcap in (("bfloat16", None), ("float32", 4.0)):
            outcome = run(
                logits, targets(rng, kind, 3, classes), dtype, pitch=pitch, label_smoothing=0.1, softcap=softcap
            )
            assert_right(outcome, dtype)


@pytest.mark.parametrize("kind", ["indices", "distributions"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("offset", "pitch"), [(1, 40), (0, 41), (3, 47), (8, 48)])
def test_rows_that_are_not_aligned(rng, kind, dtype, offset, pitch):
    logits = rng.standard_normal((3, 40))
    for place in ("out", "in"):
        target = targets(rng, kind, 3, 40)
        outcome = run(logits, target, dtype, offset=offset, pitch=pitch, place=place, weight=True, label_smoothing=0.3)
        assert_right(outcome, dtype)


@pytest.mark.parametrize("kind", ["indices", "distributions"])
def test_rows_beyond_two_to_the_31_elements(rng, kind):
    outcome = run(
        rng.standard_normal((3, 24)), targets(rng, kind, 3, 24), "float16", pitch=2**30 + 8, label_smoothing=0.1
    )
    assert_right(outcome, "float16")


@pytest.mark.parametrize("kind", ["indices", "distributions"])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_any_number_of_rows(rng, kind, rows):
    """Blocks take several rows each."""
    logits = rng.standard_normal((rows, 20))
    target = targets(rng, kind, rows, 20)
    outcome = run(logits, target, processors=1, label_smoothing=0.1)
    assert_right(outcome)


@pytest.mark.parametrize("kind", ["indices", "distributions"])
def test_the_same_bits_in_any_order(rng, kind):
    logits, target = rng.standard_normal((5, 100)), targets(rng, kind, 5, 100)
    how = {"label_smoothing": 0.1, "softcap": 3.0, "place": "in", "z_loss": True}
    first, _, _ = run(logits, target, "bfloat16", **how)
    for seed, processors in ((1, 1), (2, 5)):
        again, _, _ = run(logits, target, "bfloat16", seed=seed, processors=processors, **how)
        assert all(first[name].tobytes() == again[name].tobytes() for name in NAMES)


def test_the_kernel_that_is_enough(rng):
    """Class indices alone, and class weights, temperature and z-loss, need no more than `label_rows`."""
    logits, label, p = rng.standard_normal((2, 20)), np.array([3, 19]), distributions(rng, 2, 20)
    plain = {"weight": True, "temperature": 2.0, "z_loss": True, "stats": False}
    assert run(logits, label, **plain)[0]["kernels"] == ["labels.label_rows"]
    for more in ({"stats": True}, {"softcap": 2.0}, {"label_smoothing": 0.1}):
        assert run(logits, label, **{**plain, **more})[0]["kernels"] == ["smoothed.smoothed_rows"]
    assert run(logits, p, **plain)[0]["kernels"] == ["distributions.distribution_rows"]


@pytest.mark.parametrize("options", [{"stats": False}, {"label_smoothing": 0.1}, {"softcap": 2.0}])
def test_labels_that_do_not_count_and_labels_that_are_no_class(rng, options):
    """-1 leaves zeros whatever the logits; -2 leaves NaN, and is never an index."""
    logits = rng.standard_normal((5, 43))
    logits[[1, 2]] = np.nan
    label = np.array([3, -1, -2, 42, -2])
    for pitch in (43, 48):
        outcome = run(logits, np.where(label == -2, -1, label), pitch=pitch, z_loss=True, **options)
        assert_right(outcome)
        found, _, _ = run(logits, label, pitch=pitch, z_loss=True, **options)
        wrong = label == -2
        for name in ("loss", "lse", "nll", "entropy", "dx"):
            if name in found:
                assert np.isnan(found[name][wrong]).all()
                np.testing.assert_array_equal(found[name][~wrong], outcome[0][name][~wrong])
        if "argmax" in found:
            np.testing.assert_array_equal(found["argmax"][wrong], -1)


def test_distributions_that_do_not_count(rng):
    logits, p = rng.standard_normal((4, 43)), distributions(rng, 4, 43)
    logits[1] = p[1] = np.nan
    mask = np.array([0, -1, 0, -1])
    for pitch in (43, 48):
        outcome = run(logits, p, pitch=pitch, mask=mask, z_loss=True, label_smoothing=0.1)
        assert_right(outcome)
        assert not outcome[0]["dx"][[1, 3]].any()


@pytest.mark.parametrize("kind", ["indices", "distributions"])
def test_no_classes(kind):
    p = np.empty((3, 0))
    found, _, _ = run(np.empty((3, 0)), p if kind == "distributions" else np.full(3, -1), label_smoothing=0.1)
    assert not any(found[name].any() for name in ("loss", "lse", "nll", "entropy"))
    np.testing.assert_array_equal(found["argmax"], -1)
    assert found["kernels"] == []


@pytest.mark.parametrize("kind", ["indices", "distributions"])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("pitch", [40, 41])
def test_logits_that_are_not_finite(rng, kind, softcap, pitch):
    """The same NaN and infinities as the reference, in losses, statistics and gradients."""
    logits = rng.standard_normal((9, 40))
    logits[0, [3, 39]] = np.nan
    logits[1, [17, 30]] = np.inf
    logits[2, :] = -np.inf
    logits[3, 2:30] = -np.inf
    logits[4, :] = np.finfo(np.float32).min
    logits[5, [8, 9]] = np.inf, np.nan
    logits[6, :] = np.inf
    logits[7, 0] = -np.inf
    target = np.array([3, 17, 4, 5, 11, 9, 0, 0, 20])
    if kind == "distributions":
        target = distributions(rng, 9, 40)
        target[3, 2:30] = 0  # no mass where there is no probability: a finite loss
    for options in ({}, {"label_smoothing": 0.1}, {"weight": np.where(np.arange(40) < 10, 0.0, 1.0)}):
        with np.errstate(invalid="ignore"):
            outcome = run(logits, target, pitch=pitch, softcap=softcap, z_loss=True, **options)
        assert np.isnan(outcome[1]["loss"]).any()
        assert_right(outcome)


def test_no_weight_no_say(rng):
    """A class of weight 0 adds nothing where its logit is -inf, not even as the label."""
    logits = rng.standard_normal((2, 24))
    logits[:, 5] = -np.inf
    weight = np.ones(24)
    weight[5] = 0
    for options in ({"stats": False}, {"label_smoothing": 0.2}, {"stats": True}):
        outcome = run(logits, np.array([5, 6]), weight=weight, **options)
        assert np.isfinite(outcome[1]["loss"]).all()
        assert_right(outcome)


@pytest.mark.parametrize("kind", ["indices", "distributions"])
@pytest.mark.parametrize("softcap", [None, 30.0])
def test_large_logits(rng, kind, softcap):
    logits = 1e4 * rng.choice([-1, 1], (4, 40)) + rng.standard_normal((4, 40))
    logits[1] = -1e4
    outcome = run(logits, targets(rng, kind, 4, 40), softcap=softcap, label_smoothing=0.1)
    assert_right(outcome)


@pytest.mark.parametrize("softcap", [None, 40.0])
def test_confident_rows_keep_their_digits(softcap):
    """Where the other classes share 1e-7 of the probability, differences from 1 would have one digit."""
    logits, label = np.zeros((4, 24)), np.array([3, 23, 8, 0])
    logits[np.arange(4), label] = [16.0, 18.0, 20.0, 36.0]
    p = np.zeros((4, 24))
    p[np.arange(4), label] = 1
    for target in (label, p):
        found, truth, _ = run(logits, target, softcap=softcap)
        assert 0 < truth["loss"][0] < 1e-5
        for name in ("loss", "nll", "entropy", "dx"):
            assert truth[name].any()
            np.testing.assert_allclose(found[name], truth[name], rtol=2e-5)


def test_small_logits_under_a_large_soft_cap(rng):
    """Nearly no soft-cap: differences of logits keep the digits that they have without it."""
    logits, label = 1e-3 * rng.standard_normal((3, 40)), np.array([3, 39, 8])
    capped, truth, _ = run(logits, label, softcap=1000.0)
    np.testing.assert_allclose(capped["loss"], truth["loss"], rtol=1e-6)
    plain, _, _ = run(logits, label)
    np.testing.assert_allclose(capped["dx"], plain["dx"], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("side", [1, -1])
def test_logits_where_the_soft_cap_is_flat(rng, side):
    """Differences of tanh near 1 are taken between numbers with digits, or the loss would have four."""
    logits, label = side * (4000 + 200 * rng.standard_normal((3, 40))), np.array([3, 39, 8])
    logits[2, ::2] *= -1
    found, truth, _ = run(logits, label, softcap=1000.0)
    for name in ("loss", "nll", "entropy"):
        np.testing.assert_allclose(found[name], truth[name], rtol=2e-6)
    np.testing.assert_allclose(found["dx"], truth["dx"], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("pitch", [304, 301])
def test_the_first_of_equals_is_the_argmax(rng, pitch):
    """In one thread's eight, in two of a warp, in two warps, in two rounds, and in the tail; NaN is the largest."""
    places = [(6, 7), (8, 16), (3, 290), (299, 300), (0, 300), (70, 257), (44, 46, 45)]
    logits = rng.uniform(-1, 1, (2 * len(places), 301))
    for row, equal in enumerate(places):
        logits[row, list(equal)] = 4.0
        logits[len(places) + row, list(equal)] = np.nan
    for threads in (32, 64):
        found, _, _ = run(logits, np.zeros(len(logits), int), pitch=pitch, place="none", threads=threads)
        np.testing.assert_array_equal(found["argmax"], [min(equal) for equal in places] * 2)


@pytest.mark.parametrize("classes", [32, 64, 96, 128, 160, 192, 224, 256, 257])
def test_rows_that_end_with_the_last_thread(rng, classes):
    target = rng.integers(0, classes, 2)
    assert_right(run(rng.standard_normal((2, classes)), target, label_smoothing=0.2, offset=1))
