"""`pack_arrays`, `unpack_arrays`, `PackedArrays`.

A backend provides ``copy_stretches(x, begin, lengths, place, out)`` for tokens, ``fill_stretches(begin, lengths, value,
out)`` for padding, and ``label_segments(cu_seqlens, number, ...)`` for positions and numbers; "cuda" all in one,
``pack_tokens(x, y, segments, ...)``.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import LARGEST, flag, integer
from fastnlp._dispatch import kernels_for
from fastnlp.ops import _columns
from fastnlp.ops._gpu_tokens import integers_on_gpu, tokens_on_gpu
from fastnlp.ops._groups import pointer
from fastnlp.ops._layout import LAYOUTS, Layout, flat_layout, packed_layout
from fastnlp.ops._out import buffers, ids_dtype, token_id
from fastnlp.ops._pack_on_gpu import pack_on_gpu
from fastnlp.ops._packing import Packing
from fastnlp.ops._ragged import Ragged, ragged
from fastnlp.ops._stretches import take_stretches, take_stretches_on_gpu


class PackedArrays(NamedTuple):
    """Sequences one after another: T places, ``(T,)`` with ``layout="flat"``, ``(R, capacity)`` with "rows".

    A piece is a whole sequence, or a part of one where the packing splits sequences. Pieces come in the order of the
    packing, row by row.

    Attributes
    ----------
    input_ids
        The tokens, and `pad` where there are none.
    position_ids
        Counts from `position_start` in each piece; `position_start` where there is padding.
    sequence_ids
        1, 2, ... for the pieces, in each row anew with ``layout="rows"``; 0 where there is padding.
    labels
        The labels, `ignore_index` at the first token of each piece and where there is padding.
    cu_seqlens
        ``(segments + 1,)`` int32, where each segment begins in the T places, and T, for attention of variable length.
        Each piece is a segment, and each run of padding is one: tokens never attend to padding.
    max_seqlen
        The longest segment.
    lengths
        Tokens of each piece, ``(P,)`` int64.
    cu_seqlens_padded
        ``(P + 1,)`` int32: where each piece begins in the T places, and T. What is between the end of a piece and the
        next is padding. Context parallelism wants this together with the sums of `lengths`.
    items
        Which sequence each piece is of, ``(P,)`` int64: the packing's items; 0, 1, 2, ... where there is none.
    starts
        The first token of each piece in its sequence, ``(P,)`` int64; None: all begin at 0.
    """

    input_ids: Array
    position_ids: Array
    sequence_ids: Array
    labels: Array
    cu_seqlens: Array
    max_seqlen: int
    lengths: Array
    cu_seqlens_padded: Array
    items: Array
    starts: Array | None


def pack_arrays(
    sequences: Any,
    packing: Packing | None = None,
    *,
    items: Any = None,
    layout: str = "flat",
    pad: int = 0,
    labels: Any = None,
    ignore_index: int = -100,
    ignore_first: bool = True,
    position_start: int = 0,
    dtype: DTypeLike = np.int64,
    out: Any = None,
    backend: str | None = None,
) -> PackedArrays:
    """Lay sequences of tokens out one after another, with all that keeps a model from mixing them up.

    Parameters
    ----------
    sequences
        ``N`` sequences of integer tokens: a list of lists, arrays or CPU tensors; an array ``(N, L)``; a tuple of
        tokens ``(T,)`` and offsets ``(N + 1,)``; an Arrow list column (also sliced or chunked); a column of a Hugging
        Face dataset; a `Corpus`. Arrays of int64, int32 and uint16 are read where they are. The tokens of a 2-D array
        or of ``(tokens, offsets)`` may be on a GPU, their offsets on the host: the first five results and
        `cu_seqlens_padded` are made there, by a plan that is copied to it, and no token is checked.
    packing
        Rows of them, as `pack` gives them, or some of its rows (``packing[a:b]``). Items that the packing truncated or
        split are cut as it says, and each begins at a multiple of its ``item_multiple`` in its row. None: all
        sequences one after another, without padding.
    items
        Without a packing: ``(P,)`` indices of the sequences to take.
    layout
        "flat": one row after another without padding between. "rows": each row of the packing as one of `capacity`
        places.
    pad
        The token where there is none.
    labels
        Sequences of labels, of the same lengths, beside the tokens. None: the tokens themselves, for language models.
    ignore_index
        The label of what is not predicted.
    ignore_first
        Give the first token of each piece that label, since a causal model would predict it from another sequence.
        False for labels that belong to the tokens themselves, as in tagging.
    position_start
        The position of the first token of each piece. (RoBERTa: 2.)
    dtype
        Of the first four results: int64 or int32.
    out
        Arrays to be filled: a `PackedArrays`, or a tuple of arrays for its first four. They need at least as many
        entries as the results, which are views of their first ones; what is beyond stays as it is.
    backend
        "reference", "cpu" or "cuda"; default: by the tokens. All give the same arrays.

    Returns
    -------
    PackedArrays
        Tokens, positions, numbers, labels, and where each sequence begins.

    Raises
    ------
    TypeError
        Tokens, `items` or a numeric argument are not integers; `packing` is no `Packing`; a dtype that is not int64 or
        int32.
    ValueError
        The sequences or labels do not have the lengths that were packed; more than 2**31 - 1 places, which `cu_seqlens`
        cannot count: take fewer rows at a time; both a packing and items; ``layout="rows"`` without a packing; an index
        or an argument out of range; positions beyond int32; `out` is too small or shares memory with `sequences` or
        `labels`.

    Examples
    --------
    >>> import fastnlp
    >>> batch = fastnlp.pack_arrays([[5, 6, 7], [8, 9]])
    >>> batch.input_ids.tolist(), batch.position_ids.tolist(), batch.cu_seqlens.tolist()
    ([5, 6, 7, 8, 9], [0, 1, 2, 0, 1], [0, 3, 5])
    """
    on_gpu = tokens_on_gpu(sequences, labels)
    kernels = kernels_for("pack_arrays", backend, *on_gpu)
    if len(on_gpu) == 1 and labels is not None:
        raise TypeError("sequences and labels must both be on the GPU or both on the host: move one of them")
    dtype = ids_dtype(dtype)
    pad, ignore = token_id("pad", pad, dtype), token_id("ignore_index", ignore_index, dtype)
    position_start = integer("position_start", position_start, least=0)
    ignore_first = flag("ignore_first", ignore_first)
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(map(repr, LAYOUTS))}, got {layout!r}")
    if packing is None:
        if layout == "rows":
            raise ValueError("layout='rows' needs a packing, which has the rows: pass fastnlp.pack(lengths, capacity)")
        pieces = ragged("sequences", sequences, items)
        plan = flat_layout(pieces.lengths)
    else:
        if not isinstance(packing, Packing):
            raise TypeError(f"packing must be a Packing, as fastnlp.pack gives it, got {type(packing).__name__}")
        if items is not None:
            raise ValueError("pass either a packing, which has its items, or items")
        plan = packed_layout(packing, layout)
        pieces = plan.cut("sequences", ragged("sequences", sequences, packing.items))
    if plan.places > LARGEST:
        raise ValueError(f"{plan.places} places are more than cu_seqlens can count: take fewer rows at a time")
    given = pieces if labels is None else _labels(labels, packing, items, plan)

    longest = int(plan.lengths.max(initial=1))
    if position_start + longest - 1 > np.iinfo(dtype).max:
        raise ValueError(
            f"position_start={position_start} and a sequence of {longest} tokens make positions beyond {dtype.name}: "
            "pass dtype=np.int64"
        )
    whose = np.arange(plan.place.size) if packing is None else packing.items.astype(np.int64)
    longest = int(np.diff(plan.segments).max(initial=0))
    like = pieces.chunks[0] if on_gpu else None
    read = (*pieces.chunks, *given.chunks) if on_gpu else (*pieces.memory, *given.memory)
    filled = buffers(out, PackedArrays._fields[:4], (plan.shape,) * 4, dtype, read, like)
    if on_gpu:
        options = (pad, ignore, ignore_first, position_start)
        cu_seqlens, cu_seqlens_padded = pack_on_gpu(kernels, pieces, given, plan, options, filled)
        pointers = (cu_seqlens, longest, plan.lengths, cu_seqlens_padded)
        return _arrays.given_back(PackedArrays._make((*filled, *pointers, whose, plan.starts)))
    ids, positions, numbers, targets = (x.reshape(-1) for x in filled)
    kernels.label_segments(plan.segments, plan.number, position_start, positions, numbers)
    pieces.copy_to(ids, plan.place, kernels, "sequences")
    given.copy_to(targets, plan.place, kernels, "labels")
    if ignore_first:
        targets[plan.place[plan.lengths > 0]] = ignore
    cu_seqlens = cu_seqlens_padded = plan.segments.astype(np.int32)
    if plan.padded:
        cu_seqlens_padded = np.append(plan.place, plan.places).astype(np.int32)
        sizes = np.diff(plan.segments)
        gaps = np.flatnonzero(plan.number == 0)
        for x, value in ((ids, pad), (targets, ignore)):
            kernels.fill_stretches(plan.segments[gaps], sizes[gaps], value, x)
    return PackedArrays._make((*filled, cu_seqlens, longest, plan.lengths, cu_seqlens_padded, whose, plan.starts))


def _labels(labels: Any, packing: Packing | None, items: Any, plan: Layout) -> Ragged:
    given = ragged("labels", labels, items if packing is None else packing.items)
    if packing is not None:
        return plan.cut("labels", given)
    if len(given) != plan.lengths.size or not np.array_equal(given.lengths, plan.lengths):
        raise ValueError("labels must have the lengths of the sequences, one label a token")
    return given


def unpack_arrays(values: Any, packed: PackedArrays, *, backend: str | None = None) -> tuple[Array, Array]:
    """Take sequences out of where `pack_arrays` laid them: ids, or what a model makes of each token.

    Parameters
    ----------
    values
        ``(T, ...)`` or ``(R, capacity, ...)``, of any dtype: an entry for each place, as in ``packed.input_ids``. On a
        GPU they stay there.
    packed
        What `pack_arrays` returned.
    backend
        "reference", "cpu" or "cuda"; default: by `values`. All give the same arrays.

    Returns
    -------
    flat, offsets
        The entries of the sequences, ``(tokens, ...)`` of the dtype of `values`, and where each begins and the end,
        ``(sequences + 1,)`` int64. The sequences come in increasing order of ``packed.items``, the pieces of one
        joined: of a whole packing that left nothing out, all sequences as they were; without a packing, those taken in
        the order of `items`.

    Raises
    ------
    TypeError
        `packed` is not what `pack_arrays` returns; `values` are Python objects.
    ValueError
        `values` have another shape than ``packed.input_ids``.

    Examples
    --------
    >>> import fastnlp
    >>> batch = fastnlp.pack_arrays([[5, 6, 7], [8, 9]], fastnlp.pack([3, 2], capacity=4), layout="rows")
    >>> flat, offsets = fastnlp.unpack_arrays(batch.input_ids, batch)
    >>> flat.tolist(), offsets.tolist()
    ([5, 6, 7, 8, 9], [0, 3, 5])
    """
    on_gpu = _arrays.on_device(values)
    kernels = kernels_for("pack_arrays", backend, *((values,) if on_gpu else ()))
    x: Any = (_arrays.read if on_gpu else _columns.array)("values", values)
    if not hasattr(packed, "cu_seqlens_padded"):
        raise TypeError(f"packed must be what pack_arrays returned, got {type(packed).__name__}")
    shape = tuple(packed.input_ids.shape)
    if x.shape[: len(shape)] != shape:
        raise ValueError(f"values must have shape {(*shape, '...')}, as packed.input_ids, got {x.shape}")
    items = _columns.array("items", packed.items)
    starts = None if packed.starts is None else _columns.array("starts", packed.starts)
    order = np.argsort(items, kind="stable") if starts is None else np.lexsort((starts, items))
    lengths = _columns.integers("lengths", packed.lengths)[order]
    entries = x.reshape(prod(shape), *x.shape[len(shape) :])
    if on_gpu:
        place = _places_on_gpu(packed.cu_seqlens_padded)
        flat = take_stretches_on_gpu(kernels, entries, place, lengths, order)
    else:
        place = _columns.integers("cu_seqlens_padded", packed.cu_seqlens_padded)
        flat = take_stretches(kernels, entries, place[:-1][order], lengths)
    first = np.flatnonzero(np.diff(items[order], prepend=-1))
    return _arrays.given_back(flat), np.append(pointer(lengths)[first], flat.shape[0])


def _places_on_gpu(cu_seqlens_padded: Any) -> Any:
    """Return where pieces begin, as kernels read it: on the GPU if they were packed there, else on the host."""
    if _arrays.on_device(cu_seqlens_padded):
        return integers_on_gpu("cu_seqlens_padded", _arrays.read("cu_seqlens_padded", cu_seqlens_padded))
    return _columns.integers("cu_seqlens_padded", cu_seqlens_padded)[:-1]
