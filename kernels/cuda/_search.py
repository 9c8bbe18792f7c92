"""Where numbers would stand in a sorted vector."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda.prims import block, blocks, given, kernel, part, thread, threads


@part
def lower_bound(ascending, begin, end, wanted):
    """Return the first place in [begin, end) of an ascending vector that is not below `wanted`, or `end`."""
    while begin < end:
        middle = (begin + end) >> 1
        if ascending[middle] < wanted:
            begin = middle + 1
        else:
            end = middle
    return begin


@kernel("i64* i64 i64* i64 i64 i64*", registers=32)
def lower_bounds(
    ascending,  # (n,)
    n,
    wanted,  # (m,) or None
    step,
    m,
    found,  # (m,)
):
    """Find each of `wanted`, or of the multiples of `step` where that is None."""
    k = np.int64(block()) * threads() + thread()
    while k < m:
        found[k] = lower_bound(ascending, np.int64(0), n, wanted[k] if given(wanted) else k * step)
        k += np.int64(blocks()) * threads()
