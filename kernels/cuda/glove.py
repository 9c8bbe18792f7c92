"""GloVe on the GPU: the blocks of a round at once (the equations and the schedule: ``reference/glove.py``).

Here ``places`` is int32 ``(E,)``: the place of the row, and 2^16 times that of the column. ``words`` stays on the host,
and so do numbers; all else lies on the device, and no call waits for it.

At P features an entry moves 32 P bytes. Blocks of a round are at most 64, a CUDA block each, so on a large device about
half of the multiprocessors work: enough to wait for memory most of the time, if diagonals hold some tens of entries.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._glove_diagonals import train_diagonals
from fastnlp.kernels.cuda._glove_entries import fill_entries, number_entries
from fastnlp.kernels.cuda._glove_finite import find_infinite as find_infinite_kernel
from fastnlp.kernels.cuda._glove_hogwild import train_hogwild as hogwild_kernel
from fastnlp.kernels.cuda._schedule import spread
from fastnlp.kernels.cuda._search import lower_bounds

_THREADS = 256
_MOST_WARPS, _LEAST_WARPS = 32, 4


def arrange(indptr, indices, counts, block, place, words, x_max, alpha, starts, places, values):
    # CSR (V, V): (V + 1,), (E,), (E,); (V,), (V,), (B, S); float, float; (B B S + 1,), (E,), (E, 2)
    """Sort the entries of a CSR matrix by round, block, diagonal and row.

    Word v is number ``place[v]`` of block ``block[v]``, and ``words`` is the inverse, -1 where a block has no word.
    `places` gets the places of row and column in their blocks, `values` the logarithm of the count and its weight
    ``min(1, (count / x_max)^alpha)``, and `starts` where each diagonal begins.
    """
    library, n, entries = indptr.library, len(place), len(indices)
    blocks, size = words.shape
    keys = library.empty(entries, np.int64)
    rows = spread(library, 32 * n, _THREADS)
    library.launch(number_entries, rows, _THREADS, indptr, indices, n, block, place, blocks, size, keys)
    keys = library.sort(keys)
    bounds = spread(library, len(starts), _THREADS)
    library.launch(lower_bounds, bounds, _THREADS, keys, entries, None, size, len(starts), starts)
    weighting = library.upload(np.array([np.log(x_max), alpha]))
    given = (indptr, indices, counts, library.upload(words), blocks, size, weighting)
    library.launch(fill_entries, spread(library, entries, _THREADS), _THREADS, keys, entries, *given, places, values)


def train(places, values, starts, s, diagonals, x, y, gx, gy, limits, rate, cost, failed):
    # (E,), (E, 2), (B B S + 1,), int, (K,), (B S, P) each, (P,), float, (B,), (B,)
    """Train on the entries of some diagonals, in this order, of the blocks (b, b + s mod B) for all b.

    Block b adds the losses, before their steps, in ``cost[b]``. It stops after a diagonal with an entry whose loss is
    not finite, whose number it leaves in ``failed[b]``, otherwise -1. Diagonal k of block b is ``starts[(s B + b) S +
    k]`` and up. Element d of a gradient is clipped to ``[-limits[d], limits[d]]``.
    """
    blocks, size = len(cost), len(x) // len(cost)
    threads = 32 * _warps(len(places) / len(starts))
    entries = (places, values, starts, s, blocks, size, diagonals, len(diagonals))
    state = (x, y, gx, gy, x.pitch, limits, rate, cost, failed)
    x.library.launch(train_diagonals, blocks, threads, *entries, *state)


def train_hogwild(places, values, starts, s, diagonals, x, y, gx, gy, limits, rate, cost, failed):
    # as `train`
    """Train on the same entries as `train` without waiting between diagonals: faster, and not repeatable."""
    library, blocks, size = x.library, len(cost), len(x) // len(cost)
    library.copy(library.zeros(blocks, np.float64), cost)
    library.copy(library.full(blocks, -1, np.int64), failed)
    parts = max(1, library.processors * 4 // blocks)
    entries = (places, values, starts, s, blocks, parts, size, diagonals, len(diagonals))
    state = (x, y, gx, gy, x.pitch, limits, rate, cost, failed)
    library.launch(hogwild_kernel, blocks * parts, _THREADS, *entries, *state)


def find_infinite(x, found):  # (B S, P), (1,)
    """Write 1 to `found` if an element is not finite; otherwise leave it."""
    blocks = spread(x.library, x.size // 4, _THREADS)
    x.library.launch(find_infinite_kernel, blocks, _THREADS, x, x.size, found)


def _warps(entries):
    """Return how many warps a block gets for diagonals of so many entries on average: those not used cost time, too."""
    warps = _LEAST_WARPS
    while warps < _MOST_WARPS and warps < 1.5 * entries:
        warps *= 2
    return warps
