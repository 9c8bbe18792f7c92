"""`linear_kl_div` and its gradients."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.ops.linear import linear_arguments
from fastnlp.ops.linear_kl_div import Objective, Teacher
from tests.numerics import frozen, numeric_gradient, strided
from tests.test_determinism import threads

BETAS = [0.0, 0.3, 1.0]
TEACHERS = ["hidden", "logits", "probs"]


def operands(rng, n, d, v, dtype=np.float64, e=None):
    """Student x, W, b; teacher x, W, b (wider); labels."""
    e = d + 3 if e is None else e
    shapes = ((n, d), (v, d), (v,), (n, e), (v, e), (v,))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes], rng.integers(0, v, n)


def teacher_of(kind, arrays):
    """The keywords of a teacher of one of the three kinds, all of the same logits (probabilities at temperature 1)."""
    _, _, _, tx, tw, tb = arrays
    if kind == "hidden":
        return {"target_input": tx, "target_weight": tw, "target_bias": tb}
    logits = tx @ tw.T + tb
    return {"target_logits": logits} if kind == "logits" else {"target_probs": scipy.special.softmax(logits, axis=-1)}


def naive(arrays, labels, upstream, *, kind, temperature=1.0, beta=0.0, alpha=0.0, factor=1.0):
    """Losses of the rows in float64, and the gradients of their sum weighted by `upstream`."""
    x, w, b, tx, tw, tb = (a.astype(np.float64) for a in arrays)
    z, rows = x @ w.T + b, np.arange(len(x))
    log_q = scipy.special.log_softmax(z / temperature, axis=1)
    log_p = scipy.special.log_softmax((tx @ tw.T + tb) / (1 if kind == "probs" else temperature), axis=1)
    p, q = np.exp(log_p), np.exp(log_q)
    log_m = np.log(beta * p + (1 - beta) * q)
    of_q = q * (log_q - (log_p if beta == 1 else log_m))
    if beta == 0:
        d, dz = (p * (log_p - log_q)).sum(axis=1), q - p
    else:
        d = of_q.sum(axis=1)
        dz = (1 if beta == 1 else 1 - beta) * (of_q - q * d[:, None])
        d = d if beta == 1 else beta * (p * (log_p - log_m)).sum(axis=1) + (1 - beta) * d
    ce = -scipy.special.log_softmax(z, axis=1)[rows, labels]
    hard = scipy.special.softmax(z, axis=1)
    hard[rows, labels] -= 1
    dz = ((1 - alpha) * factor / temperature * dz + alpha * hard) * upstream[:, None]
    return (1 - alpha) * factor * d + alpha * ce, dz @ w, dz.T @ x, dz.sum(axis=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_matches_truth(dtype, beta, kind, alpha, backend, rng):
    n, d, v = 37, 19, 301
    arrays, labels = operands(rng, n, d, v, dtype)
    x, w, b = arrays[:3]
    arrays[:5] = [a * dtype(0.3) for a in arrays[:5]]
    x, w, b = arrays[:3]
    upstream = rng.standard_normal(n).astype(dtype)
    temperature = 1.5
    truth = naive(arrays, labels, upstream, kind=kind, temperature=temperature, beta=beta, alpha=alpha, factor=2.25)
    tolerance = 2e-6 if dtype == np.float32 else 1e-13
    teacher = {k: a.astype(dtype) for k, a in teacher_of(kind, [a.astype(np.float64) for a in arrays]).items()}
    kernels = implementation("linear_kl_div", backend)
    least = kernels.least_workspace(d, d + 3, v, np.dtype(dtype).itemsize, True)
    for workspace in (None, least + 9 * 2 * v * np.dtype(dtype).itemsize):
        options = {
            **teacher, "linear_bias": b, "temperature": temperature, "beta": beta, "scale_by_t2": True,
            "labels": labels, "alpha": alpha, "workspace": workspace, "backend": backend,
        }  # fmt: skip
        losses, pullback = fastnlp.vjp(fastnlp.linear_kl_div)(x, w, reduction="none", **options)
        assert losses.dtype == dtype
        assert_allclose(losses, truth[0], rtol=5 * tolerance)
        for grad, true_grad in zip(pullback(upstream), truth[1:], strict=True):
            assert_allclose(grad, true_grad, rtol=0, atol=tolerance * np.abs(true_grad).max())
        loss, grads = fastnlp.value_and_grad(fastnlp.linear_kl_div)(x, w, **options)
        assert_allclose(loss, truth[0].mean(), rtol=tolerance)
        assert_allclose(fastnlp.linear_kl_div(x, w, **options), loss, rtol=tolerance)
        even = np.full(n, 1 / n)
        even = naive(arrays, labels, even, kind=kind, temperature=temperature, beta=beta, alpha=alpha, factor=2.25)
        for grad, true_grad in zip(grads, even[1:], strict=True):
            assert_allclose(grad, true_grad, rtol=0, atol=tolerance * np.abs(true_grad).max())


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
def test_gradients_with_rows_that_do_not_count(reduction, kind, beta, backend, rng):
    arrays, labels = operands(rng, 6, 4, 5)
    labels[1] = -100
    weights = np.array([1.0, 2, 0.5, 1.5, 0, 1])
    x, w, b = arrays[:3]
    options = {
        **teacher_of(kind, arrays), "labels": labels, "alpha": 0.3, "token_weight": weights, "beta": beta,
        "temperature": 0.8, "reduction": reduction, "backend": backend,
    }  # fmt: skip

    def f(x=x, w=w, b=b):
        return fastnlp.linear_kl_div(x, w, linear_bias=b, **options)

    loss, pullback = fastnlp.vjp(fastnlp.linear_kl_div)(x, w, linear_bias=b, **options)
    dy = rng.standard_normal(np.shape(loss))
    for _ in range(2):  # a second backward gives the same
        grads = pullback(dy)
        assert_allclose(grads.input, numeric_gradient(lambda a: f(x=a), x, dy), rtol=1e-5, atol=1e-7)
        assert_allclose(grads.linear_weight, numeric_gradient(lambda a: f(w=a), w, dy), rtol=1e-5, atol=1e-7)
        assert_allclose(grads.linear_bias, numeric_gradient(lambda a: f(b=a), b, dy), rtol=1e-5, atol=1e-7)
    assert not grads.input[[1, 4]].any()
    kept = [0, 2, 3, 5]
    each = naive(arrays, np.maximum(labels, 0), np.ones(6), kind=kind, temperature=0.8, beta=beta, alpha=0.3)[0]
    total = (each * weights)[kept].sum()
    if reduction == "none":
        assert not loss[[1, 4]].any()
        assert_allclose(loss[kept], (each * weights)[kept], rtol=1e-11)
    else:
        assert_allclose(loss, total / (4 if reduction == "batchmean" else 1), rtol=1e-11)


@pytest.mark.parametrize("wrt", ["input", "linear_weight", "linear_bias"])
def test_one_gradient_alone(wrt, backend, rng):
    arrays, _ = operands(rng, 6, 4, 5)
    x, w, b = arrays[:3]
    options = {"linear_bias": b, **teacher_of("hidden", arrays), "backend": backend}
    _, everything = fastnlp.value_and_grad(fastnlp.linear_kl_div)(x, w, **options)
    _, alone = fastnlp.value_and_grad(fastnlp.linear_kl_div, wrt=wrt)(x, w, **options)
    assert alone._fields == (wrt,)
    assert_allclose(alone[0], getattr(everything, wrt), rtol=1e-14)


@pytest.mark.parametrize("beta", BETAS)
def test_equals_softmax_kl_div_of_linear(beta, backend, rng):
    arrays, _ = operands(rng, 12, 4, 5)
    x, w, b, tx, tw, tb = arrays
    options = {"beta": beta, "temperature": 2.0, "reduction": "none", "backend": backend}
    fused = fastnlp.linear_kl_div(
        x.reshape(3, 4, 4), w, tx.reshape(3, 4, 7), tw, linear_bias=b, target_bias=tb, **options
    )
    student, teacher = fastnlp.linear(x, w, b, backend=backend), fastnlp.linear(tx, tw, tb, backend=backend)
    assert fused.shape == (3, 4)
    assert_allclose(fused.ravel(), fastnlp.softmax_kl_div(student, teacher, **options), rtol=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_probabilities_need_not_sum_to_one(beta, backend, rng):
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((6, 3))
    p = rng.random((4, 6)) / 2
    p[0, 2] = 0

    def loss(x):
        q = scipy.special.softmax(x @ w.T, axis=1)
        if beta == 0:
            return (scipy.special.xlogy(p, p) - p * np.log(q)).sum()
        if beta == 1:
            return (q * np.log(q / np.where(p == 0, 1e-300, p))).sum()
        m = beta * p + (1 - beta) * q
        return (beta * scipy.special.rel_entr(p, m) + (1 - beta) * q * np.log(q / m)).sum()

    if beta == 1:
        p[0, 2] = 0.1
    options = {"target_probs": p, "beta": beta, "reduction": "sum", "backend": backend}
    value, grads = fastnlp.value_and_grad(fastnlp.linear_kl_div)(x, w, **options)
    assert_allclose(value, loss(x), rtol=1e-12)
    assert_allclose(grads.input, numeric_gradient(loss, x, 1.0), rtol=1e-6, atol=1e-8)


def test_confident_predictions(backend):
    x, w = np.array([[25.0, 0.0]]), np.eye(2)
    loss, grads = fastnlp.value_and_grad(fastnlp.linear_kl_div)(
        x, w, target_logits=x, labels=[0], alpha=1.0, backend=backend
    )
    q = scipy.special.expit(-25.0)
    assert_allclose(loss, -np.log1p(-q), rtol=1e-13)
    assert_allclose(grads.input[0, 1], q, rtol=1e-13)


def test_all_ignored_or_empty(backend, rng):
    arrays, labels = operands(rng, 3, 4, 5)
    x, w, b = arrays[:3]
    run = fastnlp.value_and_grad(fastnlp.linear_kl_div)
    for n, tt in ((3, np.full(3, -100)), (0, labels[:0])):
        teacher = {"target_logits": np.ones((n, 5))}
        loss, grads = run(x[:n], w, **teacher, linear_bias=b, labels=tt, backend=backend)
        assert np.isnan(loss)
        assert_array_equal(grads.input, np.zeros((n, 4)))
        assert_array_equal(grads.linear_weight, np.zeros_like(w))
        assert_array_equal(grads.linear_bias, np.zeros_like(b))
        assert run(x[:n], w, **teacher, labels=tt, reduction="sum", backend=backend)[0] == 0


def test_layouts_are_read_and_left_alone(backend, rng):
    arrays, labels = operands(rng, 7, 4, 5)
    before = [a.copy() for a in arrays]
    run = fastnlp.value_and_grad(fastnlp.linear_kl_div)

    def call(layout):
        x, w, b, tx, tw, tb = (layout(a) for a in arrays)
        return run(
            x, w, tx, tw, linear_bias=b, target_bias=tb, labels=layout(labels), alpha=0.5, beta=0.5, backend=backend
        )[1]

    expected = call(np.asarray)
    for layout in (strided, frozen, np.asfortranarray):
        for grad, wanted in zip(call(layout), expected, strict=True):
            assert_allclose(grad, wanted, rtol=1e-12, atol=1e-15)
    for name in ("target_logits", "target_probs"):
        given = rng.random((7, 5))
        kept = given.copy()
        run(arrays[0], arrays[1], **{name: given}, labels=labels, alpha=0.5, backend=backend)
        assert_array_equal(given, kept)
    for array, kept in zip(arrays, before, strict=True):
        assert_array_equal(array, kept)


def test_half_precision(backend, rng):
    arrays, labels = operands(rng, 6, 4, 5, np.float16)
    x, w, b, tx, tw, _ = arrays
    loss, pullback = fastnlp.vjp(fastnlp.linear_kl_div)(x, w, tx, tw, linear_bias=b, backend=backend)
    assert loss.dtype == np.float32
    arrays[5] = arrays[5] * 0
    factor = 2.0**17  # inf in float16
    truth = naive(arrays, labels, np.full(6, factor / 6), kind="hidden")[1:]
    for grad, true_grad in zip(pullback(factor), truth, strict=True):
        assert grad.dtype == np.float16
        seen = np.abs(true_grad) < 6e4
        assert seen.any()
        assert_allclose(grad[seen], true_grad[seen], rtol=2e-3, atol=40)


def test_workspace_is_kept_to(backend, rng):
    n, d, v = 2000, 8, 1500  # whole logits of both: 24 MB
    arrays, _ = operands(rng, n, d, v, np.float32)
    x, w, _, tx, tw, _ = arrays
    run = fastnlp.value_and_grad(fastnlp.linear_kl_div)
    run(x[:2], w, tx[:2], tw, backend=backend)
    budget = 2 << 20
    tracemalloc.start()
    run(x, w, tx, tw, workspace=budget, backend=backend)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    of_rows = 8 * n * 8  # losses, scales, where they stand
    assert peak <= x.nbytes + w.nbytes + budget + of_rows
    least = implementation("linear_kl_div", backend).least_workspace(d, d + 3, v, 4, True)
    with pytest.raises(ValueError, match=f"workspace must be at least {least} bytes"):
        fastnlp.vjp(fastnlp.linear_kl_div)(x, w, tx, tw, workspace=least - 1, reduction="none", backend=backend)
    assert np.isfinite(run(x[:3], w, tx[:3], tw, workspace=least, backend=backend)[0])


@pytest.mark.parametrize("beta", BETAS)
def test_kernels_write_every_element(beta, backend, rng):
    kernels = implementation("linear_kl_div", backend)
    arrays, labels = operands(rng, 9, 6, 70)
    x, w, b, tx, tw, tb = arrays
    teacher = Teacher(linear_arguments(tx, tw, tb, ("x", "w", "b")), None, None)
    objective = Objective(beta, 1.0, 0.5, 0.5, labels)
    least = kernels.least_workspace(6, 9, 70, 8, True)
    for workspace in (least, least + 5000, 1 << 20):
        loss, dx, dw, db = (np.full(shape, np.nan) for shape in (9, x.shape, w.shape, b.shape))
        kernels.forward(x, w, b, teacher, objective, None, loss, workspace, "numpy")
        assert np.isfinite(loss).all()
        loss[:] = np.nan
        kernels.gradient(x, w, b, teacher, objective, None, np.ones(9), loss, dx, dw, db, workspace, "numpy")
        truth = naive(arrays, labels, np.ones(9), kind="hidden", beta=beta, alpha=0.5)
        for got, wanted in zip((loss, dx, dw, db), truth, strict=True):
            assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)
        kept = np.array([0, 3, 8])
        loss[:], dx[:] = -1, -1
        kernels.gradient(x, w, b, teacher, objective, kept, np.ones(9), loss, dx, dw, db, workspace, "numpy")
        assert_allclose(loss[kept], truth[0][kept], rtol=1e-9)
        assert (np.delete(loss, kept) == -1).all()
        assert (np.delete(dx, kept, axis=0) == -1).all()


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("blas_threads", [1, 2])
def test_the_same_bits_for_any_number_of_threads(blas_threads, beta, backend, rng):
    arrays, labels = operands(rng, 90, 16, 3001, np.float32)  # 12 blocks, each a segment, and 3 chunks
    x, w, b, tx, tw, _ = arrays
    labels[::7] = -100
    options = {"beta": beta, "alpha": 0.5, "workspace": 1 << 20, "deterministic": True, "backend": backend}
    results = []
    for library, blas in ((1, 1), (1, blas_threads), (2, blas_threads), (3, blas_threads), (8, blas_threads)):
        with threads(library, blas):
            loss, grads = fastnlp.value_and_grad(fastnlp.linear_kl_div)(
                x, w, tx, tw, linear_bias=b, labels=labels, **options
            )
            alone = fastnlp.linear_kl_div(x, w, tx, tw, linear_bias=b, labels=labels, **options)
            results.append((loss, alone, *grads))
    for result in results[1:]:
        for got, wanted in zip(result, results[0], strict=True):
            assert_array_equal(got, wanted)


@pytest.mark.parametrize("beta", BETAS)
def test_the_same_bits_of_tensors_for_any_number_of_threads(beta, rng):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    arrays, _ = operands(rng, 90, 16, 3001, np.float32)
    x, w, _, tx, tw, _ = (torch.from_numpy(a) for a in arrays)
    results = []
    for library, blas in ((1, 1), (1, 2), (2, 1), (3, 2), (8, 1), (8, 2)):
        with threads(library, blas):
            leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
            loss = fastnlp.torch.linear_kl_div(*leaves, tx, tw, beta=beta, workspace=1 << 20, deterministic=True)
            results.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    for result in results[1:]:
        assert all(torch.equal(got, wanted) for got, wanted in zip(result, results[0], strict=True))


def test_deterministic_is_a_flag(backend, rng):
    arrays, _ = operands(rng, 6, 4, 5)
    plan = fastnlp.linear_kl_div.__fastnlp_op__.plan
    plans = [plan(*arrays[:2], *arrays[3:5], deterministic=flag, backend=backend).blas for flag in (None, False, True)]
    assert plans[0] == plans[1] != plans[2]
    with pytest.raises(TypeError, match="deterministic must be"):
        fastnlp.linear_kl_div(*arrays[:2], *arrays[3:5], deterministic=1, backend=backend)


@pytest.mark.parametrize("reduction", ["batchmean", "none"])
@pytest.mark.parametrize("beta", BETAS)
def test_alpha_one_is_the_cross_entropy_whatever_the_teacher(beta, reduction, backend, rng):
    arrays, labels = operands(rng, 6, 4, 5)
    labels[2] = -100
    x, w, b = arrays[:3]
    weights = np.array([1.0, 2, 3, 0, 5, 6])
    p = np.eye(5)[rng.integers(0, 5, 6)]  # KL(Q || P) is infinite
    given = {"linear_bias": b, "token_weight": weights, "backend": backend}
    options = {"target_probs": p, "labels": labels, "alpha": 1.0, "beta": beta, "reduction": reduction}
    loss, pullback = fastnlp.vjp(fastnlp.linear_kl_div)(x, w, **options, **given)
    wanted, pullback_wanted = fastnlp.vjp(fastnlp.linear_cross_entropy)(
        x, w, labels, reduction="none" if reduction == "none" else "sum", **given
    )
    rows = 1 if reduction == "none" else 4
    assert_allclose(loss, wanted / rows, rtol=1e-14)
    dloss = rng.standard_normal(np.shape(loss))
    for grad, wanted_grad in zip(pullback(dloss), pullback_wanted(dloss / rows), strict=True):
        assert_allclose(grad, wanted_grad, rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match="workspace must be at least"):
        fastnlp.linear_kl_div(x, w, workspace=1, **options, **given)


@pytest.mark.parametrize("beta", BETAS)
def test_whole_blocks_of_minus_infinity(beta, backend, rng):
    n, v = 5, 700  # blocks of 256 classes
    x, w, tw = np.ones((n, 1)), rng.standard_normal((v, 1)), rng.standard_normal((v, 1))
    b, tb, kept = np.zeros(v), np.zeros(v), np.ones(v, bool)
    b[256:512] = tb[256:512] = -np.inf
    kept[256:512] = False
    options = {"beta": beta, "labels": np.array([0, 255, 512, 600, 699]), "alpha": 0.5, "backend": backend}
    run = fastnlp.value_and_grad(fastnlp.linear_kl_div)
    loss, grads = run(x, w, x, tw, linear_bias=b, target_bias=tb, **options)
    options["labels"] = np.cumsum(kept)[options["labels"]] - 1
    wanted, grads_wanted = run(x, w[kept], x, tw[kept], linear_bias=b[kept], target_bias=tb[kept], **options)
    assert_allclose(loss, wanted, rtol=1e-12)
    assert_allclose(grads.input, grads_wanted.input, rtol=1e-10, atol=1e-14)
    assert_allclose(grads.linear_bias[kept], grads_wanted.linear_bias, rtol=1e-10, atol=1e-14)
    assert not grads.linear_bias[~kept].any()


def test_bad_input(backend, rng):
    arrays, labels = operands(rng, 6, 4, 5)
    x, w, _, tx, tw, tb = arrays
    logits, run = tx @ tw.T, fastnlp.linear_kl_div
    for teacher in (
        {},
        {"target_logits": logits, "target_probs": logits},
        {"target_input": tx, "target_probs": logits},
    ):
        with pytest.raises(ValueError, match="give one teacher"):
            run(x, w, **teacher, backend=backend)
    with pytest.raises(ValueError, match="target_input and target_weight come together"):
        run(x, w, tx, backend=backend)
    with pytest.raises(ValueError, match="target_bias belongs to"):
        run(x, w, target_logits=logits, target_bias=tb, backend=backend)
    with pytest.raises(ValueError, match="target_weight must have shape"):
        run(x, w, tx, tw[:, :3], backend=backend)
    with pytest.raises(ValueError, match="the teacher must have the student's rows and classes"):
        run(x, w, tx[:3], tw, backend=backend)
    with pytest.raises(ValueError, match=r"target_logits must have shape \(6, 5\), got \(6, 4\)"):
        run(x, w, target_logits=logits[:, :4], backend=backend)
    with pytest.raises(TypeError, match="target_input is float32, but float64 is wanted"):
        run(x, w, tx.astype(np.float32), tw.astype(np.float32), backend=backend)
    with pytest.raises(ValueError, match="target_probs holds NaN"):
        run(x, w, target_probs=np.full((6, 5), np.nan), backend=backend)
    with pytest.raises(ValueError, match="linear_weight must have shape"):
        run(x, w[:, :3], tx, tw, backend=backend)
    given = {"target_logits": logits, "backend": backend}
    with pytest.raises(ValueError, match=r"alpha=0\.5 mixes in the cross-entropy with labels, which are not given"):
        run(x, w, alpha=0.5, **given)
    for name, wrong in (("alpha", 1.5), ("beta", -0.1), ("temperature", 0), ("token_weight", np.full(6, -1.0))):
        with pytest.raises(ValueError, match=f"{name} must be"):
            run(x, w, labels=labels, **{name: wrong}, **given)
    with pytest.raises(ValueError, match=r"labels holds 5 at row 2, outside \[0, 5\)"):
        run(x, w, labels=[0, 1, 5, 0, 0, 0], **given)
    with pytest.raises(ValueError, match="reduction must be one of batchmean, sum, none"):
        run(x, w, reduction="mean", **given)
    with pytest.raises(ValueError, match=r"token_weight must have shape \(6,\)"):
        run(x, w, token_weight=np.ones(5), **given)
    with pytest.raises(ValueError, match="has no gradient for 'target_input'"):
        fastnlp.value_and_grad(run, wrt="target_input")(x, w, tx, tw, backend=backend)
