"""A random order: places by the increasing hash of their number (the hash: ``reference/_shuffle.py``).

Schedule: hashes are evenly spread, so their upper bits cut the places into buckets of about 2,048, by counting; then
each bucket, which stays in the nearest cache, is sorted by the next bits, by counting, and by insertion where two or
three fall together. Hashes are computed three times: that is cheaper than to keep them.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part

_ITEMS_A_CHUNK = 1 << 17
_ITEMS_A_BUCKET = 1 << 11
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_BITS = np.uint64(11)  # by which a bucket is sorted


def order_by_hash(stream, order):  # uint64, (N,)
    """Write 0 .. N - 1 by increasing hash; hashes are distinct."""
    n = order.size
    bits = max(0, (n - 1).bit_length() - 11)
    chunk = max(_ITEMS_A_CHUNK, 4 << bits)
    counts = np.zeros((-(-n // chunk), 1 << bits), np.int64)
    run(_count, n, stream, np.uint64(bits), chunk, counts, grain=chunk)
    ends = np.cumsum(counts.T).reshape(counts.shape[::-1]).T
    run(_scatter, n, stream, np.uint64(bits), chunk, np.ascontiguousarray(ends - counts), order, grain=chunk)
    run(_sort, 1 << bits, stream, np.uint64(bits), np.append(0, ends[-1]), order, grain=32)


@kernel_part
def _hash(stream, i):
    z = stream + np.uint64(i + 1) * _STEP
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@kernel_part
def _bucket(hashed, bits):
    """Return the upper `bits` of a hash; a shift by all 64 would be undefined."""
    return np.int64((hashed >> np.uint64(1)) >> (np.uint64(63) - bits))


@jit("(int64, int64, uint64, uint64, int64, int64[:, ::1])")
def _count(begin, end, stream, bits, chunk, counts):
    mine = counts[begin // chunk]
    for i in range(begin, end):
        mine[_bucket(_hash(stream, i), bits)] += 1


@jit("(int64, int64, uint64, uint64, int64, int64[:, ::1], {i}[::1])")
def _scatter(begin, end, stream, bits, chunk, places, order):
    place = places[begin // chunk]
    for i in range(begin, end):
        bucket = _bucket(_hash(stream, i), bits)
        order[place[bucket]] = i
        place[bucket] += 1


@jit("(int64, int64, uint64, uint64, int64[::1], {i}[::1])")
def _sort(begin, end, stream, bits, bucket_ptr, order):
    most = 0
    for b in range(begin, end):
        most = max(most, bucket_ptr[b + 1] - bucket_ptr[b])
    hashes, sorted_hashes = np.empty(most, np.uint64), np.empty(most, np.uint64)
    items = np.empty(most, np.int64)
    places = np.empty((np.int64(1) << np.int64(_BITS)) + 1, np.int64)
    for b in range(begin, end):
        mine = order[bucket_ptr[b] : bucket_ptr[b + 1]]
        places[:] = 0
        for j in range(mine.size):
            hashed = _hash(stream, mine[j]) << bits
            hashes[j] = hashed
            places[_bucket(hashed, _BITS) + 1] += 1
        for k in range(1, places.size):
            places[k] += places[k - 1]
        for j in range(mine.size):
            k = _bucket(hashes[j], _BITS)
            sorted_hashes[places[k]] = hashes[j]
            items[places[k]] = mine[j]
            places[k] += 1
        for j in range(mine.size):
            hashed, item = sorted_hashes[j], items[j]
            k = j
            while k > 0 and sorted_hashes[k - 1] > hashed:
                sorted_hashes[k] = sorted_hashes[k - 1]
                mine[k] = mine[k - 1]
                k -= 1
            sorted_hashes[k] = hashed
            mine[k] = item
