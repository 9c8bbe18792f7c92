"""``fastnlp glove eval``: how good vectors are, by sets of word pairs and of analogies."""

from __future__ import annotations

import os
from math import isnan
from typing import Any

import click

_FILE = click.Path(exists=True, dir_okay=False)


@click.command("eval", short_help="Judge vectors by word-similarity sets and analogies.")
@click.argument("vectors", type=_FILE)
@click.argument("sets", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option(
    "--method",
    type=click.Choice(["3CosAdd", "3CosMul"]),
    default="3CosAdd",
    show_default=True,
    help="How analogies are answered.",
)
def evaluate(vectors: str, sets: tuple[str, ...], method: str) -> None:
    """Judge VECTORS by FILEs of word pairs and scores (WS-353, MEN, ...) or of analogies (lines `: section`, a b c d).

    \b
    Example:
      fastnlp glove eval vectors.txt EN-MEN.txt questions-words.txt
    """
    from fastnlp import KeyedVectors
    from fastnlp.cli.console import Stages, print_table
    from fastnlp.text.evaluate import evaluate_analogies, evaluate_similarity, holds_analogies

    stages = Stages()
    with stages.stage("loading vectors"):
        loaded = KeyedVectors.load(vectors)
    pairs, analogies = [], []
    for file in sets:
        if holds_analogies(file):
            with stages.stage(f"analogies of {os.path.basename(file)}") as update:
                analogies.append((file, evaluate_analogies(loaded, file, method=method, progress=update)))
        else:
            pairs.append((file, evaluate_similarity(loaded, file)))
    if pairs:
        lines = [(_name(file), _or_dash(100 * r.spearman, ".1f"), f"{r.covered:,} of {r.pairs:,}") for file, r in pairs]
        print_table([("", "Spearman x 100", "pairs covered"), *lines], title="Word similarity", numeric=(1, 2))
    for file, result in analogies:
        print_table(
            [("", "correct", "questions covered"), *_rows(result)], title=f"{_name(file)}, {method}", numeric=(1, 2)
        )


def _name(file: str) -> str:
    return os.path.splitext(os.path.basename(file))[0]


def _or_dash(figure: float, form: str) -> str:
    return "-" if isnan(figure) else format(figure, form)  # nothing was covered


def _rows(result: Any) -> list[tuple[str, str, str]]:
    parts = [*result.sections, result.semantic, result.syntactic, result.total]
    return [(part.name, _or_dash(part.accuracy, ".1%"), f"{part.covered:,} of {part.questions:,}") for part in parts]
