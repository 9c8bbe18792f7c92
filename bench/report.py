"""From the JSON of a run to ``report.md`` and ``report.html``: ratios of medians, shares of the limits, the machine.

The two say the same; the HTML (`bench.page`) has the figures and needs nothing but itself.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figure import disturbed

Case = Mapping[str, Any]
Row = Sequence[str]

HOW_TO_READ = (
    "A ratio is a peer's median time over that of fastnlp in the same run, where all took turns: at 2.00 the peer "
    "takes twice as long, below 1 it is faster. In brackets are the quartiles of the ratio round by round. The share "
    "of the limit is how much of what the machine can do at most was reached: bytes moved a second over the rate of a "
    "copy of as many bytes, or floating-point operations a second over the rate of a matrix product, whichever is "
    "larger. Both were measured just before and after the case, on the same threads. Every result was checked before "
    "it was timed."
)
DISTURBED = (
    "A case marked * was disturbed: other programs used the CPUs that it ran on, and its figures mean little. "
    "It is left out at a glance; run it again on a quiet machine."
)
ABSOLUTE = "Times are of this machine and this run only; compare ratios, not times, across machines."


def write(results: Path, folder: Path) -> list[Path]:
    """Write ``report.md`` and ``report.html`` from the file `results` to `folder`; return their paths.

    Raises
    ------
    ValueError
        `results` holds no case that this harness has run.
    """
    from bench.page import page  # which is made of this module's tables

    run = json.loads(results.read_text())
    cases = [bench["extra_info"] for bench in run["benchmarks"] if "contestants" in bench["extra_info"]]
    if not cases:
        raise ValueError(f"{results} holds no cases: make it with `python -m bench run`")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (("report.md", markdown(run, cases)), ("report.html", page(run, cases))):
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def markdown(run: Mapping[str, Any], cases: Sequence[Case]) -> str:
    """Return the report as Markdown."""
    parts = ["# fastnlp benchmarks", dateline(run), HOW_TO_READ, "## At a glance", md_table(*glance(cases))]
    for operation, group in by_operation(cases):
        parts += [f"## {operation}", md_table(*ratios(group)), *notes(group)]
    parts += ["## The machine", md_table(("", ""), machine_rows(run))]
    parts += ["## Details", ABSOLUTE, md_table(DETAILS, details(cases))]
    return "\n\n".join(parts) + "\n"


def by_operation(cases: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    """Yield each operation and its cases, in the order of the run."""
    for operation in dict.fromkeys(case["operation"] for case in cases):
        yield operation, [case for case in cases if case["operation"] == operation]


def peer_names(cases: Sequence[Case]) -> list[str]:
    """Return the names of all peers, present or absent, in order of appearance."""
    return list(dict.fromkeys(one["name"] for case in cases for one in case["contestants"][1:]))


def glance(cases: Sequence[Case]) -> tuple[Row, list[Row]]:
    """Return a table of the lowest and the highest ratio of each operation to each peer."""
    peers = peer_names(cases)
    rows = []
    for operation, group in by_operation(cases):
        row = [operation]
        for peer in peers:
            timed = [
                (case, one) for case in group for one in case["contestants"] if one["name"] == peer and "ratio" in one
            ]
            found = [one["ratio"] for case, one in timed if not disturbed(case)]
            low, high = (f"{f(found):.2f}" if found else "disturbed" if timed else "" for f in (min, max))
            row.append(low if low == high else f"{low} to {high}")
        rows.append(row)
    return ("operation", *peers), rows


def ratios(group: Sequence[Case]) -> tuple[Row, list[Row]]:
    """Return one operation's table: a row a case, a column a peer, and our share of the limit."""
    peers = peer_names(group)
    rows = []
    for case in group:
        ours, *others = case["contestants"]
        found = {one["name"]: one for one in others}
        rows.append([case["case"] + " *" * disturbed(case), *(_ratio(found.get(peer)) for peer in peers), _share(ours)])
    return ("peer / fastnlp", *peers, "fastnlp's share of the limit"), rows


def over_floors(case: Case) -> list[str]:
    """Return for each floor of a case how many times its time the contestants take that stand on it."""
    lines: dict[str, list[str]] = {}
    for one in case["contestants"]:
        if one.get("over_floor"):
            lines.setdefault(one["floor"], []).append(f"{one['name']} {one['over_floor']:.2f}")
    return [f"time over that of {floor}: {', '.join(found)}" for floor, found in lines.items()]


def notes(group: Sequence[Case]) -> list[str]:
    """Return the cases' notes, what stands on a floor, and the reasons of the absent, each once."""
    absent = {one["name"]: one["absent"] for case in group for one in case["contestants"] if "absent" in one}
    lines = [DISTURBED] if any(map(disturbed, group)) else []
    lines += [case["note"] for case in group if case.get("note")]
    lines += [f"{case['case']}: {line}." for case in group for line in over_floors(case)]
    lines += [f"Absent: {name} ({reason})." for name, reason in absent.items()]
    return list(dict.fromkeys(lines))


def machine_rows(run: Mapping[str, Any]) -> list[Row]:
    """Return the machine as pairs of a heading and text."""
    machine = run["machine"]
    caches = ", ".join(f"{level} {size}" for level, size in machine["caches"].items())
    blas = dict.fromkeys(f"{lib['internal_api']} {lib.get('version') or ''}".strip() for lib in machine["blas"])
    rows = [
        ("processor", f"{machine['cpu']}, {machine['cpus_available']} CPUs available, {machine['simd']}"),
        ("threads", f"{machine['threads']} for every contestant"),
        ("caches", caches or "unknown"),
        ("memory", f"{machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else "unknown"),
        ("system", f"{machine['os']}, Python {machine['python']}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in machine["packages"].items())),
        ("BLAS and OpenMP", ", ".join(blas) or "unknown"),
    ]
    if machine["environment"]:
        rows.append(("environment", ", ".join(f"{name}={value}" for name, value in machine["environment"].items())))
    for name, rates in machine["limits"].items():
        if rates:
            unit = "GFLOP/s" if name.startswith("gemm") else "GB/s"
            spread = f"{min(rates) / 1e9:.1f} to {max(rates) / 1e9:.1f}"
            rows.append((f"limit: {name}", f"{statistics.median(rates) / 1e9:.1f} {unit} ({spread} over the run)"))
    return rows


DETAILS = ("case", "contestant", "median", "min", "quartiles", "rounds x calls", "rate", "share of the limit")


def details(cases: Sequence[Case]) -> list[Row]:
    """Return a row for each contestant of each case, with times."""
    rows = []
    for case in cases:
        for one in case["contestants"]:
            head = [f"{case['operation']}, {case['case']}" + " *" * disturbed(case), one["name"]]
            if "absent" in one:
                rows.append([*head, "absent", *[""] * 5])
                continue
            quartiles = f"{seconds(one['q1'])} to {seconds(one['q3'])}"
            rates = [f"{one['bytes_per_second'] / 1e9:.3g} GB/s"] if one["bytes_per_second"] else []
            rates += [f"{one['flops_per_second'] / 1e9:.3g} GFLOP/s"] if one["flops_per_second"] else []
            times = [seconds(one["median"]), seconds(one["min"]), quartiles, f"{one['rounds']} x {one['loops']}"]
            rows.append([*head, *times, ", ".join(rates), _share(one)])
    return rows


def seconds(t: float) -> str:
    """Return a duration with three digits and its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if t >= size:
            return f"{t / size:.3g} {unit}"
    return f"{t / 1e-9:.3g} ns"


def _ratio(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    return "absent" if "absent" in one else f"{one['ratio']:.2f} ({one['ratio_q1']:.2f} to {one['ratio_q3']:.2f})"


def _share(one: Mapping[str, Any]) -> str:
    if one["share"] is None:
        return ""
    percent = 100 * one["share"]
    return f"{percent:.0f} % of {one['bound']}" if percent >= 1 else f"below 1 % of {one['bound']}"


def dateline(run: Mapping[str, Any]) -> str:
    """Return when and of which commit the run was."""
    commit = run.get("commit_info") or {}
    changed = ", with local changes" if commit.get("dirty") else ""
    return (
        f"Run of {run['datetime'][:16].replace('T', ' ')} UTC, commit {str(commit.get('id', 'unknown'))[:10]}{changed}."
    )


def md_table(header: Row, rows: Sequence[Row]) -> str:
    """Return a table as Markdown."""

    def line(cells: Row) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(["---"] * len(header)), *map(line, rows)])
