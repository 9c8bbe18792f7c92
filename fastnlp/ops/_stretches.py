"""Stretches of an array's first axis, one after another in a new one."""

from __future__ import annotations

from math import prod
from types import ModuleType

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array

_WORDS = ((8, np.int64), (4, np.int32), (1, np.uint8))  # what kernels copy


def take_stretches(kernels: ModuleType, x: Array, begin: Array, lengths: Array) -> Array:
    """Return ``x[begin[n] : begin[n] + lengths[n]]`` of all n, one after another: ``(sum(lengths), ...)``.

    An entry is copied as words of 8 or 4 bytes, or as bytes, whatever its dtype.

    Raises
    ------
    TypeError
        Python objects.
    """
    if x.dtype.hasobject:
        raise TypeError(f"values must be numbers, got {x.dtype.name}")
    out = np.empty((int(lengths.sum()), *x.shape[1:]), x.dtype)
    size = x.dtype.itemsize * prod(x.shape[1:])
    if not out.size or not size:
        return out
    width, word = next(pair for pair in _WORDS if size % pair[0] == 0)
    k = size // width
    place = np.cumsum(lengths) - lengths
    source = np.ascontiguousarray(x).reshape(-1).view(np.uint8).view(word)
    target = out.reshape(-1).view(np.uint8).view(word)
    kernels.copy_stretches(_arrays.kernel_ready(source), begin * k, lengths * k, place * k, target)
    return out
