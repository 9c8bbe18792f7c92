"""What a report shows of vectors: frequent words, their neighbours and places in a plane, the loss, the command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from fastnlp._files import atomic_write
from fastnlp.cli.page import command_line
from fastnlp.cli.vectors_page import Report, page
from fastnlp.cli.words import content_words, neighbours, plane

if TYPE_CHECKING:
    from fastnlp import Corpus, GloVe

_ROWS, _NEIGHBOURS, _ON_THE_MAP = 16, 8, 220


def write(path: str | os.PathLike[str], *, corpus: Corpus, model: GloVe, **shown: Any) -> None:
    """Choose the words to show and write the page, whole or not at all; `shown` are fields of `Report` as they are.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    vectors = model.vectors
    chosen = content_words(corpus.ids, vectors.words, _ON_THE_MAP)
    words = [vectors.words[i] for i in chosen]
    report = Report(
        neighbours=[(word, neighbours(vectors, word, _NEIGHBOURS)) for word in words[:_ROWS]],
        words=words,
        points=plane(vectors.vectors[chosen]),
        training_loss=model.loss_,
        command=command_line(click.get_current_context()),
        **shown,
    )
    with atomic_write(path) as file:
        file.write(page(report).encode())
