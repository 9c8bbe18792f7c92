"""Pictures as SVG that stands inside a page: text stays text, colours and font are the page's."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins, which the page's own colours replace: so a picture follows a change to dark.
_COLOURS = {"--ink": "#010203", "--quiet": "#020304", "--line": "#030405", "--accent": "#040506", "--second": "#050607"}
INK, QUIET, LINE, ACCENT, SECOND = _COLOURS.values()

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a user without a home has no folder for its settings

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text as text: the browser draws it, in fonts that matplotlib need not have
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
}


def curves(
    name: str, lines: Mapping[str, Sequence[float]], label: str, *, level: tuple[str, float] | None = None
) -> str:
    """Draw values by epoch, each line named at its end; `level` is a named horizontal line.

    Parameters
    ----------
    name
        Of the picture, different from those of the other pictures of a page.
    lines
        Values by the name of the line; the first line is the important one.
    label
        Of the vertical axis.
    level
        Name and height of a constant to compare with.
    """
    from matplotlib.ticker import MaxNLocator

    with _styled(name):
        figure, axes = _figure(4.6, 2.7)
        last = max(map(len, lines.values()))
        ends = [
            (title, values[-1], colour)
            for (title, values), colour in zip(lines.items(), (ACCENT, SECOND), strict=False)
        ]
        for (_, values), (_, _, colour) in zip(lines.items(), ends, strict=True):
            epochs = np.arange(1, len(values) + 1)
            axes.plot(epochs, values, color=colour, linewidth=2, marker="o", markersize=3.5 if last <= 40 else 0)
        if level is not None:
            axes.axhline(level[1], color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
            ends.append((level[0], level[1], QUIET))
        if len(ends) > 1:
            _name_ends(axes, ends, last)
        axes.set_xlabel("epoch")
        axes.set_title(label, loc="left", fontsize=10, color=QUIET)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.03, y=0.12)
        return _svg(figure, name, label)


def scatter(name: str, words: Sequence[str], points: NDArray[Any], title: str) -> str:
    """Draw words at `points` (n, 2), the first ones first: a word that would cover another is left a dot."""
    with _styled(name):
        figure, axes = _figure(9.6, 6.4)
        dots = axes.scatter(points[:, 0], points[:, 1], s=9, linewidths=0)
        axes.grid(visible=False)
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
        axes.margins(0.06)
        figure.canvas.draw()
        pixels = axes.transData.transform(points) * 72 / figure.dpi
        readable = _readable(words, pixels)
        dots.set_facecolor([ACCENT if i in readable else LINE for i in range(len(words))])
        for i in readable:
            axes.annotate(words[i], points[i], xytext=(4, 0), textcoords="offset points", va="center", fontsize=9.5)
        return _svg(figure, name, title)


def histogram(name: str, values: NDArray[Any], label: str, marks: Mapping[str, float]) -> str:
    """Draw how often positive numbers occur, on a scale of powers of two; `marks` are named vertical lines."""
    with _styled(name):
        figure, axes = _figure(9.6, 2.7)
        top = max(float(values.max(initial=1)), *marks.values(), 2.0)
        edges = np.unique(np.round(np.geomspace(1, top + 1, 90)))
        counts, edges = np.histogram(np.maximum(values, 1), edges)
        axes.stairs(counts / np.diff(np.log(edges)), edges, fill=True, color=ACCENT, alpha=0.8)
        for title, at in marks.items():
            axes.axvline(at, color=SECOND, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(title, (at, 1), xycoords=("data", "axes fraction"), xytext=(-4, -10), color=SECOND,
                          textcoords="offset points", ha="right", fontsize=9)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_yticks([])
        axes.set_xlabel("tokens")
        axes.set_title(label, loc="left", fontsize=10, color=QUIET)
        return _svg(figure, name, label)


def profile(name: str, lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], label: str, below: str) -> str:
    """Draw lines through points (x, y), by their names; the last one is the important one."""
    with _styled(name):
        figure, axes = _figure(9.6, 2.7)
        for (title, (x, y)), colour in zip(lines.items(), (QUIET, SECOND, ACCENT), strict=False):
            axes.plot(x, y, color=colour, linewidth=2, marker="o", markersize=3.5 if len(x) == 1 else 0, label=title)
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(below)
        axes.set_title(label, loc="left", fontsize=10, color=QUIET)
        axes.margins(x=0.01)
        return _svg(figure, name, label)


def _readable(words: Sequence[str], points: NDArray[Any]) -> list[int]:
    """Return which words can be written to the right of their points (in typographic points) without overlap."""
    boxes = np.empty((0, 4))
    chosen = []
    for i, (word, (x, y)) in enumerate(zip(words, points, strict=True)):
        width = sum(10.0 if character >= "\u2e80" else 5.6 for character in word)
        box = np.array([x + 3, y - 5.5, x + 5 + width, y + 5.5])
        apart = (boxes[:, :2] > box[2:]).any(axis=1) | (boxes[:, 2:] < box[:2]).any(axis=1)
        if apart.all():
            boxes = np.vstack([boxes, box])
            chosen.append(i)
    return chosen


def _name_ends(axes: Axes, ends: Sequence[tuple[str, float, str]], last: int) -> None:
    """Write the name of each line beside its end, moved apart where they would touch."""
    low, high = axes.get_ylim()
    gap = 0.11 * (high - low)
    height = -np.inf
    for title, value, colour in sorted(ends, key=lambda end: end[1]):
        height = max(value, height + gap)
        axes.annotate(title, (last, height), xytext=(8, 0), textcoords="offset points", va="center", color=colour,
                      annotation_clip=False)  # fmt: skip


@contextmanager
def _styled(name: str) -> Iterator[None]:
    """Set how a picture looks. Of characters that matplotlib's fonts lack nothing is said: the browser has them."""
    import matplotlib

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str, label: str) -> str:
    """Return the SVG element: with the page's colours and font, names of its own, and a label for screen readers."""
    file = io.StringIO()
    figure.savefig(
        file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for variable, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r"(font-family:|font: [0-9.]+px) [^;\"]+", r"\1 var(--font)", svg)  # by version of matplotlib
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
