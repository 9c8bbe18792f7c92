"""GloVe, whether vectors and biases are still finite."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda.prims import atomic_max, block, blocks, kernel, load4, thread, threads

_ONE = np.int64(1)


@kernel("f32* i64 i64*", registers=32, loads=1)
def find_infinite(
    x,  # (n,)
    n,  # a multiple of 4
    found,  # (1,) 1 if there is one, otherwise what it was
):
    """Look for elements that are not finite."""
    i = 4 * (np.int64(block()) * threads() + thread())
    while i < n:
        a = load4(x, i)
        rest = ((a[0] - a[0]) + (a[1] - a[1])) + ((a[2] - a[2]) + (a[3] - a[3]))
        if rest != rest:  # what is finite leaves 0
            atomic_max(found, 0, _ONE)
        i += 4 * np.int64(blocks()) * threads()
