"""What was set as a goal, and whether a run reached it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.gpu import heads, losses, rows
from bench.gpu.race import share

Record = Mapping[str, Any]
OURS = "fastnlp"
PEERS = ("torch, chunks", "Liger")
SHARE, PAIRS = 0.85, 1e8
BEYOND = 1.2 * 2**30
"""Bytes that a call may take beside the gradients that it returns."""


class Verdict(NamedTuple):
    """A goal, what was reached, and whether that fulfils it; None: it was not measured."""

    goal: str
    reached: str
    fulfilled: bool | None


def judge(records: Iterable[Record]) -> list[Verdict]:
    """Judge the records of a run."""
    records = list(records)
    shape = {"n": losses.N, "d": losses.D, "v": losses.V, "peaked": False, "ignored": 0.0, "dtype": "bfloat16"}
    head = _find(records, losses.OPERATION, shape)
    case = f"linear_cross_entropy with gradients, bfloat16, N={losses.N:,} D={losses.D:,} V={losses.V:,}"
    found = [
        _share(f"{case}: at least {SHARE:.0%} of the three cuBLAS products", head, heads.FLOOR),
        _faster(f"{case}: at least as fast as torch's chunks and Liger", head),
        _memory(f"{case}: at most the gradients and 1.2 GiB of memory", head),
    ]
    for operation in rows.TARGETED:
        of = [one for one in records if one["operation"] == operation and one.get("shape", {}).get("v") == rows.V]
        for one in of or [None]:
            where = f", {one['shape']['dtype']}" if one else ""
            found.append(_share(f"{operation}{where}, V={rows.V:,}: at least {SHARE:.0%} of a copy", one, rows.COPY))
    glove = next((one for one in records if one["operation"] == "glove" and "dim" in one.get("shape", {})), None)
    found.append(_pairs(f"GloVe training, d = 300: at least {PAIRS / 1e6:.0f} M pairs/s", glove))
    return found


def _find(records: Sequence[Record], operation: str, shape: Mapping[str, Any]) -> Record | None:
    return next((one for one in records if one["operation"] == operation and one.get("shape") == shape), None)


def _one(record: Record | None, name: str = OURS) -> Mapping[str, Any] | None:
    """Return a contestant that was timed, or None."""
    there = record["contestants"] if record else []
    return next((one for one in there if one["name"] == name and "median" in one), None)


def _share(goal: str, record: Record | None, limit: str) -> Verdict:
    reached = share(dict(record), OURS, limit) if record else None
    return Verdict(goal, "not measured", None) if reached is None else Verdict(goal, f"{reached:.0%}", reached >= SHARE)


def _faster(goal: str, record: Record | None) -> Verdict:
    peers = [one for one in (_one(record, name) for name in PEERS) if one and one["ratio"] is not None]
    if not peers:
        return Verdict(goal, "not measured: neither could be timed", None)
    slowest = min(one["ratio"] for one in peers)
    return Verdict(goal, ", ".join(f"{one['name']} / fastnlp {one['ratio']:.2f}" for one in peers), slowest >= 1)


def _memory(goal: str, record: Record | None) -> Verdict:
    ours = _one(record)
    if ours is None or ours.get("beyond") is None:
        return Verdict(goal, "not measured", None)
    return Verdict(goal, f"the gradients and {ours['beyond'] / 2**30:.2f} GiB", ours["beyond"] <= BEYOND)


def _pairs(goal: str, record: Record | None) -> Verdict:
    ours = _one(record)
    if ours is None:
        return Verdict(goal, "not measured", None)
    rate = ours["rates"]["pairs"]
    return Verdict(goal, f"{rate / 1e6:.0f} M pairs/s", rate >= PAIRS)
