"""Which tokens of a row may attend to each other: those of one sequence."""

from __future__ import annotations

import numpy as np


def block_mask(ids, causal, mask):  # (R, C), (R, C, C)
    """mask[r, i, j] = ids[r, i] == ids[r, j], and j <= i where it is causal."""
    np.equal(ids[:, :, None], ids[:, None, :], out=mask)
    if causal:
        mask &= np.tri(ids.shape[1], dtype=bool)
