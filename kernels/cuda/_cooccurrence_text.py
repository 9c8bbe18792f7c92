"""Co-occurrence counts, the text: checked, laid out with separators, and where each word stands."""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._search import lower_bound
from fastnlp.kernels.cuda.prims import atomic_add, atomic_max, block, blocks, given, kernel, thread, threads

_SEPARATOR = np.int32(-1)
_ONE = np.int64(1)


@kernel("i64* i64 i64 i64 i64* u8*", registers=32)
def check_ids(
    ids,  # (n,)
    n,
    least,
    size,  # V
    wrong,  # (1,) the most that is left, from an id that is outside [least, V), of what is looked at; or what it was
    known,  # (n,) or None: whether each is a word
):
    """Look for ids that are outside of the vocabulary."""
    i = np.int64(block()) * threads() + thread()
    while i < n:
        word = ids[i]
        if word < least or word >= size:
            atomic_max(wrong, 0, n - i)
        if given(known):
            known[i] = word >= 0
        i += np.int64(blocks()) * threads()


@kernel("i32* i64 i64* i64 i64 i32*", registers=32)
def lay_out_ids(
    ids,  # (T,)
    n,  # T
    offsets,  # (D + 1,)
    n_offsets,  # D + 1
    gap,
    stream,  # (T + D + 1,)
):
    """Write the separators, and every id behind those before it."""
    i = np.int64(block()) * threads() + thread()
    step = np.int64(blocks()) * threads()
    d = i
    while d < n_offsets:
        stream[offsets[d] + d] = _SEPARATOR
        d += step
    while i < n:
        word = ids[i]
        at = i + lower_bound(offsets, np.int64(0), n_offsets, i + 1)
        stream[at] = word if word >= 0 else np.int32(gap)
        i += step


@kernel("i32* i64 i64 i64 i64*", registers=32)
def count_words(
    stream,
    begin,
    end,
    size,  # V
    counts,  # (V,) zeros
):
    """Count the words in ``stream[begin:end]``."""
    i = begin + np.int64(block()) * threads() + thread()
    while i < end:
        word = stream[i]
        if word >= 0 and word < size:
            atomic_add(counts, word, _ONE)
        i += np.int64(blocks()) * threads()


@kernel("i32* i64 i64 i64 i64* i32*", registers=32)
def list_places(
    stream,
    begin,
    end,
    size,  # V
    cursors,  # (V,)
    positions,
):
    """Write where the words of ``stream[begin:end]`` stand; the places of a word are in no order."""
    i = begin + np.int64(block()) * threads() + thread()
    while i < end:
        word = stream[i]
        if word >= 0 and word < size:
            positions[atomic_add(cursors, word, _ONE)] = np.int32(i)
        i += np.int64(blocks()) * threads()
