"""What a loss needs besides its rows: which rows count, the factors of their gradients, the reduction.

Sums are taken by one block in a fixed order, in float64: N numbers, where the rows have N V.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._rows import times8
from fastnlp.kernels.cuda._schedule import spread
from fastnlp.kernels.cuda.prims import (
    block,
    block_max,
    block_rank,
    block_sum,
    blocks,
    given,
    kernel,
    load1,
    load8,
    scratch,
    scratch64,
    store1,
    store8,
    thread,
    threads,
)

_ZERO64, _ONE64, _NAN64, _NONE64 = np.float64(0), np.float64(1), np.float64(np.nan), np.float64(-1)
_ZERO, _ONE, _LOWEST, _INFINITE = np.float32(0), np.float32(1), np.float32(-np.inf), np.float32(np.inf)
THREADS = 1024
OUTSIDE = -2
"""The label of a row whose target is outside the classes and not ignored."""


def one_a_thread(library, n):
    """Return a grid for n rows that a thread each takes."""
    return spread(library, n, 256), 256


@kernel("i64* i64 i64 i64 f32* f32* i64 i64 i64* f64* i64* i64*", threads=THREADS, float64=True)
def count_rows(
    target,  # (n,) class indices; None: every row has a distribution
    ignoring,  # 1 if `ignore` is a target that does not count
    ignore,
    classes,
    token_weight,  # (n,) or None
    class_weight,  # (classes,) or None
    n,
    promised,  # how many rows count as the caller says, or -1
    label,  # (n,) the target; -1 where the row does not count, `OUTSIDE` where it is no class
    tally,  # (3,) rows that count, sum of their token weights, sum of these times the class weights
    kept,  # (n,) the rows that count, in order, then the others; or None
    status,  # (3,) a wrong row + 1, its target, or how many rows count if that was not as promised
):
    """Say which rows count, and what means are taken over."""
    shared, shared64 = scratch(), scratch64()
    count, tokens, total, wrong = np.int64(0), _ZERO64, _ZERO64, _NONE64
    begin = np.int64(0)
    while begin < n:
        row = begin + thread()
        counts = False
        if row < n:
            t = target[row] if given(target) else np.int64(0)
            u = token_weight[row] if given(token_weight) else _ONE
            if (ignoring == 1 and t == ignore) or u == _ZERO:
                label[row] = -1
            elif given(target) and (t < 0 or t >= classes):
                label[row] = OUTSIDE
                counts = True
                if wrong < _ZERO64:
                    wrong = np.float64(row)
            else:
                label[row] = t
                counts = True
                tokens += np.float64(u)
                w = class_weight[t] if given(class_weight) and given(target) else _ONE
                total += np.float64(u) * np.float64(w)
        rank, in_tile = block_rank(counts, shared)
        if counts and given(kept):
            kept[count + rank] = row
        count += in_tile
        begin += threads()
    tokens, total = block_sum(tokens, shared64), block_sum(total, shared64)
    last = np.float64(n)
    first_wrong = last - block_max(last - wrong if wrong >= _ZERO64 else _NONE64, shared64)
    if given(kept):
        place, begin = count, np.int64(0)
        while begin < n:
            row = begin + thread()
            counts = row < n and label[row] == -1
            rank, in_tile = block_rank(counts, shared)
            if counts:
                kept[place + rank] = row
            place += in_tile
            begin += threads()
    if thread() == 0:
        broken = promised >= 0 and promised != count
        tally[0] = np.float64(count)
        tally[1] = _NAN64 if broken else tokens
        tally[2] = _NAN64 if broken else total
        if first_wrong <= last and given(status):
            at = np.int64(first_wrong)
            status[1] = target[at]
            status[0] = at + 1
        if broken and given(status):
            status[2] = count + 1


@kernel("i64* f32* f64* f32* i64 f32 f32 i64 f32* f32*", float64=True)
def scale_rows(
    label,  # (n,)
    token_weight,  # (n,) or None
    tally,  # (3,), or None: a sum, or no reduction
    upstream,  # (n,) or (1,), or None
    upstream_step,  # 1 or 0
    factor,
    z_loss,
    n,
    scale,  # (n,) of the loss
    lse_scale,  # (n,) of the squared lse, or None
):
    """Write the factors of l_n and lse_n^2 in the reduced loss, times the upstream gradient."""
    row = block() * threads() + np.int64(thread())
    while row < n:
        u = np.float64(token_weight[row]) if given(token_weight) else _ONE64
        if label[row] == -1:
            u = _ZERO64
        if given(upstream):
            u *= np.float64(upstream[row * upstream_step])
        u *= np.float64(factor)
        one, squared = u, u * np.float64(z_loss)
        if given(tally):
            one = one / tally[2] if tally[2] != _ZERO64 else _ZERO64
            squared = squared / tally[1] if tally[1] != _ZERO64 else squared
        scale[row] = np.float32(one)
        if given(lse_scale):
            lse_scale[row] = np.float32(squared)
        row += np.int64(blocks()) * threads()


@kernel("f32* f32* f32* f64* f32 i64 f32* f32*", threads=THREADS, float64=True)
def reduce_rows(
    loss,  # (n,), zero where a row does not count
    lse,  # (n,)
    token_weight,  # (n,) or None
    tally,  # (3,): the mean; None: the sum
    z_loss,
    n,
    value,  # ()
    squared,  # () the z-loss term, or None
):
    """Reduce losses to one number: the sum, or the mean over what `tally` holds; NaN over nothing."""
    shared = scratch64()
    losses, squares = _ZERO64, _ZERO64
    row = np.int64(thread())
    while row < n:
        u = np.float64(token_weight[row]) if given(token_weight) else _ONE64
        if u != _ZERO64:
            losses += u * np.float64(loss[row])
            squares += u * (np.float64(lse[row]) * np.float64(lse[row]))
        row += threads()
    losses, squares = block_sum(losses, shared), block_sum(squares, shared)
    if thread() == 0:
        term = np.float64(z_loss) * squares if z_loss != _ZERO else _ZERO64
        if given(tally):
            losses /= tally[2]
            term = term / tally[1] if z_loss != _ZERO else term
        value[0] = np.float32(losses + term)
        if given(squared):
            squared[0] = np.float32(term)


@kernel("f32* f32* f32* f32 i64 f32* f32*", float64=True)
def weigh_rows(
    loss,  # (n,)
    lse,  # (n,)
    token_weight,  # (n,) or None
    z_loss,
    n,
    value,  # (n,)
    squared,  # (n,) the z-loss terms, or None
):
    """Write each row's loss with its weight and its z-loss term: no reduction."""
    row = block() * threads() + np.int64(thread())
    while row < n:
        u = np.float64(token_weight[row]) if given(token_weight) else _ONE64
        term = _ZERO64
        if z_loss != _ZERO:
            term = u * np.float64(z_loss) * (np.float64(lse[row]) * np.float64(lse[row]))
        value[row] = np.float32(u * np.float64(loss[row]) + term) if u != _ZERO64 else _ZERO
        if given(squared):
            squared[row] = np.float32(term)
        row += np.int64(blocks()) * threads()


@kernel("i64* i64* f64* i64 f32* i64*", threads=THREADS, float64=True)
def count_hits(
    argmax,  # (n,) -1 where the row does not count
    best,  # (n,) the target, or the most probable class of a distribution
    tally,  # (3,)
    n,
    accuracy,  # ()
    count,  # ()
):
    """Write the share of the rows that count in which `argmax` is `best`, and how many count."""
    shared = scratch64()
    hits = _ZERO64
    row = np.int64(thread())
    while row < n:
        if argmax[row] >= 0 and argmax[row] == best[row]:
            hits += _ONE64
        row += threads()
    hits = block_sum(hits, shared)
    if thread() == 0:
        accuracy[0] = np.float32(hits / tally[0])
        count[0] = np.int64(tally[0])


@kernel("x* i64 i64 i64 i64*", threads=256, loads=0)
def argmax_rows(
    x,  # (n, classes), rows of `pitch` elements
    pitch,
    n,
    classes,
    best,  # (n,) the first of the largest
):
    """Write the index of each row's first maximum; the first NaN is the largest."""
    shared = scratch()
    row = block()
    while row < n:
        base = np.int64(row) * pitch
        top, at = _LOWEST, np.int32(classes)
        i = thread()
        while i < classes:
            v = load1(x, base + i)
            v = v if v == v else _INFINITE
            if v > top or at == classes:
                top, at = v, i
            i = np.int32(i + threads())
        largest = block_max(top, shared)
        # exact in float32: below 2**24 the index itself, above in two parts
        mine = top == largest and at < classes
        high = block_max(np.float32(-(at >> 12)) if mine else _LOWEST, shared)
        mine = mine and np.float32(-(at >> 12)) == high
        low = block_max(np.float32(-(at & 4095)) if mine else _LOWEST, shared)
        if thread() == 0:
            best[row] = (np.int64(-high) << 12) + np.int64(-low) if classes > 0 else np.int64(-2)
        row += blocks()


@kernel("f32* f32* f32 i64 i64 x*", threads=256, loads=2, stores=1)
def scale_elements(
    x,  # (n,)
    factor,  # (), or None
    number,
    whole,  # how many can be read eight at a time
    n,
    out,  # (n,)
):
    """out = x times a number, in the dtype of `out`."""
    a = number * factor[0] if given(factor) else number
    me = np.int64(block()) * threads() + thread()
    every = np.int64(blocks()) * threads()
    i = me * 8
    while i < whole:
        store8(out, i, times8(load8(x, i), a))
        i += every * 8
    i = whole + me
    while i < n:
        store1(out, i, load1(x, i) * a)
        i += every
