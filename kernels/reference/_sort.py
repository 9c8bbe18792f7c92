"""A stable sort of items by small integer keys, by counting."""

from __future__ import annotations

import numpy as np


def count_keys(keys, counts):  # (N,), (chunks, K)
    """counts[c, k] = how many items of chunk c have key k; chunks have ``ceil(N / chunks)`` items."""
    chunk = -(-keys.size // len(counts))
    for c in range(len(counts)):
        counts[c] = np.bincount(keys[c * chunk : (c + 1) * chunk], minlength=counts.shape[1])


def sort_by_key(keys, values, counts, order):  # (N,), (N,) or None, (chunks, K), (N,)
    """Write `values`, or 0, 1, 2 ..., sorted by key to `order`, equal keys in their order; `counts` by `count_keys`."""
    narrow = keys.astype(np.min_scalar_type(counts.shape[1]))  # NumPy sorts 16 bits by counting
    places = np.argsort(narrow, kind="stable")
    order[...] = places if values is None else values[places]


def counting_sort(keys, visit, n_keys, order):  # (N,), (M,), (M,)
    """Write `visit` to `order`, sorted by keys[visit]; items of one key stay in the order of `visit`."""
    sort_by_key(keys[visit], visit, np.empty((1, n_keys)), order)
