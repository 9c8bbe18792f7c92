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
from tests.numerics import (
    assert_within_budget,
    class_targets,
    cross_entropy_options,
    frozen,
    naive_cross_entropy,
    numeric_gradient,
    strided,
    subsets,
)

KINDS = ["indices", "distributions"]


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


def least_workspace(backend, x, w, gradients):
    kernels = implementation("linear_cross_entropy", backend)
    return kernels.least_workspace(len(x), x.shape[1], len(w), x.itemsize, gradients)


def naive_with_options(x, w, b, target, **options):
    """The loss by its definition, and its gradients for input, weight and bias."""
    truth = naive_cross_entropy(x @ w.T + b, target, **options)
    return truth, (truth.dlogits @ w, truth.dlogits.T @ x, truth.dlogits.sum(axis=0))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", ["least", "default"])
def test_every_combination_of_options(space, kind, reduction, backend, rng):
    x, w, b, _ = operands(rng, 9, 4, 6)
    target = class_targets(rng, 9, 6, kind)
    dloss = rng.standard_normal(9 if reduction == "none" else ())
    workspace = least_workspace(backend, x, w, True) if space == "least" else None
    for options in subsets(cross_entropy_options(rng, 9, 6)):
        options["reduction"] = reduction
        truth, true_grads = naive_with_options(x, w, b, target, **options, dloss=dloss)
        keywords = {**options, "linear_bias": b, "workspace": workspace, "backend": backend}
        run = fastnlp.vjp(fastnlp.linear_cross_entropy)
        (loss, stats), pullback = run(x, w, target, **keywords, return_stats=True)
        alone, grad = run(x, w, target, **keywords)
        for ours in (loss, alone, fastnlp.linear_cross_entropy(x, w, target, **keywords)):
            assert_allclose(ours, truth.loss, rtol=1e-11, atol=1e-13, err_msg=str(options))
        for ours in (pullback(dloss), grad(dloss), grad(dloss)):
            for one, other in zip(ours, true_grads, strict=True):
                assert_allclose(one, other, rtol=1e-10, atol=1e-13, err_msg=str(options))
        for name in ("lse", "nll", "entropy", "z_loss"):
            assert_allclose(getattr(stats, name), getattr(truth, name), rtol=1e-11, atol=1e-13, err_msg=name)
        assert_array_equal(stats.argmax >= 0, stats.lse != 0)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_with_options_matches_truth(kind, backend, rng):
    n, d, v = 150, 48, 3001
    x, w, b, _ = operands(rng, n, d, v, np.float32)
    w *= np.float32(0.3)
    target = class_targets(rng, n, v, kind, np.float32)
    wide = [a.astype(np.float64) for a in (x, w, b)]
    everything = cross_entropy_options(rng, n, v, np.float32)
    for options in ({}, everything):
        truth, true_grads = naive_with_options(*wide, target.astype(np.result_type(target, np.int64)), **options)
        _, near_grads = naive_with_options(x, w, b, target, **options)
        keywords = {**options, "linear_bias": b, "workspace": 4 << 20, "backend": backend}
        loss, grads = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(x, w, target, **keywords)
        assert_allclose(loss, truth.loss, rtol=1e-6)
        assert_allclose(fastnlp.linear_cross_entropy(x, w, target, **keywords), truth.loss, rtol=1e-6)
        for grad, true_grad, near_grad in zip(grads, true_grads, near_grads, strict=True):
            assert_within_budget(grad, true_grad, near_grad.astype(np.float32), ulps=32)


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.8, 0.99, 1])
@pytest.mark.parametrize("by", ["ignore_index", "token_weight", "token_weight of distributions"])
def test_rows_that_do_not_count_are_not_looked_at(by, share, backend, rng):
    n = 120
    x, w, b, target = operands(rng, n, 4, 5)
    dropped = rng.permutation(n) < share * n
    x[dropped] = rng.choice([np.nan, np.inf], (dropped.sum(), 4))
    kept = np.eye(5)[target] if by.endswith("distributions") else target
    options = {"linear_bias": b, "backend": backend, "label_smoothing": 0.1}
    run = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)
    expected, grads = run(x[~dropped], w, kept[~dropped], **options)
    if by == "ignore_index":
        target[dropped] = -100
    else:
        target, options["token_weight"] = kept, (~dropped).astype(float)
    for workspace in (None, 4 * least_workspace(backend, x, w, True)):
        (loss, stats), all_grads = run(x, w, target, **options, workspace=workspace, return_stats=True)
        assert_allclose(loss, expected, rtol=1e-13)
        assert_allclose(all_grads.input[~dropped], grads.input, rtol=1e-12, atol=1e-16)
        for one, other in zip(all_grads[1:], grads[1:], strict=True):
            assert_allclose(one, other, rtol=1e-11, atol=1e-15)
        assert not all_grads.input[dropped].any()
        assert not any(a[dropped].any() for a in (stats.lse, stats.nll, stats.entropy, stats.argmax + 1))
        assert stats.count == n - dropped.sum()
        alone = fastnlp.linear_cross_entropy(x, w, target, **options, workspace=workspace)
        assert_allclose(alone, expected, rtol=1e-13)
    losses, pullback = fastnlp.vjp(fastnlp.linear_cross_entropy)(x, w, target, **options, reduction="none")
    assert not losses[dropped].any()
    assert all(np.isfinite(grad).all() for grad in pullback(rng.standard_normal(n)))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("wanted", [("input",), ("linear_weight",), ("linear_bias",), ("linear_weight", "input")])
def test_frozen_arguments_with_options(wanted, reduction, backend, rng):
    x, w, b, target = operands(rng, 9, 4, 6)
    options = {**cross_entropy_options(rng, 9, 6), "linear_bias": b, "reduction": reduction, "backend": backend}
    loss, pullback = fastnlp.vjp(fastnlp.linear_cross_entropy)(x, w, target, **options)
    dy = rng.standard_normal(np.shape(loss))
    everything = pullback(dy)
    some = fastnlp.vjp(fastnlp.linear_cross_entropy, wrt=wanted)(x, w, target, **options)[1](dy)
    assert some._fields == wanted
    for name in wanted:
        assert_allclose(getattr(some, name), getattr(everything, name), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_shapes(kind, backend, rng):
    run = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)
    for n, d, v in [(0, 3, 4), (5, 0, 4), (5, 3, 1), (0, 0, 1), (1, 1, 1)]:
        x, w, b, target = operands(rng, n, d, v)
        if kind == "distributions":
            target = rng.uniform(0, 1, (n, v))
        (loss, stats), grads = run(
            x, w, target, linear_bias=b, label_smoothing=0.1, z_loss=0.1, return_stats=True, backend=backend
        )
        with np.errstate(all="ignore"):
            truth, true_grads = naive_with_options(x, w, b, target, label_smoothing=0.1, z_loss=0.1)
        assert_allclose(loss, truth.loss, rtol=1e-12, err_msg=str((n, d, v)))
        for one, other in zip(grads, true_grads, strict=True):
            assert_allclose(one, other, rtol=1e-11, atol=1e-14)
        assert stats.lse.shape == (n,)


def test_transposed_and_reversed_weights(backend, rng):
    x, w, b, target = operands(rng, 30, 8, 11)
    options = {"linear_bias": b, "workspace": 6 * least_workspace(backend, x, w, True), "backend": backend}
    run = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)
    expected = run(x, w, target, **options)
    wide = np.zeros((22, 16))
    wide[::2, ::2] = w
    for layout in (np.ascontiguousarray(w.T).T, wide[::2, ::2], np.ascontiguousarray(w[::-1])[::-1]):
        assert_array_equal(layout, w)
        loss, grads = run(x, layout, target, **options)
        assert_allclose(loss, expected[0], rtol=1e-13)
        for one, other in zip(grads, expected[1], strict=True):
            assert_allclose(one, other, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_same_bits_for_any_number_of_threads(reduction, backend, rng):
    n, d, v = 200, 24, 2500
    x, w, b, target = operands(rng, n, d, v, np.float32)
    target[::5] = -100
    options = {**cross_entropy_options(rng, n, v, np.float32), "linear_bias": b, "workspace": 1 << 20}
    before, results = fastnlp.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            loss, pullback = fastnlp.vjp(fastnlp.linear_cross_entropy)(
                x, w, target, **options, reduction=reduction, deterministic=True, backend=backend
            )
            results.append((loss, *pullback(np.ones(np.shape(loss)))))
    finally:
        fastnlp.set_num_threads(before)
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert_array_equal(one, other)


def test_deterministic(backend, rng):
    x, w, _, target = operands(rng, 6, 4, 5)
    plan = fastnlp.linear_cross_entropy.__fastnlp_op__.plan
    assert not fastnlp.deterministic()
    try:
        for switch in (False, True):
            fastnlp.use_deterministic(switch)
            assert fastnlp.deterministic() is switch
            for asked, resolved in ((None, switch), (True, True), (False, False)):
                blas = plan(x, w, target, deterministic=asked, backend=backend).blas
                assert blas.endswith("one thread") is resolved
    finally:
        fastnlp.use_deterministic(False)
    with pytest.raises(TypeError, match="deterministic must be True or False, got 1"):
        fastnlp.linear_cross_entropy(x, w, target, deterministic=1, backend=backend)
    with pytest.raises(TypeError, match="flag must be True or False, got None"):
        fastnlp.use_deterministic(None)


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


@pytest.mark.parametrize("case", ["plain", "ignored rows", "distributions", "everything"])
@pytest.mark.parametrize("gradients", [True, False])
def test_workspace_is_kept_to(gradients, case, backend, rng):
    n, d, v = 3000, 8, 2000  # whole logits: 24 MB
    x, w, _, target = operands(rng, n, d, v, np.float32)
    options = {"backend": backend}
    if case in ("distributions", "everything"):
        target = rng.uniform(0, 1, (n, v)).astype(np.float32)
    if case == "ignored rows":
        target[rng.permutation(n) < 1000] = -100
    if case == "everything":
        options |= cross_entropy_options(rng, n, v, np.float32)
    run = fastnlp.linear_cross_entropy
    run = fastnlp.value_and_grad(run) if gradients else run
    run(x[:2], w, target[:2], **{k: a[:2] if k == "token_weight" else a for k, a in options.items()})
    budget = 2 << 20
    tracemalloc.start()
    run(x, w, target, workspace=budget, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    of_rows = 12 * n * 8  # targets, weights, scales, losses
    assert peak <= (x.nbytes + w.nbytes if gradients else 0) + budget + of_rows


def test_a_workspace_too_small_is_refused(backend, rng):
    x, w, _, target = operands(rng, 6, 4, 500)
    run = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)
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
        assert all(np.isfinite(a).all() for a in (loss, lse))
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
    with pytest.raises(ValueError, match=r"weight must have shape \(5,\), one entry a class"):
        run(x, w, target, weight=np.ones(4), backend=backend)
    with pytest.raises(ValueError, match=r"target must have shape \(6, 5\) as a distribution, got \(6, 4\)"):
        run(x, w, np.ones((6, 4)), backend=backend)
    with pytest.raises(ValueError, match=r"token_weight must have shape \(6,\)"):
        run(x, w, target, token_weight=np.ones((6, 1)), backend=backend)
    with pytest.raises(ValueError, match="linear_bias, which is not given"):
        fastnlp.value_and_grad(run, wrt=["linear_bias"])(x, w, target, backend=backend)


@pytest.mark.parametrize("n", [0, 63])
def test_the_least_workspace_is_enough_where_no_row_counts(n, backend, rng):
    x, w, _, _ = operands(rng, n, 64, 300, np.float32)
    target, kernels = np.full(n, -100), implementation("linear_cross_entropy", backend)
    least = kernels.least_workspace(0, 64, 300, 4, True)
    for workspace in (least, least + 4000, 4 * least):
        loss, grads = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(
            x, w, target, workspace=workspace, backend=backend
        )
        assert np.isnan(loss)
        assert not grads.linear_weight.any()


def test_argmax_of_nan_is_the_first_nan(backend):
    x = np.ones((1, 1))
    for logits, expected in (
        ([0, 1, np.nan, 3, np.nan], 2),
        ([np.nan] * 5, 0),
        ([-np.inf] * 5, 0),
        ([3, np.inf, 2], 1),
    ):
        w = np.array(logits).reshape(-1, 1)
        _, stats = fastnlp.linear_cross_entropy(x, w, np.array([0]), return_stats=True, backend=backend)
        assert stats.argmax.tolist() == [expected]


@pytest.mark.parametrize("gap", [20.0, 40.0, 80.0])
def test_hardly_any_loss_keeps_its_digits(gap, backend):
    w = np.zeros((5, 1))
    w[0] = gap
    loss, grads = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(
        np.ones((1, 1)), w, np.array([0]), backend=backend
    )
    assert_allclose(loss, np.log1p(4 * np.exp(-gap)), rtol=1e-12)
    assert_allclose(grads.linear_weight[0, 0], -4 * np.exp(-gap) / (1 + 4 * np.exp(-gap)), rtol=1e-12)


def test_num_valid_counts_rows_whatever_their_class_weight(backend, rng):
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    target, weight = np.array([0, 1, -100, 1]), np.array([0.0, 2.0])
    expected = fastnlp.linear_cross_entropy(x, w, target, weight=weight, backend=backend)
    found = fastnlp.linear_cross_entropy(x, w, target, weight=weight, num_valid=3, backend=backend)
    assert found == expected
    with pytest.raises(ValueError, match="num_valid must be the number of rows that count, 3, got 2"):
        fastnlp.linear_cross_entropy(x, w, target, weight=weight, num_valid=2, backend=backend)
