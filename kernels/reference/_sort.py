"""A stable sort of items by small integer keys."""

from __future__ import annotations

import numpy as np


def counting_sort(keys, visit, n_keys, order):  # (N,), (M,), (M,)
    """Write `visit` to `order`, sorted by keys[visit]; items of one key stay in the order of `visit`."""
    narrow = keys[visit].astype(np.min_scalar_type(n_keys))  # NumPy sorts 16 bits by counting
    order[...] = visit[np.argsort(narrow, kind="stable")]
