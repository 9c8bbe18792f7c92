"""Columns and tensors of other libraries as NumPy arrays, without a copy where there can be none.

Nothing is imported that was not handed in. Of an Arrow column only what is asked for is looked at: its other sequences
may be on disk, null, or too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array


def _root(x: object) -> str:
    return type(x).__module__.partition(".")[0]


@dataclass(frozen=True)
class Column:
    """An Arrow column as its chunks, and the places in it that a data set has selected (None: all)."""

    chunks: list[Any]
    selected: Array | None

    @property
    def n(self) -> int:
        return sum(map(len, self.chunks)) if self.selected is None else self.selected.size


def column_of(x: Any) -> Column | None:
    """Return an Arrow array or a column of a Hugging Face dataset as a `Column`; None: it is neither.

    Raises
    ------
    TypeError
        A whole table or dataset.
    """
    root = _root(x)
    if root not in ("pyarrow", "datasets"):
        return None
    kind = type(x).__name__
    if root == "pyarrow":
        if hasattr(x, "column_names"):
            raise TypeError(f"got a {kind} of columns {x.column_names}: pass one of its columns")
        if hasattr(x, "combine_chunks"):
            return Column(x.chunks, None)
        return Column([x], None) if hasattr(x, "buffers") else None
    if hasattr(x, "column_names"):
        raise TypeError(f"got a {kind}: pass one of its columns, such as dataset['input_ids']")
    dataset = getattr(x, "source", None)
    table = getattr(dataset, "data", None)
    if table is None or getattr(dataset, "_format_type", None) == "custom":  # what a user's function makes
        return None
    mapping = getattr(dataset, "_indices", None)
    selected = None if mapping is None else mapping.column(0).to_numpy().view(np.int64)
    return Column(table.column(x.column_name).chunks, selected)


def tensor(name: str, x: Any) -> Array:
    """Return a tensor in the memory of the CPU as an array that shares it.

    Raises
    ------
    TypeError
        It is on another device, not dense, or of a dtype that NumPy does not have.
    """
    try:
        return x.detach().numpy()
    except (TypeError, RuntimeError, AttributeError) as error:
        raise TypeError(f"{name} is a tensor that cannot be read as a NumPy array: pass x.cpu() ({error})") from None


def array(name: str, x: Any) -> Array:
    """Return an array, a CPU tensor, an Arrow array or a column of numbers, or a list of numbers, as an array.

    Raises
    ------
    TypeError
        What has no array in the memory of the CPU.
    ValueError
        Null entries, or nothing that can be read as an array.
    """
    if type(x) is np.ndarray:
        return x
    if _arrays.library_of(x) == "torch":
        return tensor(name, x)
    column = column_of(x)
    if column is None:
        return np.asarray(_arrays.read(name, x))
    _refuse_nulls(name, column)
    if not column.chunks:
        return np.empty(0, np.int64)
    parts = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole if column.selected is None else whole[column.selected]


def integers(name: str, x: Any) -> Array:
    """Return what `array` reads as a contiguous one-dimensional int64 array.

    Raises
    ------
    TypeError
        Not integers.
    ValueError
        Not one axis, null entries, or a value beyond int64.
    """
    return _arrays.kernel_ready(_arrays.integers(name, array(name, x)))


def list_column(name: str, column: Column, items: Array | None) -> tuple[Any, ...]:
    """Return chunks, chunk, begin and lengths (see `Ragged`) of a column of lists of integers.

    Raises
    ------
    TypeError
        It does not have lists of integers.
    ValueError
        A list that is asked for is null, or has a null entry.
    """
    at = column.selected if items is None else items if column.selected is None else column.selected[items]
    sizes = np.fromiter(map(len, column.chunks), np.int64, len(column.chunks))
    ends = np.cumsum(sizes)
    tokens, chunk, begin, lengths = [], [], [], []
    if at is None:
        touched = [(c, None) for c in range(len(column.chunks)) if sizes[c]]
        order = None
    else:
        home = np.searchsorted(ends, at, "right")
        order = np.argsort(home, kind="stable")
        cuts = np.flatnonzero(np.diff(home[order], append=-1)) + 1
        groups = np.split(order, cuts[:-1]) if order.size else []
        touched = [(int(home[g[0]]), at[g] - (ends[home[g[0]]] - sizes[home[g[0]]])) for g in groups]
    for c, rows in touched:
        first = int(ends[c] - sizes[c])
        values, b, n = _lists(name, column.chunks[c], rows, first)
        chunk.append(np.full(n.size, len(tokens), np.int32))
        tokens.append(values)
        begin.append(b)
        lengths.append(n)
    if len(tokens) < 2 and order is None or not tokens:
        return (
            (tokens[0] if tokens else np.empty(0, np.int64),),
            None,
            begin[0] if tokens else np.empty(0, np.int64),
            lengths[0] if tokens else np.empty(0, np.int64),
        )
    joined = [np.concatenate(x) for x in (chunk, begin, lengths)]
    if order is not None:
        back = np.empty_like(order)
        back[order] = np.arange(order.size)
        joined = [x[back] for x in joined]
    return tuple(tokens), joined[0] if len(tokens) > 1 else None, joined[1], joined[2]


def _lists(name: str, lists: Any, rows: Array | None, first: int) -> tuple[Array, Array, Array]:
    """Return the values of an Arrow array of lists, and where those of these rows begin and how long they are."""
    kind = str(lists.type)
    if not hasattr(lists, "values"):
        raise TypeError(f"{name} must be a column of lists of integers, got {kind}")
    at = np.arange(len(lists)) if rows is None else rows
    if lists.null_count:
        null = np.asarray(lists.is_null())[at]
        if null.any():
            raise ValueError(f"{name} is null at row {first + int(at[null.argmax()])}: fill or drop the null sequences")
    if hasattr(lists.type, "list_size"):
        size = lists.type.list_size
        begin, lengths = (lists.offset + at) * size, np.full(at.size, size)
    else:
        offsets = lists.offsets.to_numpy()
        begin = offsets[at].astype(np.int64)
        ends = begin + lists.sizes.to_numpy()[at] if hasattr(lists, "sizes") else offsets[at + 1]
        lengths = ends.astype(np.int64) - begin
    return _values(name, lists.values, begin, lengths, first + at), begin, lengths


def _values(name: str, values: Any, begin: Array, lengths: Array, rows: Array) -> Array:
    """Return the numbers of an Arrow array as a view of its memory."""
    kind = str(values.type)
    if kind not in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        if kind == "null" and not len(values):
            return np.empty(0, np.int64)
        raise TypeError(f"{name} must be a column of lists of integers, got lists of {kind}")
    if values.null_count:
        nulls = np.append(0, np.cumsum(np.asarray(values.is_null())))
        wrong = nulls[begin + lengths] > nulls[begin]
        if wrong.any():
            raise ValueError(f"{name} has a null token at row {int(rows[wrong.argmax()])}: fill or drop it")
    if not len(values):
        return np.empty(0, kind)
    return np.frombuffer(values.buffers()[1], kind)[values.offset : values.offset + len(values)]


def _refuse_nulls(name: str, column: Column) -> None:
    first = 0
    for chunk in column.chunks:
        if chunk.null_count:
            raise ValueError(f"{name} is null at row {first + int(np.asarray(chunk.is_null()).argmax())}: fill or drop it")
        first += len(chunk)
