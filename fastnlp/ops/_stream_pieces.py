"""`StreamRow`, and `StreamPieces`: what a stream's items are cut to, with their positions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._overlong import Pieces


class StreamRow(NamedTuple):
    """A row that is complete.

    Attributes
    ----------
    items
        Positions in the stream, ``(K,)`` int64, increasing.
    starts
        The first token of each item's piece, ``(K,)`` int64, with ``overlong="split"``; else None.
    """

    items: Array
    starts: Array | None


class StreamPieces(NamedTuple):
    """Pieces of items in the order of the stream."""

    positions: Array  # (N,) int64, of their items
    starts: Array  # (N,) int64, the first token of each
    lengths: Array  # (N,) int64; -1 for an item that is left out

    @classmethod
    def none(cls) -> StreamPieces:
        """Return no pieces."""
        return cls(*np.empty((3, 0), np.int64))

    @classmethod
    def of(cls, fit: Pieces, first: int, n: int) -> StreamPieces:
        """Return the pieces of n items, the one at index 0 at position `first`; of one that was dropped as well."""
        items, lengths = fit.items, fit.lengths.astype(np.int64)
        if items is not None and fit.n_dropped:
            lengths = np.full(n, -1)
            lengths[items], items = fit.lengths, None
        positions = first + (np.arange(n) if items is None else items)
        return cls(positions, np.zeros_like(lengths) if fit.starts is None else fit.starts, lengths)

    def take(self, chosen: Array) -> StreamPieces:
        """Return these pieces, in that order."""
        return StreamPieces(*(x[chosen] for x in self))

    def then(self, more: StreamPieces) -> StreamPieces:
        """Return these pieces and `more` after them."""
        return StreamPieces(*(np.concatenate(pair) for pair in zip(self, more, strict=True)))

    def rows(self, ends: Array, *, with_starts: bool) -> list[StreamRow]:
        """Return the rows of which row i is ``ends[i]`` to ``ends[i + 1]``."""
        return [
            StreamRow(self.positions[begin:end], self.starts[begin:end] if with_starts else None)
            for begin, end in pairwise(ends.tolist())
        ]

    def to_lists(self) -> dict[str, list[int]]:
        """Return the arrays by their names, as lists."""
        return {name: x.tolist() for name, x in self._asdict().items()}

    @classmethod
    def from_lists(cls, lists: Mapping[str, Any], *, limit: int, end: int) -> StreamPieces:
        """Return what `to_lists` wrote, of items before position `end` with at most `limit` tokens.

        Raises
        ------
        ValueError
            It is something else.
        """
        try:
            pieces = cls(*(np.array(lists[name], np.int64) for name in cls._fields))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"state is damaged: it does not tell what is held ({error!r})") from error
        positions, starts, lengths = pieces
        sound = positions.ndim == 1 and positions.shape == starts.shape == lengths.shape
        if sound and positions.size:
            rise = bool((np.diff(positions) >= 0).all())
            inside = positions[0] >= 0 and positions[-1] < end and starts.min() >= 0
            sound = rise and inside and 0 <= lengths.min() <= lengths.max() <= limit
        if not sound:
            raise ValueError("state is damaged: what it holds is nothing that a packer of these settings can hold")
        return pieces
