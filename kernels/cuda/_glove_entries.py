"""GloVe, the entries of the matrix in the order of training (``arrange`` in ``reference/glove.py``).

An entry's round, block, diagonal and row make one number, from which its row and column follow. So the numbers alone
are sorted, and the counts are looked up after that.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._search import lower_bound
from fastnlp.kernels.cuda.prims import block, blocks, exp64, kernel, log64, thread, threads

_ZERO = np.float64(0)


@kernel("i64* i32* i64 i32* i32* i64 i64 i64*", registers=40)
def number_entries(
    indptr,  # (V + 1,)
    indices,  # (E,)
    n,  # V
    block_of,  # (V,)
    place,  # (V,)
    n_blocks,  # B
    size,  # S
    keys,  # (E,)
):
    """Number the entries, a warp a row."""
    warps = threads() >> np.int32(5)
    row = np.int64(block()) * warps + (thread() >> np.int32(5))
    while row < n:
        b, p = np.int64(block_of[row]), np.int64(place[row])
        e = indptr[row] + (thread() & np.int32(31))
        while e < indptr[row + 1]:
            column = indices[e]
            s = block_of[column] - b
            diagonal = place[column] - p
            s += n_blocks if s < 0 else 0
            diagonal += size if diagonal < 0 else 0
            keys[e] = ((s * n_blocks + b) * size + diagonal) * size + p
            e += 32
        row += np.int64(blocks()) * warps


@kernel("i64* i64 i64* i32* f64* i32* i64 i64 f64* i32* f32*", registers=64, float64=True)
def fill_entries(
    keys,  # (E,) ascending
    n,  # E
    indptr,  # (V + 1,)
    indices,  # (E,)
    counts,  # (E,)
    words,  # (B, S)
    n_blocks,  # B
    size,  # S
    weighting,  # (2,): log x_max, alpha
    places,  # (E,)
    values,  # (E, 2)
):
    """Write the places, the logarithms and the weights of the entries."""
    e = np.int64(block()) * threads() + thread()
    while e < n:
        key = keys[e]
        k = key // size
        p = key - k * size
        sb = k // size
        q = p + (k - sb * size)
        q -= size if q >= size else 0
        s = sb // n_blocks
        b = sb - s * n_blocks
        c = b + s
        c -= n_blocks if c >= n_blocks else 0
        row, column = np.int64(words[b * size + p]), words[c * size + q]
        log = log64(counts[lower_bound(indices, indptr[row], indptr[row + 1], column)])
        places[e] = np.int32(p | q << 16)
        values[2 * e] = np.float32(log)
        values[2 * e + 1] = np.float32(exp64(min(weighting[1] * (log - weighting[0]), _ZERO)))
        e += np.int64(blocks()) * threads()
