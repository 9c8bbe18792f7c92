"""Rows of sequences: where each begins and ends, the first or last of each, and what the gradients of pooling write.

Schedule: a block of the gradients takes one tile of 64 features of one sequence, as those of `_pool_tiles` do, holds
the 64 numbers that it hands out and writes the tile of each row, those of the padding behind the sequence included:
every element of the gradient is written once, by one thread.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._eights import eight_of, equal8, over8, some_of_eight, write_some
from fastnlp.kernels.cuda.prims import (
    block,
    blocks,
    choose8,
    given,
    kernel,
    load1,
    load8,
    part,
    store1,
    store8,
    thread,
    threads,
)

THREADS = 512
TILE = 64
_ZERO, _NAN = np.float32(0), np.float32(np.nan)
_ZEROS = (_ZERO,) * 8


@kernel("i64* i64 i64 i64* i64*")
def packed_bounds(cu_seqlens, n, rows, begin, end):  # (n + 1,), (n + 1,), (n,)
    """Write where sequences begin and end; nothing is outside of the rows, whatever `cu_seqlens` holds.

    What is behind the last sequence counts as its padding, and what is before the first has no sequence.
    """
    i = block() * threads() + np.int64(thread())
    while i < n:
        first = min(max(cu_seqlens[i], 0), rows)
        begin[i] = first
        end[i] = min(max(cu_seqlens[i + 1], first), rows)
        i += np.int64(blocks()) * threads()
    if i == n:
        begin[n] = rows


@kernel("i64* i64 i64 i64* i64*")
def padded_bounds(lengths, n, width, begin, end):  # (n,) or None, (n + 1,), (n,)
    """Write where sequences begin and end that lie in rows of one width; lengths are cut to what a row has room for."""
    i = block() * threads() + np.int64(thread())
    while i <= n:
        begin[i] = i * width
        if i < n:
            length = min(max(lengths[i], 0), width) if given(lengths) else width
            end[i] = i * width + length
        i += np.int64(blocks()) * threads()


@kernel("x* i64 i64* i64* i64 i64 i64 i64 x* i64", loads=1, stores=1)
def end_rows(x, pitch, begin, end, last, features, whole, n, out, out_pitch):
    """Write the first row of each sequence, or with last = 1 the last; NaN for an empty sequence."""
    s = np.int64(block())
    while s < n:
        row = end[s] - 1 if last == 1 else begin[s]
        there = end[s] > begin[s]
        i = np.int64(thread() * 8)
        while i < whole:
            store8(out, s * out_pitch + i, load8(x, row * pitch + i) if there else eight_of(_NAN))
            i += threads() * 8
        i = whole + thread()
        while i < features:
            store1(out, s * out_pitch + i, load1(x, row * pitch + i) if there else _NAN)
            i += threads()
        s += blocks()


@kernel("x* i64 i64* i64* i64 i64 i64 x* i64", threads=THREADS, loads=1, stores=1)
def hand_out_mean(dout, dout_pitch, begin, end, features, whole, n, dx, pitch):  # (n, features); (R, features)
    """Write dout[s] / length to each row of sequence s, and 0 to what is behind it."""
    tiles = (features + 63) // TILE
    line, lines = np.int32(thread() >> 3), np.int32(threads() >> 3)
    job = np.int64(block())
    while job < n * tiles:
        s = job // tiles
        at = (job - s * tiles) * TILE + np.int64((thread() & 7) * 8)
        if at < features:
            there = np.int32(min(features - at, 8))
            given_out = read_some(dout, s * dout_pitch + at, at + 8 <= whole, there)
            share = over8(given_out, np.float32(end[s] - begin[s]))
            clear_before(dx, begin[s] if s == 0 else np.int64(0), line, lines, pitch, at, whole, there)
            t = begin[s] + line
            while t < begin[s + 1]:
                write(dx, t * pitch + at, at + 8 <= whole, there, share if t < end[s] else _ZEROS)
                t += lines
        job += blocks()


@kernel("x* i64 i64* i64* i32* i64 i64 i64 i64 x* i64", threads=THREADS, loads=1, stores=1)
def hand_out_at(dout, dout_pitch, begin, end, place, last, features, whole, n, dx, pitch):
    """Write dout[s] to the row of each feature in sequence s, and 0 elsewhere.

    That row is ``begin[s] + place[s]``; without `place` the first, or with last = 1 the last.
    """
    tiles = (features + 63) // TILE
    line, lines = np.int32(thread() >> 3), np.int32(threads() >> 3)
    job = np.int64(block())
    while job < n * tiles:
        s = job // tiles
        at = (job - s * tiles) * TILE + np.int64((thread() & 7) * 8)
        if at < features:
            there = np.int32(min(features - at, 8))
            given_out = read_some(dout, s * dout_pitch + at, at + 8 <= whole, there)
            places = eight_of(np.int32(end[s] - begin[s] - 1 if last == 1 else 0))
            if given(place):
                places = some_places(place, s * features + at, there)
            clear_before(dx, begin[s] if s == 0 else np.int64(0), line, lines, pitch, at, whole, there)
            t, here = begin[s] + line, line
            while t < begin[s + 1]:
                v = choose8(equal8(places, here), given_out, _ZEROS) if t < end[s] else _ZEROS
                write(dx, t * pitch + at, at + 8 <= whole, there, v)
                t += lines
                here = np.int32(here + lines)
        job += blocks()


@part
def read_some(x, at, wide, there):
    """Return 8 elements from `at` on, or the first `there` of them; `wide`: all are there, and aligned."""
    if wide:
        return load8(x, at)
    return some_of_eight(x, at, there)


@part
def write(x, at, wide, there, v):
    """Write the eight from `at` on, or the first `there` of them."""
    if wide:
        store8(x, at, v)
    else:
        write_some(x, at, there, v)


@part
def clear_before(dx, n, line, lines, pitch, at, whole, there):
    """Write 0 to the first n rows."""
    t = np.int64(line)
    while t < n:
        write(dx, t * pitch + at, at + 8 <= whole, there, _ZEROS)
        t += lines


@part
def some_places(place, at, there):
    """Return 8 places from `at` on, -1 for those beyond the first `there`."""
    none = np.int32(-1)
    return (
        place[at],
        place[at + 1] if there > 1 else none,
        place[at + 2] if there > 2 else none,
        place[at + 3] if there > 3 else none,
        place[at + 4] if there > 4 else none,
        place[at + 5] if there > 5 else none,
        place[at + 6] if there > 6 else none,
        place[at + 7] if there > 7 else none,
    )
