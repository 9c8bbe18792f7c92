"""Operations on a GPU against float64 on the CPU: CUDA tensors and CuPy arrays, every dtype, option and kind of shape.

Skipped without a GPU; ``python -m bench.gpu`` runs them where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastnlp
from tests import cuda_device
from tests.cuda_device import LIBRARIES, assert_near, compare
from tests.numerics import class_targets

cuda_device.skip_without()

DTYPES = ["float32", "float16", "bfloat16"]
# One entry, one row, 16-byte accesses that fit and that do not, more rows than blocks, more classes than threads.
SHAPES = [(1, 1), (1, 1000), (5, 8), (37, 257), (3000, 33), (4, 50_000), (0, 7)]
OPTIONS = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "temperature": {"temperature": 0.7},
    "softcap": {"softcap": 3.0},
    "z_loss": {"z_loss": 0.02},
    "all": {"label_smoothing": 0.1, "temperature": 0.7, "softcap": 3.0, "z_loss": 0.02},
}
LOGITS_ROUNDED = {"float32": 5e-5, "float16": 5e-3, "bfloat16": 4e-2}


@pytest.fixture(params=LIBRARIES)
def lib(request):
    """CUDA tensors and CuPy arrays in turn."""
    return cuda_device.library(request.param)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(lib, rng, name, shape, dtype):
    x = rng.normal(size=shape) * 3
    dy = rng.normal(size=shape[:1] if name == "logsumexp" else shape)
    compare(lib, name, {"input": x}, dtype=dtype, dy=dy)


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_along_other_axes(lib, rng, axis):
    x = rng.normal(size=(5, 70, 9))
    compare(lib, "softmax", {"input": x}, dy=rng.normal(size=x.shape), axis=axis)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_extreme_logits(lib, rng, dtype):
    x = rng.normal(size=(6, 300)) * 100
    x[1, :] = 3.0
    x[2, 5:] = -np.inf
    x[3, 7] = 6e4
    array = lib.put(x, dtype)
    true = fastnlp.softmax(lib.get(array), backend="reference")
    assert_near(lib.get(lib.function("softmax")(array)), true, cuda_device.TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_that_are_not_aligned_or_not_contiguous(lib, rng, dtype):
    x = rng.normal(size=(20, 301))
    array = lib.put(x, dtype)
    for view in (array[:, 1:], array[:, 3:300], array[:, ::2], array[3:, 5:6], array.T):
        true = fastnlp.softmax(lib.get(view), backend="reference")
        got = lib.function("softmax")(view)
        assert_near(lib.get(got), true, cuda_device.TOLERANCE[dtype])


@pytest.mark.parametrize("kind", ["indices", "distributions"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy(lib, rng, kind, options, dtype):
    n, classes = 41, 333
    target = {"target": class_targets(rng, n, classes, kind)}
    weights = {"weight": rng.uniform(0.2, 2, classes), "token_weight": rng.uniform(0.2, 2, n)}
    x = {"input": rng.normal(size=(n, classes)) * 2}
    if kind == "distributions":  # which are of the logits' dtype
        x, target = x | target, {}
    for reduction, dy in (("mean", 1.7), ("sum", 0.3), ("none", rng.normal(size=n))):
        for others in ({}, weights):
            compare(
                lib,
                "cross_entropy",
                x,
                target | others,
                dtype=dtype,
                dy=dy,
                reduction=reduction,
                return_stats=True,
                **options,
            )


@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cross_entropy_of_shapes(lib, rng, shape, dtype):
    target = rng.integers(0, shape[1], shape[0])
    if shape[0] > 1:
        target[1::3] = -100
    compare(lib, "cross_entropy", {"input": rng.normal(size=shape) * 2}, {"target": target}, dtype=dtype)


def test_a_confident_cross_entropy_keeps_its_digits(lib, rng):
    target = rng.integers(0, 1000, 50)
    x = rng.normal(size=(50, 1000))
    x[np.arange(50), target] += 30
    compare(lib, "cross_entropy", {"input": x}, {"target": target})


def head(rng, n=70, d=48, classes=333):
    floats = {
        "input": rng.normal(size=(n, d)),
        "linear_weight": rng.normal(size=(classes, d)) / np.sqrt(d),
        "linear_bias": rng.normal(size=classes),
    }
    return floats, class_targets(rng, n, classes, "indices")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_cross_entropy(lib, rng, options, reduction, dtype):
    floats, target = head(rng)
    compare(
        lib,
        "linear_cross_entropy",
        floats,
        {"target": target},
        dtype=dtype,
        wrt=tuple(floats),
        dy=rng.normal(size=len(target)) if reduction == "none" else 1.7,
        tolerance=LOGITS_ROUNDED[dtype],
        reduction=reduction,
        return_stats=reduction == "mean",
        **options,
    )


@pytest.mark.parametrize("kind", ["none", "half", "all"])
@pytest.mark.parametrize("options", [{}, {"compact": True}, {"num_valid": None}], ids=str)
def test_linear_cross_entropy_without_ignored_rows(lib, rng, kind, options):
    floats, target = head(rng)
    target[:] = rng.integers(0, 333, len(target))
    target[{"none": slice(0, 0), "half": slice(None, None, 2), "all": slice(None)}[kind]] = -100
    if "num_valid" in options:
        options = {"num_valid": int((target >= 0).sum())}
    got, grads = lib.vjp(
        "linear_cross_entropy",
        {k: lib.put(x, "float32") for k, x in floats.items()} | {"target": lib.put(target)},
        tuple(floats),
        1.7,
        {"reduction": "sum", **options},
    )
    arrays = {k: x.astype(np.float32).astype(np.float64) for k, x in floats.items()} | {"target": target}
    true, true_grads = cuda_device.true_vjp("linear_cross_entropy", arrays, tuple(floats), 1.7, {"reduction": "sum"})
    for one, want in zip((got, *grads), (true, *true_grads), strict=True):
        assert_near(lib.get(one), want, 5e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_cross_entropy_in_many_chunks(lib, rng, dtype):
    floats, target = head(rng, n=2500, d=24, classes=1001)
    options = {"workspace": 1024 * 1008 * (4 if dtype == "float32" else 2) + (1 << 22)}
    got, grads = lib.vjp(
        "linear_cross_entropy",
        {k: lib.put(x, dtype) for k, x in floats.items()} | {"target": lib.put(target)},
        tuple(floats),
        1.0,
        options,
    )
    arrays = {k: lib.get(lib.put(x, dtype)) for k, x in floats.items()} | {"target": target}
    true, true_grads = cuda_device.true_vjp("linear_cross_entropy", arrays, tuple(floats), 1.0, {})
    for one, want in zip((got, *grads), (true, *true_grads), strict=True):
        assert_near(lib.get(one), want, LOGITS_ROUNDED[dtype])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_of_many_rows_and_classes_do_not_vanish(lib, rng, dtype):
    """1 / (N V) is below the least float16: the part of the softmax must not be lost in that of the labels."""
    n, d, classes = 4096, 16, 20_000
    x, w = rng.normal(size=(n, d)), rng.normal(size=(classes, d)) / 4
    target = rng.integers(0, classes // 2, n)
    arrays = {"input": lib.put(x, dtype), "linear_weight": lib.put(w, dtype)}
    _, (got,) = lib.vjp("linear_cross_entropy", arrays | {"target": lib.put(target)}, ("linear_weight",), 2.0**15, {})
    rounded = {name: lib.get(array) for name, array in arrays.items()} | {"target": target}
    _, (true,) = cuda_device.true_vjp("linear_cross_entropy", rounded, ("linear_weight",), 2.0**15, {})
    rest = slice(classes // 2, None)  # classes that are no label
    assert np.linalg.norm(lib.get(got)[rest] - true[rest]) <= 0.03 * np.linalg.norm(true[rest])


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_softmax(lib, rng, dtype):
    floats = {name.removeprefix("linear_"): x for name, x in head(rng, n=40)[0].items()}
    dy = rng.normal(size=(40, 333))
    compare(lib, "linear_softmax", floats, dtype=dtype, wrt=tuple(floats), dy=dy, tolerance=LOGITS_ROUNDED[dtype])


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_kl_div(lib, rng, beta, dtype):
    arrays = {"input": rng.normal(size=(21, 333)), "target": rng.normal(size=(21, 333))}
    for reduction, dy in (("batchmean", 1.7), ("none", rng.normal(size=21))):
        options = {"beta": beta, "reduction": reduction, "temperature": 2.0}
        compare(lib, "softmax_kl_div", arrays, dtype=dtype, wrt=("input", "target"), dy=dy, **options)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_kl_div(lib, rng, beta, dtype):
    floats, _ = head(rng, n=30)
    teacher = {"target_input": rng.normal(size=(30, 20)), "target_weight": rng.normal(size=(333, 20)) / 4}
    compare(
        lib,
        "linear_kl_div",
        floats | teacher,
        dtype=dtype,
        wrt=tuple(floats),
        tolerance=LOGITS_ROUNDED[dtype],
        beta=beta,
    )


@pytest.mark.parametrize("mode", ["cls", "mean", "max", "last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_pool(lib, rng, mode, dtype, layout):
    if layout == "packed":
        hidden, others, n = rng.normal(size=(50, 131)), {"cu_seqlens": np.array([0, 1, 18, 19, 50])}, 4
    else:
        hidden, others, n = rng.normal(size=(3, 17, 131)), {"lengths": np.array([17, 1, 5])}, 3
    dy = rng.normal(size=(n, 131))
    compare(lib, "pool", {"hidden": hidden}, others, dtype=dtype, wrt=("hidden",), dy=dy, mode=mode)
