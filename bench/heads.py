"""The contestants that compute the loss of a linear classifier, with its gradients or without.

Gradients are allocated inside the call, by everybody but the bare products, which compute no loss: the floor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnlp
from bench.harness import Absent, Contestant, prepared

NUMPY_FLOOR, TORCH_FLOOR = "bare np.matmul", "bare torch.mm"


def contestants(
    x: np.ndarray, w: np.ndarray, target: np.ndarray, gradient: bool, truth: Any
) -> list[Contestant | Absent]:
    """Return all of them; the bare products compute no loss, and answer `truth`."""
    args = (x, w, target, gradient)
    return [
        ours(*args),
        ours(*args, deterministic=True),
        prepared("fastnlp, tensors", tensors, *args),
        prepared("fastnlp, tensors, deterministic", tensors, *args, deterministic=True),
        prepared("torch eager", eager, *args),
        prepared("torch.compile", compiled, *args),
        prepared("torch, 256 rows a chunk", chunked, *args, rows=256),
        prepared("torch, automatic chunks", chunked, *args, rows=None),
        Contestant(NUMPY_FLOOR, _numpy_products(x, w, gradient), result=lambda _: truth),
        prepared(TORCH_FLOOR, _torch_products, x, w, gradient, truth),
    ]


def ours(x: np.ndarray, w: np.ndarray, target: np.ndarray, gradient: bool, **options: Any) -> Contestant:
    """Return fastnlp on NumPy arrays."""
    loss = fastnlp.value_and_grad(fastnlp.linear_cross_entropy) if gradient else fastnlp.linear_cross_entropy
    name = ", ".join(["fastnlp, NumPy arrays", *options])
    return Contestant(name, partial(loss, x, w, target, **options), result=_flat, floor=NUMPY_FLOOR)


def tensors(x: np.ndarray, w: np.ndarray, target: np.ndarray, gradient: bool, **options: Any) -> Contestant:
    """Return fastnlp on torch tensors."""
    import fastnlp.torch

    loss = partial(fastnlp.torch.linear_cross_entropy, ignore_index=-100, **options)
    return _of_torch(", ".join(["fastnlp, tensors", *options]), loss, x, w, target, gradient)


def eager(x: np.ndarray, w: np.ndarray, target: np.ndarray, gradient: bool) -> Contestant:
    """Return the two functions that a training loop calls."""
    return _of_torch("torch eager", _naive(), x, w, target, gradient)


def compiled(x: np.ndarray, w: np.ndarray, target: np.ndarray, gradient: bool) -> Contestant:
    """Return the same two functions compiled, which needs a C++ compiler; a first call compiles them."""
    import torch

    torch._dynamo.reset()
    found = _of_torch("torch.compile", torch.compile(_naive(), dynamic=False), x, w, target, gradient)
    try:
        found.call()
    except Exception as error:
        raise ImportError(f"torch.compile fails here: {str(error).strip().splitlines()[0]}") from error
    return found


def chunked(x: np.ndarray, w: np.ndarray, target: np.ndarray, gradient: bool, *, rows: int | None) -> Contestant:
    """Return torch's own fused function with `rows` rows a chunk, None: as many as it chooses."""
    try:
        from torch.nn import LinearCrossEntropyOptions
        from torch.nn.functional import linear_cross_entropy
    except ImportError as error:
        raise ImportError("this torch has no chunked linear_cross_entropy") from error
    name = f"torch, {rows} rows a chunk" if rows else "torch, automatic chunks"
    options = LinearCrossEntropyOptions(batch_chunk_size=rows) if rows else LinearCrossEntropyOptions()
    loss = partial(linear_cross_entropy, options=options, ignore_index=-100)
    return _of_torch(name, loss, x, w, target, gradient)


def _naive() -> Callable[..., Any]:
    from torch.nn import functional as F  # noqa: N812

    return lambda x, w, target: F.cross_entropy(F.linear(x, w), target)


def _of_torch(
    name: str, loss_of: Callable[..., Any], x: np.ndarray, w: np.ndarray, target: np.ndarray, gradient: bool
) -> Contestant:
    import torch

    labels = torch.from_numpy(target)

    def call() -> Any:
        xx, ww = (torch.from_numpy(a).requires_grad_(gradient) for a in (x, w))
        loss = loss_of(xx, ww, labels)
        return (loss.detach(), torch.autograd.grad(loss, (xx, ww))) if gradient else loss

    return Contestant(name, call, result=_flat, floor=TORCH_FLOOR)


def _numpy_products(x: np.ndarray, w: np.ndarray, gradient: bool) -> Callable[[], None]:
    z, dx, dw = np.zeros((len(x), len(w)), x.dtype), np.empty_like(x), np.empty_like(w)

    def call() -> None:
        np.matmul(x, w.T, out=z)
        if gradient:
            np.matmul(z, w, out=dx)
            np.matmul(z.T, x, out=dw)

    return call


def _torch_products(x: np.ndarray, w: np.ndarray, gradient: bool, truth: Any) -> Contestant:
    import torch

    xx, ww = torch.from_numpy(x), torch.from_numpy(w)
    z, dx, dw = torch.zeros(len(x), len(w)), torch.empty_like(xx), torch.empty_like(ww)

    def call() -> None:
        torch.mm(xx, ww.T, out=z)
        if gradient:
            torch.mm(z, ww, out=dx)
            torch.mm(z.T, xx, out=dw)

    return Contestant(TORCH_FLOOR, call, result=lambda _: truth)


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, tuple):
        return [float(value)]
    loss, grads = value
    return [float(loss), *(np.asarray(g) for g in grads if g is not None)]
