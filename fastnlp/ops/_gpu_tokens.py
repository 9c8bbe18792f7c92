"""Tokens that are on a GPU: which they are, and what is known of them on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnlp import _arrays


def tokens_on_gpu(*several: Any) -> tuple[Any, ...]:
    """Return the tokens of sequences that are on a GPU, given as ``(tokens, offsets)`` or as an array ``(N, L)``."""
    tokens = (x[0] if isinstance(x, tuple) and x else x for x in several)
    return tuple(x for x in tokens if _arrays.on_device(x))


def flat_on_gpu(name: str, rows: Any) -> tuple[Any, int, int]:
    """Return the tokens of an array ``(N, L)`` one row after another, N and L.

    Raises
    ------
    ValueError
        Another number of axes.
    """
    x: Any = _arrays.read(name, rows)
    if x.ndim != 2:
        raise ValueError(f"{name} has shape {x.shape}: pass an array of shape (N, L), or (tokens, offsets)")
    return x.reshape(-1), *x.shape


def integers_on_gpu(name: str, tokens: Any) -> Any:
    """Return tokens as kernels read them: int64 or int32, in C order. Their values are not looked at.

    Raises
    ------
    TypeError
        They are not integers.
    """
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {tokens.dtype.name}: convert them with .astype(np.int64)")
    if tokens.dtype in (np.int64, np.int32):
        return _arrays.kernel_ready(tokens)
    return tokens.astype(np.int32 if tokens.itemsize < 4 else np.int64)
