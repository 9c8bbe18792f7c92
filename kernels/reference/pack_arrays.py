"""Sequences one after another in flat arrays, or in rows of one width.

The places are cut into segments: a piece of a sequence, or a run of padding, which has number 0. Segment s is
``cu_seqlens[s] .. cu_seqlens[s + 1]``.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.reference._tokens import copy_stretches as copy_stretches
from fastnlp.kernels.reference._tokens import fill_stretches as fill_stretches
from fastnlp.kernels.reference._tokens import spread


def label_segments(cu_seqlens, number, position_start, position_ids, sequence_ids):  # (S + 1,), (S,); (T,), (T,)
    """Count positions from `position_start` in each segment, repeat it in those of number 0; write the numbers."""
    sizes = np.diff(cu_seqlens)
    sequence_ids[...] = np.repeat(number, sizes)
    position_ids[...] = position_start + np.where(sequence_ids, spread(np.zeros_like(sizes), sizes), 0)
