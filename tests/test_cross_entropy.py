"""`cross_entropy` and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.ops._criterion import Criterion
from tests.numerics import assert_within_budget, frozen, numeric_gradient, strided


def naive(x, target):
    """Losses of the rows, and the gradient of their sum."""
    rows = np.arange(len(x))
    losses = -scipy.special.log_softmax(x, axis=1)[rows, target]
    grad = scipy.special.softmax(x, axis=1)
    grad[rows, target] -= 1
    return losses, grad


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 2), (3, 7), (2, 4097), (1, 250_000), (700, 131)])
def test_matches_truth(dtype, shape, backend, rng):
    x = (rng.standard_normal(shape) * 5).astype(dtype)
    target = rng.integers(0, shape[1], shape[0])
    truth, true_grad = naive(x.astype(np.float64), target)
    near, near_grad = naive(x, target)
    losses, pullback = fastnlp.vjp(fastnlp.cross_entropy)(x, target, reduction="none", backend=backend)
    assert_within_budget(losses, truth, near)
    upstream = rng.standard_normal(shape[0]).astype(dtype)
    assert_within_budget(pullback(upstream).input, true_grad * upstream[:, None], near_grad * upstream[:, None])
    loss, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, target, backend=backend)
    assert loss.dtype == dtype
    assert abs(loss / truth.mean() - 1) < (1e-6 if dtype == np.float32 else 1e-13)
    assert_within_budget(grads.input, true_grad / shape[0], near_grad / dtype(shape[0]))


def test_hand_values(backend):
    x = np.log([[1.0, 3.0], [2.0, 2.0]])
    assert_allclose(fastnlp.cross_entropy(x, np.array([0, 1]), reduction="none", backend=backend), np.log([4.0, 2.0]))
    _, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, [0, 1], reduction="sum", backend=backend)
    assert_allclose(grads.input, [[-0.75, 0.75], [0.5, -0.5]])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradient_with_ignored_rows(reduction, backend, rng):
    x, target = rng.standard_normal((6, 5)), np.array([0, 4, -100, 2, -100, 1])
    options = {"reduction": reduction, "backend": backend}
    loss, pullback = fastnlp.vjp(fastnlp.cross_entropy)(x, target, **options)
    dy = rng.standard_normal(np.shape(loss))
    truth = numeric_gradient(lambda z: fastnlp.cross_entropy(z, target, **options), x, dy)
    assert_allclose(pullback(dy).input, truth, rtol=1e-6, atol=1e-9)
    assert not pullback(dy).input[[2, 4]].any()
    assert_array_equal(pullback(dy).input, pullback(dy).input)  # a second backward


def test_peers(backend, rng):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, target = rng.standard_normal((4, 3, 7)), rng.integers(0, 7, (4, 3))
    target[0, 1] = -100
    for reduction in ("mean", "sum", "none"):
        peer = torch.nn.functional.cross_entropy(
            torch.tensor(x).movedim(-1, 1), torch.tensor(target), reduction=reduction
        )
        assert_allclose(
            fastnlp.cross_entropy(x, target, reduction=reduction, backend=backend), peer.numpy(), rtol=1e-13
        )


@pytest.mark.parametrize("ignore_index", [-100, 2, None])
def test_ignore_index(ignore_index, backend, rng):
    x, target = rng.standard_normal((5, 4)), np.array([0, 2, 3, 2, 1])
    counted = target != ignore_index
    losses = fastnlp.cross_entropy(x, target, ignore_index=ignore_index, reduction="none", backend=backend)
    assert_allclose(losses, np.where(counted, naive(x, target)[0], 0))
    mean = fastnlp.cross_entropy(x, target, ignore_index=ignore_index, backend=backend)
    assert_allclose(mean, losses.sum() / counted.sum())


def test_all_rows_ignored(backend):
    x, target = np.ones((3, 4)), np.full(3, -100)
    loss, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, target, backend=backend)
    assert np.isnan(loss)
    assert_array_equal(grads.input, np.zeros((3, 4)))
    loss, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, target, reduction="sum", backend=backend)
    assert loss == 0
    assert not grads.input.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(dtype, backend):
    inf = np.inf
    x = np.array([[1e4, 1e4 - 1, -1e4], [30, 0, 0], [-inf, 0, 1], [0, -inf, -inf], [-inf, -inf, 0]], dtype)
    target = np.array([1, 0, 2, 0, 2])
    with np.errstate(all="ignore"):
        truth, grad = naive(x.astype(np.float64), target)
    losses, pullback = fastnlp.vjp(fastnlp.cross_entropy)(x, target, reduction="none", backend=backend)
    total, _ = fastnlp.value_and_grad(fastnlp.cross_entropy)(x[:1], target[:1], backend=backend)
    assert_allclose(total, truth[0], rtol=4 * np.finfo(dtype).eps)  # the gradient's pass computes the loss, too
    eps = np.finfo(dtype).eps
    assert_allclose(losses, truth, rtol=4 * eps, atol=eps)
    assert_allclose(pullback(np.ones(5, dtype)).input, grad, rtol=8 * eps, atol=2 * eps)
    assert fastnlp.cross_entropy(np.array([[0.0, -inf]], dtype), [1], backend=backend) == inf


def test_nan_and_inf_logits_propagate(backend):
    x = np.array([[np.nan, 0.0], [np.inf, 0.0], [1.0, 2.0]])
    losses = fastnlp.cross_entropy(x, [0, 1, 0], reduction="none", backend=backend)
    assert np.isnan(losses[:2]).all()
    assert np.isfinite(losses[2])


def test_integer_dtypes_and_layouts(backend, rng):
    x, target = rng.standard_normal((6, 5)).astype(np.float32), np.array([0, 4, 2, 2, 3, 1])
    expected = fastnlp.cross_entropy(x, target, backend=backend)
    for dtype in ("int8", "uint8", "int32", "uint64", ">i8"):
        assert fastnlp.cross_entropy(x, target.astype(dtype), backend=backend) == expected
    assert fastnlp.cross_entropy(strided(x), strided(target), backend=backend) == expected
    assert fastnlp.cross_entropy(frozen(x), frozen(target), backend=backend) == expected
    assert fastnlp.cross_entropy(x[0], target[0], backend=backend).shape == ()


def test_upstream_factor_comes_before_half_precision(backend, rng):
    n, factor = 20_000, 2.0**17  # beside 1 / n, float16 holds neither the gradient nor the factor
    x, target = rng.standard_normal((n, 5)).astype(np.float16), rng.integers(0, 5, n)
    x[:, 0] -= 8
    _, pullback = fastnlp.vjp(fastnlp.cross_entropy)(x, target, backend=backend)
    truth = naive(x.astype(np.float64), target)[1] * (factor / n)
    assert_allclose(pullback(factor).input, truth, rtol=2e-3, atol=1e-6)


def test_half_precision_gives_a_float32_loss(backend, rng):
    x = rng.standard_normal((6, 5)).astype(np.float16)
    loss, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, np.zeros(6, int), backend=backend)
    assert loss.dtype == np.float32
    assert grads.input.dtype == np.float16


def test_kernels_write_every_element(backend, rng):
    kernels = implementation("cross_entropy", backend)
    x, target = rng.standard_normal((9, 70)), np.r_[rng.integers(0, 70, 8), -1]
    criterion = Criterion(target, None, None, 0.0, 1.0, None)
    loss, lse, dx = np.full(9, np.nan), np.full(9, np.nan), np.full_like(x, np.nan)
    kernels.forward(x, criterion, loss, lse, None)
    assert np.isfinite(loss).all() and np.isfinite(lse).all()
    loss[:] = lse[:] = np.nan
    kernels.gradient(x, criterion, np.ones(9), None, loss, lse, None, dx)
    assert all(np.isfinite(a).all() for a in (loss, lse, dx))


def test_empty(backend):
    loss, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(np.empty((0, 3)), np.empty(0, int), backend=backend)
    assert np.isnan(loss)
    assert grads.input.shape == (0, 3)
    assert fastnlp.cross_entropy(np.empty((0, 3)), np.empty(0, int), reduction="sum", backend=backend) == 0


@pytest.mark.parametrize(
    "target",
    [[0, 3], [0, -1], np.array([0, 200], np.uint8), *(np.array([0, t], np.uint64) for t in (2**63, 2**64 - 100))],
)
def test_target_out_of_range(target, backend):
    with pytest.raises(ValueError, match=r"target holds -?\d+ at row 1, outside \[0, 3\)"):
        fastnlp.cross_entropy(np.ones((2, 3)), target, backend=backend)


def test_bad_input(backend):
    x = np.ones((2, 3))
    with pytest.raises(TypeError, match="class indices"):
        fastnlp.cross_entropy(x, np.array([0.0, 1.0]), backend=backend)
    with pytest.raises(TypeError, match="class indices"):
        fastnlp.cross_entropy(x, np.array([True, False]), backend=backend)
    with pytest.raises(ValueError, match="target cannot be read as an array"):
        fastnlp.cross_entropy(x, [[0], [1, 2]], backend=backend)
    for wrong in (-100.0, np.nan, "0", True):
        with pytest.raises(TypeError, match="ignore_index must be an integer"):
            fastnlp.cross_entropy(x, [0, 1], ignore_index=wrong, backend=backend)
    with pytest.raises(ValueError, match="ignore_index must be at most"):
        fastnlp.cross_entropy(x, np.array([0, 2**64 - 100], np.uint64), ignore_index=2**64 - 100, backend=backend)
    with pytest.raises(ValueError, match="reduction must be one of"):
        fastnlp.cross_entropy(x, [0, 1], reduction=np.array(["mean", "sum"]), backend=backend)
    with pytest.raises(ValueError, match=r"target must have shape \(2,\)"):
        fastnlp.cross_entropy(x, [0, 1, 2], backend=backend)
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none"):
        fastnlp.cross_entropy(x, [0, 1], reduction="average", backend=backend)
    with pytest.raises(ValueError, match="value_and_grad needs a scalar"):
        fastnlp.value_and_grad(fastnlp.cross_entropy)(x, [0, 1], reduction="none", backend=backend)
