"""Arrow columns of lists of integers, as views of their memory.

Only what is asked for is looked at: the other sequences may be on disk, null, or too many.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
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
    at = column.selected if items is None or column.selected is None else column.selected[items]
    at = items if at is None else at
    if at is None:
        n = int(first[-1])
        touched = [(c, slice(b, e), slice(None)) for c, (b, e) in enumerate(pairwise(first.tolist())) if e > b]
    else:
        n, home = at.size, np.searchsorted(first[1:], at, "right")
        rows = at - first[home]
        touched = [(c, which, rows[which]) for c, which in groups(home)]
    chunk = np.empty(n, np.int32)
    begin, lengths = np.empty((2, n), np.int64)
    chunks: list[Array] = []
    for c, which, of in touched:
        values, begin[which], lengths[which] = _lists(name, column.chunks[c], of, int(first[c]))
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


def _lists(name: str, lists: Any, rows: Any, first: int) -> tuple[Array, Array, Array]:
    """Return the values of an Arrow array of lists, and where those of these rows begin and how long they are."""
    if not hasattr(lists, "values") or hasattr(lists, "run_ends"):
        raise TypeError(f"{name} must be a column of lists of integers, got {lists.type}")
    if lists.null_count:
        null = np.asarray(lists.is_null())[rows]
        if null.any():
            raise ValueError(f"{name} is null at row {_row(first, rows, null)}: fill or drop the null sequences")
    if hasattr(lists.type, "list_size"):
        size = lists.type.list_size
        begin = (lists.offset + np.arange(len(lists))[rows]) * size
        lengths = np.full(begin.size, size)
    else:
        offsets = lists.offsets.to_numpy()
        sizes = lists.sizes.to_numpy() if hasattr(lists, "sizes") else None
        begin = offsets[: len(lists)][rows].astype(np.int64)
        lengths = offsets[1:][rows] - begin if sizes is None else sizes[rows]
    values = lists.values
    if values.null_count:
        nulls = pointer(np.asarray(values.is_null()))
        wrong = nulls[begin + lengths] > nulls[begin]
        if wrong.any():
            raise ValueError(f"{name} has a null token at row {_row(first, rows, wrong)}: fill or drop it")
    return _numbers(name, values), begin, lengths


def _row(first: int, rows: Any, wrong: Array) -> int:
    """Return the row of the column that the first wrong one of these rows of a chunk is."""
    at = int(wrong.argmax())
    return first + (at if isinstance(rows, slice) else int(rows[at]))


def _numbers(name: str, values: Any) -> Array:
    """Return the numbers of an Arrow array as a view of its memory, whatever is in the places of nulls."""
    kind = str(values.type)
    if not len(values):
        return np.empty(0, np.int64)
    if kind not in _INTEGERS:
        raise TypeError(f"{name} must be a column of lists of integers, got lists of {kind}")
    return np.frombuffer(values.buffers()[1], kind)[values.offset : values.offset + len(values)]
