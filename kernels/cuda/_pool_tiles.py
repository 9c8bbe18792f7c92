"""Means and maxima of the vectors of each sequence, a tile of 64 features at a time.

Schedule: a block takes one tile of one sequence. Eight threads side by side, a line, read the 64 features of a row,
which are a whole line of the memory in 16-bit numbers; line l takes the rows l, l + lines, ... So one long sequence
keeps ``features / 64`` blocks busy. What the lines found meets in shared memory, where one thread a feature goes
through it in the order of the lines: nothing is summed by atomics. Each vector is read once.

Sums are float32. A line sums 32 rows before it adds them to its total, so that the error grows with the length of a
sequence over 32 times the number of lines, not with its length.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._eights import eight_of, plus8, some_of_eight
from fastnlp.kernels.cuda.prims import (
    above8,
    block,
    blocks,
    choose8,
    kernel,
    load8,
    part,
    shared_floats,
    shared_ints,
    store1,
    syncthreads,
    thread,
    threads,
)

THREADS = 512
"""The most of a block; the compiler is held to the registers of twice as many, so that two blocks fit."""
TILE = 64
_ZERO, _NAN, _NONE = np.float32(0), np.float32(np.nan), np.int32(-1)
_ZEROS, _NONES = (_ZERO,) * 8, (_NONE,) * 8


@kernel("x* i64 i64* i64* i64 i64 i64 x* i64", threads=2 * THREADS, registers=64, loads=3)
def mean_tiles(
    x,  # (R, features), rows of `pitch` elements
    pitch,
    begin,  # (n + 1,)
    end,  # (n,)
    features,
    whole,  # how many of the features can be read eight at a time
    n,
    out,  # (n, features), NaN for an empty sequence
    out_pitch,
):
    """Write the mean of the rows begin[s] : end[s]."""
    sums = shared_floats()
    tiles = (features + 63) // TILE
    line, lines = np.int32(thread() >> 3), np.int32(threads() >> 3)
    job = np.int64(block())
    while job < n * tiles:
        s = job // tiles
        tile = (job - s * tiles) * TILE
        at = tile + np.int64((thread() & 7) * 8)
        first, length = begin[s], np.int32(end[s] - begin[s])
        here = (first + line) * pitch + at
        total = _ZEROS
        if at + 8 <= whole:
            total = sums_of_rows(x, here, pitch, line, lines, length)
        elif at < features:
            total = sums_of_few(x, here, pitch, line, lines, length, np.int32(min(features - at, 8)))
        put8(sums, total)
        syncthreads()
        k = thread()
        while k < TILE:
            v, place = _ZERO, k
            while place < lines * TILE:
                v += sums[place]
                place = np.int32(place + TILE)
            if tile + k < features:
                store1(out, s * out_pitch + tile + k, v / np.float32(length) if length > 0 else _NAN)
            k = np.int32(k + threads())
        syncthreads()
        job += blocks()


@part
def sums_of_rows(x, at, pitch, row, step, n):
    """Return the sums of eight features over the rows row, row + step, ... of n, the first of which is at `at`."""
    total, apart = _ZEROS, step * pitch
    while row < n:
        some, stop = _ZEROS, min(n, np.int32(row + 32 * step))
        while row + step < stop:  # two loads are under way at a time
            a = load8(x, at)
            b = load8(x, at + apart)
            some = plus8(some, plus8(a, b))
            at += 2 * apart
            row = np.int32(row + 2 * step)
        if row < stop:
            some = plus8(some, load8(x, at))
            at += apart
            row = np.int32(row + step)
        total = plus8(total, some)
    return total


@part
def sums_of_few(x, at, pitch, row, step, n, there):
    """Do what `sums_of_rows` does, for the `there` features that there are, at any address."""
    total, apart = _ZEROS, step * pitch
    while row < n:
        some, stop = _ZEROS, min(n, np.int32(row + 32 * step))
        while row < stop:
            some = plus8(some, some_of_eight(x, at, there))
            at += apart
            row = np.int32(row + step)
        total = plus8(total, some)
    return total


@kernel("x* i64 i64* i64* i64 i64 i64 x* i64 i32*", threads=2 * THREADS, registers=64, loads=3)
def max_tiles(
    x,  # (R, features), rows of `pitch` elements
    pitch,
    begin,  # (n + 1,)
    end,  # (n,)
    features,
    whole,  # how many of the features can be read eight at a time
    n,
    out,  # (n, features), NaN for an empty sequence
    out_pitch,
    place,  # (n, features) the first row that has the maximum, from begin[s]; -1 for an empty sequence
):
    """Write the maximum of the rows begin[s] : end[s], NaN where there is one, and its place."""
    tops, rows = shared_floats(), shared_ints()
    tiles = (features + 63) // TILE
    line, lines = np.int32(thread() >> 3), np.int32(threads() >> 3)
    job = np.int64(block())
    while job < n * tiles:
        s = job // tiles
        tile = (job - s * tiles) * TILE
        at = tile + np.int64((thread() & 7) * 8)
        first, length = begin[s], np.int32(end[s] - begin[s])
        here = (first + line) * pitch + at
        top, row = _ZEROS, _NONES
        if line < length:
            if at + 8 <= whole:
                top, row = tops_of_rows(x, here, pitch, line, lines, length)
            elif at < features:
                top, row = tops_of_few(x, here, pitch, line, lines, length, np.int32(min(features - at, 8)))
        put8(tops, top)
        put8(rows, row)
        syncthreads()
        k = thread()
        while k < TILE:
            v, r, other = tops[k], rows[k], np.int32(k + TILE)
            while other < lines * TILE:
                w, q = tops[other], rows[other]
                above, below = (w > v) | ((w != w) & (v == v)), (v > w) | ((v != v) & (w == w))
                if q >= 0 and (above or (q < r and not below)):
                    v, r = w, q
                other = np.int32(other + TILE)
            if tile + k < features:
                store1(out, s * out_pitch + tile + k, v if length > 0 else _NAN)
                place[s * features + tile + k] = r
            k = np.int32(k + threads())
        syncthreads()
        job += blocks()


@part
def tops_of_rows(x, at, pitch, row, step, n):
    """Return the maxima of eight features over the rows row, row + step, ... of n, and the first rows of each."""
    top, places, apart = load8(x, at), eight_of(row), step * pitch
    at += apart
    row = np.int32(row + step)
    while row + step < n:  # two loads are under way at a time
        a = load8(x, at)
        b = load8(x, at + apart)
        above = above8(a, top)
        top, places = choose8(above, a, top), choose8(above, eight_of(row), places)
        row = np.int32(row + step)
        above = above8(b, top)
        top, places = choose8(above, b, top), choose8(above, eight_of(row), places)
        row = np.int32(row + step)
        at += 2 * apart
    if row < n:
        a = load8(x, at)
        above = above8(a, top)
        top, places = choose8(above, a, top), choose8(above, eight_of(row), places)
    return top, places


@part
def tops_of_few(x, at, pitch, row, step, n, there):
    """Do what `tops_of_rows` does, for the `there` features that there are, at any address."""
    top, places, apart = some_of_eight(x, at, there), eight_of(row), step * pitch
    at += apart
    row = np.int32(row + step)
    while row < n:
        a = some_of_eight(x, at, there)
        above = above8(a, top)
        top, places = choose8(above, a, top), choose8(above, eight_of(row), places)
        at += apart
        row = np.int32(row + step)
    return top, places


@part
def put8(shared, v):
    """Write the eight of this thread to where its line has them: 64 a line."""
    at = np.int32(thread() * 8)
    shared[at] = v[0]
    shared[at + 1] = v[1]
    shared[at + 2] = v[2]
    shared[at + 3] = v[3]
    shared[at + 4] = v[4]
    shared[at + 5] = v[5]
    shared[at + 6] = v[6]
    shared[at + 7] = v[7]
