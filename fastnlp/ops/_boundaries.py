"""Bounds of buckets: those that are given, and those that pad least."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import LARGEST, integer
from fastnlp.ops._cuts import Budget


def is_number(boundaries: Any) -> bool:
    """Tell whether `boundaries` says how many bounds there shall be, not which."""
    return not isinstance(boundaries, list | tuple) and np.ndim(boundaries) == 0


def checked_boundaries(boundaries: Any) -> Array:
    """Return increasing bounds as an int64 array.

    Raises
    ------
    TypeError
        Not integers.
    ValueError
        Not one axis, or a bound that is negative or not above the one before.
    """
    bounds = _arrays.integers("boundaries", boundaries).copy()  # it becomes part of the result, which is read-only
    if bounds.size and bounds[0] < 0:
        raise ValueError(f"boundaries must not be negative, got {int(bounds[0])} first")
    falls = np.flatnonzero(bounds[1:] <= bounds[:-1])
    if falls.size:
        at = int(falls[0])
        raise ValueError(
            f"boundaries must increase, got {int(bounds[at])} before {int(bounds[at + 1])}: "
            "pass each bound once, the smallest first"
        )
    return bounds


def optimal_boundaries(kernels: ModuleType, padded: Array, counts: Array, number: Any) -> Array:
    """Return the bounds, so many or one for each length if those are fewer, for which padding to them is least.

    Parameters
    ----------
    padded
        Lengths, ``(D,)`` int64, not decreasing.
    counts
        How many items have each, ``(D,)`` int64.
    number
        The number of bounds.

    Raises
    ------
    TypeError
        `number` is no integer.
    ValueError
        `number` is below 1.
    """
    number = integer("boundaries", number, least=1)
    present = counts > 0
    sizes, first = np.unique(padded[present], return_index=True)
    if number >= sizes.size:
        return sizes
    bounds = np.empty(number, np.int64)
    kernels.optimal_boundaries(sizes, np.add.reduceat(counts[present], first), bounds)
    return bounds


def bucket_pads(
    lengths: Array, bounds: Array, key_lengths: Array, counts: Array, bucket: Array, budget: Budget, to_bound: bool
) -> Array:
    """Return the longest padded length that the batches of each bucket can have, ``(K + 1,)`` int64.

    Parameters
    ----------
    key_lengths, counts, bucket
        The lengths that there may be, how many items have each, and the bucket of each.
    to_bound
        Whether batches are padded to the bound of their bucket.

    Raises
    ------
    ValueError
        There is an item above the last bound that is padded to, or a bound beyond the budget or int32.
    """
    longest = np.zeros(bounds.size + 1, np.int64)
    np.maximum.at(longest, bucket, np.where(counts > 0, key_lengths, 0))
    if not to_bound:
        return budget.padded(longest)
    top = int(bounds[-1]) if bounds.size else -1
    if top > LARGEST + budget.pad_to_multiple:  # places are counted in int64
        raise ValueError(f"boundaries that batches are padded to must be at most {LARGEST}, got {top}")
    if lengths.size and longest[-1] > top:
        first = int(np.argmax(lengths > top))
        raise ValueError(
            f"the item at index {first} has {int(lengths[first])} tokens, more than the last of the boundaries that "
            f"batches are padded to ({top}): add a bound, or cut or leave out such items"
        )
    pads = np.append(budget.padded(bounds), 0)
    if budget.max_tokens is not None and bucket.size and pads[bucket[-1]] > budget.max_tokens:
        raise ValueError(
            f"boundaries pad to {int(pads[bucket[-1]])} tokens, more than max_tokens={budget.max_tokens}: "
            "raise max_tokens, or pass bounds below it"
        )
    return pads
