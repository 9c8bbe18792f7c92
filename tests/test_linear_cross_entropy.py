"""`linear_cross_entropy` and its gradients."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.ops._criterion import Criterion
from tests.numerics import assert_within_budget, frozen, numeric_gradient, strided


def operands(rng, n, d, v, dtype=np.float64):
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((n, d), (v, d), (v,)))
    return x, w, b, rng.integers(0, v, n)


def naive(x, w, b, target, upstream):
    """Losses of the rows, and the gradients of their sum weighted by `upstream`."""
    logits = x @ w.T + b
    losses = -scipy.special.log_softmax(logits, axis=1)[np.arange(len(x)), target]
    dz = scipy.special.softmax(logits, axis=1)
    dz[np.arange(len(x)), target] -= 1
    dz *= upstream[:, None]
    return losses, dz @ w, dz.T @ x, dz.sum(axis=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1, 2), (7, 5, 3), (37, 19, 301)])
def test_matches_truth(dtype, chunks, shape, backend, rng):
    x, w, b, target = operands(rng, *shape, dtype)
    upstream = rng.standard_normal(shape[0]).astype(dtype)
    args64 = [a.astype(np.float64) for a in (x, w, b)]
    truth = naive(*args64, target, upstream.astype(np.float64))
    near = naive(x, w, b, target, upstream)
    item = np.dtype(dtype).itemsize
    least = implementation("linear_cross_entropy", backend).least_workspace(shape[0], *shape[1:], item, True)
    workspace = None if chunks == 1 else max(least, shape[2] * item * -(-shape[0] // chunks) + w.nbytes)
    options = {"linear_bias": b, "workspace": workspace, "backend": backend}
    losses, pullback = fastnlp.vjp(fastnlp.linear_cross_entropy)(x, w, target, reduction="none", **options)
    assert_within_budget(losses, truth[0], near[0], ulps=16)
    for grad, true_grad, near_grad in zip(pullback(upstream), truth[1:], near[1:], strict=True):
        assert_within_budget(grad, true_grad, near_grad, ulps=16)
    loss, grads = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(x, w, target, **options)
    assert abs(loss / truth[0].mean() - 1) < (1e-6 if dtype == np.float32 else 1e-13)
    even = np.full(shape[0], 1 / shape[0])
    for grad, true_grad, near_grad in zip(
        grads, naive(*args64, target, even)[1:], naive(x, w, b, target, even.astype(dtype))[1:], strict=True
    ):
        assert_within_budget(grad, true_grad, near_grad, ulps=16)
    assert fastnlp.linear_cross_entropy(x, w, target, **options) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_with_ignored_rows(reduction, backend, rng):
    x, w, b, target = operands(rng, 6, 4, 5)
    target[[1, 4]] = -100
    options = {"reduction": reduction, "backend": backend}

    def f(x=x, w=w, b=b):
        return fastnlp.linear_cross_entropy(x, w, target, linear_bias=b, **options)

    loss, pullback = fastnlp.vjp(fastnlp.linear_cross_entropy)(x, w, target, linear_bias=b, **options)
    dy = rng.standard_normal(np.shape(loss))
    for _ in range(2):  # a second backward gives the same
        grads = pullback(dy)
        assert_allclose(grads.input, numeric_gradient(lambda a: f(x=a), x, dy), rtol=1e-5, atol=1e-8)
        assert_allclose(grads.linear_weight, numeric_gradient(lambda a: f(w=a), w, dy), rtol=1e-5, atol=1e-8)
        assert_allclose(grads.linear_bias, numeric_gradient(lambda a: f(b=a), b, dy), rtol=1e-5, atol=1e-8)
    assert not grads.input[[1, 4]].any()


@pytest.mark.parametrize("wrt", ["input", "linear_weight", "linear_bias"])
def test_one_gradient_alone(wrt, backend, rng):
    x, w, b, target = operands(rng, 6, 4, 5)
    _, everything = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(x, w, target, linear_bias=b, backend=backend)
    _, alone = fastnlp.value_and_grad(fastnlp.linear_cross_entropy, wrt=wrt)(
        x, w, target, linear_bias=b, backend=backend
    )
    assert alone._fields == (wrt,)
    assert_allclose(alone[0], getattr(everything, wrt), rtol=1e-14)


def test_equals_cross_entropy_of_linear(backend, rng):
    x, w, b, target = operands(rng, 12, 4, 5)
    fused = fastnlp.linear_cross_entropy(
        x.reshape(3, 4, 4), w, target.reshape(3, 4), linear_bias=b, reduction="none", backend=backend
    )
    logits = fastnlp.linear(x, w, b, backend=backend)
    assert_allclose(fused.ravel(), fastnlp.cross_entropy(logits, target, reduction="none", backend=backend), rtol=1e-12)


def test_all_ignored_or_empty(backend, rng):
    x, w, b, target = operands(rng, 3, 4, 5)
    for xx, tt in [(x, np.full(3, -100)), (x[:0], target[:0])]:
        loss, grads = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(xx, w, tt, linear_bias=b, backend=backend)
        assert np.isnan(loss)
        assert_array_equal(grads.input, np.zeros_like(xx))
        assert_array_equal(grads.linear_weight, np.zeros_like(w))
        assert_array_equal(grads.linear_bias, np.zeros_like(b))


def test_layouts_are_read_and_left_alone(backend, rng):
    x, w, b, target = operands(rng, 7, 4, 5)
    before = [a.copy() for a in (x, w, b, target)]
    run = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)
    expected = run(x, w, target, linear_bias=b, backend=backend)[1]
    for layout in (strided, frozen, np.asfortranarray):
        grads = run(layout(x), layout(w), layout(target), linear_bias=layout(b), backend=backend)[1]
        for grad, wanted in zip(grads, expected, strict=True):
            assert_allclose(grad, wanted, rtol=1e-13, atol=1e-15)
    for array, kept in zip((x, w, b, target), before, strict=True):
        assert_array_equal(array, kept)


def test_workspace_is_kept_to(backend, rng):
    n, d, v = 4000, 8, 2000  # whole logits: 32 MB
    x, w, _, target = operands(rng, n, d, v, np.float32)
    run = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)
    run(x[:2], w, target[:2], backend=backend)
    budget = 2 << 20
    tracemalloc.start()
    run(x, w, target, workspace=budget, backend=backend)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    of_rows = 8 * n * 8  # targets, scales, losses
    temporaries = 4 if backend == "reference" else 1  # NumPy's masks and exponentials of the chunk
    assert peak <= x.nbytes + w.nbytes + temporaries * budget + of_rows
    with pytest.raises(ValueError, match="workspace must be at least"):
        run(x, w, target, workspace=1000, backend=backend)


def test_workspace_too_small_for_the_gradients_is_refused_at_once(backend, rng):
    x, w, _, target = operands(rng, 6, 4, 5)
    run, kernels = fastnlp.linear_cross_entropy, implementation("linear_cross_entropy", backend)
    with_gradients, without = (kernels.least_workspace(6, 4, 5, 8, gradients) for gradients in (True, False))
    assert without < with_gradients
    with pytest.raises(ValueError, match=f"workspace must be at least {with_gradients} bytes"):
        fastnlp.vjp(run)(x, w, target, reduction="none", workspace=with_gradients - 1, backend=backend)
    assert run(x, w, target, workspace=np.int64(without), backend=backend) > 0
    with pytest.raises(ValueError, match=f"workspace must be at least {without} bytes"):
        run(x, w, target, workspace=without - 1, backend=backend)


def test_default_workspace_holds_a_row_of_any_size(backend, rng, monkeypatch):
    monkeypatch.setattr("fastnlp.ops.linear_cross_entropy.WORKSPACE", 10)
    x, w, _, target = operands(rng, 6, 4, 5)
    assert fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(x, w, target, backend=backend)[0] > 0


def test_upstream_factor_comes_before_half_precision(backend, rng):
    x, w, b, target = operands(rng, 6, 4, 5, np.float16)
    _, pullback = fastnlp.vjp(fastnlp.linear_cross_entropy)(x, w, target, linear_bias=b, backend=backend)
    factor = 2.0**16  # inf in float16
    truth = naive(*(a.astype(np.float64) for a in (x, w, b)), target, np.full(6, factor / 6))[1:]
    for grad, true_grad in zip(pullback(factor), truth, strict=True):
        assert grad.dtype == np.float16
        assert_allclose(grad, true_grad, rtol=2e-3, atol=20)


def test_kernels_write_every_element(backend, rng):
    kernels = implementation("linear_cross_entropy", backend)
    x, w, b, target = operands(rng, 9, 6, 70)
    criterion = Criterion(target, None, None, 0.0, 1.0, None)
    least = kernels.least_workspace(9, 6, 70, 8, True)
    for workspace in (least, 2 * least, 1 << 20):
        loss, lse, dx, dw, db = (np.full(shape, np.nan) for shape in (9, 9, x.shape, w.shape, b.shape))
        kernels.forward(x, w, b, criterion, None, loss, lse, None, workspace, "numpy")
        assert np.isfinite(loss).all() and np.isfinite(lse).all()
        loss[:] = lse[:] = np.nan
        kernels.gradient(x, w, b, criterion, None, np.ones(9), None, loss, lse, None, dx, dw, db, workspace, "numpy")
        assert all(np.isfinite(a).all() for a in (loss, lse, dx, dw, db))
        assert_allclose(dw, naive(x, w, b, target, np.ones(9))[2], rtol=1e-10)


def test_bad_input(backend, rng):
    x, w, b, target = operands(rng, 6, 4, 5)
    run = fastnlp.linear_cross_entropy
    with pytest.raises(ValueError, match="linear_weight must have shape"):
        run(x, w[:, :3], target, backend=backend)
    with pytest.raises(ValueError, match="linear_bias must have shape"):
        run(x, w, target, linear_bias=b[:2], backend=backend)
    with pytest.raises(ValueError, match=r"target holds 5 at row 2, outside \[0, 5\)"):
        run(x, w, [0, 1, 5, 0, 0, 0], backend=backend)
    with pytest.raises(TypeError, match="linear_weight is float32"):
        run(x, w.astype(np.float32), target, backend=backend)
    for wrong in ("1 GB", 1e9, True):
        with pytest.raises(TypeError, match="workspace must be an integer"):
            run(x, w, target, workspace=wrong, backend=backend)
    with pytest.raises(ValueError, match="workspace must be at least 1"):
        run(x, w, target, workspace=-1, backend=backend)
    with pytest.raises(ValueError, match="wrt: linear_cross_entropy has no gradient for 'target'"):
        fastnlp.value_and_grad(run, wrt=["target"])(x, w, target, backend=backend)
    with pytest.raises(ValueError, match="linear_bias, which is not given"):
        fastnlp.value_and_grad(run, wrt=["linear_bias"])(x, w, target, backend=backend)
