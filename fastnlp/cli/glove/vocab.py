"""``fastnlp glove vocab``: the vocabulary of a text."""

from __future__ import annotations

from typing import Any

import click

from fastnlp.cli.options import READING, VOCABULARY, options, output, take


@click.command(short_help="Count the words of a text.")
@click.argument("text", nargs=-1, required=True)
@output
@options(*VOCABULARY, *(name for name in READING if name != "documents"), "threads")
def vocab(text: tuple[str, ...], output: str, **given: Any) -> None:
    """Count the words of TEXT; write a line `word count` a word, the most frequent first, as GloVe's vocab_count does.

    \b
    Example:
      fastnlp glove vocab corpus.txt -o vocab.txt --min-count 10
    """
    from fastnlp import build_vocab
    from fastnlp.cli import paths
    from fastnlp.cli.console import Stages, use_threads

    files = paths.text_files(text)
    paths.check_writable(output, files)
    use_threads(given["threads"])
    stages = Stages()
    with stages.stage("counting words") as update:
        vocabulary = build_vocab(files, **take(given, READING + VOCABULARY), progress=update)
    vocabulary.save(output)
    click.echo(f"{output}: {len(vocabulary):,} words, from {vocabulary.n_tokens:,} tokens")
