"""`Corpus` and `encode`: a text as the ids of its words."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import repeat
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastnlp._files import atomic_write, temporary_file
from fastnlp.text import tokenizers
from fastnlp.text.sources import Progress, Source
from fastnlp.text.stream import token_batches
from fastnlp.text.tokenizers import Tokenizer
from fastnlp.text.vocabulary import Vocabulary

_IN_MEMORY = 1 << 30  # bytes of ids; more go to a temporary file


class Corpus:
    """A text as ids: documents one after the other, without the tokens that the vocabulary does not hold.

    ``len(corpus)`` is its number of tokens, ``corpus.n_documents`` that of its documents.

    Parameters
    ----------
    ids
        ``(tokens,)`` int32, in memory or mapped from a file.
    offsets
        ``(documents + 1,)`` int64: document i is ``ids[offsets[i]:offsets[i + 1]]``.
    vocab
        The vocabulary of the ids.
    n_oov
        How many tokens were left out because the vocabulary does not hold them.

    Raises
    ------
    TypeError
        `ids` are not int32, `offsets` are not int64, or `vocab` is no `Vocabulary`.
    ValueError
        `offsets` do not cut `ids` into documents.
    """

    def __init__(self, ids: NDArray[np.int32], offsets: NDArray[np.int64], vocab: Vocabulary, n_oov: int = 0) -> None:
        if not isinstance(vocab, Vocabulary):
            raise TypeError(f"vocab must be a Vocabulary, got {type(vocab).__name__}")
        for name, x, dtype in (("ids", ids, np.int32), ("offsets", offsets, np.int64)):
            if not isinstance(x, np.ndarray) or x.dtype != dtype or x.ndim != 1:
                raise TypeError(f"{name} must be an array of one axis of {np.dtype(dtype).name}")
        if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != ids.size or (np.diff(offsets) < 0).any():
            raise ValueError(f"offsets must rise from 0 to the number of ids, {ids.size}")
        self.ids = ids
        self.offsets = offsets
        self.vocab = vocab
        self.n_oov = n_oov

    @property
    def n_documents(self) -> int:
        """The number of documents, empty ones included."""
        return self.offsets.size - 1

    @property
    def nbytes(self) -> int:
        """The size of the ids and offsets in bytes, in memory or on disk."""
        return self.ids.nbytes + self.offsets.nbytes

    def document(self, i: int) -> NDArray[np.int32]:
        """Return the ids of document i, a view; negative i count from the end.

        Raises
        ------
        IndexError
            There is no document i.
        """
        n = self.n_documents
        if not -n <= i < n:
            raise IndexError(f"document {i} is out of range, there are {n}")
        i %= n
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def documents(self) -> Iterator[NDArray[np.int32]]:
        """Yield the ids of each document in order, views."""
        return map(self.document, range(self.n_documents))

    def __len__(self) -> int:
        return self.ids.size

    def __repr__(self) -> str:
        return f"Corpus({len(self)} tokens, {self.n_documents} documents, {self.n_oov} tokens not in the vocabulary)"


def encode(
    files_or_lines: Any,
    vocab: Vocabulary,
    *,
    tokenizer: str | Tokenizer | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Turn a text into the ids of its words.

    Tokens that the vocabulary does not hold are removed and the gap is closed, as the original GloVe does: words that
    stood two places apart may become neighbours. Each line is a document, an empty line an empty one, so document i is
    line i. The end of a file ends a document.

    The text is read as a stream. Ids beyond 1 GiB go to an unnamed temporary file, in the folder that TMPDIR names, and
    are mapped from there.

    Parameters
    ----------
    files_or_lines
        Text, as in `build_vocab`. A generator that `build_vocab` has read is used up: make it anew.
    vocab
        The vocabulary.
    tokenizer
        As in `build_vocab`. Default: the one `vocab` was built with, "whitespace" where that is not known.
    out
        A file to which the ids are written (int32, nothing else) and from which they are mapped.
    progress
        As in `build_vocab`.

    Raises
    ------
    OSError
        A file is missing, is a folder, or may not be read; `out` cannot be written.
    TypeError
        `files_or_lines`, `vocab` or `tokenizer` is of another type.
    ValueError
        A file is empty, not text, truncated or corrupt; the iterable gives nothing; the tokenizer is not known.

    Warns
    -----
    UserWarning
        Bytes that are not UTF-8 were replaced; said once, with their number. Or a list was taken as lines though some
        of its str name files.
    """
    if not isinstance(vocab, Vocabulary):
        raise TypeError(f"vocab must be a Vocabulary, got {type(vocab).__name__}: make one with build_vocab")
    tokenizers.check(tokenizer)
    source = Source(files_or_lines)
    if tokenizer is None and source.kind != "tokens":
        tokenizer = vocab.tokenizer
    _, batches = token_batches(source, tokenizer, progress)

    get = vocab.index.get
    ends = [np.zeros(1, np.int64)]
    n_oov = 0
    with ExitStack() as stack:
        ids = _Ids(stack, None if out is None else stack.enter_context(atomic_write(out)))
        for lines, is_open in batches:
            found = array("i")
            line_ends = array("q")
            for tokens in lines:
                found.extend(map(get, tokens, repeat(-1)))
                line_ends.append(len(found))
            all_ids = np.frombuffer(found, np.int32)
            known = all_ids >= 0
            before = np.concatenate(([0], known.cumsum()))  # (tokens + 1,): how many known ones stand before each
            batch_ends = ids.size + before[np.frombuffer(line_ends, np.int64)]
            ends.append(batch_ends[:-1] if is_open else batch_ends)
            ids.append(all_ids[known])
            n_oov += all_ids.size - int(before[-1])
        if out is None:
            found_ids = ids.array()
    if out is not None:
        found_ids = _map(out, ids.size)  # only now: a mapped file cannot be moved everywhere
    source.warn()
    return Corpus(found_ids, np.concatenate(ends), vocab, n_oov)


class _Ids:
    """An array of int32 that grows: blocks in memory, and a file from the start or beyond a limit."""

    def __init__(self, stack: ExitStack, file: BinaryIO | None) -> None:
        self._stack = stack  # closes a temporary file: the map holds it on
        self._file: Any = file
        self._blocks: list[NDArray[np.int32]] = []
        self.size = 0

    def append(self, ids: NDArray[np.int32]) -> None:
        self._blocks.append(ids)
        self.size += ids.size
        if self._file is None and self.size * ids.itemsize > _IN_MEMORY:
            self._file = self._stack.enter_context(temporary_file())
        if self._file is not None:
            for block in self._blocks:
                self._file.write(block.data)
            self._blocks.clear()

    def array(self) -> NDArray[np.int32]:
        if self._file is None:
            return np.concatenate([np.empty(0, np.int32), *self._blocks])
        self._file.flush()
        return _map(self._file, self.size)


def _map(file: Any, size: int) -> NDArray[np.int32]:
    return np.memmap(file, np.int32, "r", shape=(size,)) if size else np.empty(0, np.int32)  # none is no map
