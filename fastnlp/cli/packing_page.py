"""The page of a packing: lengths, rows by algorithm and capacity, padding by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import click
import numpy as np

from fastnlp._arrays import Array
from fastnlp._files import atomic_write
from fastnlp.cli import pictures
from fastnlp.cli.packing_table import Packed, cells
from fastnlp.cli.page import Section, bar, command_line, document

if TYPE_CHECKING:
    from fastnlp import Batches

_POINTS = 200  # of a curve


def write(
    path: str,
    lengths: Array,
    source: str,
    packed: Sequence[Packed],
    batches: Mapping[str, Batches],
    seconds: Mapping[str, float],
) -> None:
    """Write the page, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    best = max(packed, key=lambda line: line.packing.efficiency)
    figures = [
        ("sequences", f"{lengths.size:,}"),
        ("tokens", f"{int(lengths.sum()):,}"),
        ("median length", f"{int(np.median(lengths)):,}"),
        ("longest", f"{int(lengths.max()):,}"),
        ("best packing", f"{best.packing.efficiency:.2%}"),
        ("best batches", f"{max(b.efficiency for b in batches.values()):.2%}"),
    ]
    capacities = {f"{c:,}": float(c) for c in dict.fromkeys(line.capacity for line in packed)}
    histogram = pictures.histogram("lengths", lengths, "Sequences by length", capacities)
    padding = pictures.profile("padding", _padding(batches), "Padding, % of a batch", "batches, %, most padded first")
    sections = [
        Section("Lengths", f"<p>{_LENGTHS}</p><figure>{histogram}</figure>"),
        Section("Rows", f"<p>{_ROWS}</p>{_rows(packed)}"),
        Section("Batches", f"<p>{_BATCHES}</p>{_table(batches)}<figure>{padding}</figure>"),
    ]
    html = document(
        title="fastnlp pack",
        source=source,
        figures=figures,
        sections=sections,
        seconds=seconds,
        command=command_line(click.get_current_context()),
    )
    with atomic_write(path) as file:
        file.write(html.encode())


_LENGTHS = "How many sequences have which length, in tokens. The lines are the capacities of rows."
_ROWS = (
    "Sequences packed into rows. The efficiency is the share of a row's places that hold tokens; no packing has fewer "
    "rows than the proven bound."
)
_BATCHES = (
    "Batches of whole sequences, padded to the longest. The more sequences are sorted together, the less is padded, "
    "and the more alike are the sequences of a batch."
)


def _rows(packed: Sequence[Packed]) -> str:
    lines = []
    for line in packed:
        capacity, algorithm, rows, bound, _, overlong, time = map(escape, cells(line))
        share = line.packing.efficiency
        lines.append(
            f'<tr><th scope="row">{capacity} <small>{algorithm.replace("_", " ")}</small></th>'
            f'<td class="n">{rows}</td><td class="n">{bound}</td><td class="n">{overlong}</td><td class="n">{time}</td>'
            f"{bar(share, 100 * share, ' %', 2)}</tr>"
        )
    heads = ("rows", "bound", "overlong", "time")
    return (
        '<table class="bars"><thead><tr><th>capacity</th>'
        + "".join(f'<th class="n">{head}</th>' for head in heads)
        + f'<th colspan="2">efficiency</th></tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _table(batches: Mapping[str, Batches]) -> str:
    lines = (
        f'<tr><th scope="row">{escape(name)}</th><td class="n">{len(b):,}</td><td class="n">{b.padded_tokens:,}</td>'
        f"{bar(b.efficiency, 100 * b.efficiency, ' %')}</tr>"
        for name, b in batches.items()
    )
    return (
        '<table class="bars"><thead><tr><th></th><th class="n">batches</th><th class="n">tokens with padding</th>'
        f'<th colspan="2">real tokens</th></tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _padding(batches: Mapping[str, Batches]) -> dict[str, tuple[Array, Array]]:
    """Return the padding of the batches, in percent, most first, over their rank, in percent, by their name."""
    curves = {}
    for name, b in batches.items():
        padded = np.maximum(np.diff(b.batch_ptr) * b.padded_lengths, 1)
        padding = np.sort(100 * (1 - b.batch_tokens / padded))[::-1]
        at = np.linspace(0, len(padding) - 1, min(_POINTS, len(padding))).astype(int)
        curves[name] = (100 * (at + 0.5) / len(padding), padding[at])
    return curves
