"""The modules of `fastnlp.torch`: as torch's in a model, copied, pickled, compiled, moved to another dtype."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastnlp.torch  # noqa: E402

nn = torch.nn


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def target_of(n=6, c=11):
    target = torch.randint(0, c, (n,))
    target[1] = -100
    return target


def assert_same_with_gradients(ours, theirs, *leaves):
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(theirs)
    grads = (torch.autograd.grad(value, leaves, upstream) for value in (ours, theirs))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_loss(reduction):
    options = {"weight": torch.rand(11), "label_smoothing": 0.1, "reduction": reduction, "ignore_index": 3}
    x, target = torch.randn(6, 11, 4, requires_grad=True), torch.randint(0, 11, (6, 4))
    assert_same_with_gradients(
        fastnlp.torch.CrossEntropyLoss(**options)(x, target), nn.CrossEntropyLoss(**options)(x, target), x
    )


@pytest.mark.parametrize("out_features", [(), (2, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_cross_entropy_loss(out_features, bias):
    ours = fastnlp.torch.LinearCrossEntropyLoss(5, 11, out_features=out_features, bias=bias, weight=torch.rand(11))
    x, target = torch.randn(6, 5, requires_grad=True), torch.randint(0, 11, (6, *out_features))
    logits = ours.linear(x).reshape(6, 11, *out_features)
    truth = nn.functional.cross_entropy(logits, target, weight=ours.weight)
    assert_same_with_gradients(ours(x, target), truth, x, *ours.parameters())
    if hasattr(nn, "LinearCrossEntropyLoss"):
        theirs = nn.LinearCrossEntropyLoss(5, 11, out_features=out_features, bias=bias, weight=torch.rand(11))
        theirs.load_state_dict(ours.state_dict())
        torch.testing.assert_close(theirs(x, target), truth)


@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div_loss(log_target):
    x, target = torch.randn(6, 11).log_softmax(1).requires_grad_(), torch.randn(6, 11).log_softmax(1)
    target = target if log_target else target.exp()
    for reduction in ("mean", "batchmean", "sum", "none"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own default
            truth = nn.KLDivLoss(reduction=reduction, log_target=log_target)(x, target)
        ours = fastnlp.torch.KLDivLoss(reduction=reduction, log_target=log_target)(x, target)
        assert_same_with_gradients(ours, truth, x)


def test_extras_reach_the_functions():
    x, target = torch.randn(6, 5, requires_grad=True), target_of()
    given = {"temperature": 2.0, "softcap": 3.0, "z_loss": 0.1, "return_stats": True}
    token_weight = torch.rand(6)
    module = fastnlp.torch.LinearCrossEntropyLoss(5, 11, bias=True, workspace=1 << 20, deterministic=True, **given)
    linear = module.linear
    expected = fastnlp.torch.linear_cross_entropy(
        x, linear.weight, target, linear_bias=linear.bias, token_weight=token_weight, **given
    )
    torch.testing.assert_close(module(x, target, token_weight=token_weight), expected)
    logits = linear(x)
    on_logits = fastnlp.torch.CrossEntropyLoss(**given)(logits, target, token_weight=token_weight)
    torch.testing.assert_close(on_logits, expected)


CASES = {
    "CrossEntropyLoss": lambda: (
        fastnlp.torch.CrossEntropyLoss(torch.rand(11), softcap=3.0),
        (torch.randn(6, 11), target_of()),
    ),
    "LinearCrossEntropyLoss": lambda: (
        fastnlp.torch.LinearCrossEntropyLoss(5, 11, bias=True, z_loss=0.1),
        (torch.randn(6, 5), target_of()),
    ),
    "KLDivLoss": lambda: (
        fastnlp.torch.KLDivLoss(reduction="sum"),
        (torch.randn(6, 11).log_softmax(1), torch.rand(6, 11)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_copies_pickles_and_state(name, tmp_path):
    module, inputs = CASES[name]()
    expected = module(*inputs)
    torch.save(module, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert torch.equal(twin(*inputs), expected)
    fresh = copy.deepcopy(module)
    for x in fresh.state_dict().values():
        x.zero_()
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(*inputs), expected)
    double = module.double()(*(x.double() if x.is_floating_point() else x for x in inputs))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected)


def test_repr_tells_what_is_not_the_default():
    assert repr(fastnlp.torch.KLDivLoss()) == "KLDivLoss()"
    assert repr(fastnlp.torch.CrossEntropyLoss(reduction="sum", z_loss=0.1)) == (
        "CrossEntropyLoss(reduction='sum', z_loss=0.1)"
    )
    text = repr(fastnlp.torch.LinearCrossEntropyLoss(5, 11, softcap=30.0))
    assert "in_features=5, num_classes=11, softcap=30.0" in text
    assert "(linear): Linear(in_features=5, out_features=11, bias=False)" in text


def test_a_model_with_the_module_compiles_without_a_graph_break():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 5)
            self.loss = fastnlp.torch.LinearCrossEntropyLoss(5, 11, bias=True, label_smoothing=0.1, return_stats=True)

        def forward(self, x, target):
            loss, stats = self.loss(torch.tanh(self.body(x)), target)
            return loss * 2, stats.accuracy

    model, x, target = Model(), torch.randn(6, 4), target_of()
    results = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        loss, accuracy = run(x, target)
        loss.backward()
        results.append((loss, accuracy, *(p.grad for p in model.parameters())))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_bad_input():
    with pytest.raises(ValueError, match=r"weight must have shape \(11,\)"):
        fastnlp.torch.LinearCrossEntropyLoss(5, 11, weight=torch.rand(10))
    with pytest.raises(ValueError, match=r"label_smoothing must be within \[0, 1\]"):
        fastnlp.torch.LinearCrossEntropyLoss(5, 11, label_smoothing=1.5)
    with pytest.warns(UserWarning, match="deprecated: use reduction='sum'"):
        assert fastnlp.torch.CrossEntropyLoss(size_average=False).reduction == "sum"
