"""`Batches`: the result of `bucket_batches`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._groups import IndexGroups, share, sums


@dataclass(frozen=True, eq=False, repr=False)
class Batches(IndexGroups):
    """Batches of item indices; ``batches[i]`` are the items of batch i, ``len(batches)`` the number of batches.

    Attributes
    ----------
    batch_ptr
        ``(batches + 1,)`` int64; batch i is ``items[batch_ptr[i] : batch_ptr[i + 1]]``.
    items
        Indices into the lengths that were given, batch by batch, int32 (int64 from 2**31 items on).
    lengths
        Tokens of each of these items, int32.
    padded_lengths
        The length that the items of each batch are padded to, ``(batches,)`` int64.
    batch_tokens
        Tokens in each batch without padding, ``(batches,)`` int64.
    n_dropped
        Items in no batch, because ``drop_last`` left them out.
    boundaries
        The bounds of the buckets, ``(K,)`` int64; None: there were no buckets.
    seed, epoch
        What decided the shuffle; seed None: there was none.
    """

    _unit: ClassVar[str] = "batches"
    _ptr_field: ClassVar[str] = "batch_ptr"

    batch_ptr: Array
    items: Array
    lengths: Array
    padded_lengths: Array
    batch_tokens: Array
    n_dropped: int
    boundaries: Array | None = None
    seed: int | None = None
    epoch: int = 0

    @property
    def real_tokens(self) -> int:
        """Tokens in all batches without padding."""
        return int(self.batch_tokens.sum())

    @property
    def padded_tokens(self) -> int:
        """Tokens in all batches with padding."""
        return int(self._places().sum())

    @property
    def efficiency(self) -> float:
        """``real_tokens / padded_tokens``; 1.0 where there are none."""
        return share(self.real_tokens, self.padded_tokens)

    def report(self) -> str:
        """Return the figures as text, one a line; with boundaries, a table of the buckets follows."""
        return "\n\n".join(filter(None, (super().report(), self._table())))

    def _places(self) -> Array:
        return np.diff(self.batch_ptr) * self.padded_lengths

    def _table(self) -> str:
        if self.boundaries is None or not len(self):
            return ""
        longest = np.maximum.reduceat(self.lengths, self.batch_ptr[:-1])
        bucket = np.searchsorted(self.boundaries, longest)
        columns = [["up to", *(f"{b:,}" for b in self.boundaries.tolist()), "above"]]
        for title, values in (
            ("batches", np.ones(len(self))),
            ("items", np.diff(self.batch_ptr)),
            ("tokens", self.batch_tokens),
            ("with padding", self._places()),
        ):
            totals = np.zeros(self.boundaries.size + 1, np.int64)
            np.add.at(totals, bucket, values.astype(np.int64))
            columns.append([title, *(f"{total:,}" for total in totals.tolist())])
        if columns[1][-1] == "0":  # nothing is above the last bound
            columns = [column[:-1] for column in columns]
        widths = [max(map(len, column)) for column in columns]
        return "\n".join(
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
            for row in zip(*columns, strict=True)
        )

    def _regroup(self, group: Array, ptr: Array, lengths: Array) -> dict[str, Any]:
        return {"padded_lengths": self.padded_lengths[group], "batch_tokens": sums(lengths, ptr)}

    def _cost(self, balance: str) -> Array:
        return self._places() * (self.padded_lengths if balance == "squares" else 1)

    def _figures(self) -> dict[str, object]:
        return {
            "batches": len(self),
            "items": self.items.size,
            "most items in a batch": int(np.diff(self.batch_ptr).max(initial=0)),
            "longest item, padded": int(self.padded_lengths.max(initial=0)),
            "tokens": self.real_tokens,
            "tokens with padding": self.padded_tokens,
            "efficiency": self.efficiency,
            "dropped": self.n_dropped,
        }
