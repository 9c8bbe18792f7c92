"""What the operations on sequence lengths share: the check of lengths, and keys to sort them by."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import LARGEST
from fastnlp.ops import _columns

_BLOCK = 1 << 14  # lengths that stay in the nearest caches while they are checked and copied


def checked_lengths(lengths: Any, *, copy: bool = True) -> Array:
    """Return `lengths` as a one-dimensional, contiguous int32 array.

    They may be a list, an array, a CPU tensor, an Arrow array or a column of a data set. Without `copy` the result may
    share its memory: it is not to be kept, nor written to.

    Raises
    ------
    TypeError
        Not integers, or not in the memory of the CPU.
    ValueError
        Not one axis, a null entry, or a length that is negative or beyond int32.
    """
    array = _arrays.any_integers("lengths", _columns.array("lengths", lengths))
    shared = not copy and array.dtype == np.int32
    narrow = _arrays.kernel_ready(array) if shared else np.empty(array.size, np.int32)
    for begin in range(0, array.size, _BLOCK):
        some = array[begin : begin + _BLOCK]
        if some.min() < 0 or some.max() > LARGEST:
            first = begin + int(np.flatnonzero((some < 0) | (some > LARGEST))[0])
            raise ValueError(
                f"lengths holds {int(array[first])} at index {first}, outside [0, {LARGEST}]: "
                "pass the number of tokens of each item"
            )
        if not shared:
            narrow[begin : begin + _BLOCK] = some
    return narrow


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
