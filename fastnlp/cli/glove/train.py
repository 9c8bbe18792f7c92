"""``fastnlp glove train``: vectors from co-occurrence counts."""

from __future__ import annotations

from typing import Any

import click

from fastnlp.cli.options import MODEL, options, output

_FILE = click.Path(exists=True, dir_okay=False)


@click.command(short_help="Train vectors on co-occurrence counts.")
@click.argument("counts", type=click.Path(exists=True))
@click.option("--vocab", "vocabulary", required=True, type=_FILE, help="The words, a line `word count` each.")
@output
@options(*MODEL)
@click.option("--initial", type=_FILE, help="Vectors to start from; words that have none start at random.")
@click.option("--pull", type=click.FloatRange(min=0), metavar="X", help="How much these draw the vectors.")
@options("threads", "format", "checkpoint_every", "resume")
def train(counts: str, vocabulary: str, output: str, initial: str | None, pull: float | None, **given: Any) -> None:
    """Train GloVe vectors on COUNTS, which `fastnlp glove count` or GloVe's cooccur wrote, shuffled or not.

    \b
    Example:
      fastnlp glove train counts.bin --vocab vocab.txt -o vectors.txt --dim 200
    """
    from fastnlp import KeyedVectors, Vocabulary
    from fastnlp.cli import paths, training
    from fastnlp.cli.console import Stages, use_threads
    from fastnlp.text import load_cooccurrences
    from fastnlp.text.vector_files import format_to_write

    paths.check_writable(output, [counts, vocabulary, *([initial] if initial else [])])
    written = format_to_write(output, given["format"])
    training.model_of(given)  # before any work
    checkpoint = f"{output}.checkpoint"
    training.resumed(checkpoint, given["resume"])
    use_threads(given["threads"])
    words = Vocabulary.load(vocabulary)
    stages = Stages()
    with stages.stage("loading counts"):
        matrix = load_cooccurrences(counts, vocab_size=len(words))
    fitting: dict[str, Any] = {}
    if initial is not None:
        with stages.stage("loading vectors"):
            fitting["initial"] = KeyedVectors.load(initial)
        fitting["pull"] = pull or 0.0
    elif pull:
        raise click.ClickException("--pull draws vectors to the initial ones: name them by --initial")
    model = training.trained(matrix, words, given, stages, checkpoint=checkpoint, **fitting)
    training.save(model, output, written, checkpoint, stages)
    click.echo(f"{output}: {len(words):,} words, {model.dim} features, loss {model.loss_[-1]:.5f}")
