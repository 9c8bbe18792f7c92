"""`pad_arrays`, `unpad_arrays`, `PaddedArrays`.

A backend provides ``pad_rows(lengths, at_left, pad, ids, mask)`` and ``copy_stretches(x, begin, lengths, place, out)``;
"cuda" both in one, ``pad_tokens(x, begin, end, most, at_left, pad, ids, mask, lengths)``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import integer
from fastnlp._dispatch import kernels_for
from fastnlp.ops import _columns
from fastnlp.ops._gpu_tokens import tokens_on_gpu
from fastnlp.ops._groups import pointer
from fastnlp.ops._out import buffers, ids_dtype, token_id
from fastnlp.ops._pad_on_gpu import check_shape_is_given, offsets_on_gpu, pad_by_offsets
from fastnlp.ops._ragged import ragged
from fastnlp.ops._stretches import take_stretches, take_stretches_on_gpu

SIDES = ("right", "left")
OVERLONG = ("error", "truncate")


class PaddedArrays(NamedTuple):
    """A batch of sequences as rows of one width.

    Attributes
    ----------
    input_ids
        ``(B, S)``: the tokens of each sequence, and `pad` beside them.
    attention_mask
        ``(B, S)``, of the same dtype: 1 at tokens, 0 at padding.
    lengths
        Tokens of each row, ``(B,)`` int64; on the host, unless the offsets of the sequences were on a GPU.
    n_truncated
        Tokens that were cut off, of all sequences; None: the offsets were on a GPU.
    """

    input_ids: Array
    attention_mask: Array
    lengths: Array
    n_truncated: int | None


def pad_arrays(
    sequences: Any,
    items: Any = None,
    *,
    length: int | None = None,
    pad: int = 0,
    pad_to_multiple: int = 1,
    side: str = "right",
    overlong: str = "error",
    dtype: DTypeLike = np.int64,
    out: Any = None,
    backend: str | None = None,
) -> PaddedArrays:
    """Lay sequences of tokens out as rows of one width, with the mask of what is real.

    Row b has the tokens of ``sequences[items[b]]`` and `pad` in the rest; its mask is 1 and 0 there.

    Parameters
    ----------
    sequences
        ``N`` sequences of integer tokens: a list of lists, arrays or CPU tensors; an array ``(N, L)``; a tuple of
        tokens ``(T,)`` and offsets ``(N + 1,)``; an Arrow list column (also sliced or chunked); a column of a Hugging
        Face dataset; a `Corpus`. Arrays of int64, int32 and uint16 are read where they are. The tokens of a 2-D array
        or of ``(tokens, offsets)`` may be on a GPU: ids and mask are made there, and no token is checked. With offsets
        on the GPU, too, give `length`, ``overlong="truncate"`` and no `items`: then nothing waits for them.
    items
        ``(B,)`` indices of the sequences in the batch, such as ``batches[i]`` of `bucket_batches`. None: all.
    length
        The width of the rows. None: that of the longest sequence.
    pad
        The token that fills a row up.
    pad_to_multiple
        The width is rounded up to a multiple of it.
    side
        Where padding goes: "right" or "left" of the tokens.
    overlong
        What becomes of sequences longer than `length`: "error", or "truncate", which keeps their first `length` tokens
        whatever the `side`, and counts the others. (`pad_to_multiple` does not make room for more tokens.)
    dtype
        Of ids and mask: int64 or int32.
    out
        Arrays to be filled: a `PaddedArrays`, or a tuple of ids and mask. They need at least as many entries as the
        result, which is a view of their first ones; what is beyond stays as it is.
    backend
        "reference", "cpu" or "cuda"; default: by the tokens. All give the same arrays.

    Returns
    -------
    PaddedArrays
        ids and mask ``(B, S)``, the lengths ``(B,)``, and the number of tokens cut off.

    Raises
    ------
    TypeError
        Tokens, `items` or a numeric argument are not integers; a dtype that is not int64 or int32.
    ValueError
        A sequence is longer than `length` with ``overlong="error"``; an index or an argument is out of range; `out` is
        too small or shares memory with `sequences`; a token that int32 cannot hold; an unknown option.

    Examples
    --------
    >>> import fastnlp
    >>> batch = fastnlp.pad_arrays([[5, 6, 7], [8]])
    >>> batch.input_ids.tolist(), batch.attention_mask.tolist()
    ([[5, 6, 7], [8, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    """
    on_gpu = tokens_on_gpu(sequences)
    kernels = kernels_for("pad_arrays", backend, *on_gpu)
    dtype = ids_dtype(dtype)
    pad = token_id("pad", pad, dtype)
    multiple = integer("pad_to_multiple", pad_to_multiple, least=1)
    width = None if length is None else integer("length", length, least=0)
    for name, value, known in (("side", side, SIDES), ("overlong", overlong, OVERLONG)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    names = ("input_ids", "attention_mask")
    if on_gpu and offsets_on_gpu(sequences):
        check_shape_is_given(items, width, overlong)
        assert width is not None
        most, width = width, -(-width // multiple) * multiple
        return _arrays.given_back(
            PaddedArrays(*pad_by_offsets(kernels, sequences, most, width, side == "left", pad, names, dtype, out), None)
        )
    batch = ragged("sequences", sequences, items)

    longest = int(batch.lengths.max(initial=0))
    n_truncated = 0
    if width is None:
        width = longest
    elif longest > width:
        lengths = np.minimum(batch.lengths, width)
        n_truncated = int((batch.lengths - lengths).sum())
        if overlong == "error":
            first = int(np.argmax(batch.lengths > width))
            raise ValueError(
                f"sequence {first} of the batch has {int(batch.lengths[first])} tokens, more than length={width}: "
                "raise length, or pass overlong='truncate'"
            )
        batch = replace(batch, lengths=lengths)
    width = -(-width // multiple) * multiple

    shape = (len(batch), width)
    if on_gpu:
        tokens: Any = batch.chunks[0]
        ids, mask = buffers(out, names, (shape, shape), dtype, (tokens,), like=tokens)
        bounds = tokens.library.upload(np.stack([batch.begin, batch.begin + batch.lengths]))
        kernels.pad_tokens(tokens, bounds[0], bounds[1], width, side == "left", pad, ids, mask, None)
        return _arrays.given_back(PaddedArrays(ids, mask, batch.lengths, n_truncated))
    ids, mask = buffers(out, names, (shape, shape), dtype, batch.memory)
    kernels.pad_rows(batch.lengths, side == "left", pad, ids, mask)
    place = np.arange(len(batch)) * width
    if side == "left":
        place += width - batch.lengths
    batch.copy_to(ids.reshape(-1), place, kernels, "sequences")
    return PaddedArrays(ids, mask, batch.lengths, n_truncated)


def unpad_arrays(
    values: Any, lengths: Any = None, *, mask: Any = None, side: str = "right", backend: str | None = None
) -> tuple[Array, Array]:
    """Take the padding out of rows: the inverse of `pad_arrays`, for ids and for what a model makes of them.

    Parameters
    ----------
    values
        ``(B, S, ...)``, of any dtype: ids, hidden states; on a GPU they stay there.
    lengths
        ``(B,)`` integers, the real entries of each row; on the host, as is `mask`, since the shape follows from them.
    mask
        In the place of `lengths`: ``(B, S)``, true or not 0 at the entries to keep, wherever they are.
    side
        With `lengths`: where the padding is, "right" or "left".
    backend
        "reference", "cpu" or "cuda"; default: by `values`. All give the same arrays.

    Returns
    -------
    flat, offsets
        The real entries row by row, ``(T, ...)`` of the dtype of `values`, and where each row begins among them and the
        end, ``(B + 1,)`` int64, on the host.

    Raises
    ------
    TypeError
        `lengths` are not integers, `mask` holds no numbers, or one is on a GPU; `values` have no dtype of a fixed size.
    ValueError
        Not one of `lengths` and `mask`, or of other shapes than `values`; a length outside ``[0, S]``.

    Examples
    --------
    >>> import fastnlp
    >>> flat, offsets = fastnlp.unpad_arrays([[5, 6, 7], [8, 0, 0]], [3, 1])
    >>> flat.tolist(), offsets.tolist()
    ([5, 6, 7, 8], [0, 3, 4])
    """
    on_gpu = _arrays.on_device(values)
    kernels = kernels_for("pad_arrays", backend, *((values,) if on_gpu else ()))
    x: Any = (_arrays.read if on_gpu else _columns.array)("values", values)
    if x.ndim < 2:
        raise ValueError(f"values must have shape (B, S, ...), got {x.shape}")
    if side not in SIDES:
        raise ValueError(f"side must be one of {', '.join(map(repr, SIDES))}, got {side!r}")
    if (lengths is None) == (mask is None):
        raise ValueError("pass either lengths or mask, which say what is padding")
    if _arrays.on_device(lengths) or _arrays.on_device(mask):
        raise TypeError(
            "lengths or mask are on a GPU, but the shape of the result follows from them: pass them on the host, such "
            "as cupy.asnumpy(lengths)"
        )
    take = take_stretches_on_gpu if on_gpu else take_stretches
    rows, width = x.shape[:2]
    if mask is None:
        sizes = _columns.integers("lengths", lengths)
        if sizes.shape != (rows,) or (sizes.size and (sizes.min() < 0 or sizes.max() > width)):
            raise ValueError(f"lengths must be {rows} integers in [0, {width}], for values of shape {x.shape}")
        begin = np.arange(rows) * width
        if side == "left":
            begin += width - sizes
        flat = take(kernels, x.reshape(rows * width, *x.shape[2:]), begin, sizes)
        return _arrays.given_back(flat), pointer(sizes)
    kept = _columns.array("mask", mask)
    if kept.shape != (rows, width):
        raise ValueError(f"mask must have shape {(rows, width)}, got {kept.shape}")
    if kept.dtype.kind not in "biuf":
        raise TypeError(f"mask must be booleans or numbers, got {kept.dtype.name}")
    kept = kept != 0
    edges = np.flatnonzero(np.diff(kept.reshape(-1), prepend=False, append=False))
    flat = take(kernels, x.reshape(rows * width, *x.shape[2:]), edges[::2], edges[1::2] - edges[::2])
    return _arrays.given_back(flat), pointer(np.count_nonzero(kept, axis=1))
