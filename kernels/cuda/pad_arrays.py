"""Sequences as rows of one width (the meaning: ``reference/pad_arrays.py``).

Schedule: one pass over the places: a block takes a row at a time and writes ids and mask, four places a thread in
16-byte stores where rows begin at multiples of 16 bytes. Bytes a place: the mask and the id written; a token's read.
"""

from __future__ import annotations

from fastnlp.kernels.cuda._schedule import grid
from fastnlp.kernels.cuda._stretches import stretch_rows as stretch_rows
from fastnlp.kernels.cuda.prims import block, blocks, given, kernel, part, store4_int, thread, threads


def pad_rows(lengths, at_left, pad, ids, mask):  # (B,), (B, S), (B, S)
    """Write `pad` where row b has no token, and the mask: 1 at its lengths[b] tokens, 0 beside them."""
    _launch(ids.reshape(-1), None, lengths, ids.shape[1], at_left, pad, ids, mask, None)


def pad_tokens(x, begin, end, most, at_left, pad, ids, mask, lengths):  # (T,), (B,), (B,), (B, S), (B, S), (B,)
    """Write ``x[begin[b] : end[b]]``, or the first `most` of it, to row b with `pad` beside it, and the mask.

    And how many tokens that are to `lengths`, unless it is None.
    """
    _launch(x, begin, end, most, at_left, pad, ids, mask, lengths)


def _launch(x, begin, end, most, at_left, pad, ids, mask, lengths):
    rows, width = ids.shape
    blocks, threads = grid(ids.library, rows, width, 256)
    aligned = all(out.address % 16 == 0 and width * out.itemsize % 16 == 0 for out in (ids, mask))
    args = (
        x,
        x.size,
        begin,
        end,
        most,
        rows,
        width,
        width // 4 * 4 if aligned else 0,
        int(at_left),
        pad,
        ids,
        mask,
        lengths,
    )
    ids.library.launch(padded_rows, blocks, threads, *args)


@kernel("i* i64 i64* i64* i64 i64 i64 i64 i64 i64 j* j* i64*", threads=256, stores=2)
def padded_rows(
    x,  # (size,) tokens
    size,
    begin,  # (n,) where the tokens of each row begin in x; None: x is ids, and they stay where they are
    end,  # (n,) where they end; without `begin` how many there are
    most,  # of a row's tokens, at most `width`
    n,
    width,
    whole,  # how many places of a row can be written four at a time
    at_left,  # 1 if padding is left of the tokens
    pad,
    ids,  # (n, width)
    mask,  # (n, width)
    lengths,  # (n,) or None
):
    """Write the ids of each row and the mask of what is real. Nothing outside of x is read, whatever the bounds."""
    row = block()
    while row < n:
        if given(begin):
            first = min(max(begin[row], 0), size)
            length = min(min(max(end[row], first), size) - first, most)
        else:
            first, length = row * width, min(max(end[row], 0), most)
        if given(lengths) and thread() == 0:
            lengths[row] = length
        shift = width - length if at_left == 1 else 0
        if not given(begin):
            first += shift
        to = row * width
        i = thread() * 4
        while i < whole:
            at = i - shift
            a, b = token(x, first, at, length, pad), token(x, first, at + 1, length, pad)
            c, d = token(x, first, at + 2, length, pad), token(x, first, at + 3, length, pad)
            store4_int(ids, to + i, (a, b, c, d))
            store4_int(
                mask, to + i, (real(at, length), real(at + 1, length), real(at + 2, length), real(at + 3, length))
            )
            i += threads() * 4
        i = whole + thread()
        while i < width:
            ids[to + i] = token(x, first, i - shift, length, pad)
            mask[to + i] = real(i - shift, length)
            i += threads()
        row += blocks()


@part
def token(x, first, at, length, pad):
    """Return token `at` of a row, or `pad` where there is none."""
    return x[first + at] if at >= 0 and at < length else pad


@part
def real(at, length):
    """Return 1 where there is a token, else 0."""
    return 1 if at >= 0 and at < length else 0
