"""The kernel for rows of logits with class indices, in the simulator, against float64."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

from fastnlp.kernels.cuda import _schedule
from fastnlp.kernels.cuda._labels import label_rows
from tests.simulated import SimulatedLibrary, host

DTYPES = ["float32", "float16", "bfloat16"]
EPS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
LEAST = {"float32": 2.0**-126, "float16": 2.0**-25, "bfloat16": 2.0**-126}
LOSS_RTOL = 4e-6  # float32 sums of exponentials of differences: 32 roundings, most of them in the exponents


def run(
    logits,
    label,
    dtype="float32",
    *,
    temperature=1.0,
    class_weight=None,
    scale=None,
    lse_scale=None,
    offset=0,
    pitch=None,
    place="out",
    blocks=2,
    threads=64,
    seed=0,
):
    """Return the loss, the lse and dx (None where place is "none") of the kernel, and what it was given."""
    gpu = SimulatedLibrary(seed=seed, most_threads=threads)
    n, classes = np.shape(logits)
    x = gpu.on_device(logits, dtype, offset=offset, pitch=pitch, readonly=place != "in")
    given = host(x).astype(np.float64)
    loss, lse = gpu.empty(n, "float32"), gpu.empty(n, "float32")
    dx = {"in": x, "none": None}.get(place, gpu.on_device(np.full((n, classes), np.nan), dtype, pitch=pitch))
    vectors = (None if v is None else gpu.on_device(v, "float32", readonly=True) for v in (class_weight, lse_scale))
    weight, lse_scale = vectors
    scale = gpu.on_device(np.ones(n) if scale is None else scale, "float32", readonly=True)
    labels = gpu.on_device(np.asarray(label), "int64", readonly=True)
    whole, to = _schedule.whole(x, dx), 0 if dx is None else dx.pitch
    head = (x, x.pitch, labels, weight, None if dx is None else scale, lse_scale)
    gpu.launch(label_rows, blocks, 1024, *head, classes, whole, n, 1.0 / temperature, loss, lse, dx, to)
    assert gpu.waits == []
    return host(loss), host(lse), None if dx is None else host(dx), given


def truth(x, label, *, temperature=1.0, class_weight=None, scale=None, lse_scale=None):
    """Return loss, lse and dx by their definition in float64."""
    label = np.asarray(label)
    n = len(x)
    rows, t = np.arange(n), np.maximum(label, 0)
    counts = label >= 0
    scale = np.ones(n) if scale is None else scale
    w = np.ones(n) if class_weight is None else class_weight.astype(np.float32).astype(float)[t]
    z = x / temperature
    top = z.max(1, keepdims=True)
    e = np.exp(z - top)
    others = e.copy()
    others[rows, t] = 0
    total = e.sum(1)
    lse = top[:, 0] + np.log(total)
    with np.errstate(divide="ignore"):
        loss = np.where(e[rows, t] > 0, np.log1p(others.sum(1) / e[rows, t]), lse - z[rows, t])
    p = e / total[:, None]
    from_label = p.copy()
    from_label[rows, t] = -others.sum(1) / total
    h = np.zeros(n) if lse_scale is None else 2 * lse_scale * lse / temperature
    dx = (scale * w / temperature)[:, None] * from_label + h[:, None] * p
    return np.where(counts, w * loss, 0), np.where(counts, lse, 0), np.where(counts[:, None], dx, 0)


def assert_right(found, wanted, dtype="float32", *, digits=LOSS_RTOL):
    loss, lse, dx, _ = found
    for actual, expected in ((loss, wanted[0]), (lse, wanted[1])):
        np.testing.assert_allclose(actual, expected, rtol=digits, atol=2e-7 * np.abs(expected).max())
    if dx is not None:
        largest = np.abs(wanted[2]).max(1, keepdims=True)
        allowed = (EPS[dtype] + digits) * np.abs(wanted[2]) + LEAST[dtype] + 1e-7 * digits * largest
        assert np.all(np.abs(dx.astype(float) - wanted[2]) <= allowed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 7, 8, 24, 100, 517])
def test_loss_lse_and_gradient(rng, dtype, classes):
    """Vector loop, its second half and the tail: 24 is three vectors, 517 two rounds of two vectors and a tail of 5."""
    logits = 3 * rng.standard_normal((5, classes))
    label = rng.integers(0, classes, 5)
    pitch = -(-classes // 8) * 8  # aligned
    for place in ("out", "in", "none"):
        found = run(logits, label, dtype, place=place, pitch=pitch, threads=32)
        wanted = truth(found[3], label)
        assert classes == 1 or np.abs(wanted[2]).max() > 0.1
        assert_right(found, wanted, dtype)


def test_two_vectors_at_a_time(rng):
    """1,100 classes on 32 threads: several rounds of two vectors, then one, then a tail; the label anywhere."""
    label = np.array([0, 7, 8, 255, 256, 519, 1023, 1095, 1096, 1099])
    found = run(3 * rng.standard_normal((10, 1100)), label, "bfloat16", pitch=1104, threads=32, blocks=3)
    assert_right(found, truth(found[3], label), "bfloat16")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("offset", "pitch"), [(1, 24), (0, 25), (3, 31), (8, 32)])
def test_rows_that_are_not_aligned(rng, dtype, offset, pitch):
    label = np.array([0, 23, 5])
    for place in ("out", "in"):
        found = run(rng.standard_normal((3, 24)), label, dtype, offset=offset, pitch=pitch, place=place)
        assert_right(found, truth(found[3], label), dtype)


@pytest.mark.parametrize("place", ["in", "out"])
def test_rows_beyond_two_to_the_31_elements(rng, place):
    label = np.array([3, 23, 8])
    found = run(rng.standard_normal((3, 24)), label, "float16", pitch=2**30 + 8, place=place)
    assert_right(found, truth(found[3], label), "float16")


@pytest.mark.parametrize("blocks", [1, 2, 7])
@pytest.mark.parametrize("threads", [32, 128])
def test_any_grid_gives_the_rows(rng, blocks, threads):
    logits, label = rng.standard_normal((7, 100)), rng.integers(0, 100, 7)
    found = run(logits, label, blocks=blocks, threads=threads)
    assert_right(found, truth(found[3], label))


def test_the_same_bits_in_any_order_of_threads_and_blocks(rng):
    logits, label = rng.standard_normal((5, 100)), rng.integers(0, 100, 5)
    first = run(logits, label, "bfloat16", place="in", blocks=1)
    for seed, blocks in ((1, 1), (2, 2), (3, 5)):
        again = run(logits, label, "bfloat16", place="in", blocks=blocks, seed=seed)
        for a, b in zip(first[:3], again[:3], strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("aligned", [True, False])
def test_rows_that_do_not_count(rng, aligned):
    """They may hold anything."""
    logits = rng.standard_normal((6, 40))
    label = np.array([3, -1, 39, -1, -1, 0])
    logits[[1, 3]] = np.nan
    for place in ("out", "in", "none"):
        found = run(logits, label, "bfloat16", place=place, pitch=40 if aligned else 43)
        wanted = truth(np.where(label[:, None] < 0, 0, found[3]), label)
        assert_right(found, wanted, "bfloat16")
    ignored = run(logits, np.full(6, -1), "bfloat16")
    assert not np.any([*ignored[:2], *ignored[2].T.astype(float)])


@pytest.mark.parametrize("pitch", [40, 41])
def test_labels_that_are_no_class(rng, pitch):
    """The caller hands them on as -2: that row is NaN, and nothing is read at such a place."""
    logits, label = rng.standard_normal((4, 40)), np.array([3, -2, -1, 39])
    for place in ("in", "out"):
        loss, lse, dx, given = run(logits, label, "float16", pitch=pitch, place=place)
        assert np.isnan([loss[1], *dx[1]]).all()
        loss[1], lse[1], dx[1] = 0, 0, 0
        assert_right((loss, lse, dx, given), truth(given, np.array([3, -1, -1, 39])), "float16")


@pytest.mark.parametrize("dtype", DTYPES)
def test_options(rng, dtype):
    logits, label = 2 * rng.standard_normal((5, 30)), np.array([0, 29, 7, -1, 24])
    options = {
        "temperature": {"temperature": 0.5},
        "class weight": {"class_weight": rng.uniform(0.5, 2, 30)},
        "scale": {"scale": rng.standard_normal(5)},
        "z loss": {"lse_scale": rng.uniform(0.1, 1, 5)},
    }
    options["all"] = {name: value for one in options.values() for name, value in one.items()}
    for one in options.values():
        found = run(logits, label, dtype, **one)
        wanted = truth(found[3], label, **{k: np.float32(v).astype(float) for k, v in one.items()})
        assert_right(found, wanted, dtype, digits=1e-5)


def test_confident_rows_keep_their_digits():
    """The rest of the classes is about 1e-7 of the label's: 1 - p would have one digit."""
    logits = np.zeros((4, 24))
    label = np.array([3, 23, 8, 0])
    logits[np.arange(4), label] = [16.0, 18.0, 20.0, 40.0]
    found = run(logits, label)
    wanted = truth(logits, label)
    assert 0 < wanted[0][0] < 3e-6
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    np.testing.assert_allclose(found[2], wanted[2], rtol=1e-5)


def test_an_unlikely_label():
    """Its exponential is 0 in float32."""
    logits = np.zeros((3, 24))
    logits[:, 5] = 150, 87, 1e4
    label = np.array([2, 2, 2])
    found = run(logits, label)
    np.testing.assert_allclose(found[0], logits[:, 5], rtol=1e-6)
    assert_right(found, truth(logits, label))


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_logits(rng, dtype):
    logits, label = 1e4 * rng.choice([-1, 1], (4, 40)) + rng.standard_normal((4, 40)), np.array([0, 39, 8, 33])
    logits[1] = -1e4
    found = run(logits, label, dtype)
    wanted = truth(found[3], label)
    assert wanted[0].max() > 1e4
    assert_right(found, wanted, dtype, digits=2e-5)  # |x - m| log2(e) has 24 bits, too


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_least_finite_logits(dtype):
    """What masks are filled with: a row of nothing else is uniform."""
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    logits = np.full((2, 24), ml_dtypes.finfo(kind).min.astype(float))
    logits[1, :3] = 0
    loss, _, dx, _ = run(logits, [1, 1], dtype)
    np.testing.assert_allclose(loss, np.log([24, 3]), rtol=1e-6)
    np.testing.assert_allclose(dx[:, 0].astype(float), [1 / 24, 1 / 3], rtol=4e-3)


@pytest.mark.parametrize("pitch", [24, 25])
def test_logits_of_minus_infinity(pitch):
    """They have no mass; a label there has an infinite loss; a row of nothing else is undefined."""
    logits = np.zeros((4, 24))
    logits[0, 3:20] = -np.inf
    logits[1, :] = -np.inf
    logits[1, 4] = 2
    logits[2, 7] = -np.inf
    logits[3] = -np.inf
    label = np.array([1, 4, 7, 5])
    loss, lse, dx, _ = run(logits, label, pitch=pitch)
    np.testing.assert_allclose(loss[:2], [np.log(7), 0], rtol=1e-6)
    assert loss[2] == np.inf
    assert np.isnan(loss[3])
    np.testing.assert_allclose(lse[:3], [np.log(7), 2, np.log(23)], rtol=1e-6)
    assert not np.isfinite(lse[3])
    np.testing.assert_allclose(dx[0, [0, 1, 3]], [1 / 7, -6 / 7, 0], rtol=1e-6)
    np.testing.assert_array_equal(dx[1], np.zeros(24))
    np.testing.assert_allclose(dx[2, [0, 7]], [1 / 23, -1], rtol=1e-6)
    assert np.isnan(dx[3]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("pitch", [40, 41])
def test_logits_that_are_not_numbers_show(rng, value, pitch):
    """Wherever they are, the label's place included: the row is NaN and no other is."""
    logits, label = rng.standard_normal((4, 40)), np.array([2, 33, 7, 20])
    for row, place in enumerate((2, 0, 39)):
        logits[row, place] = value
    loss, lse, dx, given = run(logits, label, pitch=pitch)
    assert np.isnan(loss[:3]).all()
    assert not np.isfinite(lse[:3]).any()
    assert np.isnan(dx[:3]).all()
    assert_right((loss[3:], lse[3:], dx[3:], None), truth(given[3:], label[3:]))
