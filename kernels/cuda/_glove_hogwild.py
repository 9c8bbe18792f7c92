"""GloVe, some diagonals of the blocks of a round, all at once (the equations: ``reference/glove.py``).

A warp takes a diagonal and waits for no other, as in Hogwild (Recht and others, 2011). Steps are added to the vectors
atomically, so none is lost; an entry may see its vectors before or after a step of another. What comes out differs from
run to run.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._glove_steps import WARP, ask, dot_by, down, loss_of, squares, steps
from fastnlp.kernels.cuda.prims import (
    atomic_add_float,
    atomic_max,
    block,
    kernel,
    load4,
    load4_fresh,
    part,
    thread,
    threads,
)

_dot = dot_by(load4_fresh)
_INFINITY = np.float64(np.inf)
_NOTHING = np.float64(0)


@part
def _add4(z, i, t):
    atomic_add_float(z, i, t[0])
    atomic_add_float(z, i + 1, t[1])
    atomic_add_float(z, i + 2, t[2])
    atomic_add_float(z, i + 3, t[3])


@kernel(
    "i32* f32* i64* i64 i64 i64 i64 i32* i64 f32* f32* f32* f32* i64 f32* f32 f64* i64*",
    threads=256,
    registers=72,
    loads=11,
    float64=True,
)
def train_hogwild(
    places,  # (E,) the place of the row, and 2^16 times that of the column
    values,  # (E, 2)
    starts,  # (B B S + 1,)
    s,
    n_blocks,  # B
    parts,  # for each of them so many CUDA blocks
    size,  # S
    diagonals,  # (K,)
    n_diagonals,
    x,  # (B S, P)
    y,
    gx,
    gy,
    pitch,  # P
    limits,  # (P,)
    rate,
    cost,  # (B,) zeros
    failed,  # (B,) of -1
):
    """Train the entries of the diagonals; add the losses, and tell an entry whose loss is not finite."""
    b = np.int64(block()) % n_blocks
    lane, warps = thread() & np.int32(31), threads() >> np.int32(5)
    rows = b * size * pitch
    columns = (b + s) % n_blocks * size * pitch
    first = (s * n_blocks + b) * size
    features = np.int32(pitch)
    base = starts[first]  # entries are counted from here: 32 bits
    total, wrong = _NOTHING, np.int32(-1)
    turn = np.int32(block() // np.int32(n_blocks) * warps + (thread() >> np.int32(5)))
    step = np.int32(parts) * warps
    while turn < n_diagonals:
        k = first + diagonals[turn]
        e, end = np.int32(starts[k] - base), np.int32(starts[k + 1] - base)
        while e < end:
            place, log, weight = places[base + e], values[2 * (base + e)], values[2 * (base + e) + 1]
            i = rows + (place & 0xFFFF) * pitch
            j = columns + ((place >> 16) & 0xFFFF) * pitch
            ask(gx, i, lane, features)
            ask(gy, j, lane, features)
            error = _dot(x, i, y, j, lane, features) - log
            slope = weight * error
            loss = loss_of(slope, error)
            if loss < _INFINITY:
                total += loss
            else:
                wrong = e
            d = np.int32(lane * 4)
            while d < features:
                a, c, limit = load4_fresh(x, i + d), load4_fresh(y, j + d), load4(limits, d)
                ga, gc = load4_fresh(gx, i + d), load4_fresh(gy, j + d)
                ta, tc = steps(c, slope, limit, rate), steps(a, slope, limit, rate)
                _add4(x, i + d, down(ta, ga))
                _add4(y, j + d, down(tc, gc))
                _add4(gx, i + d, squares(ta))
                _add4(gy, j + d, squares(tc))
                d = np.int32(d + WARP)
            e = np.int32(e + 1)
        turn = np.int32(turn + step)
    if lane == 0:
        atomic_add_float(cost, b, total)
        if wrong >= 0:
            atomic_max(failed, b, base + wrong)
