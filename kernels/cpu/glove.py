"""One epoch of GloVe (the equations and the schedule: ``reference/glove.py``).

A block of the round is a task; its vectors and accumulators are small enough to stay near the core. Bytes: a read and a
write of two vectors and two accumulators an entry, all cached, and the 16 bytes of the entry itself. Flops: 14 for
each feature of the two vectors, of which 1 / sqrt costs the most: the compiler makes it of the processor's estimate and
one Newton step, so its last bits depend on the kind of processor. Entries of a diagonal do not wait for each other.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part


def arrange(indptr, indices, counts, block, place, words, starts, rows, cols, values):
    # CSR (V, V): (V + 1,), (E,), (E,); (V,), (V,), (B, S); (B B S + 1,), (E,), (E,), (E,)
    """Sort the entries of a CSR matrix by round, block, diagonal and row.

    Word v is number ``place[v]`` of block ``block[v]``, and ``words`` is the inverse, -1 where a block has no word.
    `rows` and `cols` get the words' new numbers, ``block S + place``; `starts` where each diagonal begins.
    """
    starts[...] = 0
    run(_tally, words.shape[0], indptr, indices, block, place, words, starts[1:], grain=1)
    np.cumsum(starts, out=starts)
    entries = (indptr, indices, counts, block, place, words)
    run(_move, words.shape[0], *entries, starts[:-1].copy(), rows, cols, values, grain=1)


def epoch(rows, cols, logs, weights, starts, rounds, diagonals, x, y, gx, gy, rate, cost):
    # (E,) each, (B B S + 1,), (B,), (B, S), (B S, P) each, (B, B)
    """Train on every entry once; add up the losses of block b in round s, before their steps, in ``cost[s, b]``.

    Diagonal k of block b of round s is ``starts[(s B + b) S + k]`` and up. `rounds` is the order of the rounds,
    ``diagonals[s]`` the order of the diagonals in all blocks of round s.
    """
    entries = (rows, cols, logs, weights, starts)
    for s in rounds.tolist():
        run(_train, diagonals.shape[0], s, *entries, diagonals[s], x, y, gx, gy, np.float32(rate), cost[s], grain=1)


@kernel_part
def _diagonal(row, col, block, place, words):
    """Return the number of the diagonal that an entry belongs to, counted over rounds and blocks."""
    blocks, size = words.shape
    s = np.int64(block[col]) - block[row]
    k = np.int64(place[col]) - place[row]
    s += blocks if s < 0 else 0
    k += size if k < 0 else 0
    return (s * blocks + block[row]) * size + k


@jit("(int64, int64, int64[::1], int32[::1], int32[::1], int32[::1], int32[:, ::1], int64[::1])")
def _tally(begin, end, indptr, indices, block, place, words, lengths):
    for b in range(begin, end):
        for row in words[b]:
            if row >= 0:
                for e in range(indptr[row], indptr[row + 1]):
                    lengths[_diagonal(row, indices[e], block, place, words)] += 1


@jit(
    "(int64, int64, int64[::1], int32[::1], float64[::1], int32[::1], int32[::1], int32[:, ::1], int64[::1], "
    "int32[::1], int32[::1], float64[::1])"
)
def _move(begin, end, indptr, indices, counts, block, place, words, heads, rows, cols, values):
    size = words.shape[1]
    for b in range(begin, end):
        for row in words[b]:
            if row >= 0:
                for e in range(indptr[row], indptr[row + 1]):
                    col = indices[e]
                    k = _diagonal(row, col, block, place, words)
                    to = heads[k]
                    heads[k] = to + 1
                    rows[to] = b * size + place[row]
                    cols[to] = block[col] * size + place[col]
                    values[to] = counts[e]


@jit(
    "(int64, int64, int64, int32[::1], int32[::1], float32[::1], float32[::1], int64[::1], int32[::1], "
    "float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], float32, float64[::1])"
)
def _train(begin, end, s, rows, cols, logs, weights, starts, diagonals, x, y, gx, gy, rate, cost):
    for block in range(begin, end):
        total = 0.0
        first = (s * cost.size + block) * diagonals.size
        for k in diagonals:
            for e in range(starts[first + k], starts[first + k + 1]):
                i, j = rows[e], cols[e]
                total += _step(x[i], y[j], gx[i], gy[j], logs[e], weights[e], rate)
        cost[block] = total


@kernel_part
def _step(xi, yj, gxi, gyj, log, weight, rate):  # (P,) each
    """Train on one entry; return its loss as float64."""
    dot = np.float32(0)
    for d in range(xi.size):
        dot += xi[d] * yj[d]
    error = dot - log
    slope = weight * error
    t = rate * slope
    for d in range(xi.size):
        a, b = xi[d], yj[d]
        ta, tb = t * b, t * a
        ga, gb = gxi[d], gyj[d]
        xi[d] = a - ta / np.sqrt(ga)
        yj[d] = b - tb / np.sqrt(gb)
        gxi[d] = ga + ta * ta
        gyj[d] = gb + tb * tb
    return 0.5 * np.float64(slope) * np.float64(error)
