"""Pairs of sequences as rows ``[CLS] A [SEP] B [SEP]``: what stands around their tokens."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.reference._tokens import copy_stretches as copy_stretches


def frame_pairs(middle, end, cls, sep, pad, ids, types, mask):  # (B,), (B,), (B, S), (B, S), (B, S)
    """Write the special ids and the padding of row b, its token types and its mask; its tokens are left as they are.

    `sep` stands at middle[b] and end[b] - 1, which are one place where there is no B; padding begins at end[b].
    """
    rows, column = np.arange(end.size), np.arange(ids.shape[1])
    real = column < end[:, None]
    mask[...] = real
    types[...] = real & (column > middle[:, None])
    ids[~real] = pad
    ids[:, :1] = cls
    ids[rows, middle] = sep
    ids[rows, end - 1] = sep
