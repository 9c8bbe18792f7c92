"""Losses in training loops: low precision, autocast, accumulation, several processes, data loaders."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastnlp.torch  # noqa: E402

F = torch.nn.functional


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def batch(n=512, d=64, c=2000, dtype=torch.float32):
    x, w = torch.randn(n, d), torch.randn(c, d) / d**0.5
    target = torch.randint(0, c, (n,))
    target[::7] = -100
    return x.to(dtype).requires_grad_(), w.to(dtype).requires_grad_(), target


def relative(actual, truth):
    return float((actual.double() - truth).norm() / truth.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("workspace", [None, 1 << 20])
def test_low_precision_tensors_are_summed_in_float32(dtype, workspace):
    x, w, target = batch(dtype=dtype)
    loss = fastnlp.torch.linear_cross_entropy(x, w, target, workspace=workspace)
    wide = [t.detach().double().requires_grad_() for t in (x, w)]
    truth = F.cross_entropy(wide[0] @ wide[1].T, target)
    dx, dw = torch.autograd.grad(truth, wide)
    loss.backward()
    assert loss.dtype == torch.float32
    assert abs(loss.item() / truth.item() - 1) <= 1e-6
    assert (x.grad.dtype, w.grad.dtype) == (dtype, dtype)
    # What is left is the rounding of the gradient itself: half an ulp, 0.17 % in bfloat16 on average.
    limit = 0.0017 if dtype == torch.bfloat16 else 0.0003
    assert relative(w.grad, dw) <= limit
    if dtype == torch.bfloat16:  # in float16, entries of dx near 1e-6 are subnormal
        assert relative(x.grad, dx) <= limit


def test_autocast_computes_in_float32():
    x, w, target = batch()
    head = torch.nn.Linear(64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = head(x)
        loss = fastnlp.torch.linear_cross_entropy(hidden, w, target)
        on_logits = fastnlp.torch.cross_entropy(F.linear(hidden, w), target)
        naive = F.cross_entropy(F.linear(hidden, w).float(), target)
    assert hidden.dtype == torch.bfloat16
    assert loss.dtype == on_logits.dtype == torch.float32
    truth = F.cross_entropy(hidden.double() @ w.double().T, target)
    assert abs(loss.item() / truth.item() - 1) <= 1e-6
    torch.testing.assert_close(on_logits, naive)
    grads = torch.autograd.grad(loss, (w, head.weight), retain_graph=True)
    assert [g.dtype for g in grads] == [torch.float32] * 2
    true_dw = torch.autograd.grad(truth, w)[0]
    assert relative(grads[0], true_dw) <= 1e-6


def test_gradients_accumulate_into_what_is_there():
    x, w, target = batch()
    parts = [slice(0, 100), slice(100, 512)]
    whole = torch.autograd.grad(fastnlp.torch.linear_cross_entropy(x, w, target, reduction="sum"), (x, w))
    w.grad = torch.ones_like(w)
    kept = w.grad
    for part in parts:
        fastnlp.torch.linear_cross_entropy(x[part], w, target[part], reduction="sum").backward()
    assert w.grad is kept
    torch.testing.assert_close(w.grad - 1, whole[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.grad, whole[0])


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_backward_gives_the_same(reduction):
    x, w, target = batch()
    loss = fastnlp.torch.linear_cross_entropy(x, w, target, reduction=reduction)
    upstream = torch.randn_like(loss)
    first = [g.clone() for g in torch.autograd.grad(loss, (x, w), upstream, retain_graph=True)]
    other = torch.autograd.grad(loss, (x, w), 3 * upstream, retain_graph=True)
    for a, b, c in zip(first, other, torch.autograd.grad(loss, (x, w), upstream), strict=True):
        assert torch.equal(a, c)
        torch.testing.assert_close(b, 3 * a)


def test_two_losses_of_one_head():
    x, w, target = batch()
    loss = fastnlp.torch.linear_cross_entropy(x, w, target) + fastnlp.torch.linear_cross_entropy(x * 0.5, w, target)
    truth = F.cross_entropy(x @ w.T, target) + F.cross_entropy(0.5 * x @ w.T, target)
    for a, b in zip(torch.autograd.grad(loss, (x, w)), torch.autograd.grad(truth, (x, w)), strict=True):
        torch.testing.assert_close(a, b)


PROCESS = """
import sys, torch, fastnlp.torch
import torch.distributed as dist
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh())
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.loss = model, fastnlp.torch.LinearCrossEntropyLoss(16, 50, bias=True)
    def forward(self, x, target):
        return self.loss(self.body(x), target)
parallel = torch.nn.parallel.DistributedDataParallel(Model())
x, target = torch.randn(20, 8), torch.randint(0, 50, (20,))
part = slice(10 * rank, 10 * rank + 10)
parallel(x[part], target[part]).backward()
torch.save([p.grad for p in parallel.parameters()], f"{folder}/{rank}.pt")
whole = Model()
whole.load_state_dict(parallel.module.state_dict())
torch.nn.functional.cross_entropy(whole.loss.linear(whole.body(x)), target).backward()
for mine, true in zip(parallel.parameters(), whole.parameters(), strict=True):
    torch.testing.assert_close(mine.grad, true.grad)
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradients_of_one(tmp_path):
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    command = [sys.executable, "-c", PROCESS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in running:
        errors = process.communicate(timeout=240)[1]
        assert process.returncode == 0, errors
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Losses(torch.utils.data.Dataset):
    def __init__(self, x, w, target):
        self.x, self.w, self.target = x, w, target

    def __len__(self):
        return 4

    def __getitem__(self, i):
        rows = slice(128 * i, 128 * i + 128)
        return fastnlp.torch.linear_cross_entropy(self.x[rows], self.w, self.target[rows])


def test_workers_of_a_data_loader():
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    x, w, target = (t.detach() for t in batch())
    losses = Losses(x, w, target)
    expected = torch.stack([losses[i] for i in range(4)])  # the threads of this process have run
    loader = torch.utils.data.DataLoader(losses, num_workers=2, multiprocessing_context="fork", timeout=60)
    torch.testing.assert_close(torch.cat(list(loader)), expected)


def test_gradients_handed_over_are_the_callers_own():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 8, generator=generator, requires_grad=True)
    w = torch.randn(20, 8, generator=generator, requires_grad=True)
    target = torch.randint(0, 20, (50,), generator=generator)

    def loss(weight=w):
        return fastnlp.torch.linear_cross_entropy(x, weight, target)

    (expected,) = torch.autograd.grad(loss(), w)
    expected = expected.clone()
    kept = loss()
    kept.backward(retain_graph=True)
    w.grad.mul_(5)
    w.grad = None
    kept.backward()
    assert torch.equal(w.grad, expected)
    for _ in range(2):
        loss().backward()
    torch.testing.assert_close(w.grad, 3 * expected)
    again = loss()
    (first,) = torch.autograd.grad(again, w, retain_graph=True)
    first.mul_(3)
    (second,) = torch.autograd.grad(again, w)
    assert torch.equal(second, expected)
    w.grad = None
    (2.5 * loss(w * 1.0)).backward()
    torch.testing.assert_close(w.grad, 2.5 * expected)
