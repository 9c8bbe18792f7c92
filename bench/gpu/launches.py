"""Parts of calls so short that only their launches count: the overhead of a call, and graphs that have none."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bench.contestant import Contestant, prepared
from bench.gpu import heads
from bench.gpu.part import Part
from bench.gpu.race import race
from bench.gpu.rows import near

LOOPS = 100


def parts() -> list[Part]:
    """Return them."""
    return [
        Part("overhead of a call", partial(overhead, n=8, v=256), 15),
        Part("CUDA graph", partial(graph, n=256, d=256, v=8192), 10),
    ]


class HostClock:
    """The GPU timed from outside: what a caller waits who calls many times and then once for the GPU."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def seconds(self, call: Callable[[], Any], loops: int = 1) -> float:
        """Return the seconds of one of `loops` calls."""
        self._device.synchronize()
        begin = time.perf_counter()
        for _ in range(loops):
            call()
        self._device.synchronize()
        return (time.perf_counter() - begin) / loops


def overhead(device: Any, *, n: int, v: int) -> Any:
    """Race for calls on a few numbers."""
    import torch

    import fastnlp.torch

    x, target = torch.randn(n, v, device=device.where), torch.zeros(n, dtype=torch.int64, device=device.where)
    spare, host = torch.empty_like(x), HostClock(device)
    entrants = [
        Contestant("fastnlp, tensors", lambda: fastnlp.torch.softmax(x, 1)),
        prepared("fastnlp, CuPy arrays", _cupy, x),
        Contestant("torch eager", lambda: torch.softmax(x, 1)),
        Contestant("torch, one kernel", lambda: spare.zero_(), result=lambda _: None),
    ]
    case, check = f"{n} x {v} float32", near([torch.softmax(x, 1)], 1e-5)
    first = race(
        host,
        "overhead: softmax",
        case,
        entrants,
        check=lambda y: check(y if y is None else [y]),
        loops=LOOPS,
    )
    naive = torch.nn.functional.cross_entropy
    entrants = [
        Contestant("fastnlp, tensors", lambda: fastnlp.torch.cross_entropy(x, target)),
        Contestant("torch eager", lambda: naive(x, target)),
    ]
    check_loss = near([naive(x, target)], 1e-5)
    second = race(host, "overhead: cross_entropy", case, entrants, check=lambda loss: check_loss([loss]), loops=LOOPS)
    head = heads.make(device.where, n, 64, v, peaked=False, ignored=0.0)
    entrants = [heads.ours(head), heads._eager(head)]
    third = race(
        host,
        "overhead: linear_cross_entropy with gradients",
        f"N={n} D=64 V={v} bfloat16",
        entrants,
        check=heads.checker(head),
        loops=LOOPS,
    )
    return [first, second, third]


def graph(device: Any, *, n: int, d: int, v: int) -> Any:
    """Capture loss and gradients in a CUDA graph; replays must give what a call gives, on new inputs too."""
    import torch

    head = heads.make(device.where, n, d, v, peaked=False, ignored=0.5)
    call = heads.ours(head).call
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # kernels are compiled before the capture
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        held = call()

    def replay() -> Any:
        captured.replay()
        return held

    head.x.copy_(torch.randn_like(head.x))
    record = race(
        HostClock(device),
        "CUDA graph of linear_cross_entropy with gradients",
        f"N={n:,} D={d:,} V={v:,}, 50% ignored, bfloat16",
        [Contestant("fastnlp, replayed", replay), Contestant("fastnlp, called", call)],
        check=heads.checker(head),
        loops=20,
        note="The inputs were changed after the capture, and the results are checked for the new ones.",
    )
    return [record]


def _cupy(x: Any) -> Contestant:
    import cupy
    import torch

    import fastnlp

    array = cupy.from_dlpack(x)
    return Contestant("fastnlp, CuPy arrays", lambda: fastnlp.softmax(array), result=torch.from_dlpack)
