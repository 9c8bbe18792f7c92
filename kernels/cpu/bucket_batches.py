"""Batches of items of like length (the meaning: ``reference/bucket_batches.py``).

Schedule: a counting sort, then one pass over the batches, in parallel, that copies each and reads its lengths.
Bytes an item: 32 for the sort, 20 for the pass.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._sort import counting_sort

_ITEMS_A_TASK = 1 << 16


def collect(keys, visit, n_keys, lengths, begin, batch_ptr, items, longest, tokens):
    # (N,), (M,), (N,), (B,), (B + 1,), (I,), (B,), (B,)
    """Fill batch b with the sorted items from begin[b] on; find its longest length and its sum of lengths."""
    order = np.empty_like(visit)
    counting_sort(keys, visit, n_keys, order)
    grain = max(1, _ITEMS_A_TASK * begin.size // max(1, items.size))
    run(_collect, begin.size, order, lengths, begin, batch_ptr, items, longest, tokens, grain=grain)


@jit("(int64, int64, int64[::1], int32[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])")
def _collect(first, last, order, lengths, begin, batch_ptr, items, longest, tokens):
    for b in range(first, last):
        shift = begin[b] - batch_ptr[b]
        top = total = np.int64(0)
        for i in range(batch_ptr[b], batch_ptr[b + 1]):
            item = order[i + shift]
            items[i] = item
            length = np.int64(lengths[item])
            top = max(top, length)
            total += length
        longest[b] = top
        tokens[b] = total
