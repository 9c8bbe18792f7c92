"""Which tokens of a row may attend to each other (the meaning: ``reference/block_diagonal_mask.py``).

Schedule: one pass over the tokens, each of which writes its row of the mask. Bytes a pair of tokens: 1.
"""

from __future__ import annotations

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._tokens import TOKENS_A_TASK


def block_mask(ids, causal, mask):  # (R, C), (R, C, C)
    """mask[r, i, j] = ids[r, i] == ids[r, j], and j <= i where it is causal."""
    width = ids.shape[1]
    run(_block_mask, ids.size, ids, causal, mask, grain=max(1, TOKENS_A_TASK // max(1, width)))


@jit("(int64, int64, int32[:, ::1], boolean, boolean[:, :, ::1])")
def _block_mask(first, last, ids, causal, mask):
    width = ids.shape[1]
    for i in range(first, last):
        row = ids[i // width]
        out = mask[i // width, i % width]
        mine = row[i % width]
        seen = i % width + 1 if causal else width
        for j in range(seen):
            out[j] = row[j] == mine
        out[seen:] = False
