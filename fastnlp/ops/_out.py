"""Arrays of the caller to be filled, as `out=` of functions with several results."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import integer

DTYPES = (np.dtype(np.int64), np.dtype(np.int32))


def ids_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of ids: int64 or int32.

    Raises
    ------
    TypeError
        Another one.
    """
    try:
        wanted = None if dtype is None else np.dtype(dtype)
    except TypeError:  # no dtype of NumPy
        wanted = None
    if wanted not in DTYPES:
        raise TypeError(f"dtype must be int64 or int32, got {dtype if wanted is None else wanted.name}")
    return wanted


def token_id(name: str, value: Any, dtype: np.dtype[Any]) -> int:
    """Return the argument `value` as an int that `dtype`, int64 or int32, can hold.

    Raises
    ------
    TypeError
        Not an integer.
    ValueError
        Out of range.
    """
    least = -1 << (8 * dtype.itemsize - 1)
    return integer(name, value, least=least, most=-1 - least)


def buffers(
    out: Any,
    names: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
    dtype: np.dtype[Any],
    inputs: Iterable[Array] = (),
    like: Array | None = None,
) -> tuple[Array, ...]:
    """Return an array of each shape: new ones, or the first elements of the caller's, whose others stay as they are.

    They are on the host, or with `like` on its GPU.

    Raises
    ------
    TypeError
        `out` does not have an array of the dtype under each name (or, in a tuple, at its place).
    ValueError
        One is too small, not contiguous or read-only, or shares memory with another or with one of `inputs`.
    """
    if out is None:
        return tuple(np.empty(shape, dtype) if like is None else _arrays.empty(shape, dtype, like) for shape in shapes)
    if not isinstance(out, tuple | list):
        raise TypeError(f"out must be a tuple of arrays ({', '.join(names)}), got {type(out).__name__}")
    given = [getattr(out, name, None) for name in names] if hasattr(out, names[0]) else list(out)[: len(names)]
    if len(given) < len(names):
        raise TypeError(f"out must have {len(names)} arrays ({', '.join(names)}), got {len(given)}")
    views = []
    for name, x, shape in zip(names, given, shapes, strict=True):
        x = _writable(name, x, dtype, like)
        if x.size < prod(shape):
            raise ValueError(f"out.{name} has room for {x.size} entries, {prod(shape)} are wanted, of shape {shape}")
        views.append(x if x.shape == shape else x.reshape(-1)[: prod(shape)].reshape(shape))
    for i, x in enumerate(views):
        if any(_arrays.may_overlap(x, other) for other in views[:i]):
            raise ValueError(f"out.{names[i]} shares memory with another array of out")
        if any(_arrays.may_overlap(x, other) for other in inputs):
            raise ValueError(f"out.{names[i]} shares memory with what is read: pass another array")
    return tuple(views)


def _writable(name: str, x: Any, dtype: np.dtype[Any], like: Array | None) -> Any:
    """Return the caller's array once it is one that can be filled, beside `like`."""
    if like is not None and _arrays.on_device(x):
        x = _arrays.read(name, x)
        beside, contiguous = x.library is like.library, x.contiguous  # type: ignore[attr-defined]
    else:
        beside = like is None and isinstance(x, np.ndarray)
        contiguous = beside and x.flags.carray
    if not beside or x.dtype != dtype:
        what = f"{type(x).__name__} of {x.dtype.name}" if beside else type(x).__name__
        where = "" if like is None else " beside the tokens"
        raise TypeError(f"out.{name} must be an array of {dtype.name}{where}, got {what}")
    if not contiguous:
        raise ValueError(f"out.{name} must be contiguous and writeable")
    return x if like is not None else np.asarray(x)
