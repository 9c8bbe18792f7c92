"""The report as one HTML page: the tables of `bench.report`, with the figures of `bench.figure`."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import report
from bench.figure import bars, palette
from bench.report import Case, Row


def page(run: Mapping[str, Any], cases: Sequence[Case]) -> str:
    """Return the report as one HTML page with inline figures."""
    colours = palette(cases)
    parts = [f"<p class=quiet>{html.escape(report.dateline(run))}</p>", f"<p>{html.escape(report.HOW_TO_READ)}</p>"]
    parts += ["<h2>At a glance</h2>", _html_table(*report.glance(cases))]
    for operation, group in report.by_operation(cases):
        parts += [f"<h2>{html.escape(operation)}</h2>", f"<figure>{bars(operation, group, colours)}</figure>"]
        parts += [
            _html_table(*report.ratios(group)),
            *(f"<p class=quiet>{html.escape(line)}</p>" for line in report.notes(group)),
        ]
    parts += ["<h2>The machine</h2>", _html_table(("", ""), report.machine_rows(run), "machine")]
    parts += ["<h2>Details</h2>", f"<p class=quiet>{report.ABSOLUTE}</p>"]
    parts += [f"<details><summary>All figures</summary>{_html_table(report.DETAILS, report.details(cases))}</details>"]
    return PAGE.replace("{{style}}", STYLE + colours.css()).replace("{{body}}", "\n".join(parts))


def _html_table(header: Row, rows: Sequence[Row], kind: str = "") -> str:
    def line(cells: Row, tag: Callable[[int], str]) -> str:
        return "<tr>" + "".join(f"<{tag(i)}>{html.escape(cell)}</{tag(i)}>" for i, cell in enumerate(cells)) + "</tr>"

    head = f"<thead>{line(header, lambda _: 'th')}</thead>" if any(header) else ""
    body = "\n".join(line(row, lambda i: "td" if i else "th") for row in rows)
    return f'<div class="table {kind}"><table>{head}<tbody>{body}</tbody></table></div>'


STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --ink: #1d2125; --quiet: #5d666f; --line: #d9dde1; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e4e7ea; --quiet: #9aa4ae; --line: #353b41; } }
body { max-width: 60rem; margin: 2.5rem auto; padding: 0 1.25rem; background: var(--paper); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
.quiet { color: var(--quiet); font-size: .9rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 500; } tbody th { font-weight: 500; white-space: nowrap; }
figure { margin: 0 0 .8rem; overflow-x: auto; } figure svg { max-width: 100%; height: auto; display: block; }
summary { cursor: pointer; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastnlp benchmarks</title>
<style>{{style}}</style>
</head>
<body>
<h1>fastnlp benchmarks</h1>
{{body}}
</body>
</html>
"""
