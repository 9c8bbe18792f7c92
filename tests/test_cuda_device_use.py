"""How operations behave on a GPU: streams, graphs, determinism, memory, compilers, several GPUs, bad input.

Skipped without a GPU; ``python -m bench.gpu`` runs them where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests import cuda_device
from tests.cuda_device import assert_near

cuda_device.skip_without()
torch = pytest.importorskip("torch", reason="torch is not at hand")
cuda_device.skip_without("tensors")

import fastnlp  # noqa: E402
import fastnlp.torch  # noqa: E402

F = torch.nn.functional
GPU = "cuda"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def head(n=300, d=64, classes=1003, dtype=torch.float32):
    x, w = (torch.randn(k, d, device=GPU).to(dtype) for k in (n, classes))
    target = torch.randint(0, classes, (n,), device=GPU)
    target[::5] = -100
    return x, w / 8, target


def loss_and_gradients(x, w, target, **options):
    x, w = (t.detach().requires_grad_() for t in (x, w))
    loss = fastnlp.torch.linear_cross_entropy(x, w, target, **options)
    return [loss.detach(), *torch.autograd.grad(loss, (x, w))]


def calls():
    """Return calls with gradients of every operation that has none on the host, by name."""
    x, w, target = head(n=40)
    logits = x @ w.T
    ends = torch.tensor([0, 7, 8, 40], device=GPU)

    def differentiated(function, *args, of=1, **options):
        def call():
            leaves = [a.detach().requires_grad_() for a in args[:of]]
            value = function(*leaves, *args[of:], **options)
            return torch.autograd.grad(value.sum(), leaves)[-1]

        return call

    f = fastnlp.torch
    return {
        "softmax": differentiated(f.softmax, logits, dim=1),
        "log_softmax": differentiated(f.log_softmax, logits, dim=1),
        "logsumexp": differentiated(f.logsumexp, logits, dim=1),
        "linear_softmax": differentiated(f.linear_softmax, x, w, of=2),
        "cross_entropy": differentiated(f.cross_entropy, logits, target),
        "smoothed": differentiated(f.cross_entropy, logits, target, label_smoothing=0.1, softcap=5.0),
        "rows": differentiated(f.cross_entropy, logits, target, reduction="none"),
        "linear_cross_entropy": differentiated(f.linear_cross_entropy, x, w, target, of=2),
        "num_valid": differentiated(f.linear_cross_entropy, x, w, target, num_valid=32, of=2),
        "softmax_kl_div": differentiated(f.softmax_kl_div, logits, logits.flip(1), of=2),
        "linear_kl_div": differentiated(f.linear_kl_div, x, w, x.flip(0), w, of=2),
        "pool": differentiated(f.pool, x, mode="mean", cu_seqlens=ends),
    }


NAMES = [
    *("softmax", "log_softmax", "logsumexp", "linear_softmax", "cross_entropy", "smoothed", "rows"),
    *("linear_cross_entropy", "num_valid", "softmax_kl_div", "linear_kl_div", "pool"),
]


@pytest.mark.parametrize("name", NAMES)
def test_calls_do_not_wait_and_capture_in_a_graph(name):
    call = calls()[name]
    want = call().clone()  # kernels are compiled before
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = call()
    held.fill_(float("nan"))
    graph.replay()
    assert torch.equal(held, want)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_in_every_call(name):
    first = calls()[name]()
    torch.manual_seed(0)
    assert torch.equal(calls()[name](), first)


def test_replays_compute_on_new_inputs():
    x, w, target = head()
    loss_and_gradients(x, w, target)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = loss_and_gradients(x, w, target)
    x.copy_(torch.randn_like(x))
    target[10:200] = -100
    graph.replay()
    for got, want in zip(held, loss_and_gradients(x, w, target), strict=True):
        assert torch.equal(got, want)


def test_work_goes_to_the_current_stream():
    x, w, target = head(n=2000)
    want = loss_and_gradients(x, w, target)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(300_000_000)  # what runs on another stream would overtake the copy
        late = torch.empty_like(x).copy_(x)
        got = loss_and_gradients(late, w, target)
        assert not side.query(), "the host has waited"
    torch.cuda.current_stream().wait_stream(side)
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


def test_compact_needs_the_count_which_a_graph_cannot_have():
    x, w, target = head()
    loss_and_gradients(x, w, target, compact=True)
    with pytest.raises(RuntimeError, match="num_valid"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        loss_and_gradients(x, w, target, compact=True)
    torch.cuda.synchronize()
    assert all(t.isfinite().all() for t in loss_and_gradients(x, w, target))


def test_rows_beyond_two_to_the_31_elements():
    n, v = 70_000, 32_768
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("24 GiB of free GPU memory are not at hand")
    x = torch.randn(n, v, device=GPU, dtype=torch.bfloat16)
    last = fastnlp.torch.softmax(x, 1)[-3:].double()
    assert_near(last.cpu(), torch.softmax(x[-3:].double(), 1).cpu(), 1e-2)
    target = torch.randint(0, v, (n,), device=GPU)
    losses = fastnlp.torch.cross_entropy(x, target, reduction="none")
    assert_near(losses[-3:].double().cpu(), F.cross_entropy(x[-3:].double(), target[-3:], reduction="none").cpu(), 1e-5)


def test_memory_stays_within_the_workspace():
    x, w, target = head(n=4096, d=128, classes=50_000, dtype=torch.bfloat16)
    loss_and_gradients(x, w, target)
    torch.cuda.synchronize()
    peaks = []
    for workspace in (128 << 20, 256 << 20):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss_and_gradients(x, w, target, workspace=workspace)
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    gradients = sum(t.numel() * 4 + t.numel() * 2 for t in (x, w))  # float32 sums, then in the dtype of the inputs
    assert peaks[0] <= gradients + (128 << 20) + (16 << 20)
    assert peaks[0] < peaks[1] <= gradients + (256 << 20) + (16 << 20)


def test_without_memory_the_error_names_the_workspace_and_calls_go_on():
    x, w, target = head(n=8192, d=16, classes=100_000, dtype=torch.bfloat16)
    want = loss_and_gradients(x, w, target)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (600 << 20)) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="workspace"):
            loss_and_gradients(x, w, target, workspace=2 << 30)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for got, one in zip(loss_and_gradients(x, w, target), want, strict=True):
        assert torch.equal(got, one)


@pytest.mark.parametrize("function", [fastnlp.torch.cross_entropy, fastnlp.torch.linear_cross_entropy])
@pytest.mark.parametrize("wrong", [1003, -5, 2**40])
def test_a_target_that_is_no_class_makes_nan_and_is_told(function, wrong, monkeypatch):
    x, w, target = head()
    target[17] = wrong
    args = (x @ w.T, target) if function is fastnlp.torch.cross_entropy else (x, w, target)
    assert function(*args).isnan()
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match=f"target holds {wrong} at row 17"):
        function(*args)
    monkeypatch.setenv("FASTNLP_CHECK", "1")
    with pytest.raises(ValueError, match=f"target holds {wrong} at row 17"):
        function(*args)
    target[17] = 3
    assert function(*args).isfinite()


def test_arrays_of_several_devices_are_refused():
    x, w, target = head()
    for args in ((x, w.cpu(), target), (x, w, target.cpu()), (x.cpu(), w, target)):
        with pytest.raises((TypeError, ValueError), match="cpu"):
            fastnlp.torch.linear_cross_entropy(*args)
    with pytest.raises(TypeError, match="float64"):
        fastnlp.torch.softmax(x.double(), 1)


def test_tensors_are_not_for_the_array_functions():
    with pytest.raises(TypeError, match=r"fastnlp\.torch"):
        fastnlp.softmax(torch.zeros(2, 3, device=GPU, requires_grad=True))


def test_the_gpu_of_the_tensors_is_used():
    if torch.cuda.device_count() < 2:
        pytest.skip("a second GPU is not at hand")
    args = head()
    want = loss_and_gradients(*args)
    got = loss_and_gradients(*(t.to("cuda:1") for t in args))
    for one, other in zip(got, want, strict=True):
        assert one.device == torch.device("cuda:1")
        assert_near(one.cpu(), other.cpu(), 1e-5)


def test_torch_compile_takes_operations_whole():
    x, w, target = head()

    @torch.compile(fullgraph=True)
    def compiled(x, w, target):
        return fastnlp.torch.linear_cross_entropy(x * 2, w, target) + fastnlp.torch.softmax(x, 1).sum()

    xx = x.detach().requires_grad_()
    (got,) = torch.autograd.grad(compiled(xx, w, target), xx)
    true = F.cross_entropy((xx * 2).double() @ w.double().T, target) + torch.softmax(xx.double(), 1).sum()
    assert_near(got.double().cpu(), torch.autograd.grad(true, xx)[0].double().cpu(), 1e-4)


def test_a_loss_of_no_rows_that_count_is_nan_and_its_gradients_zero():
    x, w, target = head()
    target[:] = -100
    loss, dx, dw = loss_and_gradients(x, w, target)
    assert loss.isnan()
    assert not np.any(dx.cpu().numpy())
    assert not np.any(dw.cpu().numpy())
