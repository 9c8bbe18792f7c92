"""``fastnlp demo``: from real text to vectors, to what they are good for, and to a report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from fastnlp.cli import training
from fastnlp.cli.options import options

if TYPE_CHECKING:
    from fastnlp import Corpus, KeyedVectors
    from fastnlp.cli.classifier import Comparison
    from fastnlp.cli.console import Stages
    from fastnlp.cli.demo_corpus import Passages

_ROWS, _NEIGHBOURS = 16, 8
_CLASSIFIER_EPOCHS = 12
_DOCUMENTATION = "The documentation of Python, NumPy and SciPy on this machine, read from their sources."
_TEXT = click.Path(exists=True, dir_okay=False)


@click.command(short_help="Take real text all the way to word vectors and a report.")
@click.option(
    "--corpus",
    multiple=True,
    type=_TEXT,
    help="A file of UTF-8 text, plain or packed as .gz, .bz2 or .xz; more may follow.",
)
@click.argument("more", nargs=-1, metavar="[FILE]...", type=_TEXT)
@click.option("--output", default="fastnlp-demo", show_default=True, type=click.Path(), help="Folder of the report.")
@options("dim", "window", "min_count", "epochs", "x_max", "seed", dim=50, window=15)
def demo(corpus: tuple[str, ...], more: tuple[str, ...], output: str, **given: Any) -> None:
    """Take real text all the way: vocabulary, counts, word vectors, a classifier, a report.

    Without files the text is the documentation of Python, NumPy and SciPy on this machine. Nothing is downloaded. The
    classifier tells which file a line is from, in one file which of its longest articles or chapters.

    \b
    Examples:
      fastnlp demo
      fastnlp demo --corpus novel.txt --output novel
      fastnlp demo --corpus austen.txt dickens.txt.gz eliot.txt.xz
    """
    from fastnlp.cli import demo_corpus, paths, vectors_report
    from fastnlp.cli.console import Stages
    from fastnlp.cli.words import print_neighbours

    corpus = (*corpus, *more)
    paths.check_files(corpus)
    path = os.path.join(output, "report.html")
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as error:
        raise click.ClickException(
            f"--output {output!r} cannot be made: {error.strerror}, name another folder"
        ) from None
    paths.check_writable(path, corpus)
    stages = Stages()
    with stages.stage("reading") as update:
        passages = demo_corpus.user_text(corpus, update) if corpus else demo_corpus.documentation(progress=update)
    tokenizer = demo_corpus.tokenizer_of(passages.text) if corpus else "words"

    encoded = training.corpus_of(training.Lines(passages.text), {**given, "tokenizer": tokenizer}, stages)
    counts = training.counts_of(joined(encoded, passages.document), given, stages)
    model = training.trained(counts, encoded.vocab, given, stages)
    steps = (training.READING_TEXT, training.COUNTING_PAIRS)
    speed = f"{len(encoded) / sum(stages.seconds[step] for step in steps):,.0f}"
    click.echo(
        f"\n{len(passages.text):,} passages, {len(encoded):,} tokens, vocabulary {len(encoded.vocab):,}, "
        f"{counts.nnz:,} co-occurrences; {speed} tokens a second from text to counts"
    )
    print_neighbours(encoded, model.vectors, _ROWS, _NEIGHBOURS)
    comparison = classify(passages, encoded, model.vectors, given["seed"], stages)
    click.echo(f"({passages.note})")

    figures = [
        ("passages", f"{len(passages.text):,}"),
        ("tokens", f"{len(encoded):,}"),
        ("vocabulary", f"{len(encoded.vocab):,}"),
        ("co-occurrences", f"{counts.nnz:,}"),
        ("tokens/s to counts", speed),
        ("seconds in all", f"{sum(stages.seconds.values()):.1f}"),
    ]
    if comparison is not None:
        figures.append(("held-out accuracy", f"{comparison.real.accuracy[-1]:.1%}"))
    with stages.stage("report"):
        vectors_report.write(
            path,
            title="fastnlp demo",
            source=f"Text: {', '.join(map(os.path.basename, corpus))}." if corpus else _DOCUMENTATION,
            figures=figures,
            corpus=encoded,
            model=model,
            comparison=comparison,
            note=passages.note,
            seconds=dict(stages.seconds),
        )
    click.echo(f"\n{sum(stages.seconds.values()):.1f} s in all; the report is {path}")


def joined(corpus: Corpus, document: list[str]) -> Corpus:
    """Return the corpus with consecutive passages of one document as one document: windows reach across sentences."""
    import numpy as np

    from fastnlp import Corpus

    names = np.array(document)
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    return Corpus(corpus.ids, corpus.offsets[np.append(starts, len(names))], corpus.vocab, corpus.n_oov)


def classify(passages: Passages, corpus: Corpus, vectors: KeyedVectors, seed: int, stages: Stages) -> Comparison | None:
    """Train the classifier on the vectors and on the same vectors dealt to the words at random, and print both."""
    import numpy as np

    from fastnlp.cli import classifier
    from fastnlp.cli.console import print_table

    task = classifier.task_of(passages, corpus, seed)
    if task is None:
        click.echo("\nNo classifier: the text has too few passages or parts to hold some out.")
        return None
    shuffle = np.random.default_rng(seed).permutation(len(vectors))
    curves = []
    for label, rows in (("classifier", vectors.vectors), ("classifier, shuffled", vectors.vectors[shuffle])):
        with stages.stage(label) as update:
            features = classifier.pooled(task, corpus.ids, rows, corpus.vocab.counts)
            curves.append(classifier.train(task, features, epochs=_CLASSIFIER_EPOCHS, seed=seed, progress=update))
    lines = [
        (f"epoch {epoch}", f"loss {loss:.3f}", f"{a:.1%}", f"{b:.1%}")
        for epoch, (loss, a, b) in enumerate(
            zip(curves[0].loss, curves[0].accuracy, curves[1].accuracy, strict=True), 1
        )
    ]
    held_out = int(task.test.sum())
    print_table(
        [("", "", "GloVe", "shuffled"), *lines, ("largest part", "", f"{task.majority:.1%}", "")],
        title=f"Which of {len(task.classes)} parts is a passage from? Accuracy on {held_out:,} of other documents",
        numeric=(1, 2, 3),
    )
    return classifier.Comparison(task, *curves)
