"""Pairs of sequences as rows ``[CLS] A [SEP] B [SEP]`` (the meaning: ``reference/assemble_pairs.py``).

Schedule: a pass over the rows for all but the tokens, and one for the tokens of A and of B each, in parallel where they
are large. Bytes a place: the id, the type and the mask written; a token's read.
"""

from __future__ import annotations

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._tokens import copy_stretches as copy_stretches
from fastnlp.kernels.cpu._tokens import grain_of


def frame_pairs(middle, end, cls, sep, pad, ids, types, mask):  # (B,), (B,), (B, S), (B, S), (B, S)
    """Write the special ids and the padding of row b, its token types and its mask; its tokens are left as they are.

    `sep` stands at middle[b] and end[b] - 1, which are one place where there is no B; padding begins at end[b].
    """
    n = end.size
    run(_frame_pairs, n, middle, end, cls, sep, pad, ids, types, mask, grain=grain_of(n, ids.size))


_ROWS = "{0}[:, ::1], {0}[:, ::1], {0}[:, ::1]"


@jit(
    *(
        f"(int64, int64, int64[::1], int64[::1], int64, int64, int64, {_ROWS.format(dtype)})"
        for dtype in ("int32", "int64")
    )
)
def _frame_pairs(first, last, middle, end, cls, sep, pad, ids, types, mask):
    for b in range(first, last):
        row, of, real = ids[b], types[b], mask[b]
        second, behind = middle[b] + 1, end[b]
        of[:second] = 0
        of[second:behind] = 1
        of[behind:] = 0
        real[:behind] = 1
        real[behind:] = 0
        row[0] = cls
        row[second - 1] = sep
        row[behind - 1] = sep
        row[behind:] = pad
