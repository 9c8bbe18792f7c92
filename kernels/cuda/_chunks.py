"""Rows of logits a chunk at a time, over all classes: the frame of the losses of linear classifiers.

For each chunk of R rows cuBLAS writes the logits, a row kernel turns them into their gradient in place, and cuBLAS
multiplies that with the weights and with the rows:

    z = x W' + b (R, V)      dx = dz W (R, D)      dW += dz' x (V, D), in float32      db += sum_n dz_n

Each chunk reads and writes all of dW, 8 V D bytes, beside 6 R V D operations, so a chunk of a thousand rows or more
keeps the products bound by arithmetic: less is taken only if the caller says so.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda import linear
from fastnlp.kernels.cuda._schedule import spread
from fastnlp.kernels.cuda.prims import block, blocks, kernel, load1, load8, store1, store8, thread, threads

_TILE = 128  # rows of a tile of cuBLAS


def pitch(classes, itemsize):
    """Return the elements from one row of logits to the next, so that each row starts at 16 bytes."""
    return -(-classes * itemsize // 16) * 16 // itemsize


def rows_a_chunk(n, bytes_a_row, workspace):
    """Return how many of n rows go through a buffer at a time: chunks of nearly equal size, in whole tiles."""
    most = max(1, workspace // bytes_a_row)
    if n <= most:
        return max(1, n)
    equal = -(-n // -(-n // most))
    tiles = -(-equal // _TILE) * _TILE
    return tiles if tiles <= most else equal


def buffer(x, rows, classes):
    """Allocate rows of logits in the dtype of x."""
    return x.library.empty((rows, pitch(classes, x.itemsize)), x.dtype)[:, :classes]


def spans(n, rows):
    """Yield where chunks begin and end."""
    for begin in range(0, n, rows):
        yield begin, min(begin + rows, n)


def products(dz, xs, weight, dx, dweight, dbias, first):
    """Carry the gradient of a chunk's logits on to its rows' dx, and to dweight and dbias; None is left out."""
    library = dz.library
    if dx is not None:
        library.matmul(dz, weight, dx)
    if dweight is not None:
        library.matmul(dz.T, xs, dweight, accumulate=not first)
    if dbias is not None:
        linear.add_columns(dz, dbias, accumulate=not first)


def put(source, index, out):  # (K, D) or (K,), (K,), (N, D) or (N,)
    """out[index] = source: rows that were gathered go back to where they stood."""
    k = len(index)
    width = source.shape[1] if source.ndim == 2 else 1
    if source.dtype == np.int64:
        source.library.launch(put_integers, spread(source.library, k, 256), 256, source, index, k, out)
        return
    aligned = source.address % 16 == 0 == out.address % 16 and width % 8 == 0
    blocks = min(k, 8 * source.library.processors)
    source.library.launch(put_rows, blocks, 128, source, index, k, width, width if aligned else 0, out)


@kernel("f32* i64* i64 i64 i64 f32*", threads=128, loads=2, stores=2)
def put_rows(source, index, k, width, whole, out):
    """Write row j of the source to row index[j]."""
    j = block()
    while j < k:
        of, to = np.int64(j) * width, index[j] * width
        i = np.int64(thread()) * 8
        while i < whole:
            store8(out, to + i, load8(source, of + i))
            i += threads() * 8
        i = whole + thread()
        while i < width:
            store1(out, to + i, load1(source, of + i))
            i += threads()
        j += blocks()


@kernel("i64* i64* i64 i64*", threads=256)
def put_integers(source, index, k, out):
    """Write number j of the source to place index[j]."""
    j = np.int64(block()) * threads() + thread()
    while j < k:
        out[index[j]] = source[j]
        j += np.int64(blocks()) * threads()
