"""A random order: places by the increasing hash of their number, SplitMix64's.

z = stream + (i + 1) 0x9E3779B97F4A7C15
z = (z ^ z >> 30) 0xBF58476D1CE4E5B9;  z = (z ^ z >> 27) 0x94D049BB133111EB;  hash = z ^ z >> 31      (modulo 2^64)
"""

from __future__ import annotations

import numpy as np


def order_by_hash(stream, order):  # uint64, (N,)
    """Write 0 .. N - 1 by increasing hash; hashes are distinct."""
    z = stream + np.arange(1, order.size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    order[...] = np.argsort(z ^ z >> np.uint64(31))
