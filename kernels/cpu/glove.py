"""GloVe: one round of blocks (the equations and the schedule: ``reference/glove.py``).

A block of the round is a task; its vectors and accumulators are small enough to stay near the core. Bytes: a read and a
write of two vectors and two accumulators an entry, all cached, and the 12 bytes of the entry itself. Flops: 14 for
each feature of the two vectors, of which 1 / sqrt costs the most: the compiler makes it of the processor's estimate and
one Newton step, so its last bits depend on the kind of processor. Entries of a diagonal do not wait for each other.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._memory import LINE, prefetch


def arrange(indptr, indices, counts, block, place, words, x_max, alpha, starts, places, values):
    # CSR (V, V): (V + 1,), (E,), (E,); (V,), (V,), (B, S); float, float; (B B S + 1,), (E, 2), (E, 2)
    """Sort the entries of a CSR matrix by round, block, diagonal and row.

    Word v is number ``place[v]`` of block ``block[v]``, and ``words`` is the inverse, -1 where a block has no word.
    `places` gets the places of row and column in their blocks, `values` the logarithm of the count and its weight
    ``min(1, (count / x_max)^alpha)``, and `starts` where each diagonal begins.
    """
    starts[...] = 0
    run(_tally, words.shape[0], indptr, indices, block, place, words, starts[1:], grain=1)
    np.cumsum(starts, out=starts)
    entries = (indptr, indices, counts, block, place, words, float(np.log(x_max)), alpha)
    run(_move, words.shape[0], *entries, starts[:-1].copy(), places, values, grain=1)


def train(places, values, starts, s, diagonals, x, y, gx, gy, limits, rate, cost, failed):
    # (E, 2), (E, 2), (B B S + 1,), int, (K,), (B S, P) each, (P,), float, (B,), (B,)
    """Train on the entries of some diagonals, in this order, of the blocks (b, b + s mod B) for all b.

    Block b adds the losses, before their steps, in ``cost[b]``. It stops at an entry whose loss is not finite, whose
    number it leaves in ``failed[b]``, otherwise -1. Diagonal k of block b is ``starts[(s B + b) S + k]`` and up.
    Element d of a gradient is clipped to ``[-limits[d], limits[d]]``.
    """
    size = x.shape[0] // cost.size
    bounds = starts[s * x.shape[0] : (s + 1) * x.shape[0] + 1]
    state = (x, y, gx, gy, limits)
    run(_train, cost.size, places, values, bounds, s, size, diagonals, *state, np.float32(rate), cost, failed, grain=1)


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
    "(int64, int64, int64[::1], int32[::1], float64[::1], int32[::1], int32[::1], int32[:, ::1], float64, float64, "
    "int64[::1], uint16[:, ::1], float32[:, ::1])"
)
def _move(begin, end, indptr, indices, counts, block, place, words, log_x_max, alpha, heads, places, values):
    for b in range(begin, end):
        for row in words[b]:
            if row >= 0:
                for e in range(indptr[row], indptr[row + 1]):
                    col = indices[e]
                    k = _diagonal(row, col, block, place, words)
                    to = heads[k]
                    heads[k] = to + 1
                    places[to, 0], places[to, 1] = place[row], place[col]
                    log = np.log(counts[e])
                    values[to, 0] = log
                    values[to, 1] = np.exp(min(alpha * (log - log_x_max), 0.0))


@jit(
    "(int64, int64, uint16[:, ::1], float32[:, ::1], int64[::1], int64, int64, int32[::1], float32[:, ::1], "
    "float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[::1], float32, float64[::1], int64[::1])"
)
def _train(begin, end, places, values, starts, s, size, diagonals, x, y, gx, gy, limits, rate, cost, failed):
    for b in range(begin, end):
        rows, cols = b * size, (b + s) % cost.size * size
        of_rows, of_cols = slice(rows, rows + size), slice(cols, cols + size)
        bounds = starts[rows : rows + size + 1]
        block = (x[of_rows], y[of_cols], gx[of_rows], gy[of_cols])
        cost[b], failed[b] = _train_block(places, values, bounds, diagonals, *block, limits, rate)


@kernel_part
def _train_block(places, values, starts, diagonals, x, y, gx, gy, limits, rate):
    """Return the losses of a block, added up, and the entry that is not finite or -1."""
    total = 0.0
    for turn in range(diagonals.size):
        begin, end = starts[diagonals[turn]], starts[diagonals[turn] + 1]
        _prefetch_diagonal(places, values, starts, diagonals, turn + 1)
        for e in range(begin, end):
            if e + 1 < end:
                _prefetch_row(x, gx, places[e + 1, 0])
                _prefetch_row(y, gy, places[e + 1, 1])
            i, j = places[e, 0], places[e, 1]
            loss = _step(x[i], y[j], gx[i], gy[j], limits, values[e, 0], values[e, 1], rate)
            if not loss < np.inf:
                return total, np.int64(e)
            total += loss
    return total, np.int64(-1)


@kernel_part
def _prefetch_diagonal(places, values, starts, diagonals, turn):
    """Ask for the first entries of a diagonal, and for the place where the bounds of the next but one stand."""
    if turn < diagonals.size:
        begin = starts[diagonals[turn]]
        prefetch(places, 2 * begin)
        prefetch(values, 2 * begin)
        prefetch(starts, np.int64(diagonals[min(turn + 2, diagonals.size - 1)]))


@kernel_part
def _prefetch_row(x, gx, i):
    features = x.shape[1]
    for d in range(0, features, LINE // 4):
        prefetch(x, np.int64(i) * features + d)
        prefetch(gx, np.int64(i) * features + d)


@kernel_part
def _step(xi, yj, gxi, gyj, limits, log, weight, rate):  # (P,) each
    """Train on one entry; return its loss as float64."""
    dot = np.float32(0)
    for d in range(xi.size):
        dot += xi[d] * yj[d]
    error = dot - log
    slope = weight * error
    for d in range(xi.size):
        a, b, limit = xi[d], yj[d], limits[d]
        ta = rate * min(max(slope * b, -limit), limit)
        tb = rate * min(max(slope * a, -limit), limit)
        ga, gb = gxi[d], gyj[d]
        xi[d] = a - ta / np.sqrt(ga)
        yj[d] = b - tb / np.sqrt(gb)
        gxi[d] = ga + ta * ta
        gyj[d] = gb + tb * tb
    return np.float64(0.5) * np.float64(slope) * np.float64(error)
