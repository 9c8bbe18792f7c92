"""`block_diagonal_mask`.

A backend provides ``block_mask(ids, causal, mask)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import LARGEST, flag
from fastnlp._dispatch import kernels_for
from fastnlp.ops import _columns


def block_diagonal_mask(
    cu_seqlens: Any = None,
    *,
    lengths: Any = None,
    sequence_ids: Any = None,
    causal: bool = False,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Return which tokens may attend to each other: those of one sequence.

    ``mask[i, j]`` is true where tokens i and j are of the same sequence, and, where it is causal, j <= i. It has the
    meaning of ``attn_mask`` in ``torch.nn.functional.scaled_dot_product_attention``. Where attention of variable length
    can be had, which takes `cu_seqlens` and no mask, that is faster: the mask has T**2 entries.

    Parameters
    ----------
    cu_seqlens
        ``(S + 1,)`` integers that rise from 0 to the number of tokens T: where each sequence begins, and the end, as in
        `PackedArrays`.
    lengths
        In its place: ``(S,)`` integers, the tokens of each sequence, one after another.
    sequence_ids
        In their place: ``(T,)`` or ``(R, C)`` integers, equal for the tokens of one sequence (of a row), as in
        `PackedArrays`. Those of padding, 0, attend to each other, so that no softmax is over nothing.
    causal
        Leave out what comes later.
    out
        A bool array for the result.
    backend
        "reference" or "cpu"; default: cpu. Both give the same mask.

    Returns
    -------
    Array
        ``(T, T)``, or ``(R, C, C)`` for `sequence_ids` of two axes, bool.

    Raises
    ------
    TypeError
        Not integers, or `causal` is not a bool.
    ValueError
        Not one of the three; `cu_seqlens` that do not begin with 0 or fall; negative lengths; ids beyond int32.

    Examples
    --------
    >>> import fastnlp
    >>> fastnlp.block_diagonal_mask(lengths=[2, 1]).astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    on_gpu = filter(_arrays.on_device, (cu_seqlens, lengths, sequence_ids))
    kernels = kernels_for("block_diagonal_mask", backend, *on_gpu)
    causal = flag("causal", causal)
    if sum(x is not None for x in (cu_seqlens, lengths, sequence_ids)) != 1:
        raise ValueError("pass one of cu_seqlens, lengths and sequence_ids")
    if sequence_ids is None:
        ids = _numbers(cu_seqlens, lengths)
    else:
        ids = _columns.array("sequence_ids", sequence_ids)
        if ids.dtype.kind not in "iu" and ids.size:
            raise TypeError(f"sequence_ids must be integers, got {ids.dtype.name}")
        if ids.ndim not in (1, 2):
            raise ValueError(f"sequence_ids must have shape (T,) or (R, C), got {ids.shape}")
        if ids.size and (int(ids.max()) > LARGEST or int(ids.min()) < -LARGEST):
            raise ValueError("sequence_ids hold a number beyond int32")
        ids = np.ascontiguousarray(ids, np.int32)
    mask = _arrays.output(out, (*ids.shape, ids.shape[-1]), np.bool_, ids)
    if not mask.flags.c_contiguous:
        raise ValueError("out must be contiguous")
    rows = _arrays.kernel_ready(ids if ids.ndim == 2 else ids[None])
    kernels.block_mask(rows, causal, mask.reshape(*rows.shape, rows.shape[1]))
    return mask


def _numbers(cu_seqlens: Any, lengths: Any) -> Array:
    """Return the number of the sequence of each token, ``(T,)`` int32."""
    if lengths is None:
        ends = _columns.integers("cu_seqlens", cu_seqlens)
        if not ends.size or ends[0] != 0:
            raise ValueError("cu_seqlens must begin with 0 and end with the number of tokens")
        sizes = np.diff(ends)
        if (sizes < 0).any():
            raise ValueError(f"cu_seqlens must not fall, as they do at index {int((sizes < 0).argmax()) + 1}")
    else:
        sizes = _columns.integers("lengths", lengths)
        if (sizes < 0).any():
            raise ValueError(f"lengths must not be negative, got {int(sizes.min())} at index {int(sizes.argmin())}")
    return np.repeat(np.arange(sizes.size, dtype=np.int32), sizes)
