"""Sequences one after another in flat arrays (the meaning: ``reference/pack_arrays.py``).

Schedule: one pass over the places: a thread takes four at a time, finds the segment of the first by bisection and goes
on from there, so that long and short segments load the device evenly; it writes all four results in 16-byte stores.
Bytes a place: the four results written; a token's and a label's read.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._schedule import spread
from fastnlp.kernels.cuda._stretches import segment_of
from fastnlp.kernels.cuda._stretches import stretch_rows as stretch_rows
from fastnlp.kernels.cuda.prims import block, blocks, given, kernel, part, store4_int, thread, threads

_THREADS = 128


def label_segments(cu_seqlens, number, position_start, position_ids, sequence_ids):  # (S + 1,), (S,); (T,), (T,)
    """Count positions from `position_start` in each segment, repeat it in those of number 0; write the numbers."""
    segments = (cu_seqlens, number, None, None)
    _launch(
        None, None, segments, 0, 0, False, position_start, (None, position_ids, sequence_ids, None), None, None, None
    )


def pack_tokens(x, y, segments, pad, ignore, ignore_first, position_start, outputs, cu_seqlens, place, padded):
    """Write tokens, positions, numbers and labels of all segments, `outputs`, each ``(T,)``.

    Segment s is the places ``segments[0][s]`` to ``segments[0][s + 1]``. Its number is ``segments[1][s]``, 0 for
    padding; its tokens are x from ``segments[2][s]`` on, its labels y from ``segments[3][s]`` on. Also write
    ``cu_seqlens = segments[0]``, int32, and ``padded = place``, ``(P + 1,)``, unless that is None.
    """
    _launch(x, y, segments, pad, ignore, ignore_first, position_start, outputs, cu_seqlens, place, padded)


def _launch(x, y, segments, pad, ignore, ignore_first, position_start, outputs, cu_seqlens, place, padded):
    library, n, places = outputs[1].library, segments[1].size, outputs[1].size
    aligned = all(out is None or out.address % 16 == 0 for out in outputs)
    pieces = -1 if place is None else place.size
    work = max(-(-places // 4), n + 1, pieces)
    options = (pad, ignore, int(ignore_first), position_start)
    args = (x, y, *segments, n, places, int(aligned), *options, *outputs, cu_seqlens, place, pieces, padded)
    library.launch(packed_places, spread(library, work, _THREADS), _THREADS, *args)


@kernel(
    "i* i* i64* i64* i64* i64* i64 i64 i64 i64 i64 i64 i64 j* j* j* j* i32* i64* i64 i32*",
    threads=_THREADS,
    registers=64,
    stores=4,
)
def packed_places(
    x,  # tokens
    y,  # labels
    begin,  # (n + 1,) the first place of each segment
    number,  # (n,) 0 for padding
    source,  # (n,) the first token of each segment in x
    label_source,  # (n,) its first label in y
    n,
    places,
    aligned,  # 1 if the four results can be written four places at a time
    pad,
    ignore,
    ignore_first,  # 1 if the first label of a segment is `ignore`
    position_start,
    ids,  # (places,), or None: neither tokens nor labels
    positions,  # (places,)
    numbers,  # (places,)
    labels,  # (places,)
    cu_seqlens,  # (n + 1,) or None
    place,  # (pieces,) or None
    pieces,
    padded,  # (pieces,)
):
    """Write the four results of each place, and `begin` and `place` as int32."""
    me, step = np.int64(block()) * threads() + thread(), np.int64(blocks()) * threads()
    options = (given(ids), pad, ignore, ignore_first, position_start)
    p = 4 * me
    while p < places:
        s = segment_of(begin, n, p)
        if aligned == 1 and p + 4 <= places:
            a = at_place(x, y, begin, number, source, label_source, s, p, options)
            s = segment_from(begin, n, s, p + 1)
            b = at_place(x, y, begin, number, source, label_source, s, p + 1, options)
            s = segment_from(begin, n, s, p + 2)
            c = at_place(x, y, begin, number, source, label_source, s, p + 2, options)
            s = segment_from(begin, n, s, p + 3)
            d = at_place(x, y, begin, number, source, label_source, s, p + 3, options)
            if given(ids):
                store4_int(ids, p, (a[0], b[0], c[0], d[0]))
                store4_int(labels, p, (a[1], b[1], c[1], d[1]))
            store4_int(positions, p, (a[2], b[2], c[2], d[2]))
            store4_int(numbers, p, (a[3], b[3], c[3], d[3]))
        else:
            q = p
            while q < min(p + 4, places):
                s = segment_from(begin, n, s, q)
                a = at_place(x, y, begin, number, source, label_source, s, q, options)
                if given(ids):
                    ids[q] = a[0]
                    labels[q] = a[1]
                positions[q] = a[2]
                numbers[q] = a[3]
                q += 1
        p += 4 * step
    i = me
    while i <= n and given(cu_seqlens):
        cu_seqlens[i] = begin[i]
        i += step
    i = me
    while i < pieces:
        padded[i] = place[i]
        i += step


@part
def segment_from(begin, n, s, p):
    """Return the segment of place p, which is s or one behind it."""
    while s + 1 < n and p >= begin[s + 1]:
        s += 1
    return s


@part
def at_place(x, y, begin, number, source, label_source, s, p, options):
    """Return the token, the label, the position and the number of place p, in segment s."""
    with_tokens, pad, ignore, ignore_first, position_start = options
    mine, j = number[s], p - begin[s]
    token, label = pad, ignore
    if mine != 0 and with_tokens:
        token = np.int64(x[source[s] + j])
        if j > 0 or ignore_first == 0:
            label = np.int64(y[label_source[s] + j])
    return token, label, position_start + (j if mine != 0 else 0), mine
