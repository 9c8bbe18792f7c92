"""The page of word vectors: neighbours, words in a plane, what a classifier finds in them, the training loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from fastnlp.cli import pictures
from fastnlp.cli.page import Section, bar, document

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
    words = len(report.words)
    plane = pictures.scatter("map", report.words, report.points, "Frequent words in a plane") if words else ""
    sections = [
        Section("Neighbours", f"<p>{_NEIGHBOURS}</p>{_neighbours(report.neighbours)}"),
        Section("Words in a plane", f'<p>{_PLANE}</p><figure class="map">{plane}</figure>'),
    ]
    if report.note is not None:
        sections.append(Section("What the vectors know", _comparison(report.comparison, report.note)))
    training = pictures.curves("training", {"loss": report.training_loss}, "GloVe loss")
    sections.append(Section("Training", f'<figure class="one">{training}</figure>'))
    return document(
        title=report.title,
        source=report.source,
        figures=report.figures,
        sections=sections,
        seconds=report.seconds,
        command=report.command,
    )


_NEIGHBOURS = (
    "Frequent words that carry content, and the words whose vectors point most nearly the same way, with the cosine."
)
_PLANE = (
    "The first two principal components of the vectors of frequent words. Each dot is a word; those whose names would "
    "cover others are left without."
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
    if comparison is None:
        return "<p>The text has too few passages or parts to hold some out, so no classifier was trained.</p>"
    task, real, shuffled = comparison
    held_out = int(task.test.sum())
    majority = 100 * task.majority
    losses = {"GloVe": real.loss, "shuffled": shuffled.loss}
    accuracies = {"GloVe": [100 * a for a in real.accuracy], "shuffled": [100 * a for a in shuffled.accuracy]}
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="n">{n:,}</td>{bar(found, 100 * found, " %")}</tr>'
        for name, n, found in comparison.by_part()
    )
    return (
        f"<p>Which of {len(task.classes)} parts did a passage come from? The mean of a passage's word vectors "
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


def _share(percent: float) -> str:
    return f'<span class="share">{percent:.1f} %</span>'
