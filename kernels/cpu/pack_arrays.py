"""Sequences one after another in flat arrays (the meaning: ``reference/pack_arrays.py``).

Schedule: one pass over the segments for positions and numbers, one over the pieces for the tokens, one over the gaps,
each in parallel where there is much of them. Bytes a place: the four results written; a token's read.
"""

from __future__ import annotations

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._tokens import copy_stretches as copy_stretches
from fastnlp.kernels.cpu._tokens import fill_stretches as fill_stretches
from fastnlp.kernels.cpu._tokens import grain_of


def label_segments(cu_seqlens, number, position_start, position_ids, sequence_ids):  # (S + 1,), (S,); (T,), (T,)
    """Count positions from `position_start` in each segment, repeat it in those of number 0; write the numbers."""
    n = number.size
    grain = grain_of(n, position_ids.size)
    run(_label_segments, n, cu_seqlens, number, position_start, position_ids, sequence_ids, grain=grain)


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
