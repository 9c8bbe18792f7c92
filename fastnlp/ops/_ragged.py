"""Sequences of tokens in whatever form they come, read as flat arrays and places in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp.ops import _columns
from fastnlp.ops._arrow_lists import groups, list_column
from fastnlp.ops._gpu_tokens import flat_on_gpu, integers_on_gpu
from fastnlp.ops._token_rows import NATIVE, flat_rows, row_lengths, touched


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequence i has the tokens ``chunks[chunk[i]][begin[i] : begin[i] + lengths[i]]``.

    Attributes
    ----------
    chunks
        Flat arrays of int64, int32 or uint16 that are ready for kernels; views of the caller's memory where it is of
        such a dtype.
    chunk
        ``(N,)`` int32; None: all are in ``chunks[0]``.
    begin, lengths
        ``(N,)`` int64.
    """

    chunks: tuple[Array, ...]
    chunk: Array | None
    begin: Array
    lengths: Array

    def __len__(self) -> int:
        return self.lengths.size

    @property
    def memory(self) -> tuple[Array, ...]:
        """The arrays that may be the caller's."""
        return (*self.chunks, self.begin)

    def take(self, name: str, items: Any) -> Ragged:
        """Return the sequences of these indices, in their order."""
        at = checked_items(name, items, len(self))
        chunk = None if self.chunk is None else self.chunk[at]
        return Ragged(self.chunks, chunk, self.begin[at], self.lengths[at])

    def parts(self) -> Iterator[tuple[Array, Any]]:
        """Yield each chunk that is touched, with what picks its sequences out of arrays of N entries."""
        if self.chunk is None:
            yield self.chunks[0], slice(None)
            return
        for c, which in groups(self.chunk):
            yield self.chunks[c], which

    def copy_to(self, out: Array, place: Array, kernels: ModuleType, name: str) -> None:
        """Copy the tokens of sequence i to ``out[place[i] : place[i] + lengths[i]]``; `out` is int64 or int32.

        Raises
        ------
        ValueError
            A token that int32 cannot hold.
        """
        for tokens, which in self.parts():
            begin, lengths = self.begin[which], self.lengths[which]
            if out.dtype != np.int64 and tokens.dtype == np.int64:
                tokens, begin = touched(name, tokens, begin, lengths, out.dtype)
            kernels.copy_stretches(tokens, begin, lengths, place[which], out)


def ragged(name: str, sequences: Any, items: Any = None) -> Ragged:
    """Read sequences of integer tokens; with `items` only those of these indices, and nothing of the others.

    Lists and tuples of Python ints, arrays and CPU tensors in a list, a 2-D array, ``(tokens, offsets)``, Arrow list
    columns, columns of Hugging Face datasets, a `Corpus`, or what this function returned. The tokens of a
    2-D array or of ``(tokens, offsets)`` may be on a GPU; their places are on the host all the same.

    Raises
    ------
    TypeError
        Something else, or tokens that are not integers.
    ValueError
        Wrong offsets or shapes, null entries, tokens beyond int64; an index in `items` that is out of range.
    """
    return _ready(name, _places(name, sequences, items))


def _places(name: str, sequences: Any, items: Any) -> Ragged:
    """Do what `ragged` does, but leave tokens in columns, arrays and files as they are."""
    if isinstance(sequences, Ragged):
        return sequences if items is None else sequences.take("items", items)
    if isinstance(sequences, list):
        return _from_rows(name, sequences, items)
    if _arrays.on_device(sequences):
        tokens, n, length = flat_on_gpu(name, sequences)
        at = np.arange(n) if items is None else checked_items("items", items, n)
        return Ragged((tokens,), None, at * length, np.full(at.size, length))
    corpus = sys.modules.get("fastnlp.text.corpus")
    if corpus is not None and isinstance(sequences, corpus.Corpus):
        sequences = (sequences.ids, sequences.offsets)
    if isinstance(sequences, tuple):
        return _from_offsets(name, *_pair(name, sequences), items)
    column = _columns.column_of(name, sequences)
    if column is not None:
        chunks, chunk, begin, lengths = list_column(name, column, _checked_or_none(items, column.n))
        return Ragged(tuple(chunks), chunk, begin, lengths)
    if _arrays.library_of(sequences) == "torch":
        sequences = _columns.tensor(name, sequences)
    elif hasattr(sequences, "to_numpy"):  # a column of a data frame, whose index is not that of places
        sequences = sequences.to_numpy()
    if isinstance(sequences, np.ndarray) and sequences.dtype != object:
        return _from_array(name, _arrays.read(name, sequences), items)
    return _from_rows(name, sequences, items)


def sequence_lengths(sequences: Any) -> Array:
    """Return the number of tokens of each sequence, without looking at the tokens.

    Parameters
    ----------
    sequences
        ``N`` sequences of integer tokens: a list of lists, arrays or CPU tensors; an array ``(N, L)``; a tuple of
        tokens ``(T,)`` and offsets ``(N + 1,)``; an Arrow list column (also sliced or chunked); a column of a Hugging
        Face dataset, ``dataset["input_ids"]``; a `Corpus`, whose documents count.

    Returns
    -------
    Array
        ``(N,)`` int64, as `pack` and `bucket_batches` want it. Of columns and offsets the differences of offsets.

    Raises
    ------
    TypeError
        Not sequences of integers.
    ValueError
        Offsets that fall or leave the tokens; null sequences.

    Examples
    --------
    >>> import fastnlp
    >>> fastnlp.sequence_lengths([[5, 6, 7], [8]]).tolist()
    [3, 1]
    """
    if isinstance(sequences, list):
        return row_lengths("sequences", sequences)
    return _places("sequences", sequences, None).lengths


def checked_items(name: str, items: Any, n: int) -> Array:
    """Return indices of n sequences as a contiguous ``(M,)`` int64 array.

    Raises
    ------
    TypeError
        Not integers.
    ValueError
        Not one axis, or an index outside ``[0, n)``.
    """
    array = _columns.integers(name, items)
    outside = array.view(np.uint64) >= n  # negative ones are huge here
    if outside.any():
        raise ValueError(f"{name} holds {int(array[outside.argmax()])}, outside [0, {n}), the number of sequences")
    return array


def _checked_or_none(items: Any, n: int) -> Array | None:
    return None if items is None else checked_items("items", items, n)


def _pair(name: str, pair: tuple[Any, ...]) -> tuple[Array, Array]:
    if len(pair) != 2:
        raise TypeError(f"{name}: a tuple must be (tokens, offsets), got {len(pair)} entries: pass a list of sequences")
    if _arrays.on_device(pair[1]):
        raise TypeError(
            f"{name}: the offsets are on a GPU, but the shape of the result follows from them: pass them on the host, "
            "such as cupy.asnumpy(offsets)"
        )
    read = _arrays.read if _arrays.on_device(pair[0]) else _columns.array
    tokens = read(f"the tokens of {name}", pair[0])
    offsets = _columns.array(f"the offsets of {name}", pair[1])
    for what, x in (("tokens", tokens), ("offsets", offsets)):
        if x.ndim != 1 or (x.dtype.kind not in "iu" and x.size):
            raise TypeError(
                f"{name}: a tuple must be (tokens, offsets), two arrays of integers of one axis, got {what} of "
                f"{x.dtype.name} of shape {x.shape}: pass sequences as a list"
            )
    if not offsets.size:
        raise ValueError(f"{name}: offsets are empty: there must be one more than there are sequences, the first 0")
    return tokens, offsets.astype(np.int64, copy=False)


def _from_offsets(name: str, tokens: Array, offsets: Array, items: Any) -> Ragged:
    at = _checked_or_none(items, offsets.size - 1)
    begin, end = (offsets[:-1], offsets[1:]) if at is None else (offsets[at], offsets[at + 1])
    wrong = (begin < 0) | (end < begin) | (end > tokens.size)
    if np.count_nonzero(wrong) or not 0 <= offsets[0] <= tokens.size:
        raise ValueError(f"{name}: offsets must rise from 0 or more to at most the number of tokens, {tokens.size}")
    return Ragged((tokens,), None, _arrays.kernel_ready(begin), end - begin)


def _from_array(name: str, x: Array, items: Any) -> Ragged:
    if x.ndim != 2:
        raise ValueError(
            f"{name} has shape {x.shape}: pass an array of shape (N, L), a list of sequences, or (tokens, offsets)"
        )
    rows = x if items is None else x[checked_items("items", items, x.shape[0])]
    n, length = rows.shape
    flat = np.ascontiguousarray(rows).reshape(-1)
    return Ragged((flat,), None, np.arange(n) * length, np.full(n, length))


def _from_rows(name: str, sequences: Any, items: Any) -> Ragged:
    if isinstance(sequences, str | bytes | dict) or not (
        hasattr(sequences, "__len__") and hasattr(sequences, "__getitem__")
    ):
        raise TypeError(
            f"{name} is of type {type(sequences).__name__}: pass a list of sequences, (tokens, offsets), "
            "an Arrow list column or a column of a data set"
        )
    rows = sequences
    if items is not None:
        rows = [sequences[i] for i in checked_items("items", items, len(sequences)).tolist()]
    elif not isinstance(sequences, list):
        rows = [sequences[i] for i in range(len(sequences))]
    lengths = row_lengths(name, rows)
    begin = np.cumsum(lengths) - lengths
    return Ragged((flat_rows(name, rows),), None, begin, lengths)


def _ready(name: str, sequences: Ragged) -> Ragged:
    """Return the sequences with chunks that kernels can read; of other dtypes only what is touched is converted."""
    if sequences.chunks and _arrays.on_device(sequences.chunks[0]):
        return replace(sequences, chunks=(integers_on_gpu(name, sequences.chunks[0]),))
    for tokens in sequences.chunks:
        if not (tokens.dtype in NATIVE and tokens.flags.carray and tokens.dtype.isnative):
            break
    else:
        return sequences
    begin = sequences.begin.copy()
    chunks = list(sequences.chunks)
    for c, tokens in enumerate(chunks):
        if tokens.dtype.newbyteorder("=") in NATIVE and tokens.flags.c_contiguous and tokens.dtype.isnative:
            chunks[c] = _arrays.kernel_ready(np.asarray(tokens))
            continue
        which = slice(None) if sequences.chunk is None else sequences.chunk == c
        dtype = tokens.dtype.newbyteorder("=")
        wanted = dtype if dtype in NATIVE else np.dtype(np.int32 if dtype.itemsize < 4 else np.int64)
        chunks[c], begin[which] = touched(name, tokens, begin[which], sequences.lengths[which], wanted)
    return replace(sequences, chunks=tuple(chunks), begin=begin)
