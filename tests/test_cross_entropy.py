"""`cross_entropy` and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.ops._criterion import Criterion, Stats
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


KINDS = ["indices", "distributions"]
REDUCTIONS = ["mean", "sum", "none"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_of_options(kind, reduction, backend, rng):
    n, classes = 9, 6
    x, target = rng.standard_normal((n, classes)) * 3, class_targets(rng, n, classes, kind)
    dloss = rng.standard_normal(n if reduction == "none" else ())
    for options in subsets(cross_entropy_options(rng, n, classes)):
        options["reduction"] = reduction
        truth = naive_cross_entropy(x, target, **options, dloss=dloss)
        (loss, stats), pullback = fastnlp.vjp(fastnlp.cross_entropy)(
            x, target, **options, return_stats=True, backend=backend
        )
        alone, grad = fastnlp.vjp(fastnlp.cross_entropy)(x, target, **options, backend=backend)
        for ours in (loss, alone, fastnlp.cross_entropy(x, target, **options, backend=backend)):
            assert_allclose(ours, truth.loss, rtol=1e-12, atol=1e-14, err_msg=str(options))
        for ours in (pullback(dloss), grad(dloss), grad(dloss)):
            assert_allclose(ours.input, truth.dlogits, rtol=1e-11, atol=1e-14, err_msg=str(options))
        for name in ("lse", "nll", "entropy", "z_loss"):
            assert_allclose(getattr(stats, name), getattr(truth, name), rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_definition_is_that_of_torch(kind, reduction, rng):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    n, classes = 9, 6
    x, target = rng.standard_normal((n, classes)), class_targets(rng, n, classes, kind)
    options = cross_entropy_options(rng, n, classes)
    options["token_weight"][:] = 1  # which torch does not know
    for chosen in subsets(options):
        logits = torch.tensor(x, requires_grad=True)
        z = logits / chosen.get("temperature", 1)
        z = torch.tanh(z / chosen["softcap"]) * chosen["softcap"] if "softcap" in chosen else z
        keywords = {"label_smoothing": chosen.get("label_smoothing", 0.0), "reduction": reduction}
        weight = torch.tensor(chosen["weight"]) if "weight" in chosen else None
        loss = torch.nn.functional.cross_entropy(z, torch.tensor(target), weight, **keywords)
        counts = torch.tensor(target != -100 if kind == "indices" else np.ones(n, bool))
        squares = chosen.get("z_loss", 0) * torch.logsumexp(z, 1) ** 2 * counts
        loss = loss + {"none": squares, "sum": squares.sum(), "mean": squares.sum() / counts.sum()}[reduction]
        dloss = rng.standard_normal(loss.shape)
        (grad,) = torch.autograd.grad(loss, logits, torch.tensor(dloss))
        ours = naive_cross_entropy(x, target, **chosen, reduction=reduction, dloss=dloss)
        assert_allclose(ours.loss, loss.detach().numpy(), rtol=1e-12, err_msg=str(chosen))
        assert_allclose(ours.dlogits, grad.numpy(), rtol=1e-11, atol=1e-15, err_msg=str(chosen))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradient_by_differences(reduction, kind, backend, rng):
    x, target = rng.standard_normal((5, 4)), class_targets(rng, 5, 4, kind)
    options = {**cross_entropy_options(rng, 5, 4), "reduction": reduction, "backend": backend}
    loss, pullback = fastnlp.vjp(fastnlp.cross_entropy)(x, target, **options)
    dy = rng.standard_normal(np.shape(loss))
    truth = numeric_gradient(lambda z: fastnlp.cross_entropy(z, target, **options), x, dy)
    assert_allclose(pullback(dy).input, truth, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_keeps_six_digits_over_250_000_classes(kind, backend, rng):
    n, classes = 3, 250_000
    x = (rng.standard_normal((n, classes)) * 4).astype(np.float32)
    target = class_targets(rng, n, classes, kind, np.float32)
    everything = cross_entropy_options(rng, n, classes, np.float32)
    everything["softcap"] = 20.0
    for options in ({}, *({name: value} for name, value in everything.items()), everything):
        truth = naive_cross_entropy(x.astype(np.float64), target, **options)
        (loss, stats), grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(
            x, target, **options, return_stats=True, backend=backend
        )
        assert_allclose(loss, truth.loss, rtol=1e-6, err_msg=str(options))
        for name in ("lse", "nll", "entropy", "z_loss"):
            assert_allclose(getattr(stats, name), getattr(truth, name), rtol=2e-6, err_msg=f"{name} {options}")
        largest = np.abs(truth.dlogits).max(axis=1, keepdims=True)
        assert (np.abs(grads.input - truth.dlogits) <= 2e-6 * largest).all(), options


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gap", [5, 20, 60])
def test_confident_predictions(gap, dtype, backend, rng):
    """Where p is near 1, -log p and 1 - p have digits of their own."""
    x = rng.standard_normal((4, 300)).astype(dtype)
    target = np.array([0, 299, 7, 100])
    x[np.arange(4), target] = gap + 4 + np.arange(4)
    top = x[np.arange(4), target].astype(np.float64)
    below = np.delete(top[:, None] - x.astype(np.float64), np.arange(4) * 300 + target).reshape(4, 299)
    rest = np.exp(-below).sum(axis=1)
    entropy = np.log1p(rest) + (np.exp(-below) * below).sum(axis=1) / (1 + rest)
    (losses, stats), pullback = fastnlp.vjp(fastnlp.cross_entropy)(
        x, target, reduction="none", return_stats=True, backend=backend
    )
    rtol = 1e-6 if dtype == np.float32 else 1e-12
    hot = np.eye(300, dtype=dtype)[target]
    as_distribution = fastnlp.vjp(fastnlp.cross_entropy)(x, hot, reduction="none", backend=backend)
    for value, pull in ((losses, pullback), as_distribution):
        assert_allclose(value, np.log1p(rest), rtol=rtol)
        assert_allclose(pull(np.ones(4)).input[np.arange(4), target], -rest / (1 + rest), rtol=rtol)
    assert_allclose(stats.nll, np.log1p(rest), rtol=rtol)
    assert_allclose(stats.entropy, entropy, rtol=rtol)
    mean, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, target, backend=backend)
    assert_allclose(mean, np.log1p(rest).mean(), rtol=rtol)
    assert_allclose(grads.input[np.arange(4), target], -rest / (1 + rest) / 4, rtol=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_impossible_classes(dtype, backend):
    """Logits of -inf: a class without mass adds nothing, one with mass makes the loss infinite."""
    inf = np.inf
    x = np.array([[0, -inf, 1], [-inf, 2, 0]], dtype)
    spread = np.array([[0.25, 0, 0.75], [0, 0.5, 0.5]], dtype)
    run = fastnlp.vjp(fastnlp.cross_entropy)
    (losses, stats), pullback = run(x, spread, reduction="none", return_stats=True, backend=backend)
    kept = np.delete(x, [1, 3]).reshape(2, 2).astype(np.float64)
    p = scipy.special.softmax(kept, axis=1)
    q = np.delete(spread, [1, 3]).reshape(2, 2)
    eps = np.finfo(dtype).eps
    assert_allclose(losses, -(q * np.log(p)).sum(axis=1), rtol=4 * eps)
    assert_allclose(stats.entropy, -(p * np.log(p)).sum(axis=1), rtol=4 * eps)
    assert_allclose(np.delete(pullback(np.ones(2)).input, [1, 3]).reshape(2, 2), p - q, atol=4 * eps)
    assert_array_equal(pullback(np.ones(2)).input[[0, 1], [1, 0]], 0)
    weight = np.array([1, 0, 1], dtype)  # the smoothed mass of the impossible class has no weight
    assert np.isfinite(fastnlp.cross_entropy(x[:1], [0], weight=weight, label_smoothing=0.1, backend=backend))
    assert fastnlp.cross_entropy(x[:1], [0], label_smoothing=0.1, backend=backend) == inf
    assert fastnlp.cross_entropy(x[:1], spread[1:], backend=backend) == inf
    tiles = np.full((2, 9000), -inf, dtype)  # whole tiles of -inf, first and last
    tiles[0, 8500], tiles[1, 3], tiles[:, 6000] = 1, 1, 0
    losses, pullback = run(tiles, [8500, 6000], reduction="none", backend=backend)
    p = 1 / (1 + np.exp(-1))
    assert_allclose(losses, -np.log([p, 1 - p]), rtol=4 * eps)
    assert_allclose(pullback(np.ones(2)).input[[0, 1, 0], [8500, 3, 0]], [p - 1, p, 0], atol=4 * eps)


def test_stats(backend, rng):
    x, target = rng.standard_normal((2, 5, 7)), rng.integers(0, 7, (2, 5))
    x[0, 0, [2, 5]] = 9  # equal: the first is told
    target[1, 3] = -100
    token_weight = np.ones((2, 5))
    token_weight[0, 4] = 0
    loss, stats = fastnlp.cross_entropy(
        x, target, token_weight=token_weight, z_loss=0.1, temperature=2, return_stats=True, backend=backend
    )
    counts = (target != -100) & (token_weight > 0)
    z = x / 2
    p = scipy.special.softmax(z, axis=-1)
    lse = scipy.special.logsumexp(z, axis=-1)
    assert type(stats) is fastnlp.LossStats
    assert_allclose(stats.lse, np.where(counts, lse, 0))
    assert_allclose(stats.entropy, np.where(counts, -(p * np.log(p)).sum(axis=-1), 0))
    of_target = np.take_along_axis(z, np.maximum(target, 0)[..., None], -1)[..., 0]
    assert_allclose(stats.nll, np.where(counts, lse - of_target, 0))
    assert_array_equal(stats.argmax, np.where(counts, z.argmax(axis=-1), -1))
    assert stats.count == counts.sum() == 8
    assert_allclose(stats.accuracy, (z.argmax(axis=-1) == target)[counts].mean())
    assert_allclose(stats.z_loss, 0.1 * (lse**2)[counts].mean())
    assert_allclose(loss, stats.nll.sum() / 8 + stats.z_loss)
    assert stats.lse.dtype == x.dtype
    assert stats.argmax.dtype == np.int64


def test_stats_of_distributions_and_of_nothing(backend, rng):
    x, target = rng.standard_normal((6, 5)), rng.dirichlet(np.ones(5), 6)
    _, stats = fastnlp.cross_entropy(x, target, return_stats=True, backend=backend)
    assert_allclose(stats.accuracy, (x.argmax(axis=1) == target.argmax(axis=1)).mean())
    assert_allclose(stats.nll, -(target * scipy.special.log_softmax(x, axis=1)).sum(axis=1))
    assert (stats.count, stats.z_loss) == (6, 0)
    for nothing in ({"target": np.full(6, -100)}, {"target": target, "token_weight": np.zeros(6)}):
        (loss, stats), grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(
            x, **nothing, z_loss=0.1, return_stats=True, backend=backend
        )
        assert np.isnan(loss)
        assert np.isnan(stats.accuracy)
        assert stats.count == 0
        assert not grads.input.any()
        assert not any(a.any() for a in (stats.lse, stats.nll, stats.entropy, stats.argmax + 1))


def test_cross_entropy_of_distributions_is_not_symmetric(backend, rng):
    p, q = rng.dirichlet(np.ones(5), 2)
    there = fastnlp.cross_entropy(np.log(q), p, backend=backend)
    back = fastnlp.cross_entropy(np.log(p), q, backend=backend)
    assert_allclose([there, back], [-(p * np.log(q)).sum(), -(q * np.log(p)).sum()])
    assert abs(there - back) > 0.1
    assert_allclose(there - scipy.stats.entropy(p), scipy.stats.entropy(p, q))


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.8, 1])
@pytest.mark.parametrize("by", ["ignore_index", "token_weight", "token_weight of distributions"])
def test_rows_that_do_not_count_are_not_looked_at(by, share, backend, rng):
    n = 40
    x = rng.standard_normal((n, 5))
    target = rng.integers(0, 5, n)
    dropped = rng.permutation(n) < share * n
    x[dropped] = rng.choice([np.nan, np.inf, -np.inf], (dropped.sum(), 5))
    kept = np.eye(5)[target] if by.endswith("distributions") else target
    options = {"backend": backend, "z_loss": 0.1}
    expected, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x[~dropped], kept[~dropped], **options)
    if by == "ignore_index":
        target[dropped] = -100
    else:
        target, options["token_weight"] = kept, (~dropped).astype(int)
    (loss, stats), all_grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, target, **options, return_stats=True)
    assert_allclose(loss, expected, rtol=1e-14)
    assert_allclose(all_grads.input[~dropped], grads.input, rtol=1e-13)
    assert not all_grads.input[dropped].any()
    assert not any(a[dropped].any() for a in (stats.lse, stats.nll, stats.entropy, stats.argmax + 1))
    losses, pullback = fastnlp.vjp(fastnlp.cross_entropy)(x, target, **options, reduction="none")
    assert not losses[dropped].any()
    assert not pullback(np.ones(n)).input[dropped].any()


def test_classes_without_weight(backend, rng):
    x, target, weight = rng.standard_normal((4, 3)), np.array([0, 1, 0, 1]), np.array([2.0, 0.0, 1.0])
    x[1] = np.inf  # its class counts for nothing
    loss, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, target, weight=weight, backend=backend)
    assert_allclose(loss, fastnlp.cross_entropy(x[[0, 2]], [0, 0], backend=backend))
    assert not grads.input[[1, 3]].any()
    loss, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x[3:], [1], weight=weight, backend=backend)
    assert np.isnan(loss)
    assert not grads.input.any()


def test_kinds_of_weights_and_targets(backend, rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    run = fastnlp.cross_entropy
    expected = run(x[1:], [1, 2], backend=backend)
    for u in ([0, 1, 1], [False, True, True], np.array([0, 3, 3], np.uint8), np.array([0, 0.5, 0.5], np.float16)):
        assert_allclose(run(x, [0, 1, 2], token_weight=u, backend=backend), expected, rtol=1e-6)
    assert run(x, [0, 1, 2], weight=[1, 1, 1, 1], backend=backend) == run(x, [0, 1, 2], backend=backend)
    soft = np.eye(4)[[1, 2, 3]]
    assert run(x, soft.tolist(), backend=backend) == run(x, soft.astype(np.float32), backend=backend)
    expected = run(x, [1, 2, 3], backend=backend)
    assert_allclose(run(strided(x), strided(soft.astype(np.float32)), backend=backend), expected, rtol=1e-6)
    assert run(x, frozen(soft.astype(np.float32)), ignore_index=-1, backend=backend).dtype == np.float32
    halves = run(x.astype(np.float16), soft.astype(np.float16), weight=np.ones(4, np.float16), backend=backend)
    assert_allclose(halves, run(x, [1, 2, 3], backend=backend), rtol=1e-3)
    alone = run(x[0], soft[0].astype(np.float32), backend=backend)
    assert_allclose(alone, run(x[:1], [1], backend=backend), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_and_no_rows(kind, backend, rng):
    x, options = rng.standard_normal((3, 1)), {"z_loss": 0.5, "label_smoothing": 0.2, "return_stats": True}
    target = np.zeros(3, int) if kind == "indices" else np.ones((3, 1))
    (loss, stats), grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, target, **options, backend=backend)
    assert_allclose(loss, 0.5 * (x**2).mean())
    assert_allclose(grads.input, x / 3)
    assert not stats.entropy.any()
    (loss, stats), grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x[:0], target[:0], **options, backend=backend)
    assert np.isnan(loss)
    assert grads.input.shape == (0, 1)
    assert stats.argmax.shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_for_any_number_of_threads(kind, backend, rng):
    n, classes = 300, 1000
    x = rng.standard_normal((n, classes)).astype(np.float32)
    target = class_targets(rng, n, classes, kind, np.float32)
    options = cross_entropy_options(rng, n, classes, np.float32)
    before, results = fastnlp.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            (loss, stats), grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(
                x, target, **options, return_stats=True, backend=backend
            )
            results.append((loss, *stats, *grads))
    finally:
        fastnlp.set_num_threads(before)
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert_array_equal(one, other)


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
    assert all(np.isfinite(a).all() for a in (loss, lse))
    loss[:] = lse[:] = np.nan
    stats = Stats(np.full(9, np.nan), np.full(9, np.nan), np.full(9, 10**9))
    kernels.gradient(x, criterion, np.ones(9), np.ones(9), loss, lse, stats, dx)
    assert all(np.isfinite(a).all() for a in (loss, lse, dx, *stats))
    assert stats.argmax.max() < 70
    assert not any(a[-1].any() for a in (loss, lse, dx, stats.nll, stats.entropy))


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
    with pytest.raises(ValueError, match=r"target must have shape \(2,\)"):
        fastnlp.cross_entropy(x, np.ones((2, 3), int), backend=backend)
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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight": [1, 1]}, ValueError, r"weight must have shape \(3,\), one entry a class, got \(2,\)"),
        ({"weight": np.ones((1, 3))}, ValueError, "weight must have 1 axes"),
        ({"weight": [1, -1, 1]}, ValueError, "weight must be finite, 0 or more, got -1.0 at 1"),
        ({"weight": [1, 1, np.nan]}, ValueError, "weight must be finite, 0 or more, got nan at 2"),
        ({"weight": [1, 1, np.inf]}, ValueError, "weight must be finite"),
        ({"weight": np.ones(3, np.float32)}, TypeError, "weight is float32, but float64 is wanted"),
        ({"weight": np.ones(3, int)}, TypeError, "weight must be float32"),
        ({"token_weight": [1, 1, 1]}, ValueError, r"token_weight must have shape \(2,\), one entry a row, got \(3,\)"),
        ({"token_weight": [1, -1]}, ValueError, "token_weight must be finite, 0 or more, got -1.0 at 1"),
        ({"token_weight": [np.nan, 1]}, ValueError, "token_weight must be finite"),
        ({"token_weight": np.array([1j, 1])}, TypeError, "token_weight must hold numbers"),
        ({"token_weight": ["a", "b"]}, TypeError, "token_weight must hold numbers"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be within \[0, 1\], got 1.5"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing must be"),
        ({"label_smoothing": np.nan}, ValueError, "label_smoothing must be"),
        ({"label_smoothing": "0.1"}, TypeError, "label_smoothing must be a number"),
        ({"temperature": 0}, ValueError, "temperature must be a positive finite number, got 0"),
        ({"temperature": -1.0}, ValueError, "temperature must be a positive"),
        ({"temperature": None}, TypeError, "temperature must be a number"),
        ({"softcap": 0.0}, ValueError, "softcap must be a positive finite number, got 0.0"),
        ({"softcap": np.inf}, ValueError, "softcap must be a positive finite"),
        ({"softcap": True}, TypeError, "softcap must be a number"),
        ({"z_loss": -1e-4}, ValueError, "z_loss must be a finite number, 0 or more"),
        ({"z_loss": None}, TypeError, "z_loss must be a number"),
        ({"return_stats": 1}, TypeError, "return_stats must be True or False"),
        ({"target": np.ones((2, 4))}, ValueError, r"target must have shape \(2, 3\) as a distribution, got \(2, 4\)"),
        ({"target": np.ones((2, 3), np.float32)}, TypeError, "target is float32, but float64 is wanted"),
        ({"target": np.array([[0.5, np.nan, 0], [0, 0, 1]])}, ValueError, "target holds NaN or infinite entries"),
        ({"target": np.array([[0.5, np.inf, 0], [0, 0, 1]])}, ValueError, "target holds NaN or infinite entries"),
        ({"target": np.ones((2, 3)), "ignore_index": 1}, ValueError, "ignore_index=1 names a class, but target is"),
    ],
)
def test_bad_options(options, error, message, backend):
    given = {"target": [0, 1], **options}
    with pytest.raises(error, match=message):
        fastnlp.cross_entropy(np.ones((2, 3)), **given, backend=backend)


def test_targets_need_not_be_probabilities(backend, rng):
    x, target = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    losses = fastnlp.cross_entropy(x, target, reduction="none", backend=backend)
    assert_allclose(losses, -(target * scipy.special.log_softmax(x, axis=1)).sum(axis=1))


@pytest.mark.parametrize("temperature", [1e-300, 1e300])
def test_extreme_temperatures(temperature, backend):
    x = np.array([[1, 2, 0]], np.float32)
    losses = fastnlp.cross_entropy(x.repeat(2, 0), [1, 0], temperature=temperature, reduction="none", backend=backend)
    if temperature < 1:
        assert losses[0] == 0
        assert losses[1] > 1e37
    else:
        assert_allclose(losses, np.log([3, 3]), rtol=1e-6)
