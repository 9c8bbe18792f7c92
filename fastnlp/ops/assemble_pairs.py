"""`assemble_pairs`, `PairArrays`.

A backend provides ``frame_pairs(middle, end, cls, sep, pad, ids, types, mask)`` and
``copy_stretches(x, begin, lengths, place, out)``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fastnlp._arrays import Array
from fastnlp._checks import integer
from fastnlp._dispatch import kernels_for
from fastnlp.ops._gpu_tokens import tokens_on_gpu
from fastnlp.ops._out import buffers, ids_dtype, token_id
from fastnlp.ops._ragged import Ragged, ragged

TRUNCATIONS = ("longest_first", "only_first", "only_second", "error")
SIDES = ("right", "left")
PADDINGS = ("longest", "max_length")


class PairArrays(NamedTuple):
    """A batch of pairs of sequences as rows ``[CLS] A [SEP] B [SEP]`` of one width.

    Row b has A at ``1 : 1 + lengths_a[b]``, and B, if there is one, from ``lengths_a[b] + 2`` on.

    Attributes
    ----------
    input_ids
        ``(B, S)``: special ids, tokens, and `pad` behind them.
    token_type_ids
        ``(B, S)``, of the same dtype: 1 at B and the separator behind it, else 0.
    attention_mask
        ``(B, S)``, of the same dtype: 1 at tokens and special ids, 0 at padding.
    lengths_a, lengths_b
        Tokens of A and of B that are in the row, ``(B,)`` int64; `lengths_b` is None where `b` was.
    n_dropped
        Tokens of the two that are not, ``(B,)`` int64.
    """

    input_ids: Array
    token_type_ids: Array
    attention_mask: Array
    lengths_a: Array
    lengths_b: Array | None
    n_dropped: Array


def assemble_pairs(
    a: Any,
    b: Any = None,
    *,
    items: Any = None,
    cls: int,
    sep: int,
    pad: int = 0,
    max_length: int | None = None,
    truncation: str = "longest_first",
    truncation_side: str = "right",
    padding: str = "longest",
    pad_to_multiple: int = 1,
    dtype: DTypeLike = np.int64,
    out: Any = None,
    backend: str | None = None,
) -> PairArrays:
    """Lay pairs of sequences out as BERT reads them: ``[CLS] A [SEP] B [SEP]``, with token types and mask.

    Rows, types and truncation are those of the fast tokenizers of Hugging Face with BERT's post-processor. How much of
    each sequence stays is computed from the two lengths; no token is taken off one by one.

    Parameters
    ----------
    a, b
        ``N`` sequences of token ids each, as in `pad_arrays`, without special ids; they may be empty. Without `b` the
        rows are ``[CLS] A [SEP]``.
    items
        ``(B,)`` indices of the pairs in the batch, such as ``batches[i]`` of `bucket_batches`. None: all.
    cls, sep, pad
        The ids of [CLS], [SEP] and [PAD].
    max_length
        The most places of a row, special ids included. None: no bound, nothing is cut.
    truncation
        What becomes of pairs that are longer. "longest_first": the longer sequence is cut, to no less than half of the
        room for tokens, then both to half of it; of an odd room the longer one has the larger half, and B where they
        are equally long. (BERT's own code and the slow tokenizers take tokens off B while it is not the shorter one, so
        that A then has the larger half.) "only_first", "only_second": that one is cut and must keep a token. "error":
        none is cut. With a `max_length` of the special ids alone, nothing is kept of either, whichever is to be cut.
    truncation_side
        Where a sequence is cut: "right", its end, or "left", its beginning.
    padding
        Rows are as wide as the "longest" of the batch, or as "max_length".
    pad_to_multiple
        The width is rounded up to a multiple of it. (It does not make room for more tokens.)
    dtype
        Of ids, types and mask: int64 or int32.
    out
        Arrays to be filled: a `PairArrays`, or a tuple of ids, types and mask. They need at least as many entries as
        the result, which is a view of their first ones; what is beyond stays as it is.
    backend
        "reference" or "cpu"; default: cpu. Both give the same arrays.

    Returns
    -------
    PairArrays
        ids, types and mask ``(B, S)``, and for each pair what is kept of A and of B and how many tokens are dropped.

    Raises
    ------
    TypeError
        Tokens, `items` or a numeric argument are not integers; a dtype that is not int64 or int32.
    ValueError
        A pair is too long and is not to be cut, or not where that would do; `max_length` is below the number of special
        ids; `a` and `b` are not equally many; an index or an argument is out of range; `out` is too small or
        shares memory with `a` or `b`; a token that int32 cannot hold; an unknown option.

    References
    ----------
    J. Devlin et al., "BERT: Pre-training of deep bidirectional transformers for language understanding", NAACL 2019
    (the layout). The truncation is that of Hugging Face's library `tokenizers`.

    Examples
    --------
    >>> import fastnlp
    >>> pairs = fastnlp.assemble_pairs([[5, 6, 7], [8]], [[9], [4]], cls=101, sep=102, max_length=6)
    >>> pairs.input_ids.tolist()
    [[101, 5, 6, 102, 9, 102], [101, 8, 102, 4, 102, 0]]
    >>> pairs.token_type_ids.tolist(), pairs.n_dropped.tolist()
    ([[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]], [1, 0])
    """
    kernels = kernels_for("assemble_pairs", backend, *tokens_on_gpu(a, b))
    dtype = ids_dtype(dtype)
    cls, sep, pad = (token_id(name, x, dtype) for name, x in (("cls", cls), ("sep", sep), ("pad", pad)))
    multiple = integer("pad_to_multiple", pad_to_multiple, least=1)
    for name, value, known in (
        ("truncation", truncation, TRUNCATIONS),
        ("truncation_side", truncation_side, SIDES),
        ("padding", padding, PADDINGS),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    n_special = 2 if b is None else 3
    most = None if max_length is None else _checked_room(max_length, n_special)
    if most is None and padding == "max_length":
        raise ValueError("padding='max_length' needs a max_length: give one, or pass padding='longest'")

    first = ragged("a", a, items)
    second = None if b is None else ragged("b", b, items)
    if second is not None and len(second) != len(first):
        raise ValueError(f"a has {len(first)} sequences and b {len(second)}: a pair is one of each")
    given = first.lengths if second is None else first.lengths + second.lengths
    n_dropped = np.zeros_like(given)
    if most is not None and int(given.max(initial=0)) > most - n_special:
        lengths = (first.lengths, np.zeros_like(given) if second is None else second.lengths)
        kept_first, kept_second = _kept(*lengths, most, n_special, truncation)
        first = _cut(first, kept_first, truncation_side)
        second = None if second is None else _cut(second, kept_second, truncation_side)
        n_dropped = given - kept_first - kept_second

    middle = first.lengths + 1
    end = given - n_dropped + n_special
    width = most if most is not None and padding == "max_length" else int(end.max(initial=0))
    width = -(-width // multiple) * multiple
    shape = (len(first), width)
    read = first.memory if second is None else (*first.memory, *second.memory)
    ids, types, mask = buffers(out, PairArrays._fields[:3], (shape,) * 3, dtype, read)
    kernels.frame_pairs(middle, end, cls, sep, pad, ids, types, mask)
    begin = np.arange(len(first)) * width
    first.copy_to(ids.reshape(-1), begin + 1, kernels, "a")
    if second is not None:
        second.copy_to(ids.reshape(-1), begin + middle + 1, kernels, "b")
    return PairArrays(ids, types, mask, first.lengths, None if second is None else second.lengths, n_dropped)


def _checked_room(max_length: int, n_special: int) -> int:
    most = integer("max_length", max_length, least=0)
    if most < n_special:
        layout = "[CLS] A [SEP]" if n_special == 2 else "[CLS] A [SEP] B [SEP]"
        raise ValueError(f"max_length must be at least {n_special}, the special ids of {layout}, got {most}")
    return most


def _kept(n1: Array, n2: Array, max_length: int, n_special: int, truncation: str) -> tuple[Array, Array]:
    """Return how many tokens stay of sequences of n1 and n2 tokens, so that they fit into max_length - n_special."""
    room = max_length - n_special
    over = np.maximum(n1 + n2 - room, 0)
    if truncation == "longest_first" or (room == 0 and truncation != "error"):
        shorter = np.minimum(np.minimum(n1, n2), room // 2)
        kept1 = np.where(n1 <= n2, shorter, room - shorter)
        return np.where(over, kept1, n1), np.where(over, room - kept1, n2)
    cut = {"only_first": n1, "only_second": n2, "error": np.zeros_like(n1)}[truncation]
    wrong = (over > 0) & (cut <= over)
    if np.count_nonzero(wrong):
        n = int(wrong.argmax())
        why = "" if truncation == "error" else f", and truncation={truncation!r} cannot cut enough of one"
        raise ValueError(
            f"pair {n} of the batch has {int(n1[n])} + {int(n2[n])} tokens{why}: max_length={max_length} leaves room "
            f"for {room} beside {n_special} special ids; raise max_length, or pass truncation='longest_first'"
        )
    return (n1 - over, n2) if truncation == "only_first" else (n1, n2 - over)


def _cut(sequences: Ragged, kept: Array, side: str) -> Ragged:
    """Return the first `kept` tokens of each sequence, or the last ones where it is cut at the left."""
    begin = sequences.begin if side == "right" else sequences.begin + sequences.lengths - kept
    return replace(sequences, begin=begin, lengths=kept)
