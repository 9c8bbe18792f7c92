"""How the rows and classes of a linear classifier are cut, by shapes and bytes alone: chunks, blocks, segments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_WIDEST = 1024  # classes of a block
_TILE = 2 << 20  # bytes of a block of logits that no gradient is made of
_MOST_SEGMENTS = 64


class Schedule(NamedTuple):
    """How a batch is cut."""

    rows: int  # of a chunk
    width: int  # classes of a block
    segments: np.ndarray  # (S + 1,) the blocks at which segments begin


def _width(classes):
    """Return the classes of a block: enough of them for a good product, and enough blocks for all threads."""
    return min(_WIDEST, max(256, -(-classes // 16 // 64) * 64), max(1, classes))


def _row_bytes(features, classes, width, segments, item, gradients, sums, beside):
    """Bytes of a row of a chunk: gathered, its sums, and its logits and parts of dx, or its share of the tiles."""
    blocks = -(-classes // width)
    held = classes + (segments + 1) * features if gradients else segments * width
    return (features + held + beside) * item + blocks * sums * 8 + 128


def _fixed_bytes(classes, width, segments, item, gradients):
    """Bytes beside those of rows: sums of the bias gradient, and what tasks keep of one row."""
    return (8 * classes if gradients else 0) + segments * (3 * width * item + 8 * width)


def least_bytes(features, classes, item, gradients, sums, beside=0):
    """Return the least workspace that a batch can be cut for."""
    width = _width(classes)
    fixed = _fixed_bytes(classes, width, 1, item, gradients)
    return fixed + _row_bytes(features, classes, width, 1, item, gradients, sums, beside)


def schedule(n, features, classes, item, workspace, gradients, sums, beside=0):
    """Cut a batch so that it takes `workspace` bytes at most.

    Its `n` rows keep `sums` numbers a block, and `beside` elements more than logits and features.
    """
    width = _width(classes)
    blocks = -(-classes // width)
    segments = max(1, min(blocks, _MOST_SEGMENTS if gradients else 16))
    if gradients:
        segments = min(segments, max(8, classes // (6 * max(1, features))))
    while True:
        spare = workspace - _fixed_bytes(classes, width, segments, item, gradients)
        rows = spare // _row_bytes(features, classes, width, segments, item, gradients, sums, beside)
        if rows >= max(1, min(n, 64)) or segments == 1:
            break
        segments = (segments + 1) // 2
    if rows < 1:
        least = least_bytes(features, classes, item, gradients, sums, beside)
        raise ValueError(f"workspace: {workspace} bytes are fewer than the least, {least}")
    if not gradients:
        rows = min(rows, max(1, _TILE // max(1, width * item)))
    chunks = max(1, -(-n // rows))
    cuts = np.array([s * blocks // segments for s in range(segments + 1)])
    return Schedule(max(1, -(-n // chunks)), width, cuts)


def chunks(n, kept, rows):
    """Yield where the rows of each chunk stand."""
    for begin in range(0, n, rows):
        chunk = slice(begin, min(begin + rows, n))
        yield chunk if kept is None else kept[chunk]


class Weights(NamedTuple):
    """Weights (V, D) as kernels take them, whatever their strides: rows or columns are contiguous."""

    address: int
    step: int  # from one contiguous vector to the next, in elements
    transposed: bool  # columns are contiguous
    classes: int

    @classmethod
    def of(cls, array):
        """Return the weights of an array that must live on; None where there must be a copy first."""
        (rows, columns), (down, across), item = array.shape, array.strides, array.itemsize
        address = array.__array_interface__["data"][0]
        if array.flags.c_contiguous or (across == item and down >= columns * item):
            return cls(address, max(1, down // item, columns), False, rows)
        if array.flags.f_contiguous or (down == item and across >= rows * item):
            return cls(address, max(1, across // item, rows), True, rows)
        return None
