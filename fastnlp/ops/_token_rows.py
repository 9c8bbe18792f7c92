"""Rows of integer tokens as one flat array, and tokens of other dtypes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp.ops import _columns

NATIVE = (np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.uint16))  # kernels read these as they are
_LISTS = {list, tuple}


def flat_rows(name: str, rows: list[Any]) -> Array:
    """Return lists of ints, arrays or tensors one after another: int64, int32 or uint16.

    Raises
    ------
    TypeError
        What are not integers.
    ValueError
        An array that has not one axis, or an integer beyond int64.
    """
    kinds = set(map(type, rows))
    if kinds <= _LISTS:
        return _flat_ints(name, rows)
    if len(kinds) == 1 and _arrays.library_of(rows[0]) == "torch":
        flat = _flat_tensors(rows)
        if flat is not None:
            return flat
    return _flat_arrays(name, rows)


def row_lengths(name: str, rows: list[Any]) -> Array:
    """Return the length of each row, ``(N,)`` int64.

    Raises
    ------
    TypeError
        A row that is no sequence, or a text.
    ValueError
        An array that has not one axis.
    """
    kinds: set[Any] = set(map(type, rows))
    for kind in kinds - _LISTS:
        if not (hasattr(kind, "__len__") and hasattr(kind, "__getitem__")) or issubclass(kind, str | bytes | dict):
            i, row = next((i, row) for i, row in enumerate(rows) if type(row) is kind)
            raise TypeError(f"{name}[{i}] is {row!r}: a sequence of integers is wanted")
        if hasattr(kind, "ndim") and {x.ndim for x in rows if type(x) is kind} != {1}:
            i, shape = next((i, tuple(x.shape)) for i, x in enumerate(rows) if type(x) is kind and x.ndim != 1)
            raise ValueError(f"{name}[{i}] has shape {shape}: a sequence, of one axis, is wanted")
    size: Any = len
    if len(kinds) == 1:
        size = getattr(kinds.pop(), "numel", len)  # a tensor's own, which is faster
    return np.fromiter(map(size, rows), np.int64, len(rows))


class _Packers(dict[int, Callable[..., bytes]]):
    """Functions that make the bytes of n int64 of n Python ints."""

    def __missing__(self, n: int) -> Callable[..., bytes]:
        if len(self) > 4096:
            self.clear()
        self[n] = pack = struct.Struct(f"{n}q").pack
        return pack


_packers = _Packers()


def _flat_ints(name: str, rows: list[Any], first: int = 0) -> Array:
    """Return lists of Python ints as one array. `struct` reads them at twice the speed of `numpy.array`."""
    try:
        flat = bytearray().join([_packers[len(row)](*row) for row in rows])
    except struct.error:
        for i, row in enumerate(rows, first):
            for j, value in enumerate(row):
                _check_int(f"{name}[{i}]", j, value)
        raise
    return np.frombuffer(flat, np.int64)


def _check_int(name: str, at: int, value: Any) -> None:
    try:
        _packers[1](value)
    except struct.error:
        if hasattr(value, "__index__"):
            raise ValueError(f"{name} holds {value!r} at index {at}, beyond int64") from None
        raise TypeError(f"{name} holds {value!r} at index {at}: integers are wanted") from None


def _flat_tensors(rows: list[Any]) -> Array | None:
    """Return CPU tensors of one integer dtype as one array; None: that is not what they are."""
    import torch

    try:
        flat = torch.cat(rows).numpy()
    except (RuntimeError, TypeError):
        return None
    return flat if flat.dtype in NATIVE and len(set(map(attrgetter("dtype"), rows))) == 1 else None


def _flat_arrays(name: str, rows: list[Any]) -> Array:
    arrays = []
    for i, row in enumerate(rows):
        x = _flat_ints(name, [row], i) if type(row) in _LISTS else _columns.array(f"{name}[{i}]", row)
        if x.ndim != 1:  # what np.asarray makes of nested sequences
            raise ValueError(f"{name}[{i}] has shape {x.shape}: a sequence, of one axis, is wanted")
        if x.size:
            arrays.append(x if x.dtype in NATIVE else converted(f"{name}[{i}]", x, np.dtype(np.int64)))
    if len({x.dtype for x in arrays}) > 1:
        arrays = [x.astype(np.int64, copy=False) for x in arrays]
    return np.concatenate(arrays) if arrays else np.empty(0, np.int64)


def touched(name: str, tokens: Array, begin: Array, lengths: Array, dtype: Any) -> tuple[Array, Array]:
    """Return the tokens that are touched in another dtype, and where each sequence begins among them."""
    if not lengths.size:
        return np.empty(0, dtype), begin
    first, last = int(begin.min()), int((begin + lengths).max())
    total = int(lengths.sum())
    if last - first <= 2 * total:
        return converted(name, tokens[first:last], dtype), begin - first
    pieces = [tokens[b : b + n] for b, n in zip(begin.tolist(), lengths.tolist(), strict=True)]
    return converted(name, np.concatenate(pieces), dtype), np.cumsum(lengths) - lengths


def converted(name: str, tokens: Array, dtype: Any) -> Array:
    """Return tokens in `dtype`, all of them as they were.

    Raises
    ------
    TypeError
        They are not integers.
    ValueError
        One is beyond `dtype`.
    """
    if tokens.dtype.kind not in "iu" and tokens.size:
        raise TypeError(f"{name} must hold integers, got {tokens.dtype.name}: convert them with .astype(np.int64)")
    limits = np.iinfo(dtype)
    if tokens.size and (int(tokens.min()) < limits.min or int(tokens.max()) > limits.max):
        raise ValueError(f"{name} holds tokens from {tokens.min()} to {tokens.max()}, beyond {np.dtype(dtype).name}")
    return tokens.astype(dtype, order="C")
