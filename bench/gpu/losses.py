"""Parts of linear_cross_entropy: the case of the targets, workspaces, dtypes, and the grid of shapes."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

from bench.contestant import Contestant
from bench.gpu import heads
from bench.gpu.part import Part
from bench.gpu.race import race

OPERATION = "linear_cross_entropy with gradients"
N, D, V = 8192, 4096, 131_072
GRID_N, GRID_D, GRID_V = (1024, 8192), (2048, 4096), (32_768, 131_072, 262_144)
WORKSPACES = tuple(1 << power for power in range(26, 34))
_RATE = 4e14  # flops a second that the estimates reckon with
_SHARES = "The products are of all rows and write the logits whole; they compute no loss, and are not checked."


def main() -> list[Part]:
    """Return the case of the targets: random, peaked, with rows ignored, and its forward alone."""
    return [
        _part(N, D, V, peaked=False, ignored=0.0, compiled=True),
        _part(N, D, V, peaked=True, ignored=0.0),
        _part(N, D, V, peaked=False, ignored=0.8),
        Part("linear_cross_entropy, forward", partial(forward, n=N, d=D, v=V), 10, _bytes(N, D, V)),
    ]


def grid() -> list[Part]:
    """Return the other shapes, those of 128k classes first."""
    shapes = sorted(itertools.product(GRID_V, GRID_D, GRID_N), key=lambda shape: shape[0] != V)
    done = {part.name for part in main()}
    kinds = list(itertools.product((False, True), (0.0, 0.8)))
    found = [_part(n, d, v, peaked=peaked, ignored=ignored) for (v, d, n) in shapes for peaked, ignored in kinds]
    return [part for part in found if part.name not in done]


def sweep() -> list[Part]:
    """Return the part that varies the workspace."""
    return [Part("linear_cross_entropy, workspaces", partial(workspaces, n=N, d=D, v=V), 15, _bytes(N, D, V))]


def dtypes() -> list[Part]:
    """Return the other dtypes, at a size that float32 products can do."""
    return [_part(2048, 2048, V, peaked=False, ignored=0.0, dtype=dtype) for dtype in ("float16", "float32")]


def gradients(device: Any, *, n: int, d: int, v: int, peaked: bool, ignored: float, dtype: str, compiled: bool) -> Any:
    """Race for the loss and both gradients."""
    head = heads.make(device.where, n, d, v, peaked=peaked, ignored=ignored, dtype=dtype)
    entrants = [heads.ours(head)]
    if ignored:
        entrants += [heads.ours(head, compact=True), heads.ours(head, num_valid=head.counted)]
    entrants += heads.peers(head, also_compiled=compiled)
    if ignored:
        entrants.append(heads.products(head, counted=True))
    record = race(
        device,
        OPERATION,
        _name(n, d, v, peaked, ignored, dtype),
        entrants,
        check=heads.checker(head),
        seconds=1.0 if (n, d, v) == (N, D, V) else 0.5,
        per_call={"tokens": n, "flops": 6.0 * head.counted * d * v},
        memory=head.returned,
        note=_SHARES,
    )
    shape = {"n": n, "d": d, "v": v, "peaked": peaked, "ignored": ignored, "dtype": dtype}
    return [{**record, "shape": shape, "floor": heads.FLOOR}]


def forward(device: Any, *, n: int, d: int, v: int) -> Any:
    """Race for the loss alone."""
    import torch

    head = heads.make(device.where, n, d, v, peaked=False, ignored=0.0)
    x, w, target = head.x, head.w, head.target
    z = x.new_empty(n, v)
    entrants = [
        heads.ours(head, gradient=False),
        Contestant("torch eager", lambda: [torch.nn.functional.cross_entropy(x @ w.T, target), None, None]),
        Contestant("one cuBLAS product", lambda: torch.mm(x, w.T, out=z), result=lambda _: None),
    ]
    with torch.no_grad():
        record = race(
            device,
            "linear_cross_entropy",
            _name(n, d, v, False, 0.0, "bfloat16"),
            entrants,
            check=heads.checker(head),
            per_call={"tokens": n, "flops": 2.0 * n * d * v},
            memory=0,
        )
    return [{**record, "floor": "one cuBLAS product"}]


def workspaces(device: Any, *, n: int, d: int, v: int, sizes: tuple[int, ...] = WORKSPACES) -> Any:
    """Race one workspace against the others."""
    head = heads.make(device.where, n, d, v, peaked=False, ignored=0.0)
    entrants = [heads.ours(head), *(heads.ours(head, workspace=size) for size in sizes), heads.products(head)]
    record = race(
        device,
        "linear_cross_entropy, workspaces (bytes)",
        _name(n, d, v, False, 0.0, "bfloat16"),
        entrants,
        check=heads.checker(head),
        seconds=3.0,
        per_call={"tokens": n, "flops": 6.0 * n * d * v},
        memory=head.returned,
        note="A workspace below the least that the operation takes is refused.",
    )
    return [{**record, "floor": heads.FLOOR}]


def _part(
    n: int, d: int, v: int, *, peaked: bool, ignored: float, dtype: str = "bfloat16", compiled: bool = False
) -> Part:
    run = partial(gradients, n=n, d=d, v=v, peaked=peaked, ignored=ignored, dtype=dtype, compiled=compiled)
    slow = 12.0 if dtype == "float32" else 1.0
    once = 6.0 * n * d * v * slow / _RATE
    seconds = 1.2 + 6 * 7 * once + (30.0 if compiled else 0.0)
    return Part(f"{OPERATION}, {_name(n, d, v, peaked, ignored, dtype)}", run, seconds, _bytes(n, d, v))


def _name(n: int, d: int, v: int, peaked: bool, ignored: float, dtype: str) -> str:
    kind = "peaked" if peaked else "random"
    rest = "" if dtype == "bfloat16" else f", {dtype}"
    return f"N={n:,} D={d:,} V={v:,}, {kind}, {ignored:.0%} ignored{rest}"


def _bytes(n: int, d: int, v: int) -> int:
    """Return what the truth, the products and one contestant of ours take: 16-bit inputs, float32 truth."""
    return (2 + 4 + 4 + 4 + 2 + 2) * d * v + 3 * 2 * n * v + 8 * heads.CHUNK * v
