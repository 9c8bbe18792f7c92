"""Sequences as rows of one width: the tokens, padding beside them, and a mask that tells the two apart."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.reference._tokens import copy_stretches as copy_stretches


def pad_rows(lengths, at_left, pad, ids, mask):  # (B,), (B, S), (B, S)
    """Write `pad` where row b has no token, and the mask: 1 at its lengths[b] tokens, 0 beside them."""
    column = np.arange(ids.shape[1])
    real = column >= ids.shape[1] - lengths[:, None] if at_left else column < lengths[:, None]
    mask[...] = real
    ids[~real] = pad
