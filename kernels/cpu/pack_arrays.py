"""Sequences one after another, and which tokens may attend to each other (the meaning: ``reference/pack_arrays.py``).

Schedule: one pass over the segments for positions and numbers, one over the pieces for the tokens, in parallel where
they are long. The mask, which has far more entries than there are tokens, is written row by row.
"""

from __future__ import annotations

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._tokens import TOKENS_A_TASK, grain_of
from fastnlp.kernels.cpu._tokens import copy_stretches as copy_stretches
from fastnlp.kernels.cpu._tokens import fill_stretches as fill_stretches


def label_segments(cu_seqlens, number, position_start, position_ids, sequence_ids):  # (S + 1,), (S,); (T,), (T,)
    """Count positions from `position_start` in each segment, repeat it in those of number 0; write the numbers."""
    n = number.size
    grain = grain_of(n, position_ids.size)
    run(_label_segments, n, cu_seqlens, number, position_start, position_ids, sequence_ids, grain=grain)


def block_mask(ids, causal, mask):  # (R, C), (R, C, C)
    """mask[r, i, j] = ids[r, i] == ids[r, j], and j <= i where it is causal."""
    width = ids.shape[1]
    run(_block_mask, ids.size, ids, causal, mask, grain=max(1, TOKENS_A_TASK // max(1, width)))


@jit("(int64, int64, int64[::1], int64[::1], int64, {i}[::1], {i}[::1])")
def _label_segments(first, last, cu_seqlens, number, position_start, position_ids, sequence_ids):
    for s in range(first, last):
        positions = position_ids[cu_seqlens[s] : cu_seqlens[s + 1]]
        numbers = sequence_ids[cu_seqlens[s] : cu_seqlens[s + 1]]
        mine = number[s]
        numbers[:] = mine
        step = 1 if mine else 0
        for j in range(positions.size):
            positions[j] = position_start + step * j


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
