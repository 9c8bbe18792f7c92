"""The packing of tokens that are on a GPU, by a layout that is on the host."""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp.ops._groups import pointer
from fastnlp.ops._layout import Layout
from fastnlp.ops._ragged import Ragged


def pack_on_gpu(
    kernels: ModuleType,
    pieces: Ragged,
    labels: Ragged,
    plan: Layout,
    options: tuple[int, int, bool, int],
    filled: tuple[Any, ...],
) -> tuple[Any, Any]:
    """Fill tokens, positions, numbers and labels; return cu_seqlens and cu_seqlens_padded: one copy, one kernel.

    `options` are the token for padding, the label that is ignored, whether the first label of a piece is, and the first
    position.
    """
    x: Any = pieces.chunks[0]
    y: Any = labels.chunks[0]
    if x.dtype != y.dtype:
        x, y = x.astype(np.int64, copy=False), y.astype(np.int64, copy=False)
    real, n = plan.number > 0, plan.number.size
    sources = np.zeros((2, n), np.int64)
    sources[:, real] = pieces.begin, labels.begin
    places = np.append(plan.place, plan.places) if plan.padded else plan.place[:0]
    host = x.library.upload(np.concatenate([plan.segments, plan.number, *sources, places]))
    parts = [host[a:b] for a, b in pairwise(pointer(np.array([n + 1, n, n, n, places.size])).tolist())]
    cu_seqlens = padded = _arrays.empty(n + 1, np.int32, x)
    place = None
    if plan.padded:
        place, padded = parts[4], _arrays.empty(places.size, np.int32, x)
    flat = tuple(a.reshape(-1) for a in filled)
    kernels.pack_tokens(x, y, parts[:4], *options, flat, cu_seqlens, place, padded)
    return cu_seqlens, padded
