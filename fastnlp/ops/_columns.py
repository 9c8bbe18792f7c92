"""Columns and tensors of other libraries as NumPy arrays, without a copy where that can be. None is imported here."""

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


def column_of(name: str, x: Any) -> Column | None:
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
            raise TypeError(f"{name} is a {kind} with the columns {x.column_names}: pass one of them")
        if hasattr(x, "combine_chunks"):
            return Column(x.chunks, None)
        return Column([x], None) if hasattr(x, "buffers") else None
    if hasattr(x, "column_names"):
        raise TypeError(f"{name} is a {kind}: pass one of its columns, such as dataset['input_ids']")
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
    column = column_of(name, x)
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


def _refuse_nulls(name: str, column: Column) -> None:
    first = 0
    for chunk in column.chunks:
        if chunk.null_count:
            row = first + int(np.asarray(chunk.is_null()).argmax())
            raise ValueError(f"{name} is null at row {row}: fill or drop the null entries")
        first += len(chunk)
