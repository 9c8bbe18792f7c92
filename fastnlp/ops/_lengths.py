"""What the operations on sequence lengths share: the checks of their arguments, and keys to sort lengths by."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array

_LARGEST = int(np.iinfo(np.int32).max)


def checked_lengths(lengths: Any) -> Array:
    """Return `lengths` as a one-dimensional, contiguous int32 array.

    Raises
    ------
    TypeError
        Not integers.
    ValueError
        Not one axis, or a length that is negative or beyond int32.
    """
    if isinstance(lengths, np.ma.MaskedArray):
        raise TypeError("lengths is a masked array: fill or drop the masked entries first (x.filled(...))")
    array = _arrays.integers("lengths", lengths)
    if array.size and (array.min() < 0 or array.max() > _LARGEST):
        first = int(np.flatnonzero((array < 0) | (array > _LARGEST))[0])
        raise ValueError(
            f"lengths holds {int(array[first])} at index {first}, outside [0, {_LARGEST}]: "
            "pass the number of tokens of each item"
        )
    return array.astype(np.int32, order="C")


def integer(name: str, value: Any, *, least: int, most: int | None = _LARGEST) -> int:
    """Return the argument `value` as an int within ``[least, most]``.

    Raises
    ------
    TypeError
        Not an integer (a bool is none).
    ValueError
        Out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if number < least or (most is not None and number > most):
        wanted = f"at least {least}" if most is None or number < least else f"at most {most}"
        raise ValueError(f"{name} must be {wanted}, got {number}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return the argument `value` as a bool.

    Raises
    ------
    TypeError
        It is not True or False.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def sort_keys(lengths: Array) -> tuple[Array, Array]:
    """Return a key of each length, ``(N,)`` int32, and the length of each key, ``(K,)`` int64 and increasing.

    A counting sort takes memory and time for each key. Lengths are their own keys, unless they are so much larger than
    their number that ranks among the distinct lengths are cheaper.
    """
    keys = int(lengths.max(initial=-1)) + 1
    if keys <= 4 * lengths.size + 1024:
        return lengths, np.arange(keys)
    distinct, ranks = np.unique(lengths, return_inverse=True)
    return ranks.astype(np.int32), distinct.astype(np.int64)
