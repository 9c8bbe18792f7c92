"""The torch bridge: `fastnlp.torch.cross_entropy` and `linear_cross_entropy`."""

from __future__ import annotations

import inspect

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastnlp.torch  # noqa: E402

F = torch.nn.functional
REDUCTIONS = ["mean", "sum", "none"]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# Relative to the largest entry: a few roundings of the dtype that carries the result.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def operands(dtype=torch.float64, n=(4, 9), d=16, c=50):
    x = torch.randn(*n, d).to(dtype).requires_grad_()
    w = torch.randn(c, d).to(dtype).requires_grad_()
    b = torch.randn(c).to(dtype).requires_grad_()
    target = torch.randint(0, c, n)
    target[..., -1] = -100
    return x, w, b, target


def naive(x, w, b, target, reduction="mean"):
    logits = x.double() @ w.double().T + b.double()
    return F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction=reduction).reshape(
        target.shape if reduction == "none" else ()
    )


def assert_close(actual, truth, dtype):
    assert actual.dtype == dtype
    assert (actual.double() - truth).abs().max() <= TOLERANCE[dtype] * truth.abs().max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_linear_cross_entropy(dtype, reduction):
    x, w, b, target = operands(dtype)
    loss = fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b, reduction=reduction)
    truth = naive(x, w, b, target, reduction)
    assert_close(loss.detach(), truth.detach(), dtype if dtype == torch.float64 else torch.float32)
    upstream = torch.randn(loss.shape).to(loss.dtype)
    grads = torch.autograd.grad(loss, (x, w, b), upstream)
    for grad, true_grad in zip(grads, torch.autograd.grad(truth, (x, w, b), upstream.double()), strict=True):
        assert_close(grad, true_grad.double(), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(7,), (5, 7), (5, 7, 3), (2, 7, 3, 4)])
def test_cross_entropy_has_classes_on_axis_1(dtype, reduction, shape):
    x = torch.randn(shape).to(dtype).requires_grad_()
    target = torch.randint(0, 7, shape[:1] + shape[2:] if len(shape) > 1 else ())
    loss = fastnlp.torch.cross_entropy(x, target, reduction=reduction)
    truth = F.cross_entropy(x.double(), target, reduction=reduction)
    assert loss.shape == truth.shape
    assert_close(loss.detach(), truth.detach(), dtype if dtype == torch.float64 else torch.float32)
    upstream = torch.randn(loss.shape).to(loss.dtype)
    (grad,) = torch.autograd.grad(loss, x, upstream)
    assert_close(grad, torch.autograd.grad(truth, x, upstream.double())[0].double(), dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_and_opcheck(reduction):
    x, w, b, target = operands(n=(5,), d=3, c=4)
    run = fastnlp.torch.linear_cross_entropy
    assert torch.autograd.gradcheck(lambda x, w, b: run(x, w, target, linear_bias=b, reduction=reduction), (x, w, b))
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: fastnlp.torch.cross_entropy(x, target, reduction=reduction), logits)
    for wrt in ([True, True, True], [False, True, False]):
        args = (x, w, target, b, None, -100, reduction, 0.0, 1.0, None, 0.0, None, None, None, False, wrt)
        torch.library.opcheck(torch.ops.fastnlp.linear_cross_entropy.default, args)
    torch.library.opcheck(torch.ops.fastnlp.cross_entropy.default, (logits, target, None, -100, reduction, 0.0, 1.0, None, 0.0, None, False, [True]))


def test_second_backward_and_accumulation():
    x, w, b, target = operands()
    loss = fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b) * 3
    loss.backward(retain_graph=True)
    first = w.grad.clone()
    loss.backward()
    torch.testing.assert_close(w.grad, 2 * first)


def test_gradients_are_the_callers_own():
    x, w, _, target = operands()
    loss = fastnlp.torch.linear_cross_entropy(x, w, target)
    (first,) = torch.autograd.grad(loss, w, retain_graph=True)
    kept = first.clone()
    first.zero_()
    assert torch.equal(torch.autograd.grad(loss, w)[0], kept)


@pytest.mark.parametrize("frozen", range(3))
def test_frozen_inputs(frozen):
    tensors = list(operands()[:3])
    target = operands()[3]
    tensors[frozen] = tensors[frozen].detach()
    x, w, b = tensors
    fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b).backward()
    got = [t.grad for t in tensors]
    trained = [t for i, t in enumerate(tensors) if i != frozen]
    expected = iter(torch.autograd.grad(naive(x, w, b, target), trained))
    for i, grad in enumerate(got):
        if i == frozen:
            assert grad is None
        else:
            assert_close(grad, next(expected), torch.float64)


def test_without_gradients_nothing_is_saved():
    x, w, b, target = operands()
    with torch.no_grad():
        assert not fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b).requires_grad
    loss = fastnlp.torch.linear_cross_entropy(x.detach(), w.detach(), target)
    assert loss.grad_fn is None


@pytest.mark.parametrize("create_graph", ["scalar", "none"])
def test_double_backward_raises_early(create_graph):
    x, w, _, target = operands()
    loss = fastnlp.torch.linear_cross_entropy(x, w, target, reduction="mean" if create_graph == "scalar" else "none")
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss.sum(), x, create_graph=True)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiles_without_a_graph_break(reduction):
    x, w, b, target = operands()

    def step(x, w, b):
        loss = fastnlp.torch.linear_cross_entropy(torch.tanh(x), w, target, linear_bias=b, reduction=reduction)
        return loss.sum() * 2

    eager = torch.autograd.grad(step(x, w, b), (x, w, b))
    compiled = torch.autograd.grad(torch.compile(step, fullgraph=True, backend="aot_eager")(x, w, b), (x, w, b))
    for a, c in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, c)


def test_layouts_and_integer_targets():
    x, w, b, target = operands()
    expected = fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b)
    transposed = w.detach().T.contiguous().T
    for t in (target.int(), target.short(), target.T.contiguous().T):
        loss = fastnlp.torch.linear_cross_entropy(x, transposed, t, linear_bias=b)
        torch.testing.assert_close(loss.detach(), expected.detach())


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_within_checkpoint(use_reentrant):
    from torch.utils.checkpoint import checkpoint

    x, w, b, target = operands()

    def run(x):
        return fastnlp.torch.linear_cross_entropy(torch.tanh(x), w, target, linear_bias=b)

    expected = torch.autograd.grad(run(x), (x, w, b))
    checkpoint(run, x, use_reentrant=use_reentrant).backward()
    for tensor, grad in zip((x, w, b), expected, strict=True):
        torch.testing.assert_close(tensor.grad, grad)


def test_autocast_and_inference_mode():
    x, w, _, target = operands(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = torch.nn.functional.linear(x, torch.eye(16))
        loss = fastnlp.torch.linear_cross_entropy(hidden, w, target)
    assert hidden.dtype == torch.bfloat16
    loss.backward()
    assert (loss.dtype, x.grad.dtype, w.grad.dtype) == (torch.float32,) * 3
    with torch.inference_mode():
        assert not fastnlp.torch.linear_cross_entropy(x, w, target).requires_grad


def test_compiles_with_dynamic_shapes():
    def step(x, w, target):
        logits = (x @ w.T).reshape(2, -1, w.shape[0]).movedim(-1, 1)
        loss = fastnlp.torch.cross_entropy(logits, target.reshape(2, -1))
        return loss + fastnlp.torch.linear_cross_entropy(x, w, target, reduction="none").sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for n, c in ((6, 7), (8, 9)):
        x, w, _, _ = operands(n=(n,), c=c)
        target = torch.randint(0, c, (n,))
        results = [torch.autograd.grad(f(x, w, target), (x, w)) for f in (step, compiled)]
        for eager, traced in zip(*results, strict=True):
            torch.testing.assert_close(traced, eager)


def test_all_ignored_gives_nan_loss_and_zero_gradients():
    x, w, b, target = operands()
    loss = fastnlp.torch.linear_cross_entropy(x, w, torch.full_like(target, -100), linear_bias=b)
    loss.backward()
    assert loss.isnan()
    assert not any(t.grad.any() for t in (x, w, b))


def test_leaves_arguments_alone():
    x, w, b, target = operands()
    before = [t.detach().clone() for t in (x, w, b, target)]
    fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b).backward()
    for tensor, kept in zip((x, w, b, target), before, strict=True):
        assert torch.equal(tensor.detach(), kept)


@pytest.mark.parametrize("name", ["cross_entropy", "linear_cross_entropy"])
def test_signature_is_torchs_with_keyword_extras(name):
    theirs = getattr(F, name, None)
    if theirs is None:
        pytest.skip(f"this torch has no {name}")
    ours = list(inspect.signature(getattr(fastnlp.torch, name)).parameters.values())
    for mine, peer in zip(ours, inspect.signature(theirs).parameters.values(), strict=False):
        assert (mine.name, mine.kind, mine.default) == (peer.name, peer.kind, peer.default)
    extras = ours[len(inspect.signature(theirs).parameters) :]
    assert all(p.kind is p.KEYWORD_ONLY for p in extras)


def test_bad_input():
    x, w, b, target = operands()
    run = fastnlp.torch.linear_cross_entropy
    with pytest.raises(ValueError, match="target holds 50"):
        run(x, w, torch.full_like(target, 50))
    with pytest.raises(TypeError, match="linear_weight is float32"):
        run(x, w.float(), target)
    with pytest.raises(NotImplementedError, match="label_smoothing is not there yet"):
        run(x, w, target, label_smoothing=0.1)
    with pytest.raises(NotImplementedError, match="weight is not there yet"):
        fastnlp.torch.cross_entropy(x[0], target[0], weight=b)
    with pytest.raises(TypeError, match=r"target must be a tensor, got list: use torch\.as_tensor"):
        run(x, w, target.tolist())
    with pytest.raises(TypeError, match="linear_bias must be a tensor, got ndarray"):
        run(x, w, target, linear_bias=b.detach().numpy())
    with pytest.raises(TypeError, match="input must be a tensor, got ndarray"):
        fastnlp.torch.cross_entropy(x.detach().numpy(), target)
    with pytest.raises(TypeError, match="ignore_index must be of type int, got float"):
        run(x, w, target, ignore_index=-100.0)
    with pytest.raises(TypeError, match="reduction must be of type str, got NoneType"):
        run(x, w, target, reduction=None)
    with pytest.raises(TypeError, match="workspace must be of type int, got str"):
        run(x, w, target, workspace="1 GB")
    with pytest.raises(TypeError, match="dense"):
        run(x.detach().to_sparse(), w, target)
    with pytest.raises(ValueError, match="different devices"):
        run(x, w.to("meta"), target)
    with pytest.raises(NotImplementedError, match="meta"):
        run(x.to("meta"), w.to("meta"), target.to("meta"))
    with pytest.raises(TypeError, match=r"fastnlp\.torch"):
        fastnlp.linear_cross_entropy(x, w, target)
    with pytest.raises(TypeError, match=r"fastnlp\.torch"):
        fastnlp.softmax(x.detach().as_subclass(type("Mine", (torch.Tensor,), {})))
