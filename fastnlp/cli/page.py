"""The report: one HTML page with its pictures inside, readable in light and dark, that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from fastnlp.cli import pictures

if TYPE_CHECKING:
    from fastnlp.cli.classifier import Comparison


class Report(NamedTuple):
    """All that the page shows."""

    title: str
    source: str  # what the text is, a sentence
    figures: Sequence[tuple[str, str]]  # label, value
    neighbours: Sequence[tuple[str, Sequence[tuple[str, float]]]]
    words: Sequence[str]
    points: NDArray[Any]  # (n, 2), of the words
    training_loss: Sequence[float]
    seconds: Mapping[str, float]
    command: str
    note: str | None = None  # what the classifier's parts and documents are; None: there is no word of a classifier
    comparison: Comparison | None = None  # None: the text did not allow one


def page(report: Report) -> str:
    """Return the page as HTML."""
    return _PAGE.format(
        style=_STYLE,
        title=escape(report.title),
        source=escape(report.source),
        figures="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in report.figures),
        neighbours=_neighbours(report.neighbours),
        map=pictures.scatter("map", report.words, report.points, "Frequent words in a plane")
        if len(report.words)
        else "",
        classification="" if report.note is None else _comparison(report.comparison, report.note),
        training=pictures.curves("training", {"loss": report.training_loss}, "GloVe loss"),
        seconds=_seconds(report.seconds),
        command=escape(report.command),
    )


def _neighbours(rows: Iterable[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    lines = (
        f'<tr><th scope="row">{escape(word)}</th><td>'
        + " ".join(f'<span class="near">{escape(other)} <small>{cosine:.2f}</small></span>' for other, cosine in near)
        + "</td></tr>"
        for word, near in rows
    )
    return f'<table class="neighbours"><tbody>{"".join(lines)}</tbody></table>'


def _comparison(comparison: Comparison | None, note: str) -> str:
    heading = "<h2>What the vectors know</h2>"
    if comparison is None:
        return f"{heading}<p>The text has too few passages or parts to hold some out, so no classifier was trained.</p>"
    task, real, shuffled = comparison
    held_out = int(task.test.sum())
    majority = 100 * task.majority
    losses = {"GloVe": real.loss, "shuffled": shuffled.loss}
    accuracies = {"GloVe": [100 * a for a in real.accuracy], "shuffled": [100 * a for a in shuffled.accuracy]}
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="n">{n:,}</td>{_bar(found, 100 * found, " %")}</tr>'
        for name, n, found in comparison.by_part()
    )
    return (
        f"{heading}<p>Which of {len(task.classes)} parts did a passage come from? The mean of a passage's word vectors "
        f"goes through one linear layer, trained on {len(task.label) - held_out:,} passages by the fused "
        f"<code>linear_cross_entropy</code> and judged on {held_out:,} passages <em>of other documents</em>. It "
        f"finds <strong>{_share(accuracies['GloVe'][-1])}</strong>. Always naming the largest part would find "
        f"{_share(majority)}; the same classifier on the same vectors, dealt to the words at random, finds "
        f"{_share(accuracies['shuffled'][-1])}.</p>"
        f'<p class="note">{escape(note)} The word vectors were trained on all of the text, without its parts; only the '
        "classifier has not seen the documents that are held out.</p>"
        '<div class="pair">'
        f"<figure>{pictures.curves('losses', losses, 'Training loss')}</figure><figure>"
        + pictures.curves("accuracies", accuracies, "Held-out accuracy, %", level=("largest part", majority))
        + '</figure></div><details><summary>By part</summary><table class="bars"><thead><tr><th>part</th>'
        f'<th class="n">held out</th><th colspan="2">found</th></tr></thead><tbody>{rows}</tbody></table></details>'
    )


def _seconds(seconds: Mapping[str, float]) -> str:
    longest = max(seconds.values(), default=0.0) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>{_bar(value / longest, value, " s")}</tr>'
        for label, value in seconds.items()
    )
    total = sum(seconds.values())
    return (
        f'<table class="bars"><tbody>{rows}</tbody><tfoot><tr><th scope="row">together</th>'
        f'<td class="n">{total:.1f} s</td><td></td></tr></tfoot></table>'
    )


def _share(percent: float) -> str:
    return f'<span class="share">{percent:.1f} %</span>'


def _bar(share: float, value: float, unit: str) -> str:
    return f'<td class="n">{value:.1f}{unit}</td><td class="bar"><span style="width:{100 * share:.1f}%"></span></td>'


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

<h2>Neighbours</h2>
<p>Frequent words that carry content, and the words whose vectors point most nearly the same way, with the cosine.</p>
{neighbours}

<h2>Words in a plane</h2>
<p>The first two principal components of the vectors of frequent words. Each dot is a word; those whose names would
cover others are left without.</p>
<figure class="map">{map}</figure>

{classification}

<h2>Training</h2>
<figure class="one">{training}</figure>

<h2>Where the time went</h2>
{seconds}

<h2>Again</h2>
<p><code>{command}</code></p>
</main>
</body>
</html>
"""
