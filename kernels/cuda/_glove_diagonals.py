"""GloVe, some diagonals of the blocks of a round (the equations and the schedule: ``reference/glove.py``).

A CUDA block takes a block of the matrix, its warps the entries of a diagonal: they share neither a row nor a column. A
barrier ends the diagonal. So the steps are those of the other backends in the same order, and the same bits however
the device schedules its threads.

An entry at P features moves 32 P bytes: two vectors and two accumulated gradients, read and written. What leads to them
is asked for ahead: a diagonal's bounds while the last but one is trained, its first entries while the last one is.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._glove_steps import WARP, ask, dot_by, down, loss_of, plus, squares, steps
from fastnlp.kernels.cuda.prims import (
    any_thread,
    atomic_max,
    block,
    block_sum,
    kernel,
    load4,
    prefetch,
    scratch64,
    store4,
    thread,
    threads,
)

_dot = dot_by(load4)
_INFINITY = np.float64(np.inf)
_NOTHING = np.float64(0)


@kernel(
    "i32* f32* i64* i64 i64 i64 i32* i64 f32* f32* f32* f32* i64 f32* f32 f64* i64*",
    threads=1024,
    registers=64,
    loads=11,
    stores=4,
    float64=True,
)
def train_diagonals(
    places,  # (E,) the place of the row, and 2^16 times that of the column
    values,  # (E, 2)
    starts,  # (B B S + 1,)
    s,
    n_blocks,  # B, the number of CUDA blocks
    size,  # S
    diagonals,  # (K,)
    n_diagonals,  # 1 or more
    x,  # (B S, P)
    y,
    gx,
    gy,
    pitch,  # P
    limits,  # (P,)
    rate,
    cost,  # (B,)
    failed,
):
    """Train the entries of one block after the other diagonal; its losses, and an entry whose loss is not finite."""
    losses = scratch64()  # of each warp
    b = np.int64(block())
    lane, warp, warps = thread() & np.int32(31), thread() >> np.int32(5), threads() >> np.int32(5)
    rows = b * size * pitch
    columns = (b + s) % n_blocks * size * pitch
    first = (s * n_blocks + b) * size
    features = np.int32(pitch)
    base = starts[first]  # entries are counted from here: 32 bits
    wrong = np.int32(-1)
    if lane == 0:
        losses[warp] = _NOTHING
    if thread() == 0:
        failed[b] = -1
    place, log, weight = np.int32(0), np.float32(0), np.float32(0)
    k = first + diagonals[0]
    e, end = np.int32(starts[k] - base + warp), np.int32(starts[k + 1] - base)
    if e < end:
        place, log, weight = places[base + e], values[2 * (base + e)], values[2 * (base + e) + 1]
    last = np.int32(n_diagonals - 1)
    k = first + diagonals[min(np.int32(1), last)]
    begin2, end2 = starts[k], starts[k + 1]  # of the next diagonal
    k = first + diagonals[min(np.int32(2), last)]  # the next but one
    turn = np.int32(0)
    while turn <= last:
        next_e, next_end = np.int32(begin2 - base + warp), np.int32(end2 - base)
        begin2, end2 = starts[k], starts[k + 1]
        k = first + diagonals[min(np.int32(turn + 3), last)]
        turn = np.int32(turn + 1)
        if next_e < next_end:
            prefetch(places, base + next_e)
            prefetch(values, 2 * (base + next_e))
        while e < end:
            i = rows + (place & 0xFFFF) * pitch
            j = columns + ((place >> 16) & 0xFFFF) * pitch
            ask(gx, i, lane, features)
            ask(gy, j, lane, features)
            error = _dot(x, i, y, j, lane, features) - log
            slope = weight * error
            loss = loss_of(slope, error)
            if not loss < _INFINITY:
                wrong = e
            elif lane == 0:
                losses[warp] += loss
            e = np.int32(e + warps)
            if e < end:
                place, log, weight = places[base + e], values[2 * (base + e)], values[2 * (base + e) + 1]
            d = np.int32(lane * 4)
            while d < features:
                a, c, ga, gc = load4(x, i + d), load4(y, j + d), load4(gx, i + d), load4(gy, j + d)
                limit = load4(limits, d)
                ta, tc = steps(c, slope, limit, rate), steps(a, slope, limit, rate)
                store4(x, i + d, plus(a, down(ta, ga)))
                store4(y, j + d, plus(c, down(tc, gc)))
                store4(gx, i + d, plus(ga, squares(ta)))
                store4(gy, j + d, plus(gc, squares(tc)))
                d = np.int32(d + WARP)
        e, end = next_e, next_end
        if e < end:
            place, log, weight = places[base + e], values[2 * (base + e)], values[2 * (base + e) + 1]
        if any_thread(wrong >= 0):
            break
    total = block_sum(losses[warp] if lane == 0 else _NOTHING, losses)
    if thread() == 0:
        cost[b] = total
    if wrong >= 0 and lane == 0:
        atomic_max(failed, b, base + wrong)
