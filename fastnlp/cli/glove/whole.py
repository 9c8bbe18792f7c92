"""``fastnlp glove TEXT``: from text to vectors in one command."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from fastnlp.cli.options import COUNTING, MODEL, READING, VOCABULARY, options, output

if TYPE_CHECKING:
    from fastnlp import Corpus, GloVe

_SHOWN, _NEIGHBOURS = 10, 8


@click.command()
@click.argument("text", nargs=-1, required=True)
@output
@options(*VOCABULARY, *COUNTING, *MODEL, *READING, "threads", "format", "report", "checkpoint_every", "resume")
def whole(text: tuple[str, ...], output: str, **given: Any) -> None:
    """Train GloVe word vectors on files of UTF-8 TEXT, plain or packed as .gz, .bz2, .xz or .zst; - reads from a pipe.

    A line is a document (--documents): no pair of words is counted across its end. Where the first argument is vocab,
    count, train, eval or neighbours, only that step is done; a file of that name is ./vocab.

    \b
    Examples:
      fastnlp glove novel.txt -o vectors.txt --tokenizer words
      fastnlp glove part1.txt.gz part2.txt.gz -o vectors.bin --dim 200 --lower
      fastnlp glove 'texts/*.txt' -o vectors.txt --memory 4GB --resume
    """
    from fastnlp.cli import paths, training
    from fastnlp.cli.console import Stages, use_threads
    from fastnlp.cli.words import print_neighbours
    from fastnlp.text.vector_files import format_to_write

    files = paths.text_files(text)
    paths.check_writable(output, files)
    written = format_to_write(output, given["format"])
    if given["report"]:
        paths.check_writable(given["report"], files)
        paths.check_distinct(output, given["report"])
    training.model_of(given)  # before any work
    checkpoint = f"{output}.checkpoint"
    training.resumed(checkpoint, given["resume"])
    use_threads(given["threads"])
    stages = Stages()
    corpus = training.corpus_of(files, given, stages)
    on_disk = f"{output}.counts" if given["memory"] else None
    where = {"out": f"{on_disk}/counts.csr", "spill": f"{on_disk}/runs"} if on_disk else {}
    if on_disk:
        os.makedirs(on_disk, exist_ok=True)
    try:
        counts = training.counts_of(corpus, given, stages, **where)
    finally:
        if on_disk:
            with suppress(OSError):  # it holds something: the counts, or what is left to go on from
                os.rmdir(on_disk)
    model = training.trained(counts, corpus.vocab, given, stages, checkpoint=checkpoint)
    training.save(model, output, written, checkpoint, stages)
    entries = counts.nnz
    if on_disk:
        del counts
        for ours in where.values():
            shutil.rmtree(ours, ignore_errors=True)
        with suppress(OSError):  # it holds something else
            os.rmdir(on_disk)
    print_neighbours(corpus, model.vectors, _SHOWN, _NEIGHBOURS)
    if given["report"]:
        with stages.stage("report"):
            write_report(given["report"], text, corpus, model, entries, stages.seconds)
    click.echo(f"\n{output}: {len(corpus.vocab):,} words, {model.dim} features, from {len(corpus):,} tokens")


def write_report(
    path: str, text: tuple[str, ...], corpus: Corpus, model: GloVe, entries: int, seconds: dict[str, float]
) -> None:
    """Write the page of the result."""
    from fastnlp.cli import vectors_report

    figures = {
        "tokens": f"{len(corpus):,}",
        "vocabulary": f"{len(corpus.vocab):,}",
        "co-occurrences": f"{entries:,}",
        "features": f"{model.dim}",
        "last loss": f"{model.loss_[-1]:.5f}",
        "seconds in all": f"{sum(seconds.values()):.1f}",
    }
    source = f"Word vectors of {', '.join(map(os.path.basename, text))}."
    vectors_report.write(
        path,
        corpus=corpus,
        model=model,
        title="fastnlp glove",
        source=source,
        figures=list(figures.items()),
        seconds=dict(seconds),
    )
