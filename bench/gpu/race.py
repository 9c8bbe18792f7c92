"""A race on the GPU: every contestant is checked, then all are timed in rotating rounds; a record for the report.

The rotation and the figures are those of `bench.lane`. A contestant that is not installed, computes something else or
runs out of memory takes no part and the record says why; the others go on.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any

from bench.contestant import Absent, Contestant, prepared
from bench.lane import Lane, figures, rotation

ROUNDS = 5, 40
MIN_SAMPLE = 5e-4  # seconds
MAX_LOOPS = 200


def race(
    device: Any,
    operation: str,
    case: str,
    contestants: Sequence[Contestant | Absent],
    *,
    check: Callable[[Any], Any] = lambda value: None,
    seconds: float = 1.0,
    flush: bool = False,
    loops: int = 1,
    per_call: dict[str, float] | None = None,
    memory: int | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Check and time `contestants`, the first of them ours; return the record of the case.

    Parameters
    ----------
    device
        A `bench.gpu.device.Device`.
    operation, case
        Headings of the report.
    check
        Raises AssertionError where what a contestant's `result` gave is wrong.
    seconds
        How long the timing may about take.
    flush
        Empty the second-level cache before each sample: for calls that would else find their arguments there.
    loops
        Calls a sample, for calls so short that their launches are what is timed.
    per_call
        What one call does, such as ``{"pairs": 1e6}`` or ``{"bytes": 2e9}``: the report gives each a second.
    memory
        The bytes of what a call must return; the record says how much more it takes at its peak.
    note
        A sentence for the report.
    """
    lanes, absent, peaks = [], [], {}
    for one in contestants:
        if isinstance(one, Absent):
            absent.append({"name": one.name, "absent": one.reason})
            continue
        try:
            _reset(one)
            check(one.result(one.call()))
            _reset(one)
            peaks[one.name] = device.peak(one.call)
        except Exception as error:  # whatever it is, the others go on
            absent.append({"name": one.name, "absent": reason(error), "failed": True})
        else:
            lanes.append(Lane(one, lambda: 0.0, loops=loops))
        device.release()
    _time(device, lanes, seconds, flush)
    found = record(operation, case, contestants[0].name, lanes, absent, per_call=per_call, note=note)
    for one in found["contestants"]:
        if one["name"] in peaks:
            one["peak"] = peaks[one["name"]]
            one["beyond"] = None if memory is None else one["peak"] - memory
    return found


def record(
    operation: str,
    case: str,
    ours: str,
    lanes: Sequence[Lane],
    absent: Sequence[dict[str, Any]],
    *,
    per_call: dict[str, float] | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Return the record of lanes that have been timed; ratios are to the contestant called `ours`."""
    found = figures(lanes, None, None, {}) if lanes else []
    took_part = bool(found) and found[0]["name"] == ours
    for one in found:
        if not took_part:
            one.update(ratio=None, ratio_q1=None, ratio_q3=None)
        one["peak"] = one["beyond"] = None
        one["rates"] = {unit: amount / one["median"] for unit, amount in (per_call or {}).items()}
    return {"operation": operation, "case": case, "note": note, "contestants": [*found, *absent]}


def entrant(name: str, prepare: Callable[..., Any], *args: Any) -> Contestant | Absent:
    """Return the contestant that ``prepare(*args)`` makes, or an `Absent` if it cannot, whatever the reason."""
    try:
        return prepared(name, prepare, *args)
    except Exception as error:
        return Absent(name, reason(error))


def reason(error: BaseException) -> str:
    """Return an error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    if "OutOfMemory" in kind:
        return "out of memory"
    return f"{kind}: {lines[0][:300]}" if lines else kind


def _time(device: Any, lanes: Sequence[Lane], seconds: float, flush: bool) -> None:
    """Take samples of all lanes in turn."""
    if not lanes:
        return
    gc.collect()
    gc.disable()
    try:
        once = [_sample(device, lane, flush) for lane in lanes]
        for lane, lasts in zip(lanes, once, strict=True):
            if lasts * lane.loops < MIN_SAMPLE and not flush and not lane.contestant.reset:
                lane.loops = min(MAX_LOOPS, math.ceil(MIN_SAMPLE / max(lasts, 1e-7)))
        one_round = sum(lasts * lane.loops for lane, lasts in zip(lanes, once, strict=True))
        rounds = min(max(math.ceil(seconds / max(one_round, 1e-6)), ROUNDS[0]), ROUNDS[1])
        for turn in rotation(len(lanes), rounds):
            lanes[turn].seconds.append(_sample(device, lanes[turn], flush))
    finally:
        gc.enable()


def _sample(device: Any, lane: Lane, flush: bool) -> float:
    _reset(lane.contestant)
    if flush:
        device.flush()
    return float(device.seconds(lane.contestant.call, lane.loops))


def _reset(one: Contestant) -> None:
    if one.reset:
        one.reset()


def share(record: dict[str, Any], name: str, limit: str) -> float | None:
    """Return the share of a contestant that does only what cannot be left out which another reaches, or None."""
    medians = {one["name"]: one["median"] for one in record["contestants"] if "median" in one}
    return medians[limit] / medians[name] if {name, limit} <= medians.keys() else None
