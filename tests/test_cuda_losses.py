"""Cross-entropy and linear cross-entropy on a GPU, whole operations run by the simulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

import fastnlp
from fastnlp import _device_status

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")

from tests.simulated import SimulatedLibrary, host

LOSS = {"float32": 2e-6, "float16": 2e-5, "bfloat16": 2e-5}  # of given logits: sums are in float32 whatever is stored
GRADIENT = {"float32": 5e-6, "float16": 1e-3, "bfloat16": 8e-3}
LINEAR = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}  # the logits are rounded between the kernels
OPTIONS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "temperature": {"temperature": 0.7},
    "z_loss": {"z_loss": 0.1},
    "z_loss, none": {"z_loss": 0.1, "reduction": "none"},
    "smoothing": {"label_smoothing": 0.2},
    "softcap": {"softcap": 2.0},
    "all": {"label_smoothing": 0.1, "softcap": 3.0, "temperature": 1.3, "z_loss": 0.01},
}


@pytest.fixture
def gpu():
    return SimulatedLibrary()


def wide(x):
    """Return what the reference is given in the place of an array on the device."""
    array = host(x)
    return array if array.dtype.kind in "iu" else array.astype(np.float64)


def both(function, arrays, options, dy, **more):
    """Return value, statistics and gradients on the device, and the reference's in float64."""
    results = []
    for on_gpu in (True, False):
        given = [x if on_gpu else wide(x) for x in arrays]
        named = {k: (v if on_gpu else wide(v)) if hasattr(v, "library") else v for k, v in options.items()}
        value, pullback = fastnlp.vjp(function)(*given, **named, **(more if on_gpu else {"backend": "reference"}))
        value, stats = value if options.get("return_stats") else (value, None)
        upstream = dy if np.ndim(value) == 0 else np.linspace(0.5, 1.5, np.size(value)).reshape(np.shape(value))
        if on_gpu and np.ndim(value):
            upstream = arrays[0].library.on_device(upstream, "float32")
        results.append((value, stats, pullback(upstream)))
    return results


def close(actual, expected, tolerance):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    size = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * max(size, 1e-30))


def targets(gpu, rng, n, classes, dtype=np.int64):
    target = rng.integers(0, classes, n).astype(dtype)
    target[::4] = -100
    return gpu.on_device(target)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", LOSS)
def test_cross_entropy(gpu, rng, name, dtype):
    for n, classes in ((6, 24), (5, 43)):
        x = gpu.on_device(3 * rng.standard_normal((n, classes)), dtype, readonly=True)
        arrays = (x, targets(gpu, rng, n, classes))
        (value, _, gradients), (expected, _, wanted) = both(fastnlp.cross_entropy, arrays, OPTIONS[name], 1.7)
        assert value.dtype == np.float32
        close(value, expected, LOSS[dtype])
        assert gradients.input.dtype == x.dtype
        close(gradients.input, wanted.input, GRADIENT[dtype])
    assert gpu.waits == []


@pytest.mark.parametrize("name", ["plain", "all"])
@pytest.mark.parametrize(("offset", "pitch"), [(1, None), (0, 45), (0, 48), (8, 64)])
def test_gradients_beside_rows_that_are_misaligned_or_apart(gpu, rng, name, offset, pitch):
    x = gpu.on_device(rng.standard_normal((5, 43)), "float32", offset=offset, pitch=pitch, readonly=True)
    (value, _, gradients), (expected, _, wanted) = both(
        fastnlp.cross_entropy, (x, targets(gpu, rng, 5, 43)), OPTIONS[name], 1.7
    )
    close(value, expected, LOSS["float32"])
    close(gradients.input, wanted.input, GRADIENT["float32"])


@pytest.mark.parametrize("kind", ["labels", "distribution"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_and_statistics(gpu, rng, kind, reduction):
    n, classes = 7, 21
    x = gpu.on_device(2 * rng.standard_normal((n, classes)), "float32")
    u = rng.random(n)
    u[2] = 0
    target = targets(gpu, rng, n, classes, np.int32)
    if kind == "distribution":
        target = gpu.on_device(rng.random((n, classes)), "float32")
    options = {
        "weight": gpu.on_device(rng.random(classes), "float32"),
        "token_weight": gpu.on_device(u, "float32"),
        "reduction": reduction,
        "z_loss": 0.2,
        "label_smoothing": 0.1,
        "return_stats": True,
    }
    found, wanted = both(fastnlp.cross_entropy, (x, target), options, 0.6)
    close(found[0], wanted[0], 5e-6)
    close(found[2].input, wanted[2].input, 5e-6)
    for name in found[1]._fields:
        close(getattr(found[1], name), getattr(wanted[1], name), 5e-6)
    assert gpu.waits == []


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", LINEAR)
def test_linear_cross_entropy(gpu, rng, name, dtype):
    n, features, classes = 9, 8, 43
    arrays = [
        gpu.on_device(rng.standard_normal((n, features)), dtype, readonly=True),
        gpu.on_device(rng.standard_normal((classes, features)), dtype, readonly=True),
        targets(gpu, rng, n, classes),
    ]
    options = {**OPTIONS[name], "linear_bias": gpu.on_device(rng.standard_normal(classes), dtype)}
    for more in ({}, {"workspace": 4 * 48 * arrays[0].itemsize}):  # three chunks
        found, wanted = both(fastnlp.linear_cross_entropy, arrays, options, 1.3, **more)
        close(found[0], wanted[0], LINEAR[dtype])
        for actual, expected in zip(found[2], wanted[2], strict=True):
            assert actual.dtype == arrays[0].dtype
            close(actual, expected, LINEAR[dtype])
    assert gpu.waits == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("function", [fastnlp.linear_cross_entropy, fastnlp.linear_kl_div])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_parameters_of_float32_beside_features_of_16_bits(gpu, rng, dtype, function, reduction):
    """As in mixed precision: they are rounded for the products, and their gradients are float32."""
    x = gpu.on_device(rng.standard_normal((5, 8)), dtype)
    weight, bias = (gpu.on_device(rng.standard_normal(shape), "float32", readonly=True) for shape in ((24, 8), (24,)))
    others = {"target": targets(gpu, rng, 5, 24)}
    if function is fastnlp.linear_kl_div:
        others = {"target_input": x, "target_weight": gpu.on_device(rng.standard_normal((24, 8)), "float32")}
    results = []
    for rounded in (False, True):
        w, b = (gpu.on_device(host(array), dtype) if rounded else array for array in (weight, bias))
        given = {
            name: gpu.on_device(host(array), dtype) if rounded and "weight" in name else array
            for name, array in others.items()
        }
        value, pullback = fastnlp.vjp(function)(x, w, **given, linear_bias=b, reduction=reduction)
        upstream = 1.0 if reduction == "sum" else gpu.on_device(np.linspace(1, 2, 5), "float32")
        results.append((value, pullback(upstream)))
    (value, mixed), (expected, narrow) = results
    assert value.tobytes() == expected.tobytes()
    for actual, wanted, kind in zip(mixed, narrow, (x.dtype, np.float32, np.float32), strict=True):
        assert actual.dtype == kind
        close(actual, np.asarray(wanted, np.float64), GRADIENT[dtype])
    assert np.any(mixed.linear_weight != narrow.linear_weight.astype(np.float32)), "not rounded to 16 bits on the way"
    with pytest.raises(TypeError, match=r"linear_weight is b?float16, but float32 is wanted"):
        function(gpu.on_device(host(x), "float32"), gpu.on_device(host(weight), dtype), **others)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("stats", [False, True])
def test_rows_that_do_not_count_can_be_dropped(gpu, rng, reduction, stats):
    n, features, classes = 11, 8, 24
    target = rng.integers(0, classes, n)
    target[[0, 3, 4, 9]] = -100
    arrays = [gpu.on_device(rng.standard_normal(shape), "float32") for shape in ((n, features), (classes, features))]
    arrays.append(gpu.on_device(target))
    options = {"reduction": reduction, "return_stats": stats}
    workspace = 3 * 24 * 4
    for more in ({"compact": True}, {"num_valid": 7}):
        gpu.waits.clear()
        found, wanted = both(fastnlp.linear_cross_entropy, arrays, options, 1.0, workspace=workspace, **more)
        close(found[0], wanted[0], 1e-5)
        for actual, expected in zip(found[2][:2], wanted[2][:2], strict=True):
            close(actual, expected, 1e-5)
        if stats:
            for name in found[1]._fields:
                close(getattr(found[1], name), getattr(wanted[1], name), 1e-5)
        assert set(gpu.waits) == ({"read"} if "compact" in more else set())


def test_fewer_products_for_dropped_rows(gpu, rng, monkeypatch):
    x, w = (gpu.on_device(rng.standard_normal(shape), "float32") for shape in ((8, 8), (16, 8)))
    target = gpu.on_device(np.array([1, -100, -100, 3, -100, 5, -100, -100]))
    sizes = []
    multiply = SimulatedLibrary.matmul

    def counted(self, a, b, out, **kwargs):
        sizes.append(a.shape)
        multiply(self, a, b, out, **kwargs)

    monkeypatch.setattr(SimulatedLibrary, "matmul", counted)
    fastnlp.value_and_grad(fastnlp.linear_cross_entropy, wrt=["input", "linear_weight"])(x, w, target, compact=True)
    assert sizes == [(3, 8), (3, 16), (16, 3)]


def test_a_target_that_is_no_class_is_told_by_the_next_call(gpu, rng, monkeypatch):
    x = gpu.on_device(rng.standard_normal((5, 8)), "float32")
    good = gpu.on_device(np.arange(5))
    for wrong in (8, -1, 2**40, -(2**40)):
        bad = gpu.on_device(np.array([0, 1, wrong, 3, wrong + 1]))
        assert np.isnan(fastnlp.cross_entropy(x, bad))
        with pytest.raises(ValueError, match=rf"target holds {wrong} at row 2"):
            fastnlp.cross_entropy(x, good)
        assert np.isfinite(fastnlp.cross_entropy(x, good)), "told once, and all is well"
        losses = fastnlp.cross_entropy(x, bad, reduction="none")
        assert np.isnan(losses[2])
        assert np.isfinite(losses[[0, 1, 3]]).all()
        _device_status.word(gpu).host[:] = 0
        with monkeypatch.context() as patch:
            patch.setenv("FASTNLP_CHECK", "1")
            with pytest.raises(ValueError, match="at row 2"):
                fastnlp.cross_entropy(x, bad)


def test_a_wrong_num_valid_is_told_and_makes_the_loss_nan(gpu, rng):
    x, w = (gpu.on_device(rng.standard_normal(shape), "float32") for shape in ((5, 8), (16, 8)))
    target = gpu.on_device(np.array([1, 2, -100, 3, 4]))
    for promised in (3, 5):
        assert np.isnan(fastnlp.linear_cross_entropy(x, w, target, num_valid=promised))
        with pytest.raises(ValueError, match="num_valid is not the number of rows that count, which is 4"):
            fastnlp.linear_cross_entropy(x, w, target)
    assert np.isfinite(fastnlp.linear_cross_entropy(x, w, target, num_valid=4))


def test_within_a_captured_graph_nothing_waits(gpu, rng):
    x, w = (gpu.on_device(rng.standard_normal(shape), "float32") for shape in ((5, 8), (16, 8)))
    target = gpu.on_device(np.arange(5))
    expected = fastnlp.linear_cross_entropy(x, w, target)
    gpu.in_capture = True
    value, _ = fastnlp.value_and_grad(fastnlp.linear_cross_entropy, wrt=["input"])(x, w, target)
    assert value == expected
    with pytest.raises(RuntimeError, match="a CUDA graph cannot capture: give num_valid="):
        fastnlp.linear_cross_entropy(x, w, target, compact=True)


def test_nothing_counts(gpu, rng):
    x, w = (gpu.on_device(rng.standard_normal(shape), "float32") for shape in ((4, 8), (16, 8)))
    ignored = gpu.on_device(np.full(4, -100))
    for more in ({}, {"compact": True}, {"num_valid": 0}):
        value, gradients = fastnlp.value_and_grad(fastnlp.linear_cross_entropy, wrt=["input", "linear_weight"])(
            x, w, ignored, **more
        )
        assert np.isnan(value)
        assert not gradients.input.any()
        assert not gradients.linear_weight.any()
    none = gpu.on_device(np.empty((0, 8)), "float32"), w, gpu.on_device(np.empty(0, np.int64))
    value, gradients = fastnlp.value_and_grad(fastnlp.linear_cross_entropy, wrt=["input", "linear_weight"])(*none)
    assert np.isnan(value)
    assert not gradients.linear_weight.any()


def test_a_second_pullback_starts_from_what_the_first_did(gpu, rng):
    x, w = (gpu.on_device(rng.standard_normal(shape), "float32") for shape in ((5, 8), (16, 8)))
    _, pullback = fastnlp.vjp(fastnlp.linear_cross_entropy, wrt=["input", "linear_weight"])(
        x, w, gpu.on_device(np.arange(5))
    )
    first, again, half = pullback(2.0), pullback(2.0), pullback(1.0)
    for a, b, c in zip(first, again, half, strict=True):
        assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(a, 2 * c, rtol=1e-6)


def test_the_same_bits_from_run_to_run(rng):
    values = [rng.standard_normal(shape) for shape in ((9, 8), (43, 8))]
    target = rng.integers(0, 43, 9)
    results = set()
    for processors, seed in ((1, 0), (3, 7), (16, 3)):
        gpu = SimulatedLibrary(processors=processors, seed=seed)
        x, w = (gpu.on_device(v, "bfloat16") for v in values)
        value, gradients = fastnlp.value_and_grad(fastnlp.linear_cross_entropy, wrt=["input", "linear_weight"])(
            x, w, gpu.on_device(target)
        )
        results.add((value.tobytes(), *(g.tobytes() for g in gradients)))
    assert len(results) == 1


def test_bad_input(gpu, rng):
    x, w = (gpu.on_device(rng.standard_normal(shape), "float32") for shape in ((5, 8), (16, 8)))
    target = gpu.on_device(np.arange(5))
    with pytest.raises(TypeError, match="target must hold class indices"):
        fastnlp.linear_cross_entropy(x, w, gpu.on_device(np.ones(5), "float32"))
    with pytest.raises(ValueError, match=r"target must have shape \(5,\)"):
        fastnlp.linear_cross_entropy(x, w, gpu.on_device(np.arange(4)))
    with pytest.raises(ValueError, match="workspace must be at least"):
        fastnlp.linear_cross_entropy(x, w, target, workspace=8)
    with pytest.raises(TypeError, match="linear_weight is bfloat16, but float32 is wanted"):
        fastnlp.linear_cross_entropy(x, gpu.on_device(host(w), "bfloat16"), target)
    with pytest.raises(ValueError, match="num_valid must be at most 5"):
        fastnlp.linear_cross_entropy(x, w, target, num_valid=6)
    with pytest.raises(TypeError, match="compact must be True or False"):
        fastnlp.linear_cross_entropy(x, w, target, compact=1)
    with pytest.raises(ValueError, match="ignore_index=3 names a class, but target is a distribution"):
        fastnlp.cross_entropy(x, x, ignore_index=3)


@pytest.mark.parametrize("kind", ["labels", "distribution"])
def test_accuracy_is_a_share_of_rows_whatever_their_weights(gpu, kind):
    classes, best = 5000, np.array([4999, 7, 4097, 0])
    logits = np.zeros((4, classes), np.float32)
    logits[np.arange(4), [4999, 7, 4097, 3]] = 5
    target = gpu.on_device(best)
    if kind == "distribution":
        target = gpu.on_device(np.eye(classes)[best], "float32")
    weights = gpu.on_device(np.array([0.5, 3, 0, 0.25]), "float32")
    _, stats = fastnlp.cross_entropy(gpu.on_device(logits), target, token_weight=weights, return_stats=True)
    assert stats.count == 3
    np.testing.assert_allclose(stats.accuracy, 2 / 3, rtol=1e-6)


def test_rows_that_are_dropped_beside_a_target_that_is_no_class(gpu, rng):
    x, w = (gpu.on_device(rng.standard_normal(shape), "float32") for shape in ((5, 8), (16, 8)))
    bad = gpu.on_device(np.array([-100, 16, -100, 3, -7]))
    losses = fastnlp.linear_cross_entropy(x, w, bad, ignore_index=-100, num_valid=3, reduction="none")
    np.testing.assert_array_equal(np.isnan(losses), [False, True, False, False, True])
    with pytest.raises(ValueError, match="target holds 16 at row 1"):
        fastnlp.linear_cross_entropy(x, w, gpu.on_device(np.arange(5)))


def test_means_over_different_weights(gpu, rng):
    shapes = ((7, 8), (16, 8))
    arrays = [*(gpu.on_device(rng.standard_normal(shape), "float32") for shape in shapes), targets(gpu, rng, 7, 16)]
    options = {"z_loss": 0.5, "weight": gpu.on_device(rng.uniform(1, 9, 16), "float32")}
    found, wanted = both(fastnlp.linear_cross_entropy, arrays, options, 1.3)
    for actual, expected in zip(found[2][:2], wanted[2][:2], strict=True):
        close(actual, expected, 1e-5)
