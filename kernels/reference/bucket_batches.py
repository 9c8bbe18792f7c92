"""Batches of items of like length.

Items are visited in a given (shuffled) order and sorted by a key, stably; a batch is a stretch of the sorted items.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.reference._sort import counting_sort


def collect(keys, visit, n_keys, lengths, begin, batch_ptr, items, longest, tokens):
    # (N,), (M,), (N,), (B,), (B + 1,), (I,), (B,), (B,)
    """Fill batch b with the sorted items from begin[b] on; find its longest length and its sum of lengths."""
    order = np.empty_like(visit)
    counting_sort(keys, visit, n_keys, order)
    for b, first in enumerate(begin):
        batch = items[batch_ptr[b] : batch_ptr[b + 1]]
        batch[...] = order[first : first + batch.size]
        longest[b] = lengths[batch].max()
        tokens[b] = lengths[batch].sum(dtype=np.int64)
