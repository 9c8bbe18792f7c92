"""Sequences as rows of one width (the meaning: ``reference/pad_arrays.py``).

Schedule: two passes over the rows, in parallel where they are large: padding and mask, then the tokens.
Bytes a place: the mask and the id written; a token's read.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._tokens import copy_stretches as copy_stretches
from fastnlp.kernels.cpu._tokens import grain_of


def pad_rows(lengths, at_left, pad, ids, mask):  # (B,), (B, S), (B, S)
    """Write `pad` where row b has no token, and the mask: 1 at its lengths[b] tokens, 0 beside them."""
    n = lengths.size
    run(_pad_rows, n, lengths, at_left, pad, ids, mask, grain=grain_of(n, ids.size))


@jit(
    "(int64, int64, int64[::1], boolean, int64, int32[:, ::1], int32[:, ::1])",
    "(int64, int64, int64[::1], boolean, int64, int64[:, ::1], int64[:, ::1])",
)
def _pad_rows(first, last, lengths, at_left, pad, ids, mask):
    width = ids.shape[1]
    for b in range(first, last):
        begin = width - lengths[b] if at_left else np.int64(0)
        end = begin + lengths[b]
        row, real = ids[b], mask[b]
        real[:begin] = 0
        real[begin:end] = 1
        real[end:] = 0
        row[:begin] = pad
        row[end:] = pad
