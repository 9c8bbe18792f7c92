"""The process that runs parts: a line of JSON for each thing that happens, everything else to the error stream.

It stops with status ``BROKEN`` where a part left the GPU in a state in which nothing more can be computed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.gpu import machine
from bench.gpu.part import Part
from bench.gpu.race import reason

BROKEN = 70


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are named, in this order, until the time is over."""
    from bench.gpu.parts import parts

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deadline", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("names", nargs="+")
    args = parser.parse_args(argv)
    words = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print does not come between the lines

    def tell(**what: Any) -> None:
        words.write(json.dumps(what) + "\n")

    named = {part.name: part for part in parts()}
    tell(machine=machine.describe())
    return work([named[name] for name in args.names], args.deadline, tell)


def work(
    parts: Sequence[Part],
    deadline: float,
    tell: Callable[..., None],
    *,
    make_device: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.time,
) -> int:
    """Run `parts`; tell of each that it began, and its records, or why there are none. Return the exit status."""
    device = None
    for part in parts:
        missing = [name for name in part.needs if importlib.util.find_spec(name) is None]
        if missing:
            tell(part=part.name, skipped=f"{', '.join(missing)} is not installed")
            continue
        if clock() + part.seconds > deadline:
            tell(part=part.name, skipped=f"no time: it takes about {part.seconds:.0f} s")
            continue
        tell(part=part.name, begun=clock())
        try:
            if device is None:
                device = make_device() if make_device else _device()
            if device.free() < part.bytes:
                needed, free = part.bytes / 2**30, device.free() / 2**30
                tell(
                    part=part.name, skipped=f"it takes about {needed:.0f} GiB of the GPU's memory, {free:.0f} are free"
                )
                continue
            records = part.run(device)
            device.synchronize()
            tell(part=part.name, records=records)
        except Exception as error:
            tell(part=part.name, failed=reason(error))
        try:
            if device:
                device.synchronize()
                device.release()
        except Exception:
            return BROKEN
    return 0


def _device() -> Any:
    from bench.gpu.device import Device

    return Device()


if __name__ == "__main__":
    sys.exit(main())
