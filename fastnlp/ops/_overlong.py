"""What becomes of items that are longer than a row: the four ways of `overlong`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._shuffle import index_dtype

OVERLONG = ("error", "truncate", "split", "drop")


class Pieces(NamedTuple):
    """What is left to place: pieces of items, in the order of the items and of their tokens."""

    lengths: Array  # (N,) int32, none above the limit
    items: Array | None = None  # (N,), the item of each; None: one of each, in order
    starts: Array | None = None  # (N,) int64, the first token of each; None: 0
    n_truncated: int = 0
    n_split: int = 0
    n_dropped: int = 0


def fitted(lengths: Array, limit: int, overlong: str, *, row: str) -> Pieces:
    """Return pieces of at most `limit` tokens.

    Parameters
    ----------
    lengths
        ``(N,)`` int32.
    limit
        The most tokens that a row takes of one item.
    overlong
        One of `OVERLONG`: "truncate" keeps the first `limit` tokens, "split" cuts pieces of `limit` tokens and a rest.
    row
        What a row can hold, for the message.

    Raises
    ------
    ValueError
        An item is longer, with ``overlong="error"``.
    """
    if int(lengths.max(initial=0)) <= limit:
        return Pieces(lengths)
    longer = np.flatnonzero(lengths > limit)
    if overlong == "truncate":
        return Pieces(np.minimum(lengths, limit), n_truncated=longer.size)
    if overlong == "drop":
        kept = np.flatnonzero(lengths <= limit).astype(index_dtype(lengths.size))
        return Pieces(lengths[kept], kept, n_dropped=longer.size)
    if overlong == "split":
        return _split(lengths, limit, longer)
    first = int(longer[0])
    raise ValueError(
        f"{longer.size} of {lengths.size} lengths exceed {row}, the first at index {first} "
        f"({int(lengths[first])} tokens): raise capacity, or pass overlong='truncate', 'split' or 'drop'"
    )


def _split(lengths: Array, limit: int, longer: Array) -> Pieces:
    pieces = np.ones(lengths.size, np.int64)
    pieces[longer] = -(-lengths[longer].astype(np.int64) // limit)
    items = np.repeat(np.arange(lengths.size, dtype=index_dtype(lengths.size)), pieces)
    nth = np.arange(items.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = nth * limit
    rest = np.minimum(lengths[items] - starts, limit).astype(np.int32)
    return Pieces(rest, items, starts, n_split=longer.size)
