"""GloVe: weighted least squares on the logarithms of counts, by AdaGrad.

    loss = 1/2 f(X_ij) (w_i . v_j + b_i + c_j - log X_ij)^2

A bias is a weight whose partner is the constant one, so there are only two vectors,

    x_i = (w_i, b_i, 1)    y_j = (v_j, 1, c_j)    error = x_i . y_j - log X_ij

and the ones stay what they are because their accumulated gradient is so large that no step moves them. Each element z
of x_i and y_j, with accumulated gradient g, takes the step of the original program, the rate inside the accumulator:

    t = rate * clipped(f(X_ij) error * partner)      z -= t / sqrt(g)      g += t t

A rate of its own for the biases needs no other step: from g = 1, rate r' moves z just as rate r does from (r / r')^2.

Schedule. Words are cut into B blocks of S, the matrix into B x B blocks of entries. Round s trains the blocks (b, b + s
mod B) for all b: they share neither a row nor a column. Within a block the entries of one diagonal, column - row mod S,
share neither. So blocks of a round and entries of a diagonal can be taken in any order, or at once: here, a diagonal of
all blocks of a round in one vectorised step.
"""

from __future__ import annotations

import numpy as np


def arrange(indptr, indices, counts, block, place, words, x_max, alpha, starts, places, values):
    # CSR (V, V): (V + 1,), (E,), (E,); (V,), (V,), (B, S); float, float; (B B S + 1,), (E, 2), (E, 2)
    """Sort the entries of a CSR matrix by round, block, diagonal and row.

    Word v is number ``place[v]`` of block ``block[v]``, and ``words`` is the inverse, -1 where a block has no word.
    `places` gets the places of row and column in their blocks, `values` the logarithm of the count and its weight
    ``min(1, (count / x_max)^alpha)``, and `starts` where each diagonal begins.
    """
    blocks, size = words.shape
    row = np.repeat(np.arange(block.size), np.diff(indptr))
    diagonal = (place[indices] - place[row]) % size
    key = ((block[indices] - block[row]) % blocks * blocks + block[row]).astype(np.int64) * size + diagonal
    order = np.lexsort((place[row], key))
    starts[0] = 0
    np.cumsum(np.bincount(key, minlength=starts.size - 1), out=starts[1:])
    places[:, 0] = place[row[order]]
    places[:, 1] = place[indices[order]]
    logs = np.log(counts[order])
    values[:, 0] = logs
    values[:, 1] = np.exp(np.minimum(alpha * (logs - np.log(x_max)), 0))


def train(places, values, starts, s, diagonals, x, y, gx, gy, limits, rate, cost, failed):
    # (E, 2), (E, 2), (B B S + 1,), int, (K,), (B S, P) each, (P,), float, (B,), (B,)
    """Train on the entries of some diagonals, in this order, of the blocks (b, b + s mod B) for all b.

    The losses of block b, before their steps, are added up in ``cost[b]``. A block stops at an entry whose loss is not
    finite and leaves its number in ``failed[b]``, otherwise -1. Diagonal k of block b is ``starts[(s B + b) S + k]``
    and up. Element d of a gradient is clipped to ``[-limits[d], limits[d]]``.
    """
    blocks = np.arange(cost.size)
    size = x.shape[0] // cost.size
    bounds = starts[s * x.shape[0] : (s + 1) * x.shape[0] + 1]
    begins, lengths = bounds[:-1], np.diff(bounds)
    cost[...], failed[...] = 0, -1
    for k in diagonals.tolist():
        length = np.where(failed < 0, lengths[k::size], 0)
        block = np.repeat(blocks, length)
        e = np.arange(block.size) + np.repeat(begins[k::size] - (np.cumsum(length) - length), length)
        i = block * size + places[e, 0]
        j = (block + s) % cost.size * size + places[e, 1]
        log, weight = values[e].T
        with np.errstate(all="ignore"):  # a training that diverges is told by `failed`
            error = (x[i] * y[j]).sum(axis=1) - log
            slope = weight * error
            loss = 0.5 * slope.astype(np.float64) * error
            right = np.isfinite(loss)
            if not right.all():
                failed[block[~right]] = e[~right]  # the state is of no more use
                block, i, j, slope, loss = (part[right] for part in (block, i, j, slope, loss))
            cost += np.bincount(block, loss, minlength=cost.size)
            _update(i, j, slope, x, y, gx, gy, np.float32(rate), limits)


def _update(i, j, slope, x, y, gx, gy, rate, limits):
    """Take the steps of entries that share neither a row nor a column."""
    xi, yj = x[i], y[j]
    tx, ty = (rate * np.clip(slope[:, None] * partner, -limits, limits) for partner in (yj, xi))
    x[i] = xi - tx / np.sqrt(gx[i])
    y[j] = yj - ty / np.sqrt(gy[j])
    gx[i] += tx * tx
    gy[j] += ty * ty
