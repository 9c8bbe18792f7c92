"""Large arrays that go back to the system when they are dropped.

What `malloc` hands out it keeps for a while, tens of megabytes of it: too much for a budget.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Any

import numpy as np

from fastnlp._arrays import Array

_SMALL = 1 << 16  # bytes


def large(size: int, dtype: type[np.generic] | np.dtype[Any]) -> Array:
    """Return an array of one axis in a map of its own, if it is worth one."""
    nbytes = int(size) * np.dtype(dtype).itemsize
    if nbytes <= _SMALL:
        return np.empty(size, dtype)
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # Windows
        return np.frombuffer(mmap.mmap(-1, nbytes), dtype)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype)


class Buffer:
    """An array that is used again and again, and grows when it must."""

    def __init__(self, dtype: type[np.generic] | np.dtype[Any]) -> None:
        self._array = large(0, dtype)

    def take(self, size: int) -> Array:
        """Return an array of `size`; what was taken before is overwritten."""
        if size > self._array.size:
            dtype = self._array.dtype
            self._array = large(0, dtype)  # the old one goes first
            self._array = large(size, dtype)
        return self._array[:size]
