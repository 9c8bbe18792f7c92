"""From text to word vectors, step by step: what ``fastnlp glove`` and ``fastnlp demo`` share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from fastnlp.cli.console import Stages

if TYPE_CHECKING:
    from scipy import sparse

    from fastnlp import Corpus, GloVe, Vocabulary

F = TypeVar("F", bound=Callable[..., Any])

VOCABULARY, ENCODING, COUNTING, TRAINING = "building the vocabulary", "encoding", "counting", "training vectors"
"""The labels of the steps."""


class Hyperparameters(NamedTuple):
    """What the vectors depend on beside the text."""

    dim: int
    window: int
    min_count: int
    epochs: int
    x_max: float
    seed: int

    @classmethod
    def options(cls, *, dim: int, window: int) -> Callable[[F], F]:
        """Return a decorator that adds one option a field to a command."""
        positive = click.IntRange(min=1)
        settings: dict[str, tuple[click.ParamType, Any, str]] = {
            "dim": (positive, dim, "Features of a vector."),
            "window": (click.IntRange(1, 20), window, "How far apart words may stand to be counted."),
            "min_count": (positive, 5, "Words that occur less often are left out."),
            "epochs": (positive, 15, "How often each count is trained on."),
            "x_max": (
                click.FloatRange(min=0, min_open=True),
                10.0,
                "Counts from here on have full weight; 100 for 1e9 words.",
            ),
            "seed": (click.IntRange(min=0), 0, "The same seed gives the same result."),
        }

        def add(function: F) -> F:
            for name in reversed(cls._fields):
                kind, default, text = settings[name]
                flag = f"--{name.replace('_', '-')}"
                metavar = "X" if isinstance(kind, click.FloatRange) else "N"
                option = click.option(flag, type=kind, metavar=metavar, default=default, show_default=True, help=text)
                function = option(function)
            return function

        return add


class Lines:
    """Lines of text that can be read again and again; a list of str could be taken for names of files."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)


def encoded(text: Lines | Sequence[Path], parameters: Hyperparameters, tokenizer: Any, stages: Stages) -> Corpus:
    """Return the ids of a text (lines, or files) by a vocabulary of its own."""
    from fastnlp.text import build_vocab, encode

    with stages.stage(VOCABULARY) as update:
        vocab = build_vocab(text, tokenizer=tokenizer, min_count=parameters.min_count, progress=update)
    with stages.stage(ENCODING) as update, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said when the vocabulary was built
        return encode(text, vocab, progress=update)


def counted(corpus: Corpus, parameters: Hyperparameters, stages: Stages) -> sparse.csr_array:
    """Return the co-occurrence counts of a corpus."""
    from fastnlp import cooccurrence

    with stages.stage(COUNTING):
        counts = cooccurrence(corpus, window=parameters.window)
    if counts.nnz == 0:
        raise ValueError("no two words of the vocabulary stand near each other: give more text, or lower --min-count")
    return counts


def trained(counts: sparse.csr_array, vocab: Vocabulary, parameters: Hyperparameters, stages: Stages) -> GloVe:
    """Return a `GloVe` fitted to counts."""
    from fastnlp import GloVe

    model = GloVe(dim=parameters.dim, x_max=parameters.x_max, epochs=parameters.epochs, seed=parameters.seed)
    with stages.stage(TRAINING) as update:
        return model.fit(counts, vocab, progress=update)


def tokenizer_for(name: str, files: Sequence[str], lower: bool) -> Any:
    """Return the tokenizer of that name, "auto" decided by the head of the first file; with `lower` it lower-cases."""
    if not lower:
        return name
    from fastnlp.text import reading, tokenizers

    with reading.open_bytes(files[0]) as file:
        sample = file.read(1 << 16).decode(errors="replace")
    tokenize = tokenizers.function(tokenizers.resolve(name, sample))
    return lambda line: tokenize(line.lower())


def check_files(files: Sequence[str]) -> None:
    """Raise for files that are not text, and for pipes: files are read twice."""
    from fastnlp.text import reading

    for file in files:
        if not os.path.isfile(file):
            raise click.ClickException(f"{file} is not a regular file, and text is read twice: save it to a file first")
        reading.check(file)


def check_writable(path: str, text: Sequence[str]) -> None:
    """Raise, before any work, if a file cannot be written at `path`, or is one of the files of the text."""
    if any(os.path.exists(path) and os.path.samefile(path, file) for file in text):
        raise click.ClickException(f"{path} would be overwritten, and it is the text: name another output")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise click.ClickException(f"{path} cannot be written: the folder {folder} does not exist, make it first")
    if not os.path.basename(path) or os.path.isdir(path):
        raise click.ClickException(f"{path!r} cannot be written: it is a folder or has no name, name a file")
    if not os.access(folder, os.W_OK):
        raise click.ClickException(f"{path} cannot be written: the folder {folder} is closed to this user")
