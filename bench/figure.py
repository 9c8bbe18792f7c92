"""The report's figures: bars of the ratios around the line 1.0, and dots of the shares of the limit.

Matplotlib lays them out; its colours are then replaced by CSS variables, so that one figure serves light and dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Case = Mapping[str, Any]

CROWDED = 0.1
"""CPUs in use by others, above which a case counts as disturbed."""

LIGHT = ("#2a6fb8", "#c2571a", "#2f8f5b", "#8a55b0", "#b08a00", "#b3446c", "#4c7f8c", "#7a6a58")
DARK = ("#6caeea", "#f0905a", "#63c78f", "#bf93de", "#dcb840", "#e683a6", "#86bccb", "#b8a690")
INK, QUIET, LINE = "#010101", "#020202", "#030303"
"""Stand-ins that `_themed` replaces; peers have ``#05000k``."""


def disturbed(case: Case) -> bool:
    """Tell whether other processes kept the CPUs busy while the case was timed."""
    return (case.get("crowding") or 0.0) > CROWDED


class Palette(NamedTuple):
    """A colour for each peer, the same in all figures."""

    peers: tuple[str, ...]

    def stand_in(self, peer: str) -> str:
        """Return the colour by which matplotlib draws `peer`."""
        return f"#0500{self.peers.index(peer) % len(LIGHT):02x}"

    def css(self) -> str:
        """Return the variables for light and dark pages."""
        light, dark = (" ".join(f"--peer-{k}: {c};" for k, c in enumerate(colours)) for colours in (LIGHT, DARK))
        return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


def palette(cases: Sequence[Case]) -> Palette:
    """Return the palette of all peers of a run."""
    return Palette(tuple(dict.fromkeys(one["name"] for case in cases for one in case["contestants"][1:])))


def bars(operation: str, cases: Sequence[Case], colours: Palette) -> str:
    """Return one operation's figure as an SVG element.

    Left: a bar for each peer from 1.0 to its ratio, on a logarithmic axis; whiskers are the quartiles of the rounds.
    Right: a dot for each contestant at its share of the limit, ours in the colour of the text.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [(case, [one for one in case["contestants"][1:] if "ratio" in one]) for case in cases]
    names = [name for name in colours.peers if any(one["name"] == name for _, peers in rows for one in peers)]
    height = sum(max(len(peers), 1) + 0.7 for _, peers in rows)
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": operation,
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": QUIET,
        "axes.edgecolor": LINE,
        "xtick.color": QUIET,
        "ytick.color": INK,
        "xtick.labelcolor": QUIET,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(9, 0.2 * height + 1.0), layout="constrained")
        figure.patch.set_visible(False)
        left, right = figure.subplots(1, 2, width_ratios=(3, 1.25), sharey=True)
        _ratios(left, rows, colours)
        _shares(right, rows, colours)
        handles = [mpl.patches.Patch(color=colours.stand_in(name), label=name) for name in names]
        ours = mpl.lines.Line2D([], [], color=INK, marker="D", markersize=5, linestyle="none", label="fastnlp")
        figure.legend(handles=[ours, *handles], loc="outside upper left", ncols=6, frameon=False, handlelength=1.0)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _themed(out.getvalue(), f"{operation}: ratios and shares of the limit")


def _ratios(axes: Any, rows: Sequence[tuple[Case, list[Any]]], colours: Palette) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    found = [one[key] for _, peers in rows for one in peers for key in ("ratio", "ratio_q1", "ratio_q3")]
    low, high = min([*found, 0.95]), max([*found, 1.05])
    room = max((high / low) ** 0.12, 1.15)  # for the numbers at the ends of the bars
    low, high = low / room, high * room
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    y, ticks = 0.0, []
    for case, peers in rows:
        ticks.append((y + max(len(peers) - 1, 0) / 2, case["case"] + " *" * disturbed(case)))
        for one in peers:
            ratio = one["ratio"]
            axes.barh(y, ratio - 1, left=1, height=0.78, color=colours.stand_in(one["name"]), linewidth=0)
            axes.plot([one["ratio_q1"], one["ratio_q3"]], [y, y], color=QUIET, linewidth=1)
            far = max(ratio, one["ratio_q3"]) if ratio >= 1 else min(ratio, one["ratio_q1"])
            axes.annotate(
                f"{ratio:.2f}",
                (far, y),
                xytext=(4 if ratio >= 1 else -4, 0),
                textcoords="offset points",
                va="center",
                ha="left" if ratio >= 1 else "right",
                fontsize=8,
            )
            y += 1
        y += 0.7 + (not peers)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_ylim(y - 0.9, -0.8)
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    wide = math.log2(high / low)
    base, reach = (2, 8) if wide < 7 else (4, 8) if wide < 14 else (10, 9)
    axes.xaxis.set_major_locator(
        FixedLocator([t for t in (float(base) ** k for k in range(-reach, reach + 1)) if low < t < high])
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("peer / fastnlp, ratio of medians (right of 1: fastnlp is faster)")
    _plain(axes)


def _shares(axes: Any, rows: Sequence[tuple[Case, list[Any]]], colours: Palette) -> None:
    y = 0.0
    for case, peers in rows:
        ours, centre = case["contestants"][0], y + max(len(peers) - 1, 0) / 2
        for i, one in enumerate(peers):
            if one["share"] is not None:
                axes.plot(
                    100 * one["share"], y + i, "o", color=colours.stand_in(one["name"]), markersize=5, clip_on=False
                )
        if ours["share"] is not None:
            axes.plot(100 * ours["share"], centre, "D", color=INK, markersize=5.5, clip_on=False)
        y += max(len(peers), 1) + 0.7
    axes.set_xlim(0, max(100.0, 1.05 * axes.dataLim.x1 if axes.lines else 0.0))
    axes.set_xlabel("share of the limit, %")
    axes.tick_params(labelleft=False)
    _plain(axes)


def _plain(axes: Any) -> None:
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)


def _themed(svg: str, title: str) -> str:
    """Return the bare SVG element with a title for screen readers, CSS variables as colours, the page's font."""
    svg = svg[svg.index("<svg") :]
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    for colour, name in ((INK, "ink"), (QUIET, "quiet"), (LINE, "line")):
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"#0500([0-9a-f]{2})", lambda found: f"var(--peer-{int(found[1], 16)})", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
