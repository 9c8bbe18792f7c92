"""Knapsacks over all capacities at once, in exact integers.

Pieces are one or more items of one length, each taken or not. best[k, c] is the highest value of pieces of c tokens
and k places at most; piece by piece, in their order,

    best[k, c] = max(best[k, c], best[k - places, c - weight] + value)

take[p, k, c] keeps which of the two it was (the first where they are equal), from which `trace` reads what was taken.
"""

from __future__ import annotations

import numpy as np


def fill(weights, places, values, take, best):  # (P,), (P,), (P,), (P, K, C), (K, C)
    """Best values of P pieces for up to K - 1 places and C - 1 tokens, and which pieces they take."""
    best[...] = 0
    take[...] = False
    for piece, (weight, place, value) in enumerate(
        zip(weights.tolist(), places.tolist(), values.tolist(), strict=True)
    ):
        if place < best.shape[0] and weight < best.shape[1]:
            with_it = best[: best.shape[0] - place, : best.shape[1] - weight] + value
            without = best[place:, weight:]
            np.greater(with_it, without, out=take[piece, place:, weight:])
            np.maximum(with_it, without, out=without)


def trace(weights, places, lengths, copies, take, room, patterns):  # (P,), (P,), (P,), (P,), (P, K, C), (J,), (J, D)
    """patterns[j, lengths[p]] += copies[p] for each piece p that the best of room[j] tokens takes; room < 0: none.

    One place is kept free where places are counted, except for the last pattern.
    """
    left = np.full(room.size, take.shape[1] - 1)
    if take.shape[1] > 1:
        left[:-1] -= 1
    todo = np.flatnonzero(room >= 0)
    room, left = room[todo], left[todo]
    for piece in range(weights.size - 1, -1, -1):
        taken = take[piece, left, room]
        if taken.any():
            patterns[todo[taken], lengths[piece]] += copies[piece]
            room[taken] -= weights[piece]
            left[taken] -= places[piece]
