"""Arrow columns of lists of integers, as views of their memory.

Only what is asked for is looked at: the other sequences may be on disk, null, or too many.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._columns import Column
from fastnlp.ops._groups import pointer

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def list_column(name: str, column: Column, items: Array | None) -> tuple[list[Array], Array | None, Array, Array]:
    """Return chunks, chunk, begin and lengths (see `Ragged`) of these items of a column, or of all.

    Raises
    ------
    TypeError
        It is not a column of lists of integers.
    ValueError
        A list that is asked for is null, or has a null entry.
    """
    first = pointer(np.fromiter(map(len, column.chunks), np.int64, len(column.chunks)))
    at = np.arange(column.n) if items is None else items
    if column.selected is not None:
        at = column.selected[at]
    home = np.searchsorted(first[1:], at, "right")
    chunks: list[Array] = []
    chunk = np.empty(at.size, np.int32)
    begin, lengths = np.empty((2, at.size), np.int64)
    for c, which in groups(home):
        values, begin[which], lengths[which] = _lists(name, column.chunks[c], at[which] - first[c], int(first[c]))
        chunk[which] = len(chunks)
        chunks.append(values)
    return chunks or [np.empty(0, np.int64)], chunk if len(chunks) > 1 else None, begin, lengths


def groups(key: Array) -> Iterator[tuple[int, Any]]:
    """Yield each distinct key with what picks its entries out of arrays: a slice where they are sorted, or indices."""
    order = None if (key[1:] >= key[:-1]).all() else np.argsort(key, kind="stable")
    ordered = key if order is None else key[order]
    ends = np.flatnonzero(np.diff(ordered, append=-1)) + 1
    begin = 0
    for end in ends.tolist():
        yield int(ordered[begin]), slice(begin, end) if order is None else order[begin:end]
        begin = end


def _lists(name: str, lists: Any, rows: Array, first: int) -> tuple[Array, Array, Array]:
    """Return the values of an Arrow array of lists, and where those of these rows begin and how long they are."""
    if not hasattr(lists, "values"):
        raise TypeError(f"{name} must be a column of lists of integers, got {lists.type}")
    if lists.null_count:
        null = np.asarray(lists.is_null())[rows]
        if null.any():
            raise ValueError(
                f"{name} is null at row {first + int(rows[null.argmax()])}: fill or drop the null sequences"
            )
    if hasattr(lists.type, "list_size"):
        size = lists.type.list_size
        begin, lengths = (lists.offset + rows) * size, np.full(rows.size, size)
    else:
        offsets = lists.offsets.to_numpy()
        begin = offsets[rows].astype(np.int64)
        lengths = lists.sizes.to_numpy()[rows] if hasattr(lists, "sizes") else offsets[rows + 1] - begin
    return _values(name, lists.values, begin, lengths, first + rows), begin, lengths


def _values(name: str, values: Any, begin: Array, lengths: Array, rows: Array) -> Array:
    """Return the numbers of an Arrow array as a view of its memory."""
    kind = str(values.type)
    if not len(values):
        return np.empty(0, np.int64)
    if kind not in _INTEGERS:
        raise TypeError(f"{name} must be a column of lists of integers, got lists of {kind}")
    if values.null_count:
        nulls = pointer(np.asarray(values.is_null()))
        wrong = nulls[begin + lengths] > nulls[begin]
        if wrong.any():
            raise ValueError(f"{name} has a null token at row {int(rows[wrong.argmax()])}: fill or drop it")
    return np.frombuffer(values.buffers()[1], kind)[values.offset : values.offset + len(values)]
