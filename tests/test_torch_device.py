"""The torch bridge on a GPU, as far as that goes without one: traced CUDA tensors, and tensors on a simulated device.

On the simulated device a CPU tensor stands for a CUDA tensor: the bridge hands its memory to the drivers of the CUDA
kernels, whose launches the simulator runs.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

import fastnlp.torch  # noqa: E402
from fastnlp import _arrays, _device  # noqa: E402
from tests.simulated import SimulatedLibrary  # noqa: E402

F = torch.nn.functional
REDUCTIONS = ["mean", "sum", "none"]
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}


class Owner(np.ndarray):
    """Memory of the simulated device that can be had as a tensor, as the owners of CUDA tensors' arrays are."""

    def to(self, dtype):
        array = np.asarray(self)
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(dtype)
        return torch.from_numpy(array).to(dtype)


class TensorLibrary(SimulatedLibrary):
    """The simulated device, of tensors."""

    def wrap(self, owner):
        return super().wrap(owner.view(Owner))


def memory_of(tensor):
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


@pytest.fixture
def gpu(monkeypatch):
    """A simulated device on which every tensor is."""
    torch.manual_seed(0)
    monkeypatch.delenv("FASTNLP_BACKEND", raising=False)  # arrays on a GPU have one backend
    library, of, on_device = TensorLibrary(), _device.of, _arrays.on_device
    monkeypatch.setattr(_device, "of", lambda x: library.wrap(memory_of(x)) if isinstance(x, torch.Tensor) else of(x))
    monkeypatch.setattr(_arrays, "on_device", lambda x: isinstance(x, torch.Tensor) or on_device(x))
    return library


def assert_close(actual, truth, dtype, computed=None):
    """Compare what is of a dtype, and was computed in one, with the truth."""
    assert actual.dtype == dtype
    error = TOLERANCE[computed or dtype] * float(truth.detach().abs().max())
    torch.testing.assert_close(actual.detach().double(), truth.detach(), rtol=0, atol=error)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("dim", [0, -1])
def test_softmax_family(gpu, name, dim, dtype):
    x = torch.randn(3, 11).to(dtype).requires_grad_()
    y = getattr(fastnlp.torch, name)(x, dim)
    wide = x.detach().double().requires_grad_()
    truth = getattr(torch, name)(wide, dim)
    assert_close(y, truth, dtype)
    upstream = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, upstream)
    assert_close(dx, torch.autograd.grad(truth, wide, upstream.double())[0], dtype)
    assert gpu.launches
    assert gpu.waits == []


def operands(dtype, n=5, d=9, c=13):
    x = torch.randn(n, d).to(dtype).requires_grad_()
    w = torch.randn(c, d).to(dtype).requires_grad_()
    b = torch.randn(c).to(dtype).requires_grad_()
    target = torch.randint(0, c, (n,))
    target[2] = -100
    return x, w, b, target


def test_hidden_states_of_autocast_beside_parameters_of_float32(gpu):
    x, w, b, target = operands(torch.bfloat16)
    w, b = w.detach().float().requires_grad_(), b.detach().float().requires_grad_()
    loss = fastnlp.torch.linear_cross_entropy(x, w, target, linear_bias=b)
    loss.backward()
    truth_of = wide(x, w, b)
    truth = F.cross_entropy(F.linear(*truth_of), target)
    truth.backward()
    assert_close(loss, truth, torch.float32, torch.bfloat16)
    for actual, expected in zip((x, w, b), truth_of, strict=True):
        assert_close(actual.grad, expected.grad, actual.dtype, torch.bfloat16)
    assert gpu.waits == []


def wide(*tensors):
    return [x.detach().double().requires_grad_() for x in tensors]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy(gpu, reduction, dtype):
    x, _, _, target = operands(dtype, d=13)
    loss = fastnlp.torch.cross_entropy(x, target, reduction=reduction)
    (truth_of,) = wide(x)
    truth = F.cross_entropy(truth_of, target, reduction=reduction)
    assert_close(loss, truth, torch.float32, dtype)
    upstream = torch.randn_like(loss)
    (dx,) = torch.autograd.grad(loss, x, upstream)
    assert_close(dx, torch.autograd.grad(truth, truth_of, upstream.double())[0], dtype)
    assert gpu.waits == []


@pytest.mark.parametrize(
    ("reduction", "dtype", "frozen"),
    [
        *((reduction, torch.float32, None) for reduction in REDUCTIONS),
        *(("mean", torch.float32, frozen) for frozen in range(3)),
        *((reduction, dtype, None) for reduction in ("mean", "none") for dtype in (torch.float16, torch.bfloat16)),
    ],
)
def test_linear_cross_entropy(gpu, reduction, dtype, frozen):
    x, w, b, target = operands(dtype)
    tensors = [t.detach() if k == frozen else t for k, t in enumerate((x, w, b))]
    trained = [t for t in tensors if t.requires_grad]
    loss = fastnlp.torch.linear_cross_entropy(*tensors[:2], target, linear_bias=tensors[2], reduction=reduction)
    xs, ws, bs = truth_of = wide(x, w, b)
    truth = F.cross_entropy(xs @ ws.T + bs, target, reduction=reduction)
    assert_close(loss, truth, torch.float32, dtype)
    upstream = torch.randn_like(loss)
    grads = torch.autograd.grad(loss, trained, upstream)
    true = torch.autograd.grad(truth, [t for k, t in enumerate(truth_of) if k != frozen], upstream.double())
    for grad, expected in zip(grads, true, strict=True):
        assert_close(grad, expected, dtype)
    assert gpu.waits == []


def test_small_gradients_of_float16_do_not_vanish(gpu):
    """Divided by the rows before it is rounded, e^-10 / 200 would be four times the least float16."""
    x, w, target = torch.ones(200, 1).half(), torch.zeros(8, 1).half(), torch.zeros(200, dtype=torch.int64)
    w[0] = 10
    w.requires_grad_()
    (dw,) = torch.autograd.grad(fastnlp.torch.linear_cross_entropy(x, w, target), w)
    p = 1 / (np.e**10 + 7)
    np.testing.assert_allclose(dw[1:].detach(), p, rtol=2e-3)
    np.testing.assert_allclose(dw[0].detach(), -7 * p, rtol=2e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_of_both_terms(gpu, weighted):
    x, w, _, target = operands(torch.float32)
    weight = torch.rand(13) if weighted else None
    loss = fastnlp.torch.linear_cross_entropy(x, w, target, z_loss=0.1, weight=weight)
    xs, ws = wide(x, w)
    logits = xs @ ws.T
    squares = (logits.logsumexp(-1) ** 2)[target >= 0].mean()
    truth = F.cross_entropy(logits, target, weight=None if weight is None else weight.double()) + 0.1 * squares
    assert_close(loss, truth, torch.float32)
    for grad, expected in zip(torch.autograd.grad(loss, (x, w)), torch.autograd.grad(truth, (xs, ws)), strict=True):
        assert_close(grad, expected, torch.float32)


def test_a_retained_graph_gives_the_same_gradients_again(gpu):
    x, w, _, target = operands(torch.float32)
    loss = fastnlp.torch.linear_cross_entropy(x, w, target)
    first = torch.autograd.grad(loss, (x, w), retain_graph=True)
    kept = [grad.clone() for grad in first]
    for grad in first:
        grad.zero_()
    assert all(map(torch.equal, torch.autograd.grad(loss, (x, w)), kept))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_linear_softmax(gpu, dtype):
    x, w, b, _ = operands(dtype)
    y = fastnlp.torch.linear_softmax(x, w, b)
    xs, ws, bs = true_of = wide(x, w, b)
    truth = (xs @ ws.T + bs).softmax(-1)
    assert_close(y, truth, dtype)
    upstream = torch.randn_like(y)
    grads = torch.autograd.grad(y, (x, w, b), upstream)
    for grad, expected in zip(grads, torch.autograd.grad(truth, true_of, upstream.double()), strict=True):
        assert_close(grad, expected, dtype)
    assert gpu.waits == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["batchmean", "none"])
def test_softmax_kl_div(gpu, reduction, dtype):
    x, t = (torch.randn(5, 13).to(dtype).requires_grad_() for _ in range(2))
    loss = fastnlp.torch.softmax_kl_div(x, t, reduction=reduction)
    xs, ts = wide(x, t)
    truth = F.kl_div(xs.log_softmax(-1), ts.softmax(-1), reduction="none").sum(-1)
    truth = truth.mean() if reduction == "batchmean" else truth
    assert_close(loss, truth, torch.float32, dtype)
    upstream = torch.randn_like(loss)
    grads = torch.autograd.grad(loss, (x, t), upstream)
    for grad, expected in zip(grads, torch.autograd.grad(truth, (xs, ts), upstream.double()), strict=True):
        assert_close(grad, expected, dtype)
    assert gpu.waits == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_linear_kl_div(gpu, dtype):
    x, w, _, _ = operands(dtype)
    teacher = torch.randn(5, 13).to(dtype)
    loss = fastnlp.torch.linear_kl_div(x, w, target_logits=teacher)
    xs, ws = wide(x, w)
    truth = F.kl_div((xs @ ws.T).log_softmax(-1), teacher.double().softmax(-1), reduction="batchmean")
    assert_close(loss, truth, torch.float32, dtype)
    grads = torch.autograd.grad(loss * 3, (x, w))
    for grad, expected in zip(grads, torch.autograd.grad(truth * 3, (xs, ws)), strict=True):
        assert_close(grad, expected, dtype)
    assert gpu.waits == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pool(gpu, dtype):
    x = torch.randn(2, 4, 9).to(dtype).requires_grad_()
    y = fastnlp.torch.pool(x, mode="mean", lengths=torch.tensor([3, 2]))
    (xs,) = wide(x)
    truth = torch.stack([xs[0, :3].mean(0), xs[1, :2].mean(0)])
    assert_close(y, truth, dtype)
    upstream = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, upstream)
    assert_close(dx, torch.autograd.grad(truth, xs, upstream.double())[0], dtype)
    assert gpu.waits == []


def test_the_last_backward_takes_the_memory_of_what_was_saved(gpu, monkeypatch):
    x, w, _, target = operands(torch.float32)
    loss = fastnlp.torch.linear_cross_entropy(x, w, target)
    made, empty = [], gpu.empty
    monkeypatch.setattr(gpu, "empty", lambda *args: made.append(empty(*args)) or made[-1])
    loss.backward(retain_graph=True)
    first = w.grad.clone()
    assert w.shape in [array.shape for array in made]
    made.clear()
    loss.backward()
    assert not {w.shape, x.shape} & {array.shape for array in made}
    torch.testing.assert_close(w.grad, 2 * first)


def test_memory_that_runs_out_names_the_workspace(gpu, monkeypatch):
    x, w, _, target = operands(torch.float32)
    expected = fastnlp.torch.linear_cross_entropy(x, w, target)

    def full(*args):
        raise MemoryError("the device is full")

    big = len(w) * 4
    empty = gpu.empty
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "empty", lambda shape, dtype: full() if np.prod(shape) >= big else empty(shape, dtype))
        with pytest.raises(MemoryError, match=r"the device is full \(.*a smaller workspace= takes less"):
            fastnlp.torch.linear_cross_entropy(x, w, target)
    assert torch.equal(fastnlp.torch.linear_cross_entropy(x, w, target), expected)


def test_rows_that_do_not_count_are_dropped(gpu):
    x, w, _, target = operands(torch.float32)
    run = fastnlp.torch.linear_cross_entropy
    truth = run(x, w, target)
    assert gpu.waits == []
    torch.testing.assert_close(run(x, w, target, num_valid=4), truth)
    assert gpu.waits == []
    loss = run(x, w, target, compact=True)
    torch.testing.assert_close(loss, truth)
    assert gpu.waits == ["read"]
    for grad, expected in zip(torch.autograd.grad(loss, (x, w)), torch.autograd.grad(truth, (x, w)), strict=True):
        torch.testing.assert_close(grad, expected)
    assert gpu.waits == ["read"]
    gpu.in_capture = True
    with pytest.raises(RuntimeError, match="num_valid"):
        run(x, w, target, compact=True)
    module = fastnlp.torch.LinearCrossEntropyLoss(9, 13)
    module(x, target, num_valid=4).backward()


def test_nothing_waits_while_a_graph_is_captured(gpu):
    x, w, _, target = operands(torch.float32)
    expected = fastnlp.torch.linear_cross_entropy(x, w, target)
    gpu.in_capture = True
    for check in (fastnlp.torch.linear_cross_entropy, lambda *given: fastnlp.torch.cross_entropy(x @ w.T, target)):
        loss = check(x, w, target)
        torch.testing.assert_close(loss, expected)
        loss.backward()
    assert gpu.waits == []


def test_statistics(gpu):
    x, _, _, target = operands(torch.float32, d=13)
    loss, stats = fastnlp.torch.cross_entropy(x, target, return_stats=True)
    counts = target >= 0
    torch.testing.assert_close(stats.lse[counts], x.detach().logsumexp(1)[counts])
    assert torch.equal(stats.argmax[counts], x.argmax(1)[counts])
    assert stats.argmax.dtype == torch.int64
    assert int(stats.count) == 4
    assert not any(field.requires_grad for field in stats)
    loss.backward()
    assert gpu.waits == []


def test_compiles_without_a_graph_break(gpu):
    x, w, _, target = operands(torch.float32)

    def step(x, w):
        y = fastnlp.torch.linear_cross_entropy(torch.tanh(x), w, target) * 2
        return y + fastnlp.torch.cross_entropy(x @ w.T, target, reduction="sum")

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for eager, traced in zip(*(torch.autograd.grad(f(x, w), (x, w)) for f in (step, compiled)), strict=True):
        torch.testing.assert_close(traced, eager)
    assert gpu.waits == []


def test_wrong_labels_are_told_of_without_waiting(gpu, monkeypatch):
    x, _, _, target = operands(torch.float32, d=13)
    wrong = target.clone()
    wrong[4] = 13
    loss = fastnlp.torch.cross_entropy(x, wrong)
    assert loss.isnan()
    assert gpu.waits == []
    with pytest.raises(ValueError, match="target holds 13 at row 4"):
        fastnlp.torch.cross_entropy(x, target)
    assert fastnlp.torch.cross_entropy(x, target).isfinite()
    monkeypatch.setenv("FASTNLP_CHECK", "1")
    with pytest.raises(ValueError, match="target holds 13 at row 4"):
        fastnlp.torch.cross_entropy(x, wrong)
    assert fastnlp.torch.cross_entropy(x, target).isfinite()


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_traced_cuda_tensors(dtype):
    """What a compiler is told of the outputs, without a device."""
    with FakeTensorMode():
        x, w = (torch.empty(*shape, dtype=dtype, device="cuda") for shape in ((7, 12), (21, 12)))
        target = torch.empty(7, dtype=torch.int64, device="cuda")
        assert _arrays.on_device(x)
        loss = fastnlp.torch.linear_cross_entropy(x, w, target)
        assert (loss.device.type, loss.dtype, loss.shape) == ("cuda", torch.float32, ())
        y = fastnlp.torch.softmax(x, -1)
        assert (y.device.type, y.dtype, y.shape) == ("cuda", dtype, x.shape)
        loss, stats = fastnlp.torch.cross_entropy(x, target, reduction="none", return_stats=True)
        assert (loss.device.type, loss.dtype, stats.argmax.dtype) == ("cuda", torch.float32, torch.int64)


def test_tensors_on_different_devices():
    with FakeTensorMode():
        x, w = torch.empty(7, 12, device="cuda"), torch.empty(21, 12, device="cuda")
        with pytest.raises(ValueError, match=r"input on cuda:0, linear_weight on cuda:0, target on cpu"):
            fastnlp.torch.linear_cross_entropy(x, w, torch.empty(7, dtype=torch.int64))
        with pytest.raises(ValueError, match="linear_weight on cuda:1"):
            fastnlp.torch.linear_cross_entropy(x, w.to("cuda:1"), torch.empty(7, dtype=torch.int64, device="cuda"))
        with pytest.raises(TypeError, match=r"fastnlp\.torch, or pass cupy\.from_dlpack\(tensor\.detach\(\)\)"):
            fastnlp.linear_cross_entropy(x.requires_grad_(), w, torch.empty(7, dtype=torch.int64, device="cuda"))
        with pytest.raises(NotImplementedError, match="xpu"):
            fastnlp.torch.softmax(torch.empty(3, device="xpu"), -1)


def test_float64_is_the_cpus(gpu):
    with pytest.raises(TypeError, match=r"float64.*GPU|GPU.*float64"):
        fastnlp.torch.softmax(torch.randn(3, dtype=torch.float64), -1)


def test_an_operation_without_kernels_names_the_backends(gpu):
    with pytest.raises(NotImplementedError, match="entropy has no cuda kernel yet; it runs on: reference, cpu"):
        fastnlp.torch.entropy(torch.randn(3))
