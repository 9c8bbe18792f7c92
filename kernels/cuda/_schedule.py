"""How rows are laid over the device."""

from __future__ import annotations

_THREADS_A_PROCESSOR = 2048
_ELEMENTS_A_THREAD = 16


def grid(library, n, classes, most):
    """Return blocks and threads for n rows of `classes`: one block a row at a time, as many blocks as are resident.

    A block has threads for 16 classes each, from one warp to `most`. With the largest blocks a multiprocessor holds
    one or two rows, so that a row of 128,000 classes is still in the second-level cache when it is read again.
    """
    threads = 32
    while threads < most and threads * _ELEMENTS_A_THREAD < classes:
        threads *= 2
    resident = 1 if threads == 1024 else _THREADS_A_PROCESSOR // threads // 2
    return min(n, library.processors * max(1, resident)), threads


def whole(*arrays):
    """Return how many classes of a row can be read eight at a time: 0 if one of `arrays` (N, V) is not aligned.

    The only row of an array, such as a bias, is if it begins so, whatever its length.
    """
    given = [x for x in arrays if x is not None]
    aligned = all(x.address % 16 == 0 and (len(x) == 1 or x.pitch * x.itemsize % 16 == 0) for x in given)
    return given[0].shape[1] // 8 * 8 if aligned else 0


def spread(library, n, threads):
    """Return how many blocks of `threads` take n items, a thread an item at a time."""
    return max(1, min(-(-n // threads), library.processors * (_THREADS_A_PROCESSOR // threads)))
