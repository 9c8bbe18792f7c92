"""Parts of calls so short that only their launches count: the overhead of a call, and graphs that have none."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.contestant import Contestant
from bench.gpu import heads
from bench.gpu.device import HostClock
from bench.gpu.part import Part
from bench.gpu.race import entrant, race
from bench.gpu.rows import near

LOOPS = 100


def parts() -> list[Part]:
    """Return them."""
    return [
        Part("overhead of a call", partial(overhead, n=8, v=256), 15),
        Part("CUDA graph", partial(graph, n=256, d=256, v=8192), 10),
    ]


def overhead(device: Any, *, n: int, v: int) -> Any:
    """Race for calls on a few numbers."""
    import torch

    import fastnlp.torch

    x, target = torch.randn(n, v, device=device.where), torch.zeros(n, dtype=torch.int64, device=device.where)
    spare, host = torch.empty_like(x), HostClock(device)
    entrants = [
        Contestant("fastnlp, tensors", lambda: fastnlp.torch.softmax(x, 1)),
        entrant("fastnlp, CuPy arrays", _cupy, x),
        Contestant("torch eager", lambda: torch.softmax(x, 1)),
        Contestant("torch, one kernel", lambda: spare.zero_(), result=lambda _: None),
        entrant("fastnlp, a kernel that does nothing", _nothing, x),
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
    entrants = [heads.ours(head), heads.eager(head)]
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


def _nothing(x: Any) -> Contestant:
    from bench.gpu.nothing import nothing
    from fastnlp._device import of

    array = of(x)
    return Contestant(
        "fastnlp, a kernel that does nothing",
        lambda: array.library.launch(nothing, 1, 32, array, 0, 1.0),
        result=lambda _: None,
    )
