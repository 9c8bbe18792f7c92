"""Random orders: items by the increasing hash of their number (the hash: ``reference/_shuffle.py``).

Schedule: hashes are evenly spread, so their upper bits cut a long stretch of items into buckets of a few thousand, by
counting. A bucket stays in the nearest cache while it is sorted by the next bits, by counting, and by insertion where
a few fall together.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part

_ITEMS_A_TASK = 1 << 16
_ITEMS_A_CHUNK = 1 << 17
_BUCKET_BITS = 11
_BUCKET = 1 << _BUCKET_BITS  # items, at most, that are not cut into buckets
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def order_by_hash(stream, order):  # uint64, (N,)
    """Write 0 .. N - 1 by increasing hash; hashes are distinct."""
    n = order.size
    bits = max(0, (n - 1).bit_length() - _BUCKET_BITS)
    chunk = max(_ITEMS_A_CHUNK, 4 << bits)
    counts = np.zeros((max(1, -(-n // chunk)), 1 << bits), np.int64)
    run(_count, n, stream, bits, chunk, counts, grain=chunk)
    ends = np.cumsum(counts.T).reshape(counts.shape[::-1]).T
    run(_scatter, n, stream, bits, chunk, np.ascontiguousarray(ends - counts), order, grain=chunk)
    ptr = np.append(0, ends[-1])
    run(_sort_stretches, 1 << bits, stream, bits, ptr, order, grain=_ITEMS_A_TASK // _BUCKET)


def shuffle_runs(stream, run_ptr, order):  # uint64, (R + 1,), (N,)
    """Sort the items of each run, order[run_ptr[r] : run_ptr[r + 1]], by increasing hash."""
    runs = run_ptr.size - 1
    grain = max(1, _ITEMS_A_TASK * runs // max(1, order.size))
    run(_sort_stretches, runs, stream, 0, run_ptr, order, grain=grain)


@kernel_part
def _hash(stream, i):
    z = stream + (np.uint64(i) + np.uint64(1)) * _STEP
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@kernel_part
def _upper(hashed, bits):
    """Return the upper bits of a hash; a shift by all 64 at once would be undefined."""
    return (hashed >> np.uint64(1)) >> np.uint64(63 - bits)


@jit("(int64, int64, uint64, int64, int64, int64[:, ::1])")
def _count(begin, end, stream, bits, chunk, counts):
    mine = counts[begin // chunk]
    for i in range(np.uint64(begin), np.uint64(end)):
        mine[_upper(_hash(stream, i), bits)] += 1


@jit("(int64, int64, uint64, int64, int64, int64[:, ::1], {i}[::1])")
def _scatter(begin, end, stream, bits, chunk, places, order):
    place = places[begin // chunk]
    for i in range(np.uint64(begin), np.uint64(end)):
        bucket = _upper(_hash(stream, i), bits)
        order[np.uint64(place[bucket])] = i
        place[bucket] += 1


@jit("(int64, int64, uint64, int64, int64[::1], {i}[::1])")
def _sort_stretches(begin, end, stream, skipped, ptr, order):
    """Sort stretches of items by their hashes, whose upper `skipped` bits are alike in each."""
    longest = np.int64(1)
    for r in range(begin, end):
        longest = max(longest, ptr[r + 1] - ptr[r])
    hashes, items = np.empty((2, longest), np.uint64), np.empty(longest, order.dtype)
    ends, places = np.empty(2 * longest, np.int64), np.empty(2 * longest, np.int64)
    for r in range(begin, end):
        low, high = ptr[r], ptr[r + 1]
        bits = np.int64(0)
        while high - low > 2 * _BUCKET << bits:
            bits += 1
        ends[0] = high - low
        if bits:
            _count_sort(stream, skipped, bits, order, low, high, hashes, items, ends)
            for j in range(high - low):
                order[low + j] = items[j]
        first = low
        for b in range(1 << bits):
            _sort_bucket(stream, skipped + bits, order, first, low + ends[b], hashes, items, places)
            first = low + ends[b]


@kernel_part
def _sort_bucket(stream, skipped, order, low, high, hashes, items, places):
    bits = np.int64(0)
    while high - low > 1 << bits:
        bits += 1
    _count_sort(stream, skipped, bits, order, low, high, hashes, items, places)
    zero, one, first = np.uint64(0), np.uint64(1), np.uint64(low)
    for j in range(np.uint64(high - low)):
        hashed, item = hashes[one, j], items[j]
        k = np.uint64(j)
        while k > zero and hashes[one, k - one] > hashed:
            hashes[one, k] = hashes[one, k - one]
            order[first + k] = order[first + k - one]
            k -= one
        hashes[one, k] = hashed
        order[first + k] = item


@kernel_part
def _count_sort(stream, skipped, bits, order, low, high, hashes, items, places):
    """Sort by `bits` bits of the hashes: order[low:high] to `items`, hashes to hashes[1]; places[b] = where b ends."""
    zero, one, first, skip = np.uint64(0), np.uint64(1), np.uint64(low), np.uint64(skipped)
    for b in range(1 << bits):
        places[b] = 0
    for j in range(np.uint64(high - low)):
        hashed = _hash(stream, order[first + j])
        hashes[zero, j] = hashed
        places[_upper(hashed << skip, bits)] += 1
    total = np.int64(0)
    for b in range(1 << bits):
        total += places[b]
        places[b] = total - places[b]
    for j in range(np.uint64(high - low)):
        hashed = hashes[zero, j]
        bucket = _upper(hashed << skip, bits)
        place = np.uint64(places[bucket])
        hashes[one, place], items[place] = hashed, order[first + j]
        places[bucket] += 1
