"""The options of the commands, each declared once. An option has the name of the library's parameter that it sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

READING = ("tokenizer", "lower", "normalize", "documents")
VOCABULARY = ("min_count", "max_size", "exclude")
COUNTING = ("window", "weighting", "symmetric", "memory")
PACKING = ("overlong", "max_per_bin", "item_multiple", "time_limit")
MODEL = ("dim", "x_max", "alpha", "lr", "bias_lr", "epochs", "seed")
"""Options that belong together: of `build_corpus` (the first two), `cooccurrence`, `pack` and `GloVe`."""

ALGORITHMS = ("first_fit_decreasing", "best_fit_decreasing", "next_fit", "optimal")

_POSITIVE = click.IntRange(min=1)
_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)


def _bytes(_: click.Context, __: click.Parameter, size: str | None) -> int | None:
    from fastnlp.ops._cooccurrence_plan import bytes_of

    return bytes_of(size)


_DECLARED: dict[str, dict[str, Any]] = {
    "tokenizer": {
        "type": click.Choice(["auto", "whitespace", "words", "characters"]),
        "default": "auto",
        "help": "How lines are cut; auto: at spaces, or into Chinese characters.",
    },
    "lower": {"is_flag": True, "help": "Lower-case the text."},
    "normalize": {"type": click.Choice(["NFC", "NFKC", "NFD", "NFKD"]), "help": "Unicode normal form of the text."},
    "documents": {
        "type": click.Choice(["line", "blank line", "file"]),
        "default": "line",
        "help": "What ends a document; no pair of words is counted across its end.",
    },
    "min_count": {"type": _POSITIVE, "default": 5, "help": "Words that occur less often are left out."},
    "max_size": {"type": _POSITIVE, "help": "Keep no more than so many words, the most frequent."},
    "exclude": {"multiple": True, "metavar": "WORD", "help": "Leave this word out, such as <unk>; may be repeated."},
    "window": {"type": _POSITIVE, "default": 10, "help": "How far apart words may stand to be counted."},
    "weighting": {
        "type": click.Choice(["harmonic", "uniform"]),
        "default": "harmonic",
        "help": "What a pair d words apart counts: 1/d or 1.",
    },
    "symmetric": {
        "default": True,
        "flag": "--symmetric/--asymmetric",
        "help": "Count both sides of a word, or only what follows it.",
    },
    "memory": {
        "metavar": "SIZE",
        "callback": _bytes,
        "help": "Memory for counting, such as 4GB; what does not fit goes to the disk.",
    },
    "dim": {"type": _POSITIVE, "default": 100, "help": "Features of a vector."},
    "x_max": {
        "type": _ABOVE_ZERO,
        "default": 10.0,
        "help": "Counts from here on have full weight; 100 for 1e9 words.",
    },
    "alpha": {
        "type": click.FloatRange(min=0),
        "default": 0.75,
        "help": "Smaller counts have the weight (count / x_max) ** alpha.",
    },
    "lr": {"type": _ABOVE_ZERO, "default": 0.05, "help": "The learning rate."},
    "bias_lr": {"type": _ABOVE_ZERO, "default": 1.0, "help": "That of the biases; the paper's is --lr."},
    "epochs": {"type": _POSITIVE, "default": 15, "help": "How often each count is trained on."},
    "seed": {"type": click.IntRange(min=0), "default": 0, "help": "The same seed gives the same result."},
    "capacity": {
        "type": _POSITIVE,
        "multiple": True,
        "default": (512, 2048, 8192),
        "help": "Tokens that a row holds; may be repeated.",
    },
    "algorithm": {
        "type": click.Choice(ALGORITHMS),
        "multiple": True,
        "default": ALGORITHMS,
        "help": "How rows are filled; may be repeated.",
    },
    "overlong": {
        "type": click.Choice(["error", "truncate", "split", "drop"]),
        "default": "truncate",
        "help": "What becomes of items longer than the capacity.",
    },
    "max_per_bin": {"type": _POSITIVE, "help": "The most items in a row."},
    "item_multiple": {"type": _POSITIVE, "default": 1, "help": "Items take a multiple of so many tokens in their row."},
    "time_limit": {"type": _ABOVE_ZERO, "default": 3.0, "help": "Seconds that the search for the optimum may take."},
    "batch_size": {"type": _POSITIVE, "help": "Items in a batch, for the table of padding; default: 64."},
    "max_tokens": {"type": _POSITIVE, "help": "Tokens in a batch, padding included, instead of --batch-size."},
    "column": {"metavar": "NAME", "help": "The column of a dataset; default: input_ids, or the only one of lists."},
    "threads": {"type": _POSITIVE, "help": "Threads to run on; default: the CPUs. Results do not depend on it."},
    "format": {
        "type": click.Choice(["glove", "word2vec", "word2vec-binary", "npz", "npy"]),
        "help": "Format of the vectors; default: by the suffix (.txt, .vec, .bin, .npz, .npy).",
    },
    "resume": {"is_flag": True, "help": "Go on where an interrupted run of the same command stopped."},
    "report": {"type": click.Path(), "metavar": "FILE", "help": "Write a page of the result, with pictures, in HTML."},
    "checkpoint_every": {
        "type": _ABOVE_ZERO,
        "default": 10.0,
        "metavar": "MINUTES",
        "help": "Keep what was trained in OUTPUT.checkpoint so often, and when interrupted.",
    },
}


def options(*names: str, **defaults: Any) -> Callable[[F], F]:
    """Return a decorator that adds these options to a command, in this order.

    Parameters
    ----------
    names
        Names of options.
    defaults
        Defaults that differ from the declared ones.
    """

    def add(function: F) -> F:
        for name in reversed(names):
            declared = {**_DECLARED[name], **({"default": defaults[name]} if name in defaults else {})}
            flag = declared.pop("flag", f"--{name.replace('_', '-')}")
            if isinstance(declared.get("type"), click.IntRange | click.FloatRange):
                declared.setdefault("metavar", "X" if isinstance(declared["type"], click.FloatRange) else "N")
            function = click.option(flag, name, show_default=declared.get("default") is not None, **declared)(function)
        return function

    return add


def take(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return those of the arguments `given` to a command that have these names."""
    return {name: given[name] for name in names if name in given}


output = click.option("-o", "--output", required=True, type=click.Path(), help="The file to write.")
