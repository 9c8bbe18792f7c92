"""`Packing`: what `pack` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._groups import IndexGroups, share, sums


@dataclass(frozen=True, eq=False, repr=False)
class Packing(IndexGroups):
    """Rows of item indices; ``packing[i]`` are the items of row i, ``len(packing)`` the number of rows.

    A placed item, or piece of one, covers the tokens ``[start, start + length)`` of its item, where `length` is its
    entry in `lengths` and `start` that in `starts`, or 0 where there are none.

    Attributes
    ----------
    row_ptr
        ``(rows + 1,)`` int64; row i is ``items[row_ptr[i] : row_ptr[i + 1]]``.
    items
        ``(M,)``, indices into the lengths that were packed, row by row: int32, or int64 from 2**31 items on.
    lengths
        ``(M,)`` int32, the tokens of each of these in its row.
    starts
        ``(M,)`` int64, the first token of each; None where nothing was split.
    row_tokens
        Tokens in each row, ``(rows,)`` int64.
    row_squares
        The sum of their squared lengths, which attention costs, ``(rows,)`` int64.
    capacity
        Tokens that a row can hold.
    item_multiple
        Each length counts in its row as the next multiple of this.
    lower_bound
        No packing of these items, whatever the algorithm, has fewer rows.
    n_truncated, n_split, n_dropped
        Items too long for a row that were cut to the longest length that fits, cut into pieces, or left out.
    seed, epoch
        What the shuffle was drawn from; a seed of None: there was no shuffle.
    """

    _unit: ClassVar[str] = "rows"
    _ptr_field: ClassVar[str] = "row_ptr"
    _per_item: ClassVar[tuple[str, ...]] = ("items", "lengths", "starts")

    row_ptr: Array
    items: Array
    lengths: Array
    starts: Array | None
    row_tokens: Array
    row_squares: Array
    capacity: int
    item_multiple: int
    lower_bound: int
    n_truncated: int
    n_split: int
    n_dropped: int
    seed: int | None = None
    epoch: int = 0

    @property
    def efficiency(self) -> float:
        """Tokens in the rows divided by ``rows * capacity``; 1.0 where there are no rows."""
        return share(int(self.row_tokens.sum()), len(self) * self.capacity)

    def _regroup(self, group: Array, ptr: Array, lengths: Array) -> dict[str, Any]:
        multiple = self.item_multiple
        places = -(-lengths.astype(np.int64) // multiple) * multiple
        fewest = max(1, -(-int(places.sum()) // self.capacity)) if group.size else 0
        return {"row_tokens": sums(lengths, ptr), "row_squares": squares(lengths, ptr), "lower_bound": fewest}

    def _cost(self, balance: str) -> Array:
        return self.row_squares if balance == "squares" else self.row_tokens

    def _figures(self) -> dict[str, object]:
        return {
            "rows": len(self),
            "lower bound": self.lower_bound,
            "capacity": self.capacity,
            "items": self.items.size,
            "most items in a row": int(np.diff(self.row_ptr).max(initial=0)),
            "tokens": int(self.row_tokens.sum()),
            "efficiency": self.efficiency,
            "truncated": self.n_truncated,
            "split": self.n_split,
            "dropped": self.n_dropped,
        }


def squares(lengths: Array, ptr: Array) -> Array:
    """Return the sum of the squared lengths of each group, ``(K,)`` int64."""
    return sums(np.square(lengths, dtype=np.int64), ptr)
