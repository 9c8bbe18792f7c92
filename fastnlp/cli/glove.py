"""``fastnlp glove``: word vectors of the user's text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnlp.cli.training import Hyperparameters

if TYPE_CHECKING:
    from fastnlp import Corpus, KeyedVectors

_SHOWN, _NEIGHBOURS = 10, 8


@click.command(short_help="Train GloVe word vectors on files of text.")
@click.argument("text", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(), help="The file of vectors to write.")
@Hyperparameters.options(dim=100, window=10)
@click.option(
    "--tokenizer",
    type=click.Choice(["auto", "whitespace", "words", "characters"]),
    default="auto",
    show_default=True,
    help="How lines are cut; auto: at spaces, or into Chinese characters.",
)
@click.option("--lower", is_flag=True, help="Lower-case the text.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads to run on; default: the CPUs.")
@click.option(
    "--format",
    type=click.Choice(["glove", "word2vec", "word2vec-binary", "npz"]),
    help="Format of the output; default: by its suffix (.txt, .vec, .bin, .npz).",
)
def glove(
    text: tuple[str, ...],
    output: str,
    tokenizer: str,
    lower: bool,
    threads: int | None,
    format: str | None,
    **given: Any,
) -> None:
    """Train GloVe word vectors on files of UTF-8 TEXT, plain or packed as .gz, .bz2 or .xz.

    A line is a document: no pair of words is counted across its end.

    \b
    Examples:
      fastnlp glove novel.txt -o vectors.txt --tokenizer words
      fastnlp glove part1.txt.gz part2.txt.gz -o vectors.bin --dim 200 --lower
    """
    from fastnlp import set_num_threads
    from fastnlp.cli import training
    from fastnlp.cli.console import Stages
    from fastnlp.text.vector_files import format_to_write

    parameters = Hyperparameters(**given)
    training.check_files(text)
    training.check_writable(output, text)
    written = format_to_write(output, format)
    if threads is not None:
        set_num_threads(threads)
    stages = Stages()
    files = [Path(file) for file in text]
    corpus = training.encoded(files, parameters, training.tokenizer_for(tokenizer, text, lower), stages)
    counts = training.counted(corpus, parameters, stages)
    vectors = training.trained(counts, corpus.vocab, parameters, stages).vectors
    with stages.stage("saving"):
        vectors.save(output, format=written)
    print_neighbours(corpus, vectors, _SHOWN)
    click.echo(f"\n{output}: {len(vectors):,} words, {parameters.dim} features, from {len(corpus):,} tokens")


def print_neighbours(corpus: Corpus, vectors: KeyedVectors, n: int) -> None:
    """Print the neighbours of the `n` most frequent content words."""
    from fastnlp.cli.console import print_table
    from fastnlp.cli.words import content_words, neighbours

    chosen = [vectors.words[i] for i in content_words(corpus.ids, vectors.words, n)]
    if chosen:
        near = [neighbours(vectors, word, _NEIGHBOURS) for word in chosen]
        rows = [(word, "  ".join(other for other, _ in found)) for word, found in zip(chosen, near, strict=True)]
        print_table(rows, title="Frequent words and their neighbours")
