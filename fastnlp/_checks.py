"""Checks of arguments that are not arrays."""

from __future__ import annotations

import operator
from math import inf, isfinite
from typing import Any

import numpy as np

LARGEST = int(np.iinfo(np.int32).max)


def positive(name: str, value: Any, *, or_zero: bool = False) -> float:
    """Return the argument `value` as a float above zero, or zero where that is allowed.

    Raises
    ------
    TypeError
        Not a real number (a bool is none).
    ValueError
        Not finite, or too small.
    """
    if type(value) is float and 0.0 < value < inf:
        return value
    try:
        number = float(value) if not isinstance(value, str | bool | np.bool_) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (isfinite(number) and (number > 0 or (or_zero and number == 0))):
        wanted = "finite number, 0 or more" if or_zero else "positive finite number"
        raise ValueError(f"{name} must be a {wanted}, got {value}")
    return number


def integer(name: str, value: Any, *, least: int, most: int | None = LARGEST) -> int:
    """Return the argument `value` as an int within ``[least, most]``.

    Raises
    ------
    TypeError
        Not an integer (a bool is none).
    ValueError
        Out of range.
    """
    if type(value) is int and least <= value and (most is None or value <= most):
        return value
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
