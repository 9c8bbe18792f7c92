"""The torch bridge and the functions of `fastnlp.torch`: values, gradients, compilers, signatures, bad input."""

from __future__ import annotations

import inspect
import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastnlp  # noqa: E402
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


@pytest.mark.parametrize("function", [fastnlp.torch.softmax, fastnlp.torch.log_softmax, fastnlp.torch.logsumexp])
def test_no_rows_have_gradients_without_rows(function):
    x = torch.zeros(0, 7, requires_grad=True)
    (grad,) = torch.autograd.grad(function(x, dim=1).sum(), x)
    assert grad.shape == (0, 7)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_and_opcheck(reduction):
    x, w, b, target = operands(n=(5,), d=3, c=4)
    run = fastnlp.torch.linear_cross_entropy
    assert torch.autograd.gradcheck(lambda x, w, b: run(x, w, target, linear_bias=b, reduction=reduction), (x, w, b))
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: fastnlp.torch.cross_entropy(x, target, reduction=reduction), logits)
    for wrt in ([True, True, True], [False, True, False]):
        opcheck("linear_cross_entropy", wrt, x, w, target, linear_bias=b, reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_and_opcheck_of_all_options(reduction):
    x, w, b, target = operands(n=(5,), d=3, c=4)
    options = {
        "weight": torch.rand(4, dtype=torch.float64),
        "label_smoothing": 0.1,
        "temperature": 0.7,
        "softcap": 3.0,
        "z_loss": 0.1,
        "token_weight": torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0], dtype=torch.float64),
        "reduction": reduction,
    }
    distribution = torch.randn(5, 4, dtype=torch.float64).softmax(1)
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    for t in (target, distribution):
        linear = {**options, "linear_bias": b.detach()}
        assert torch.autograd.gradcheck(
            lambda x, w, t=t, linear=linear: fastnlp.torch.linear_cross_entropy(x, w, t, **linear), (x, w)
        )
        assert torch.autograd.gradcheck(lambda x, t=t: fastnlp.torch.cross_entropy(x, t, **options), logits)
        opcheck("linear_cross_entropy", [True, True, False], x, w, t, return_stats=True, **linear)
        opcheck("cross_entropy", [True], logits, t, return_stats=True, **options)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div(reduction, log_target):
    x = torch.randn(5, 4, dtype=torch.float64).log_softmax(1).requires_grad_()
    t = torch.randn(5, 4, dtype=torch.float64)
    t = (t.log_softmax(1) if log_target else t.softmax(1)).requires_grad_()
    options = {"reduction": reduction, "log_target": log_target}
    torch.testing.assert_close(fastnlp.torch.kl_div(x, t, **options), kl_of_torch(x, t, **options))
    assert torch.autograd.gradcheck(lambda x, t: fastnlp.torch.kl_div(x, t, **options), (x, t))
    opcheck("kl_div", [True, True], x, t, **options)


def kl_of_torch(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own default
        return F.kl_div(*args, **kwargs)


def opcheck(name, wrt, *args, **kwargs):
    """Run torch's checks on the custom op behind a public function."""
    signature = inspect.signature(getattr(fastnlp, name))
    parameters = [p for p in signature.parameters.values() if p.name not in ("out", "backend")]
    bound = signature.replace(parameters=parameters).bind(*args, **kwargs)
    bound.apply_defaults()
    torch.library.opcheck(getattr(torch.ops.fastnlp, name).default, (*bound.arguments.values(), wrt))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_softmax_family(name, dim):
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    ours, theirs = getattr(fastnlp.torch, name), getattr(torch, name)
    torch.testing.assert_close(ours(x, dim), theirs(x, dim))
    assert torch.autograd.gradcheck(lambda x: ours(x, dim), x)
    opcheck(name, [True], x, axis=dim)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, dim), theirs(x, dim))


def test_logsumexp_over_several_axes():
    x = torch.randn(3, 4, 5)
    for dim in ((0, 2), (1,), (-1, 0, 1), 1):
        for keepdim in (False, True):
            torch.testing.assert_close(
                fastnlp.torch.logsumexp(x, dim, keepdim), torch.logsumexp(x, dim, keepdim=keepdim)
            )


def test_softmax_without_dim_warns_and_with_dtype_converts():
    x = torch.randn(3, 4)
    with pytest.warns(UserWarning, match="give dim"):
        p = fastnlp.torch.softmax(x)
    torch.testing.assert_close(p, x.softmax(1))
    assert fastnlp.torch.log_softmax(x, 0, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
def test_softmax_kl_div(beta, reduction):
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    t = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    options = {"temperature": 2.0, "beta": beta, "reduction": reduction, "scale_by_t2": True}
    q, p = (x / 2).log_softmax(1), (t / 2).log_softmax(1)
    if beta in (0, 1):
        truth = 4 * kl_of_torch(*((q, p) if beta == 0 else (p, q)), reduction="none", log_target=True).sum(1)
        truth = {"batchmean": truth.mean(), "sum": truth.sum(), "none": truth}[reduction]
        torch.testing.assert_close(fastnlp.torch.softmax_kl_div(x, t, **options), truth)
    assert torch.autograd.gradcheck(lambda x, t: fastnlp.torch.softmax_kl_div(x, t, **options), (x, t))
    opcheck("softmax_kl_div", [True, True], x, t, **options)


@pytest.mark.parametrize("reduction", ["batchmean", "none"])
@pytest.mark.parametrize("teacher", ["hidden", "logits", "probabilities"])
def test_linear_kl_div(teacher, reduction):
    x, w, b, labels = operands(n=(5,), d=3, c=4)
    hidden, weight = torch.randn(5, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    logits = hidden @ weight.T
    given = {
        "hidden": {"target_input": hidden, "target_weight": weight},
        "logits": {"target_logits": logits},
        "probabilities": {"target_probs": (logits / 2).softmax(1)},
    }[teacher]
    options = {"temperature": 2.0, "labels": labels, "alpha": 0.25, "reduction": reduction}

    def run(x, w, b):
        return fastnlp.torch.linear_kl_div(x, w, linear_bias=b, **given, **options)

    z = x @ w.T + b
    kl = kl_of_torch((z / 2).log_softmax(1), (logits / 2).log_softmax(1), reduction="none", log_target=True).sum(1)
    truth = (0.75 * kl + 0.25 * F.cross_entropy(z, labels, reduction="none")) * (labels >= 0)
    torch.testing.assert_close(run(x, w, b), truth.sum() / 4 if reduction == "batchmean" else truth)
    assert torch.autograd.gradcheck(run, (x, w, b))
    opcheck("linear_kl_div", [True] * 3, x, w, linear_bias=b, **given, **options)


def test_entropy_and_perplexity():
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(
        fastnlp.torch.entropy(x, temperature=2.0), torch.distributions.Categorical(logits=x / 2).entropy()
    )
    assert torch.autograd.gradcheck(fastnlp.torch.entropy, x)
    opcheck("entropy", [True], x)
    target = torch.tensor([0, 3, -100, 1, 2])
    torch.testing.assert_close(fastnlp.torch.perplexity(x, target), F.cross_entropy(x, target).exp())
    assert torch.autograd.gradcheck(lambda x: fastnlp.torch.perplexity(x, target), x)


def test_linear_softmax():
    x, w, b, _ = operands(n=(5,), d=3, c=4)
    torch.testing.assert_close(fastnlp.torch.linear_softmax(x, w, b), (x @ w.T + b).softmax(-1))
    assert torch.autograd.gradcheck(lambda *a: fastnlp.torch.linear_softmax(*a, temperature=2.0), (x, w, b))
    opcheck("linear_softmax", [True] * 3, x, w, b)


@pytest.mark.parametrize("mode", ["cls", "mean", "max", "last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pool(mode, dtype):
    hidden, lengths = torch.randn(3, 4, 5).to(dtype).requires_grad_(), torch.tensor([2, 4, 1])
    y = fastnlp.torch.pool(hidden, mode=mode, lengths=lengths)
    of_rows = {"cls": lambda x: x[0], "mean": lambda x: x.mean(0), "max": lambda x: x.amax(0), "last": lambda x: x[-1]}
    truth = torch.stack([of_rows[mode](x[:n]) for x, n in zip(hidden.double(), lengths.tolist(), strict=True)])
    assert_close(y.detach(), truth.detach(), dtype)
    upstream = torch.randn(3, 5).to(dtype)
    (grad,) = torch.autograd.grad(y, hidden, upstream)
    assert_close(grad, torch.autograd.grad(truth, hidden, upstream.double())[0].double(), dtype)


@pytest.mark.parametrize("mode", ["cls", "mean", "max", "last"])
def test_pool_of_packed_sequences_and_a_classification_head(mode):
    hidden, w, _, _ = operands(n=(7,), d=5, c=4)
    options = {"mode": mode, "cu_seqlens": torch.tensor([0, 2, 6, 7], dtype=torch.int32)}
    assert torch.autograd.gradcheck(lambda x: fastnlp.torch.pool(x, **options), hidden)
    for wrt in ([True], [False]):
        opcheck("pool", wrt, hidden, **options)
    target = torch.tensor([1, 3, 0])

    def step(x, w):
        y = fastnlp.torch.pool(torch.tanh(x)[None], **options)
        return fastnlp.torch.linear_cross_entropy(y, w, target) + fastnlp.torch.linear_softmax(y, w)[:, 0].sum()

    def plain(x, w):
        y = fastnlp.torch.pool(torch.tanh(x), **options)
        return F.cross_entropy(y @ w.T, target) + (y @ w.T).softmax(-1)[:, 0].sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    results = [(f(hidden, w), *torch.autograd.grad(f(hidden, w), (hidden, w))) for f in (step, compiled, plain)]
    for result in zip(*results, strict=True):
        torch.testing.assert_close(result[0], result[2])
        torch.testing.assert_close(result[1], result[2])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "distribution"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_cross_entropy_options_are_torchs(reduction, soft, shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    target = torch.randn(shape, dtype=torch.float64).softmax(1) if soft else torch.randint(0, 7, shape[:1] + shape[2:])
    if not soft:
        target[0] = -100
    options = {"weight": torch.rand(7, dtype=torch.float64), "label_smoothing": 0.2, "reduction": reduction}
    loss, truth = fastnlp.torch.cross_entropy(x, target, **options), F.cross_entropy(x, target, **options)
    torch.testing.assert_close(loss, truth)
    upstream = torch.randn_like(loss)
    torch.testing.assert_close(*(torch.autograd.grad(value, x, upstream) for value in (loss, truth)))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "distribution"])
def test_a_classifier_for_each_place(reduction, soft):
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    w = torch.randn(7, 2, 3, 6, dtype=torch.float64, requires_grad=True)
    b = torch.randn(7, 2, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 7, 2, 3, dtype=torch.float64).softmax(1) if soft else torch.randint(0, 7, (5, 2, 3))
    options = {"weight": torch.rand(7, dtype=torch.float64), "reduction": reduction}
    loss = fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b, **options)
    logits = torch.einsum("nd,cijd->ncij", x, w) + b
    truth = F.cross_entropy(logits, target, **options)
    torch.testing.assert_close(loss, truth)
    upstream = torch.randn_like(loss)
    torch.testing.assert_close(*(torch.autograd.grad(value, (x, w, b), upstream) for value in (loss, truth)))


def test_places_that_do_not_count_have_zero_gradients():
    x = torch.randn(5, 6, requires_grad=True)
    loss = fastnlp.torch.linear_cross_entropy(x, torch.randn(7, 2, 6), torch.full((5, 2), -100))
    loss.backward()
    assert loss.isnan()
    assert not x.grad.any()


def test_statistics_have_no_gradient():
    x, w, b, target = operands()
    loss, stats = fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b, return_stats=True)
    assert type(stats) is fastnlp.LossStats
    logits = x.double() @ w.T + b
    torch.testing.assert_close(stats.lse[target >= 0], logits.logsumexp(-1)[target >= 0].detach())
    assert stats.argmax.dtype == torch.int64
    assert int(stats.count) == int((target >= 0).sum())
    assert not any(x.requires_grad for x in stats)
    torch.testing.assert_close(torch.autograd.grad(loss, w), torch.autograd.grad(naive(x, w, b, target), w))


@pytest.mark.parametrize("deprecated", [{"size_average": False}, {"reduce": False}, {"reduce": True}])
@pytest.mark.parametrize("name", ["cross_entropy", "kl_div"])
def test_deprecated_reductions_are_torchs(name, deprecated):
    x = torch.randn(4, 5).log_softmax(1)
    target = torch.randn(4, 5).softmax(1)
    with pytest.warns(UserWarning, match="deprecated"):
        loss = getattr(fastnlp.torch, name)(x, target, **deprecated)
    with pytest.warns(UserWarning, match="size_average and reduce args"):
        torch.testing.assert_close(loss, getattr(F, name)(x, target, **deprecated))


def test_options_of_torch():
    if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        pytest.skip("this torch has no LinearCrossEntropyOptions")
    x, w, b, target = operands(torch.float32)
    expected = fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b)
    for given in ({}, {"batch_chunk_size": 2}, {"acc_dtype": torch.float32}, {"allow_retain_graph": True}):
        options = torch.nn.LinearCrossEntropyOptions(**given)
        loss = fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b, options=options)
        torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match="give one of them"):
        fastnlp.torch.linear_cross_entropy(
            x, w, target, options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2), workspace=1 << 20
        )
    with pytest.raises(ValueError, match=r"acc_dtype is torch\.bfloat16"):
        fastnlp.torch.linear_cross_entropy(
            x, w, target, options=torch.nn.LinearCrossEntropyOptions(acc_dtype=torch.bfloat16)
        )
    with pytest.raises(TypeError, match="LinearCrossEntropyOptions, got dict"):
        fastnlp.torch.linear_cross_entropy(x, w, target, options={})


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


@pytest.mark.parametrize(
    ("space", "name"),
    [
        *((F, name) for name in ("cross_entropy", "linear_cross_entropy", "kl_div", "softmax", "log_softmax")),
        *((torch.nn, name) for name in ("CrossEntropyLoss", "LinearCrossEntropyLoss", "KLDivLoss")),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_signature_is_torchs_with_keyword_extras(space, name):
    if not hasattr(space, name):
        pytest.skip(f"this torch has no {name}")
    theirs = list(inspect.signature(getattr(space, name)).parameters.values())
    ours = list(inspect.signature(getattr(fastnlp.torch, name)).parameters.values())
    assert len(ours) >= len(theirs) > 0
    for mine, peer in zip(ours, theirs, strict=False):
        assert (mine.name, mine.kind, mine.default) == (peer.name, peer.kind, peer.default)
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])


@pytest.mark.parametrize(
    "transformed",
    [
        lambda f, w: torch.func.grad(f)(w),
        lambda f, w: torch.func.vmap(f)(w[None]),
        lambda f, w: torch.func.jvp(f, (w,), (w,)),
        lambda f, w: torch.func.hessian(f)(w),
        lambda f, w: dual(f, w),
    ],
    ids=["grad", "vmap", "jvp", "hessian", "forward_ad"],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, from its forward mode
def test_transforms_are_refused(transformed):
    x, w, _, target = (t.detach() for t in operands())
    with pytest.raises(NotImplementedError, match=r"does not work within torch\.func"):
        transformed(lambda w: fastnlp.torch.linear_cross_entropy(x, w, target), w)


def dual(f, w):
    with torch.autograd.forward_ad.dual_level():
        return f(torch.autograd.forward_ad.make_dual(w, w))


def test_bad_input():
    x, w, b, target = operands()
    run = fastnlp.torch.linear_cross_entropy
    with pytest.raises(ValueError, match="target holds 50"):
        run(x, w, torch.full_like(target, 50))
    with pytest.raises(TypeError, match="linear_weight is float32"):
        run(x, w.float(), target)
    with pytest.raises(NotImplementedError, match=r"no gradient for weight: hand over weight\.detach\(\)"):
        run(x, w, target, weight=b)
    with pytest.raises(NotImplementedError, match="no gradient for target"):
        fastnlp.torch.cross_entropy(x[0], torch.randn(9, 16, dtype=x.dtype, requires_grad=True))
    with pytest.raises(NotImplementedError, match="z_loss is not there for a linear_weight of more than two axes"):
        run(x[0], w.reshape(25, 2, 16), torch.zeros(9, 2, dtype=torch.long), z_loss=0.1)
    with pytest.raises(ValueError, match=r"wants input \(N, 16\) and target \(9, 2\)"):
        run(x[0], w.reshape(25, 2, 16), target[0])
    with pytest.raises(ValueError, match="reduction must be one of"):
        run(x[0], w.reshape(25, 2, 16), torch.zeros(9, 2, dtype=torch.long), reduction="average")
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
