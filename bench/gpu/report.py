"""The results of a run on a GPU as JSON and as Markdown, written again after every part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu.targets import judge
from bench.report import md_table, seconds

Run = Mapping[str, Any]

HOW_TO_READ = (
    "Times are medians of rounds in which the contestants of a case took turns, by the GPU's own clock where nothing "
    "else is said. A ratio is a contestant's time over that of fastnlp in the same case: at 2.00 it takes twice as "
    "long, below 1 it is faster; in brackets are the quartiles round by round. The share is the time of the case's "
    "limit, which does only what nobody can leave out, over the contestant's. Memory is the peak of torch's allocator "
    "during a call beyond what was there before, and beyond what the call returns. Results are checked before they "
    "are timed, those of losses against float32 products and rows; a wrong result is never timed."
)


def write(run: Run, folder: Path) -> None:
    """Write ``results.json`` and ``report.md`` to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(run), encoding="utf-8")


def markdown(run: Run) -> str:
    """Return the report as Markdown."""
    machine, records = run["machine"], run["records"]
    parts = [f"# fastnlp on {machine.get('gpu', 'an unknown GPU')}", _dateline(run), "## Goals", _goals(records)]
    parts += ["## Checks", _checks(run["checks"])]
    if records:
        parts += ["## Figures", HOW_TO_READ]
    for operation in dict.fromkeys(one["operation"] for one in records):
        group = [one for one in records if one["operation"] == operation]
        parts += [f"### {operation}", md_table(HEADER, [row for one in group for row in _rows(one)]), *_notes(group)]
    if run["left_out"]:
        parts += ["## Left out", md_table(("part", "why"), [(name, why) for name, why in run["left_out"].items()])]
    if run["failed"]:
        parts += ["## Failed", md_table(("part", "how"), [(name, how) for name, how in run["failed"].items()])]
    parts += ["## The machine", md_table(("", ""), _machine(machine))]
    return "\n\n".join(parts) + "\n"


HEADER = ("case", "contestant", "median", "/ fastnlp", "share of the limit", "rate", "memory", "beyond the result")


def _rows(record: Mapping[str, Any]) -> list[Sequence[str]]:
    timed = {one["name"]: one["median"] for one in record["contestants"] if "median" in one}
    limit = timed.get(record.get("floor"))
    found = []
    for one in record["contestants"]:
        if "median" not in one:
            found.append([record["case"], one["name"], f"absent: {one['absent']}", *[""] * 5])
            continue
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f} ({one['ratio_q1']:.2f} to {one['ratio_q3']:.2f})"
        share = "" if limit is None else f"{limit / one['median']:.0%}"
        rates = ", ".join(_rate(*rate) for rate in one["rates"].items())
        found.append(
            [
                record["case"],
                one["name"],
                seconds(one["median"]),
                ratio,
                share,
                rates,
                _gib(one["peak"]),
                _gib(one["beyond"]),
            ]
        )
    return found


def _notes(group: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"The limit: {one['floor']}." for one in group if one.get("floor")]
    lines += [one["note"] for one in group if one["note"]]
    return list(dict.fromkeys(lines))


def _goals(records: Sequence[Mapping[str, Any]]) -> str:
    words = {True: "fulfilled", False: "not fulfilled", None: ""}
    return md_table(("goal", "reached", ""), [(one.goal, one.reached, words[one.fulfilled]) for one in judge(records)])


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in checks:
        if "absent" in one:
            rows.append((one["check"], "absent", one["absent"]))
            continue
        stopped = "stopped, out of time" if one["status"] is None else "failed"
        rows.append((one["check"], "passed" if one["passed"] else stopped, one["summary"]))
        rows += [("", "", line) for line in one["found"]]
    return md_table(("check", "", ""), rows) if rows else "None was run."


def _machine(machine: Mapping[str, Any]) -> list[Sequence[str]]:
    rows = [(name, str(machine[name])) for name in machine if name not in ("packages", "smi", "commit", "dirty")]
    rows += [(f"nvidia-smi {name}", value) for name, value in machine.get("smi", {}).items()]
    rows += [("packages", ", ".join(f"{name} {found}" for name, found in machine.get("packages", {}).items()))]
    return rows


def _dateline(run: Run) -> str:
    machine = run["machine"]
    changed = ", with local changes" if machine.get("dirty") else ""
    return (
        f"Run of {run['datetime']} UTC, commit {machine.get('commit', 'unknown')[:10]}{changed}, "
        f"driver {machine.get('driver', 'unknown')}, {run['seconds']:.0f} s in all."
    )


def _rate(unit: str, rate: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.3g} {letter}{unit}/s"
    return f"{rate:.3g} {unit}/s"


def _gib(size: float | None) -> str:
    if size is None:
        return ""
    return f"{size / 2**30:.2f} GiB" if abs(size) >= 1 << 26 else f"{size / 2**20:.2f} MiB"
