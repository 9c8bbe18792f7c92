"""`encode` and `build_corpus`: from text to the ids of its words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnlp import _threads
from fastnlp._files import atomic_write
from fastnlp.text import tokenizers
from fastnlp.text._growing import Ends, Ids, mapped
from fastnlp.text.corpus import Corpus
from fastnlp.text.sources import Progress, Source
from fastnlp.text.stream import Rules, pieces
from fastnlp.text.tokenizers import Tokenizer
from fastnlp.text.tokens import AT_ONCE, Numbered, Numbering, renumbered
from fastnlp.text.vocabulary import Choice, Vocabulary

_IN_MEMORY = 1 << 30  # bytes of ids; more go to a temporary file
_BESIDE_OUT = 1 << 26  # the same where the ids are wanted in a file anyway


def encode(
    files_or_lines: Any,
    vocab: Vocabulary,
    *,
    tokenizer: str | Tokenizer | None = None,
    oov: str = "remove",
    documents: str = "line",
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Turn a text into the ids of its words.

    The text becomes tokens as it did for the vocabulary: what that remembers of a tokenizer, of lower-casing and of a
    normal form is done again.

    The text is read as a stream. Ids beyond 1 GiB go to an unnamed temporary file, in the folder that TMPDIR names, and
    are mapped from there. Held beside the ids are 8 bytes a line, the words, and up to 30 MiB for each thread.

    Parameters
    ----------
    files_or_lines
        Text, as in `build_vocab`. A generator or an open file that `build_vocab` has read is used up: make it anew, or
        use `build_corpus`.
    vocab
        The vocabulary.
    tokenizer
        As in `build_vocab`. Default: the one `vocab` was built with, "whitespace" where that is not known.
    oov
        What becomes of tokens that the vocabulary does not hold. "remove": they are left out and the gap is closed, as
        the original GloVe does, so that words that stood two places apart may become neighbours. "gap": they keep
        their places, as id -1.
    documents
        What a document is. "line": each line, as for the original GloVe; an empty line is an empty one, so document i
        is line i. "blank line": lines that hold no tokens divide documents. "file": each file; lines and lists of
        tokens are one. The end of a file always ends a document.
    out
        A file to which the ids are written (int32, nothing else) and from which they are mapped.
    progress
        As in `build_vocab`.

    Returns
    -------
    Corpus
        Its ``sentences`` are the lines, whatever documents are.

    Raises
    ------
    OSError
        A file is missing, is a folder, or may not be read; `out` cannot be written.
    ImportError
        A file is packed with zstd, and neither Python 3.14 nor the package zstandard is there.
    TypeError
        `files_or_lines`, `vocab` or `tokenizer` is of another type.
    ValueError
        A file is empty, not text (it holds a NUL byte: the line is named), truncated or corrupt; the iterable gives
        nothing; the tokenizer, `oov` or `documents` is not known.

    Warns
    -----
    UserWarning
        Bytes that are not UTF-8 were replaced; said once, with their number. Or a list was taken as lines though some
        of its str name files.
    """
    if not isinstance(vocab, Vocabulary):
        raise TypeError(f"vocab must be a Vocabulary, got {type(vocab).__name__}: make one with build_vocab")
    tokenizers.check(tokenizer)
    _check(oov, documents)
    source = Source(files_or_lines)
    rules = Rules(tokenizer)
    if source.kind != "tokens":
        rules = Rules(vocab.tokenizer if tokenizer is None else tokenizer, vocab.lower, vocab.normalize)
    _, stream = pieces(source, rules, progress)
    numbering = Numbering(vocab.words)
    with ExitStack() as stack:
        writer = _Writer(stack, documents, oov, out)
        for batch in numbering.batches(stream, source):
            writer.append(batch, [numbering.places], numbering.kernels)
        writer.finish()
    source.warn()
    return writer.corpus(vocab)


def build_corpus(
    files_or_lines: Any,
    *,
    tokenizer: str | Tokenizer | None = None,
    min_count: int = 5,
    max_size: int | None = None,
    lower: bool = False,
    normalize: str | None = None,
    exclude: Iterable[str] = (),
    oov: str = "remove",
    documents: str = "line",
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Build a vocabulary and encode the text by it, reading the text once.

    The result is that of `build_vocab` and `encode` one after the other, also for what can be read only once: standard
    input, an open file, a generator. It takes less time, and memory for the ids of all words: beyond 1 GiB, or 64 MiB
    where `out` is given, they are kept in an unnamed temporary file, in the folder that TMPDIR names.

    Parameters
    ----------
    files_or_lines, tokenizer, min_count, max_size, lower, normalize, exclude, progress
        As in `build_vocab`.
    oov, documents, out
        As in `encode`.

    Returns
    -------
    Corpus
        Its ``vocab`` is the vocabulary.

    Raises
    ------
    OSError, ImportError, TypeError, ValueError
        As `build_vocab` and `encode`.

    Warns
    -----
    UserWarning
        As `build_vocab`.

    Examples
    --------
    >>> import fastnlp
    >>> corpus = fastnlp.build_corpus(["a rose is a rose", "is a"], min_count=2)
    >>> corpus.vocab.words, corpus.ids, corpus.offsets
    (('a', 'is', 'rose'), array([0, 2, 1, 0, 2, 1, 0], dtype=int32), array([0, 5, 7]))
    """
    rules = Rules.checked(tokenizer, lower, normalize)
    choice = Choice.checked(min_count, max_size, exclude)
    _check(oov, documents)
    source = Source(files_or_lines)
    used, stream = pieces(source, rules, progress)
    numbering = Numbering()
    with ExitStack() as stack:
        writer = _Writer(stack, documents, oov, out)
        kept = Ids(stack, _IN_MEMORY if out is None else _BESIDE_OUT)
        rest: list[Any] = []
        for batch in numbering.batches(stream, source):
            for ids, *others in batch:
                kept.append(ids)
                rest.append(others)
        words, counts, places = numbering.merged()
        vocab, chosen = choice.vocabulary(words, counts, rules._replace(tokenizer=used), source)
        final = np.full(len(words), -1, np.int32)
        final[chosen] = np.arange(chosen.size)
        numbers = [final[place] for place in places]
        again = (Numbered(ids, *others) for ids, others in zip(kept.drain(), rest, strict=True))
        while batch := list(islice(again, AT_ONCE * _threads.get_num_threads())):
            writer.append(batch, numbers, numbering.kernels)
        writer.finish()
    source.warn()
    return writer.corpus(vocab)


class _Writer:
    """Puts the pieces of a text together. Its file, if it has one, gets its name when the stack is closed."""

    def __init__(self, stack: ExitStack, documents: str, oov: str, out: str | os.PathLike[str] | None) -> None:
        self._gaps = oov == "gap"
        self._ends = Ends(documents)
        self._n_oov = 0
        self._out = out
        file = None if out is None else stack.enter_context(atomic_write(out))
        self._ids = Ids(stack, _IN_MEMORY, file)

    def append(self, batch: list[Numbered], numbers: Sequence[NDArray[np.int32]], kernels: ModuleType) -> None:
        """Add pieces, whose ids become ``numbers[table][id]``."""
        for piece, (ids, ends, known) in zip(batch, renumbered(batch, numbers, self._gaps, kernels), strict=True):
            self._ends.append(ends, self._ids.size, piece.ends, piece.ids.size, piece.last)
            self._ids.append(ids)
            self._n_oov += piece.ids.size - known

    def finish(self) -> None:
        """Take the ids over, before the stack closes a temporary file."""
        if self._out is None:
            self._array = self._ids.array()

    def corpus(self, vocab: Vocabulary) -> Corpus:
        """Return the corpus, after the stack is closed: a file that is mapped cannot be moved everywhere."""
        ids = self._array if self._out is None else mapped(self._out, self._ids.size)
        offsets, sentences = self._ends.offsets()
        return Corpus(ids, offsets, vocab, self._n_oov, sentences=sentences)


def _check(oov: Any, documents: Any) -> None:
    for name, value, known in (
        ("oov", oov, ("remove", "gap")),
        ("documents", documents, ("line", "blank line", "file")),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
