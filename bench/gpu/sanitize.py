"""The main kernels on small shapes with ragged ends, to be run under compute-sanitizer: it computes and prints nothing.

Rows are fewer and more than the blocks of a grid, widths leave tails, one view begins off the 16-byte boundary, and
some targets are ignored, so that every path of a kernel is taken.
"""

from __future__ import annotations

import sys
from typing import Any

SHAPES = ((1, 1), (3, 257), (300, 136), (2, 20_001))


def main(where: str = "cuda") -> int:
    """Run them all."""
    import torch

    torch.manual_seed(0)
    for n, v in SHAPES:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            _rows(torch.randn(n, v, device=where).to(dtype))
            _rows(torch.randn(n, v + 1, device=where).to(dtype)[:, 1:])
            _heads(torch.randn(n, 24, device=where).to(dtype), torch.randn(v, 24, device=where).to(dtype))
    _pooled(torch.randn(40, 72, device=where))
    if where == "cuda":
        torch.cuda.synchronize()
    return 0


def _rows(x: Any) -> None:
    import fastnlp.torch as ours

    for function in (ours.softmax, ours.log_softmax, ours.logsumexp):
        _differentiate(function(_leaf(x), dim=1))
    target = _target(x.shape[0], x.shape[1], x.device)
    for options in ({}, {"label_smoothing": 0.1, "z_loss": 0.01}, {"softcap": 5.0}):
        _differentiate(ours.cross_entropy(_leaf(x), target, **options))
    for beta in (0.0, 0.3, 1.0):
        _differentiate(ours.softmax_kl_div(_leaf(x), x.flip(1), beta=beta))


def _heads(x: Any, w: Any) -> None:
    import fastnlp.torch as ours

    target = _target(x.shape[0], w.shape[0], x.device)
    for options in ({}, {"compact": True}, {"label_smoothing": 0.1}):
        _differentiate(ours.linear_cross_entropy(_leaf(x), _leaf(w), target, **options))
    _differentiate(ours.linear_kl_div(_leaf(x), _leaf(w), x.flip(0), w))


def _pooled(x: Any) -> None:
    import torch

    import fastnlp.torch as ours

    ends = torch.tensor([0, 1, 18, 19, 40], device=x.device)
    for mode in ("cls", "mean", "max", "last"):
        _differentiate(ours.pool(_leaf(x), mode=mode, cu_seqlens=ends))


def _leaf(x: Any) -> Any:
    return x.detach().requires_grad_()


def _differentiate(value: Any) -> None:
    value.float().sum().backward()


def _target(n: int, v: int, device: Any) -> Any:
    import torch

    target = torch.randint(0, v, (n,), device=device)
    target[1::3] = -100
    return target


if __name__ == "__main__":
    sys.exit(main())
