"""From text to word vectors, step by step: what ``fastnlp glove`` and ``fastnlp demo`` share."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnlp.cli.console import Stages
from fastnlp.cli.options import COUNTING, MODEL, READING, VOCABULARY, take

if TYPE_CHECKING:
    from scipy import sparse

    from fastnlp import Corpus, GloVe, Vocabulary

READING_TEXT, COUNTING_PAIRS, TRAINING = "reading the text", "counting", "training vectors"
"""The labels of the steps."""


class Lines:
    """Lines of text that can be read again and again; a list of str could be taken for names of files."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)


def corpus_of(text: Lines | Sequence[Path] | str, given: Mapping[str, Any], stages: Stages) -> Corpus:
    """Return the ids of a text by a vocabulary of its own; `given` are a command's arguments."""
    from fastnlp import build_corpus

    with stages.stage(READING_TEXT) as update:
        return build_corpus(text, **take(given, READING + VOCABULARY), progress=update)


def counts_of(corpus: Corpus, given: Mapping[str, Any], stages: Stages, **where: Any) -> Any:
    """Return the co-occurrence counts of a corpus; `where` are the arguments of `cooccurrence` about files."""
    from fastnlp import cooccurrence

    with stages.stage(COUNTING_PAIRS) as update:
        return cooccurrence(corpus, **take(given, COUNTING), **where, progress=update)


def check_counts(counts: sparse.csr_array) -> None:
    """Raise for a text without pairs of words."""
    if counts.nnz == 0:
        raise ValueError("no two words of the vocabulary stand near each other: give more text, or lower --min-count")


def model_of(given: Mapping[str, Any]) -> GloVe:
    """Return the `GloVe` that a command's arguments ask for; it raises for those that are no good (``--lr nan``)."""
    from fastnlp import GloVe

    return GloVe(**take(given, MODEL))


def trained(
    counts: sparse.csr_array,
    vocab: Vocabulary,
    given: Mapping[str, Any],
    stages: Stages,
    *,
    checkpoint: str | None = None,
    **fitting: Any,
) -> GloVe:
    """Return a `GloVe` fitted to counts.

    Parameters
    ----------
    counts, vocab
        As `GloVe.fit` takes them.
    given
        A command's arguments.
    stages
        Shows the progress: the loss, counts a second, the time left.
    checkpoint
        A file in which what was trained is kept; to be removed when the vectors are written.
    fitting
        Further arguments of `GloVe.fit`.
    """
    check_counts(counts)
    model = model_of(given)
    if checkpoint is not None:
        fitting |= {"checkpoint": checkpoint, "checkpoint_seconds": 60 * given["checkpoint_every"]}
        fitting["resume"] = resumed(checkpoint, given["resume"])
    with stages.stage(TRAINING) as update:
        last, before = time.perf_counter(), 0.0

        def show(done: float, epochs: int, loss: float) -> None:
            nonlocal last, before
            now = time.perf_counter()
            rate = (done - before) * counts.nnz / (now - last) if before else 0.0  # a checkpoint's epochs are not ours
            last, before = now, done
            update(done, epochs, f"loss {loss:.5f}" + (f", {rate / 1e6:.1f} M counts/s" if rate else ""))
            interruption()

        try:
            with deferred_interruption() as interruption:
                model.fit(counts, vocab, progress=show, **fitting)
        except KeyboardInterrupt:
            if checkpoint is not None and os.path.exists(checkpoint):
                click.echo(f"fastnlp: what was trained is in {checkpoint}, --resume goes on from there", err=True)
            raise
    return model


def save(model: GloVe, output: str, written: str, checkpoint: str, stages: Stages) -> None:
    """Write the vectors, and only then remove the checkpoint."""
    with stages.stage("saving"):
        model.save(output, format=written)
        os.unlink(checkpoint)


@contextmanager
def deferred_interruption() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C wait for a call of what is yielded, which then raises; a second one does not wait."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked = False

    def ask(*_: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def raise_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield raise_if_asked
    finally:
        signal.signal(signal.SIGINT, before)


def resumed(checkpoint: str, resume: bool) -> bool:
    """Return whether training goes on from a checkpoint; without `resume` one that is there is not overwritten."""
    there = os.path.exists(checkpoint)
    if there and not resume:
        raise click.ClickException(
            f"{checkpoint} holds what an interrupted run has trained: add --resume to go on from there, or remove it"
        )
    return there
