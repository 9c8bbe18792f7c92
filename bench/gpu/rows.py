"""Parts of operations on rows of logits: softmax, cross-entropy, divergence, beside a copy of as many bytes.

Bytes: what must at least be read and written. A gradient reads the logits once more and writes as many: 3 N V elements
with the forward. The limit is the device's own copy, of half the bytes, since it reads and writes each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bench.contestant import Absent, Contestant
from bench.gpu.device import compiled
from bench.gpu.part import Part
from bench.gpu.race import entrant, race

V = 131_072
COPY = "copy of as many bytes"
Entrants = Sequence[Contestant | Absent]
_TOLERANCE = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-5}


def main() -> list[Part]:
    """Return the cases of the targets."""
    return [_part(operation, dtype) for operation in TARGETED for dtype in ("bfloat16", "float32")]


def more() -> list[Part]:
    """Return what has no target: float16, the divergence, few classes."""
    few = [_part(operation, "bfloat16", 262_144, 1024) for operation in CASES]
    rest = [(operation, "float16") for operation in CASES]
    rest += [(operation, dtype) for operation in CASES.keys() - set(TARGETED) for dtype in ("bfloat16", "float32")]
    return [*(_part(*one) for one in rest), *few]


def compete(device: Any, *, operation: str, n: int, v: int, dtype: str) -> Any:
    """Race for one operation on logits (n, v)."""
    import torch

    generator = torch.Generator(device.where).manual_seed(0)
    of = getattr(torch, dtype)
    x, y = (torch.randn(n, v, generator=generator, device=device.where, dtype=torch.float32).to(of) for _ in range(2))
    target = torch.randint(0, v, (n,), generator=generator, device=device.where)
    touches, make = CASES[operation]
    nbytes = touches * x.numel() * x.element_size()
    entrants, check = make(x, y, target)
    source = torch.ones(nbytes // 2, dtype=torch.uint8, device=device.where)
    sink = torch.empty_like(source)
    copy = Contestant(COPY, lambda: sink.copy_(source), result=lambda _: None)
    record = race(
        device,
        operation,
        f"{n:,} x {v:,}, {dtype}",
        [*entrants, copy],
        check=check,
        seconds=0.5,
        flush=nbytes < 1 << 30,
        per_call={"bytes": nbytes, "rows": n},
    )
    return [{**record, "floor": COPY, "shape": {"n": n, "v": v, "dtype": dtype}}]


def near(want: Sequence[Any], tolerance: float) -> Callable[[Any], None]:
    """Return what raises AssertionError where tensors differ from `want` by more than their norm times `tolerance`."""

    def check(got: Any) -> None:
        if got is None:
            return
        for k, (one, true) in enumerate(zip(got, want, strict=True)):
            error = float((one.float() - true).norm() / true.norm())
            assert error <= tolerance, f"result {k} is off by {error:.1e} of its norm, allowed are {tolerance:.0e}"

    return check


def _softmax(x: Any, y: Any, target: Any) -> tuple[Entrants, Any]:
    import torch

    import fastnlp.torch

    def prepare() -> Callable[[], Any]:
        fast = compiled(lambda a: torch.softmax(a, 1))
        return lambda: [fast(x)]

    entrants = [
        Contestant("fastnlp", lambda: [fastnlp.torch.softmax(x, 1)]),
        Contestant("torch eager", lambda: [torch.softmax(x, 1)]),
        entrant("torch.compile", prepare),
        entrant("Liger", _liger_softmax, x),
    ]
    return entrants, near([torch.softmax(x.float(), 1)], _tolerance(x))


def _cross_entropy(x: Any, y: Any, target: Any) -> tuple[Entrants, Any]:
    import torch

    import fastnlp.torch

    naive = torch.nn.functional.cross_entropy

    def with_gradient(loss_of: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            logits = x.detach().requires_grad_()
            loss = loss_of(logits, target)
            return [loss.detach(), *torch.autograd.grad(loss, logits)]

        return call

    entrants = [
        Contestant("fastnlp", with_gradient(fastnlp.torch.cross_entropy)),
        Contestant("torch eager", with_gradient(naive)),
        entrant("torch.compile", lambda: with_gradient(compiled(naive))),
        entrant("Liger", _liger_cross_entropy, x, target),
    ]
    dx = torch.softmax(x.float(), 1)
    loss = -dx.gather(1, target[:, None]).log().mean()
    dx.scatter_add_(1, target[:, None], dx.new_full((len(x), 1), -1.0)).div_(len(x))
    return entrants, near([loss, dx], 5 * _tolerance(x))


def _cross_entropy_forward(x: Any, y: Any, target: Any) -> tuple[Entrants, Any]:
    import torch

    import fastnlp.torch

    naive = torch.nn.functional.cross_entropy
    entrants = [
        Contestant("fastnlp", lambda: [fastnlp.torch.cross_entropy(x, target)]),
        Contestant("torch eager", lambda: [naive(x, target)]),
    ]
    return entrants, near([naive(x.float(), target)], 2 * _tolerance(x))


def _kl(x: Any, y: Any, target: Any) -> tuple[Entrants, Any]:
    import torch

    import fastnlp.torch

    def call() -> Any:
        student = x.detach().requires_grad_()
        loss = fastnlp.torch.softmax_kl_div(student, y)
        return [loss.detach(), *torch.autograd.grad(loss, student)]

    def eager() -> Any:
        student = x.detach().requires_grad_()
        told, wanted = torch.log_softmax(student, 1), torch.log_softmax(y, 1)
        loss = torch.nn.functional.kl_div(told, wanted, reduction="batchmean", log_target=True)
        return [loss.detach(), *torch.autograd.grad(loss, student)]

    q, p = torch.log_softmax(x.float(), 1), torch.log_softmax(y.float(), 1)
    loss = (p.exp() * (p - q)).sum(1).mean()
    dx = q.exp_().sub_(p.exp_()).div_(len(x))
    return [Contestant("fastnlp", call), Contestant("torch eager", eager)], near([loss, dx], 5 * _tolerance(x))


CASES: dict[str, tuple[int, Callable[[Any, Any, Any], tuple[Entrants, Any]]]] = {
    "softmax": (2, _softmax),
    "cross_entropy with gradient": (3, _cross_entropy),
    "cross_entropy": (1, _cross_entropy_forward),
    "softmax_kl_div with gradient": (5, _kl),
}
"""How often an operation must at least touch (N, V), and who takes part."""
TARGETED = ("softmax", "cross_entropy with gradient", "cross_entropy")
_COMPILED = TARGETED[:2]


def _part(operation: str, dtype: str, n: int = 4096, v: int = V) -> Part:
    run = partial(compete, operation=operation, n=n, v=v, dtype=dtype)
    size = n * v * (4 if dtype == "float32" else 2)
    return Part(
        f"{operation}, {n:,} x {v:,}, {dtype}", run, 8.0 if operation in _COMPILED else 4.0, 8 * size + 5 * 4 * n * v
    )


def _tolerance(x: Any) -> float:
    return _TOLERANCE[str(x.dtype).removeprefix("torch.")]


def _liger_softmax(x: Any) -> Callable[[], Any]:
    from liger_kernel.ops.softmax import LigerSoftmaxFunction

    return lambda: [LigerSoftmaxFunction.apply(x)]


def _liger_cross_entropy(x: Any, target: Any) -> Contestant:
    """Return Liger's loss, which writes the gradient over the logits: they are put back before each call."""
    import torch
    from liger_kernel.transformers import LigerCrossEntropyLoss

    loss_of, mine = LigerCrossEntropyLoss(), x.clone()

    def call() -> Any:
        logits = mine.detach().requires_grad_()
        loss = loss_of(logits, target)
        return [loss.detach(), *torch.autograd.grad(loss, logits)]

    return Contestant("Liger", call, reset=lambda: mine.copy_(x))
