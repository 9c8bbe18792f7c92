"""A linear head on the GPU: its data, its truth in float32, and those who compute its loss and gradients.

The logits of random data are standard normal. Those of peaked data give the label of every row about 0.9 of the
probability, as a trained model does: a gradient that leaves out what is small is then nearly empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from bench.contestant import Absent, Contestant
from bench.gpu.device import compiled
from bench.gpu.race import entrant

FLOOR, FLOOR_COUNTED = "three cuBLAS products", "three cuBLAS products of the rows that count"
CHUNK = 1024
TOLERANCE = {"float32": (1e-4, 2e-3), "float16": (2e-2, 5e-2), "bfloat16": (2e-2, 5e-2)}
"""How far the loss and a gradient may be off, relative to the loss and to the gradient's norm."""


class Head(NamedTuple):
    """One case: tensors on the GPU, and how its loss is differentiated."""

    x: Any  # (N, D)
    w: Any  # (V, D)
    target: Any  # (N,)
    counted: int
    upstream: float  # the gradient of the loss: 2**15 for float16, as a gradient scaler might have it, else 1

    @property
    def returned(self) -> int:
        """Bytes of the gradients."""
        return sum(t.numel() * t.element_size() for t in (self.x, self.w))


class Filtered(list):
    """Loss and gradients of somebody who leaves out on purpose what is small in the gradient."""


def make(where: str, n: int, d: int, v: int, *, peaked: bool, ignored: float, dtype: str = "bfloat16") -> Head:
    """Return a head of random tensors on the device `where`."""
    import torch

    generator = torch.Generator(where).manual_seed(0)
    draw = partial(torch.randn, generator=generator, device=where)
    w = draw(v, d) / math.sqrt(d)
    target = torch.randint(0, v, (n,), generator=generator, device=where)
    x = draw(n, d)
    if peaked:
        x += (math.log(v) + 2.5) * w[target]  # the rest of a row weighs V exp(1/2)
    drop = torch.rand(n, generator=generator, device=where) < ignored
    target = torch.where(drop, -100, target)
    of = getattr(torch, dtype)
    counted = n - int(drop.sum())
    return Head(x.to(of), w.to(of), target, counted, 2.0**15 if dtype == "float16" else 1.0)


def truth(head: Head) -> list[Any]:
    """Return loss, dx, dw from float32 products and float32 rows, the sum of losses in float64."""
    import torch

    w = head.w.float()
    loss, dx, dw = 0.0, torch.zeros_like(head.x, dtype=torch.float32), torch.zeros_like(w)
    for rows in (head.target >= 0).nonzero()[:, 0].split(CHUNK):
        x = head.x[rows].float()
        z = torch.log_softmax(x @ w.T, 1)
        own = head.target[rows, None]
        loss = loss - z.gather(1, own).double().sum() / head.counted
        z = z.exp_().scatter_add_(1, own, z.new_full(own.shape, -1.0)).mul_(head.upstream / head.counted)
        dx[rows] = z @ w
        dw += z.T @ x
    return [loss, dx, dw]


def checker(head: Head) -> Callable[[Any], None]:
    """Return what raises AssertionError where a loss or a gradient is not the truth; None is not looked at.

    Nearly all of the weights' gradient is in the rows of labels. The others, which come from the softmax alone, are
    looked at by themselves.
    """
    import torch

    true = truth(head)
    rest = torch.ones(len(head.w), dtype=torch.bool, device=head.w.device)
    rest[head.target[head.target >= 0]] = False
    allowed = TOLERANCE[str(head.x.dtype).removeprefix("torch.")]

    def near(name: str, one: Any, want: Any) -> None:
        error = float((one - want).norm() / want.norm())
        limit = allowed[name != "loss"]
        assert error <= limit, f"{name} is off by {error:.1e} of its norm, allowed are {limit:.0e}"

    def check(got: Any) -> None:
        if got is None:
            return
        for name, one, want in zip(("loss", "dx", "dw"), got, true, strict=True):
            if one is not None:
                near(name, one, want)
        if got[2] is not None and rest.any() and not isinstance(got, Filtered):
            near("dw of the classes that are no label", got[2][rest], true[2][rest])

    return check


def ours(head: Head, gradient: bool = True, **options: Any) -> Contestant:
    """Return fastnlp's loss; `options` are its own."""
    import fastnlp.torch

    shown = [name if value is True else f"{name}={value}" for name, value in options.items()]
    loss = partial(fastnlp.torch.linear_cross_entropy, ignore_index=-100, **options)
    return _contestant(", ".join(["fastnlp", *shown]), loss, head, gradient)


def peers(head: Head, *, also_compiled: bool = False) -> list[Contestant | Absent]:
    """Return what else computes it, and the products without the loss."""
    makers: dict[str, Callable[[Head], Contestant]] = {"torch eager": eager, "torch, chunks": _chunks}
    if also_compiled:
        makers["torch.compile"] = _compiled
    makers |= {"Liger": _liger, "CCE": _cce}
    return [*(entrant(name, maker, head) for name, maker in makers.items()), products(head)]


def products(head: Head, *, counted: bool = False) -> Contestant:
    """Return the three products of a head, into tensors made beforehand: the limit of everybody who does all three."""
    import torch

    x = head.x[head.target >= 0] if counted else head.x
    z, dx, dw = x.new_empty(len(x), len(head.w)), torch.empty_like(x), torch.empty_like(head.w)

    def call() -> None:
        torch.mm(x, head.w.T, out=z)
        torch.mm(z, head.w, out=dx)
        torch.mm(z.T, x, out=dw)

    return Contestant(FLOOR_COUNTED if counted else FLOOR, call)


def eager(head: Head) -> Contestant:
    """Return the two functions that a training loop calls."""
    from torch.nn import functional as F  # noqa: N812

    return _contestant("torch eager", lambda x, w, t: F.cross_entropy(F.linear(x, w), t), head)


def _compiled(head: Head) -> Contestant:
    from torch.nn import functional as F  # noqa: N812

    return _contestant("torch.compile", compiled(lambda x, w, t: F.cross_entropy(F.linear(x, w), t)), head)


def _chunks(head: Head) -> Contestant:
    """Return torch's own chunked function, or where this torch has none a plain loop that computes chunks twice."""
    from torch.nn import functional as F  # noqa: N812

    try:
        from torch.nn import LinearCrossEntropyOptions
        from torch.nn.functional import linear_cross_entropy
    except ImportError:
        from torch.utils.checkpoint import checkpoint

        def one(x: Any, w: Any, t: Any) -> Any:
            return F.cross_entropy(F.linear(x, w), t, reduction="sum")

        def loop(x: Any, w: Any, t: Any) -> Any:
            parts = zip(x.split(CHUNK), t.split(CHUNK), strict=True)
            return sum(checkpoint(one, xx, w, tt, use_reentrant=False).float() for xx, tt in parts) / head.counted

        return _contestant(f"plain loop of {CHUNK} rows, checkpointed", loop, head)
    return _contestant("torch, chunks", partial(linear_cross_entropy, options=LinearCrossEntropyOptions()), head)


def _liger(head: Head) -> Contestant:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss()
    return _contestant("Liger", lambda x, w, t: loss(w, x, t), head)


def _cce(head: Head) -> Contestant:
    from cut_cross_entropy import linear_cross_entropy

    return replace(_contestant("CCE", linear_cross_entropy, head), result=Filtered)


def _contestant(name: str, loss_of: Callable[..., Any], head: Head, gradient: bool = True) -> Contestant:
    import torch

    def call() -> Any:
        x, w = (t.detach().requires_grad_(gradient) for t in (head.x, head.w))
        loss = loss_of(x, w, head.target)
        if not gradient:
            return [loss, None, None]
        upstream = torch.full_like(loss, head.upstream)
        return [loss.detach(), *torch.autograd.grad(loss, (x, w), upstream)]

    return Contestant(name, call)
