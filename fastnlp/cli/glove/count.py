"""``fastnlp glove count``: the co-occurrence counts of a text."""

from __future__ import annotations

import os
import shutil
from typing import Any

import click

from fastnlp.cli.options import COUNTING, READING, options, output


@click.command(short_help="Count how often words stand near each other.")
@click.argument("text", nargs=-1, required=True)
@click.option("--vocab", "vocabulary", required=True, type=click.Path(exists=True, dir_okay=False), help="The words.")
@output
@options(*COUNTING, *READING, "threads", "resume")
def count(text: tuple[str, ...], vocabulary: str, output: str, **given: Any) -> None:
    """Count how often words of a vocabulary stand near each other in TEXT.

    The output is the binary file of GloVe's cooccur where it is named .bin, otherwise a folder of arrays that are
    mapped into memory when it is read.

    \b
    Example:
      fastnlp glove count corpus.txt --vocab vocab.txt -o counts.bin --memory 4GB
    """
    from fastnlp import Vocabulary, encode
    from fastnlp.cli import paths, training
    from fastnlp.cli.console import Stages, use_threads
    from fastnlp.text import load_cooccurrences
    from fastnlp.text.cooccurrence_files import check_place, is_records

    files = paths.text_files(text)
    paths.check_writable(output, files, folder=not is_records(output))
    paths.check_writable(output, [vocabulary], folder=not is_records(output))
    check_place(output)
    words = Vocabulary.load(
        vocabulary, tokenizer=given["tokenizer"], lower=given["lower"], normalize=given["normalize"]
    )
    use_threads(given["threads"])
    stages = Stages()
    with stages.stage(training.READING_TEXT) as update:
        corpus = encode(files, words, documents=given["documents"], progress=update)
    runs = f"{output}.runs"
    if not given["resume"] and os.path.exists(runs):
        raise click.ClickException(
            f"{runs} holds what an interrupted run has counted: add --resume to go on from there, or remove it"
        )
    training.counts_of(corpus, given, stages, out=output, spill=runs)
    shutil.rmtree(runs, ignore_errors=True)
    found = load_cooccurrences(output, vocab_size=len(words))
    click.echo(f"{output}: {found.nnz:,} counts of {len(words):,} words, from {len(corpus):,} tokens")
