"""The frame of a report: one HTML page with its pictures inside, in light and dark, that needs nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import click
from click.core import ParameterSource


class Section(NamedTuple):
    """A heading and the HTML beneath it."""

    heading: str
    body: str


def document(
    *,
    title: str,
    source: str,
    figures: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    seconds: Mapping[str, float],
    command: str,
) -> str:
    """Return a page as HTML.

    Parameters
    ----------
    title, source
        What it is, and what of: a sentence.
    figures
        Labels and values that stand at the top.
    sections
        What is shown.
    seconds
        How long each step took, by its label.
    command
        What makes the page again.
    """
    shown = [
        *sections,
        Section("Where the time went", _seconds(seconds)),
        Section("Again", f"<p><code>{escape(command)}</code></p>"),
    ]
    return _PAGE.format(
        style=_STYLE,
        title=escape(title),
        source=escape(source),
        figures="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in figures),
        sections="\n\n".join(f"<h2>{escape(section.heading)}</h2>\n{section.body}" for section in shown),
    )


def command_line(context: click.Context) -> str:
    """Return the command with the options that were given, as typed in a shell."""
    words = context.command_path.split()
    for option in context.command.params:
        if option.name and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            given = context.params[option.name]
            for value in given if isinstance(given, tuple) else (given,):
                words += [option.opts[0], str(value)] if isinstance(option, click.Option) else [str(value)]
    return shlex.join(words)


def bar(share: float, value: float, unit: str, digits: int = 1) -> str:
    """Return two cells of a table of class "bars": the value, and a bar whose length is the share."""
    figure = f'<td class="n">{value:.{digits}f}{unit}</td>'
    return f'{figure}<td class="bar"><span style="width:{100 * share:.1f}%"></span></td>'


def _seconds(seconds: Mapping[str, float]) -> str:
    longest = max(seconds.values(), default=0.0) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>{bar(value / longest, value, " s")}</tr>'
        for label, value in seconds.items()
    )
    total = sum(seconds.values())
    return (
        f'<table class="bars"><tbody>{rows}</tbody><tfoot><tr><th scope="row">together</th>'
        f'<td class="n">{total:.1f} s</td><td></td></tr></tfoot></table>'
    )


_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --ink: #22262b; --quiet: #666d76; --line: #dcdfe3;
  --accent: #22679a; --second: #b0632b; --wash: #f2f4f5;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --paper: #16191d; --ink: #e2e5e8; --quiet: #98a1ab; --line: #343b43;
  --accent: #74b3e0; --second: #e0a070; --wash: #1e2329; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 var(--font); }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 3rem 0 .75rem; }
p { margin: .5rem 0; max-width: 44rem; }
.share { white-space: nowrap; }
.note, .lead { color: var(--quiet); }
.note { font-size: .9rem; }
dl { display: flex; flex-wrap: wrap; gap: .75rem 2.5rem; margin: 1.5rem 0 0; padding: 1rem 0;
  border: solid var(--line); border-width: 1px 0; }
dt { color: var(--quiet); font-size: .82rem; }
dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; }
thead th { font-weight: 400; color: var(--quiet); font-size: .85rem; }
td, th { padding: .38rem .75rem .38rem 0; vertical-align: baseline; }
tbody tr, tfoot tr { border-top: 1px solid var(--line); }
.neighbours th { width: 9rem; }
.near { display: inline-block; margin-right: 1rem; }
small { color: var(--quiet); font-size: .75rem; font-variant-numeric: tabular-nums; }
.bars th { font-weight: 400; width: 14rem; }
.bars .n { text-align: right; white-space: nowrap; width: 5rem; font-variant-numeric: tabular-nums; }
.bars .bar { width: auto; padding-right: 0; }
.bar span { display: block; height: .6rem; background: var(--accent); border-radius: 2px; min-width: 1px; opacity: .8; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.5rem; margin: 1rem 0; }
figure { margin: 0; }
figure.one { max-width: 28rem; }
svg { display: block; width: 100%; height: auto; }
.map { overflow-x: auto; }
.map svg { min-width: 44rem; }
summary { cursor: pointer; color: var(--quiet); }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .9em; background: var(--wash);
  padding: .1em .35em; border-radius: 4px; overflow-wrap: anywhere; }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="lead">{source}</p>
<dl>{figures}</dl>

{sections}
</main>
</body>
</html>
"""
