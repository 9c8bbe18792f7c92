"""Where sequences begin and end among vectors: padded, or one after another."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array


def sequence_bounds(kernels: ModuleType, x: Array, lengths: Any, cu_seqlens: Any) -> tuple[Array, Array]:
    """Return the first row of each sequence of `x`, with the end, ``(N + 1,)``, and the row behind its last one.

    On a GPU they are there, too. Lengths on the host are checked as on the CPU; of those that are on the GPU nothing is
    known here, and the kernels keep what they make of them within the rows.

    Raises
    ------
    TypeError
        `lengths` or `cu_seqlens` are not integers.
    ValueError
        They do not fit `x`, or a sequence is empty.
    """
    shape, values = x.shape, lengths if cu_seqlens is None else cu_seqlens
    if cu_seqlens is None:
        _check_padded(shape, lengths)
    else:
        _check_packed(shape, lengths)
    if _arrays.on_device(values):
        given = _on_gpu("lengths" if cu_seqlens is None else "cu_seqlens", values)
        if cu_seqlens is None:
            _check_count(given.size, shape[0])
    elif cu_seqlens is None:
        given = None if lengths is None else _lengths(lengths, shape)
    else:
        given = _pointer(cu_seqlens, shape[-2])
    if _arrays.on_device(x):
        return _bounds_on_gpu(kernels, x, given, padded=cu_seqlens is None)
    if cu_seqlens is not None:
        assert given is not None
        return given, given[1:]
    begin = np.arange(shape[0] + 1) * shape[1]
    return begin, begin[1:] if given is None else begin[:-1] + given


def _check_padded(shape: tuple[int, ...], lengths: Any) -> None:
    if len(shape) != 3:
        raise ValueError(
            f"hidden must have shape (B, S, D), got {shape}: for sequences one after another, (T, D), give cu_seqlens"
        )
    if lengths is None and shape[0] and not shape[1]:
        raise ValueError(_empty(0))


def _check_packed(shape: tuple[int, ...], lengths: Any) -> None:
    if lengths is not None:
        raise ValueError("lengths and cu_seqlens tell the same in two ways: give one of them")
    if len(shape) != 2 and not (len(shape) == 3 and shape[0] == 1):
        raise ValueError(f"hidden must have shape (T, D) or (1, T, D) with cu_seqlens, got {shape}")


def _check_count(n: int, batch: int) -> None:
    if n != batch:
        raise ValueError(f"lengths must have an entry for each of the {batch} sequences of hidden, got {n}")


def _lengths(lengths: Any, shape: tuple[int, ...]) -> Array:
    """Return lengths that are on the host, once they fit ``(B, S, D)``."""
    batch, steps, _ = shape
    counts = _arrays.integers("lengths", lengths)
    _check_count(counts.size, batch)
    wrong = (counts < 1) | (counts > steps)
    if np.count_nonzero(wrong):
        n = int(wrong.argmax())
        if counts[n] == 0:
            raise ValueError(_empty(n))
        raise ValueError(
            f"lengths holds {int(counts[n])} for sequence {n}, but hidden has room for 1 to {steps} vectors"
        )
    return counts


def _pointer(cu_seqlens: Any, total: int) -> Array:
    """Return a `cu_seqlens` that is on the host, once it rises from 0 to `total`."""
    ptr = _arrays.kernel_ready(_arrays.integers("cu_seqlens", cu_seqlens))
    if not ptr.size or ptr[0] != 0 or ptr[-1] != total:
        ends = f"from {int(ptr[0])} to {int(ptr[-1])}" if ptr.size else "no entries"
        raise ValueError(f"cu_seqlens must go from 0 to the {total} vectors of hidden, got {ends}")
    wrong = ptr[1:] <= ptr[:-1]
    if np.count_nonzero(wrong):
        n = int(wrong.argmax())
        if ptr[n] == ptr[n + 1]:
            raise ValueError(_empty(n))
        raise ValueError(f"cu_seqlens falls from {int(ptr[n])} to {int(ptr[n + 1])} at sequence {n}: it must rise")
    return ptr


def _on_gpu(name: str, values: Any) -> Any:
    """Return integers that are on a GPU as int64, their values unknown."""
    array = _arrays.read(name, values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype.name}: convert them with .astype(np.int64)")
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}")
    if not array.size and name == "cu_seqlens":
        raise ValueError("cu_seqlens has no entries: it must go from 0 to the number of vectors")
    return _arrays.kernel_ready(array.astype(np.int64, copy=False))


def _bounds_on_gpu(kernels: ModuleType, x: Any, given: Any, *, padded: bool) -> tuple[Any, Any]:
    if given is not None and not _arrays.on_device(given):
        given = x.library.upload(given)
    n = x.shape[0] if padded else given.size - 1
    begin, end = _arrays.empty(n + 1, np.int64, x), _arrays.empty(n, np.int64, x)
    if padded:
        kernels.padded(given, x.shape[1], begin, end)
    else:
        kernels.packed(given, x.shape[-2], begin, end)
    return begin, end


def _empty(n: int) -> str:
    return f"sequence {n} is empty, so there is nothing to pool: leave empty sequences out"
