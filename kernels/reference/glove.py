"""One epoch of GloVe: weighted least squares on the logarithms of counts, by AdaGrad.

    loss = 1/2 f(X_ij) (w_i . v_j + b_i + c_j - log X_ij)^2

A bias is a weight whose partner is the constant one, so there are only two vectors,

    x_i = (w_i, b_i, 1)    y_j = (v_j, 1, c_j)    error = x_i . y_j - log X_ij

and the ones stay what they are because their accumulated gradient is so large that no step moves them. Each element z
of x_i and y_j, with accumulated gradient g, takes the step of the original program, the rate inside the accumulator:

    t = rate * f(X_ij) error * partner      z -= t / sqrt(g)      g += t t

Schedule. Words are cut into B blocks of S, the matrix into B x B blocks of entries. Round s trains the blocks (b, b + s
mod B) for all b: they share neither a row nor a column. Within a block the entries of one diagonal, column - row mod S,
share neither. So blocks of a round and entries of a diagonal can be taken in any order, or at once: here, a diagonal of
all blocks of a round in one vectorised step.
"""

from __future__ import annotations

import numpy as np


def arrange(indptr, indices, counts, block, place, words, starts, rows, cols, values):
    # CSR (V, V): (V + 1,), (E,), (E,); (V,), (V,), (B, S); (B B S + 1,), (E,), (E,), (E,)
    """Sort the entries of a CSR matrix by round, block, diagonal and row.

    Word v is number ``place[v]`` of block ``block[v]``, and ``words`` is the inverse, -1 where a block has no word.
    `rows` and `cols` get the words' new numbers, ``block S + place``; `starts` where each diagonal begins.
    """
    blocks, size = words.shape
    row = np.repeat(np.arange(block.size), np.diff(indptr))
    diagonal = (place[indices] - place[row]) % size
    key = ((block[indices] - block[row]) % blocks * blocks + block[row]).astype(np.int64) * size + diagonal
    order = np.lexsort((place[row], key))
    starts[0] = 0
    np.cumsum(np.bincount(key, minlength=starts.size - 1), out=starts[1:])
    label = block * size + place
    rows[...] = label[row[order]]
    cols[...] = label[indices[order]]
    values[...] = counts[order]


def epoch(rows, cols, logs, weights, starts, rounds, diagonals, x, y, gx, gy, rate, cost):
    # (E,) each, (B B S + 1,), (B,), (B, S), (B S, P) each, (B, B)
    """Train on every entry once; add up the losses of block b in round s, before their steps, in ``cost[s, b]``.

    Diagonal k of block b of round s is ``starts[(s B + b) S + k]`` and up. `rounds` is the order of the rounds,
    ``diagonals[s]`` the order of the diagonals in all blocks of round s.
    """
    blocks, size = diagonals.shape
    for s in rounds.tolist():
        bounds = starts[s * blocks * size : (s + 1) * blocks * size + 1]
        lengths = np.diff(bounds).reshape(blocks, size)
        turn = np.empty(size, np.int64)
        turn[diagonals[s]] = np.arange(size)
        order = bounds[0] + np.argsort(np.repeat(np.tile(turn, blocks), lengths.ravel()), kind="stable")
        losses = np.zeros(order.size)
        ends = np.cumsum(lengths.sum(axis=0)[diagonals[s]]).tolist()
        for begin, end in zip([0, *ends], ends, strict=False):
            if begin < end:
                e = order[begin:end]
                with np.errstate(all="ignore"):  # a training that diverges shows in the cost
                    losses[e - bounds[0]] = _step(rows[e], cols[e], logs[e], weights[e], x, y, gx, gy, rate)
        cost[s] = np.bincount(np.repeat(np.arange(blocks), lengths.sum(axis=1)), losses, minlength=blocks)


def _step(i, j, log, weight, x, y, gx, gy, rate):
    """Train on entries that share neither a row nor a column; return their losses."""
    xi, yj = x[i], y[j]
    error = (xi * yj).sum(axis=1) - log
    slope = weight * error
    tx, ty = (rate * slope[:, None] * partner for partner in (yj, xi))
    x[i] = xi - tx / np.sqrt(gx[i])
    y[j] = yj - ty / np.sqrt(gy[j])
    gx[i] += tx * tx
    gy[j] += ty * ty
    return 0.5 * slope.astype(np.float64) * error
