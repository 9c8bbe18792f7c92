"""The padding of tokens whose offsets, too, are known on a GPU alone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp.ops._gpu_tokens import integers_on_gpu
from fastnlp.ops._out import buffers


def offsets_on_gpu(sequences: Any) -> bool:
    """Tell whether sequences are ``(tokens, offsets)`` whose offsets are on a GPU."""
    return isinstance(sequences, tuple) and len(sequences) == 2 and _arrays.on_device(sequences[1])


def check_shape_is_given(items: Any, length: Any, overlong: str) -> None:
    """Raise unless the shape of the result follows from what is on the host.

    Raises
    ------
    ValueError
        It does not.
    """
    if items is not None or length is None or overlong != "truncate":
        raise ValueError(
            "the offsets of sequences are on a GPU, so that nobody here knows a length: pass length= and "
            "overlong='truncate' and no items, or the offsets on the host, such as cupy.asnumpy(offsets)"
        )


def pad_by_offsets(
    kernels: ModuleType,
    sequences: tuple[Any, Any],
    length: int,
    width: int,
    at_left: bool,
    pad: int,
    names: tuple[str, str],
    dtype: np.dtype[Any],
    out: Any,
) -> tuple[Any, Any, Any]:
    """Return ids, mask and lengths of sequences, each cut to `length`, in rows of `width`."""
    tokens, offsets = (
        integers_on_gpu(f"the {what} of sequences", _arrays.read(what, x))
        for what, x in zip(("tokens", "offsets"), sequences, strict=True)
    )
    for what, x in (("tokens", tokens), ("offsets", offsets)):
        if x.ndim != 1:
            raise ValueError(f"sequences: {what} must have one axis, got shape {x.shape}")
    if not offsets.size:
        raise ValueError("sequences: offsets are empty: there must be one more than there are sequences, the first 0")
    offsets = offsets.astype(np.int64, copy=False)
    shape = (offsets.size - 1, width)
    ids, mask = buffers(out, names, (shape, shape), dtype, (tokens,), like=tokens)
    lengths = _arrays.empty(shape[0], np.int64, tokens)
    kernels.pad_tokens(tokens, offsets[:-1], offsets[1:], length, at_left, pad, ids, mask, lengths)
    return ids, mask, lengths
