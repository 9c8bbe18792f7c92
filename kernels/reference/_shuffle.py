"""A random order: places by the increasing hash of their number, SplitMix64's.

z = stream + (i + 1) 0x9E3779B97F4A7C15
z = (z ^ z >> 30) 0xBF58476D1CE4E5B9;  z = (z ^ z >> 27) 0x94D049BB133111EB;  hash = z ^ z >> 31      (modulo 2^64)
"""

from __future__ import annotations

import numpy as np


def order_by_hash(stream, order):  # uint64, (N,)
    """Write 0 .. N - 1 by increasing hash; hashes are distinct."""
    order[...] = np.argsort(_hash(stream, np.arange(order.size, dtype=np.uint64)))


def shuffle_runs(stream, run_ptr, order):  # uint64, (R + 1,), (N,)
    """Sort the items of each run, order[run_ptr[r] : run_ptr[r + 1]], by increasing hash."""
    by_hash = np.argsort(_hash(stream, order.astype(np.uint64)))
    run = np.repeat(np.arange(run_ptr.size - 1, dtype=np.min_scalar_type(run_ptr.size)), np.diff(run_ptr))
    order[...] = order[by_hash[np.argsort(run[by_hash], kind="stable")]]  # NumPy sorts 16 bits by counting


def _hash(stream, i):  # uint64, (N,) uint64
    z = stream + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)
