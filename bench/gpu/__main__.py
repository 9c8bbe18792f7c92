"""Prove and time the CUDA kernels on this machine's GPU: ``python -m bench.gpu``.

It needs no network, leaves out what is not installed, and says so. The folder of the results is written again after
every part, so a run that is stopped keeps what it has.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.gpu import checks, machine, report, schedule
from bench.gpu.part import Part
from bench.gpu.parts import parts
from fastnlp._detect import driver

NO_GPU = 2
SECONDS = 570.0
FOR_CHECKS = 165.0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, do it, and return the exit status: 1 where a check or a part failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="folder (default: bench/results/<gpu>)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything (default: %(default).0f)")
    parser.add_argument("-k", dest="only", default="", help="only the parts whose name contains this")
    parser.add_argument("--no-checks", action="store_true", help="leave out the tests and compute-sanitizer")
    parser.add_argument("--dry-run", action="store_true", help="list what would run; needs no GPU")
    args = parser.parse_args(argv)
    chosen = [part for part in parts() if args.only in part.name]
    if not chosen:
        parser.error(f"no part's name contains {args.only!r}: see --dry-run")
    if args.dry_run:
        print(listing(chosen))
        return 0
    if not driver().gpus:
        print(f"There is no GPU to test and to time on: {driver().reason}", file=sys.stderr)
        return NO_GPU
    return prove(chosen, args.seconds, args.output, with_checks=not args.no_checks)


def prove(chosen: Sequence[Part], seconds: float, folder: Path | None, *, with_checks: bool) -> int:
    """Check, run the parts, and write the results; return the exit status."""
    begin = time.time()
    run: dict[str, Any] = {
        "datetime": datetime.now(UTC).isoformat(" ", "minutes")[:16],
        "seconds": 0.0,
        "machine": {"gpu": machine.name()},
        "checks": [],
        "records": [],
        "left_out": {},
        "failed": {},
    }
    folder = folder or machine.ROOT / "bench" / "results" / machine.slug(run["machine"]["gpu"])
    folder.mkdir(parents=True, exist_ok=True)

    def note(said: dict[str, Any]) -> None:
        """Take up what a worker told, and write."""
        name = said.get("part", "")
        if "machine" in said:
            run["machine"] = said["machine"]
        elif "records" in said:
            run["records"] += said["records"]
        elif "skipped" in said:
            run["left_out"][name] = said["skipped"]
        elif "failed" in said:
            run["failed"][name] = said["failed"]
        run["seconds"] = time.time() - begin
        print(f"{run['seconds']:6.1f} s  {_line(said)}", flush=True)
        report.write(run, folder)

    if with_checks:
        limit = min(FOR_CHECKS, seconds / 3)
        run["checks"] = checks.run(checks.checks(), limit, folder)
        for one in run["checks"]:
            print(f"{one['check']}: {one.get('summary') or one['absent']}", flush=True)
    schedule.run(chosen, begin + seconds, note)
    report.write(run, folder)
    print(f"written to {folder}{os.sep}report.md")
    passed = all(one.get("passed", True) for one in run["checks"])
    wrong = [one for record in run["records"] for one in record["contestants"] if one.get("failed") and _ours(one)]
    return 0 if passed and not run["failed"] and not wrong else 1


def listing(chosen: Sequence[Part]) -> str:
    """Return a line a part: when it would begin, how long it is thought to take, how much memory."""
    lines, begin = ["   begins   takes     memory  part"], FOR_CHECKS
    for part in chosen:
        lines.append(f"{begin:7.0f} s {part.seconds:5.0f} s {part.bytes / 2**30:6.1f} GiB  {part.name}")
        begin += part.seconds
    fits = "all fit" if begin <= SECONDS else "what does not fit is left out and named"
    return "\n".join([*lines, f"about {begin:.0f} s of {SECONDS:.0f}, {FOR_CHECKS:.0f} of them for the checks: {fits}"])


def _ours(one: dict[str, Any]) -> bool:
    return str(one["name"]).startswith("fastnlp")


def _line(said: dict[str, Any]) -> str:
    """Return in one line what a worker told."""
    if "machine" in said:
        return f"on {said['machine'].get('gpu')}"
    for what in ("skipped", "failed"):
        if what in said:
            return f"{said['part']}: {what}: {said[what]}"
    if "begun" in said:
        return f"{said['part']} ..."
    times = [
        f"{one['name']} {report.seconds(one['median'])}"
        if "median" in one
        else f"{one['name']} absent ({one['absent']})"
        for record in said["records"]
        for one in record["contestants"]
    ]
    return f"{said['part']}: {', '.join(times)}"


if __name__ == "__main__":
    sys.exit(main())
