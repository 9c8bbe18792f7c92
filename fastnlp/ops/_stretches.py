"""Stretches of an array's first axis, one after another in a new one."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp.ops._groups import pointer

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


def take_stretches_on_gpu(kernels: ModuleType, x: Any, place: Any, lengths: Array, order: Array | None = None) -> Any:
    """Return ``x[place[order[n]] : place[order[n]] + lengths[n]]`` of all n, one after another, beside x.

    `place` is on the GPU or on the host, where `lengths` and `order` are; without `order` it is 0, 1, 2, ...
    """
    library, begin = x.library, pointer(lengths)
    parts = [begin] if order is None else [begin, order]
    if not _arrays.on_device(place):
        parts.append(place)
    host = library.upload(np.concatenate(parts))
    cut = [host[a:b] for a, b in pairwise(pointer(np.array([part.size for part in parts])).tolist())]
    rows = _arrays.empty(int(begin[-1]), np.int64, x)
    given = place if _arrays.on_device(place) else cut[-1]
    kernels.stretch_rows(given, None if order is None else cut[1], cut[0], x.shape[0] - 1, rows)
    width = prod(x.shape[1:])
    return library.take(x.reshape(x.shape[0], width), rows).reshape(rows.size, *x.shape[1:])
