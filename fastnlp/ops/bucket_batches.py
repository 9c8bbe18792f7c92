"""`bucket_batches`, `Batches`.

A backend provides ``collect(keys, visit, n_keys, lengths, begin, ...)``, which sorts the items by key and fills batches
from stretches of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import flag, integer
from fastnlp._dispatch import kernels_for
from fastnlp.ops._groups import IndexGroups, pointer, share, sums
from fastnlp.ops._lengths import checked_lengths, sort_keys


@dataclass(frozen=True, eq=False, repr=False)
class Batches(IndexGroups):
    """Batches of item indices; ``batches[i]`` are the items of batch i, ``len(batches)`` the number of batches.

    Attributes
    ----------
    batch_ptr
        ``(batches + 1,)`` int64; batch i is ``items[batch_ptr[i] : batch_ptr[i + 1]]``.
    items
        Indices into the lengths that were given, batch by batch, int64.
    lengths
        Tokens of each of these items, int32.
    padded_lengths
        The length that the items of each batch are padded to, ``(batches,)`` int64.
    batch_tokens
        Tokens in each batch without padding, ``(batches,)`` int64.
    n_dropped
        Items in no batch, because ``drop_last`` left them out.
    """

    _unit: ClassVar[str] = "batches"
    _ptr_field: ClassVar[str] = "batch_ptr"

    batch_ptr: Array
    items: Array
    lengths: Array
    padded_lengths: Array
    batch_tokens: Array
    n_dropped: int
    seed: int | None = None
    epoch: int = 0

    @property
    def real_tokens(self) -> int:
        """Tokens in all batches without padding."""
        return int(self.batch_tokens.sum())

    @property
    def padded_tokens(self) -> int:
        """Tokens in all batches with padding."""
        return int((np.diff(self.batch_ptr) * self.padded_lengths).sum())

    @property
    def efficiency(self) -> float:
        """``real_tokens / padded_tokens``; 1.0 where there are none."""
        return share(self.real_tokens, self.padded_tokens)

    def _regroup(self, group: Array, ptr: Array, lengths: Array) -> dict[str, Any]:
        return {"padded_lengths": self.padded_lengths[group], "batch_tokens": sums(lengths, ptr)}

    def _cost(self, balance: str) -> Array:
        padded = np.diff(self.batch_ptr) * self.padded_lengths
        return padded * self.padded_lengths if balance == "squares" else padded

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


def bucket_batches(
    lengths: Any,
    *,
    batch_size: int | None = None,
    boundaries: Any = None,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    drop_last: bool = False,
    pad_to_multiple: int = 1,
    backend: str | None = None,
) -> Batches:
    """Group items of like length into batches, so that little padding is needed.

    The items are shuffled, sorted by length (items of one length stay shuffled), and cut into batches, which are then
    shuffled. With `boundaries` the items are sorted by bucket instead, shuffled within, and a batch has items of one
    bucket only: wider buckets mix more and pad more.

    Parameters
    ----------
    lengths
        Tokens of each item, ``(N,)`` integers. No items give no batches.
    batch_size
        Items in a batch.
    boundaries
        Increasing bucket bounds b: bucket k has the lengths in ``(b[k - 1], b[k]]``, a last bucket those above all
        bounds. None: no buckets.
    shuffle
        False: items of one length (or bucket) in the order of their indices, batches from short to long.
    seed, epoch
        Both decide the shuffles: equal ones give equal batches, whatever the backend and the threads; another epoch
        gives others. NumPy's ``PCG64`` draws the permutations.
    drop_last
        Leave out the items that would make an incomplete batch: of all items (of each bucket, where there are
        boundaries) the last in shuffled order, so that it is not always the longest.
    pad_to_multiple
        Padded lengths are rounded up to a multiple of it.
    backend
        "reference" or "cpu"; default: cpu. Both give the same batches.

    Returns
    -------
    Batches
        The batches with their padded lengths. Each item is in one batch, except for `n_dropped`.

    Raises
    ------
    TypeError
        `lengths`, `boundaries` or a numeric argument is not of integers, or `shuffle` or `drop_last` is not a bool.
    ValueError
        `batch_size` is missing; a length or an argument is out of range; `boundaries` do not increase or are negative.

    Examples
    --------
    >>> import fastnlp
    >>> batches = fastnlp.bucket_batches([5, 1, 6, 2], batch_size=2, shuffle=False)
    >>> [batch.tolist() for batch in batches], batches.padded_lengths.tolist()
    ([[1, 3], [0, 2]], [2, 6])
    """
    kernels = kernels_for("bucket_batches", backend, lengths)
    lengths = checked_lengths(lengths)
    if batch_size is None:
        raise ValueError("batch_size is missing: pass the number of items in a batch")
    batch_size = integer("batch_size", batch_size, least=1)
    multiple = integer("pad_to_multiple", pad_to_multiple, least=1)
    shuffle, drop_last = flag("shuffle", shuffle), flag("drop_last", drop_last)
    entropy = np.random.SeedSequence(
        integer("seed", seed, least=0, most=None), spawn_key=(integer("epoch", epoch, least=0, most=None),)
    )
    bounds = None if boundaries is None else _checked_boundaries(boundaries)

    rng = np.random.Generator(np.random.PCG64(entropy))
    visit = rng.permutation(lengths.size) if shuffle else np.arange(lengths.size)
    keys, key_lengths = sort_keys(lengths)
    n_keys = key_lengths.size
    if bounds is None:
        if drop_last:
            visit = visit[: lengths.size - lengths.size % batch_size]
        group_sizes = np.array([visit.size])
    else:
        keys, n_keys = np.searchsorted(bounds, key_lengths).astype(np.int32)[keys], bounds.size + 1
        group_sizes = np.bincount(keys, minlength=n_keys)

    begin, end = _cut(group_sizes, batch_size, drop_last)
    if shuffle:
        drawn = rng.permutation(begin.size)
        begin, end = begin[drawn], end[drawn]
    batch_ptr = pointer(end - begin)
    items = np.empty(batch_ptr[-1], np.int64)
    longest, tokens = np.empty((2, begin.size), np.int64)
    kernels.collect(keys, visit, n_keys, lengths, begin, batch_ptr, items, longest, tokens)
    return Batches(
        batch_ptr,
        items,
        lengths[items],
        -(-longest // multiple) * multiple,
        tokens,
        n_dropped=lengths.size - items.size,
        seed=seed if shuffle else None,
        epoch=epoch,
    )


def _checked_boundaries(boundaries: Any) -> Array:
    bounds = _arrays.integers("boundaries", boundaries)
    if bounds.size and bounds[0] < 0:
        raise ValueError(f"boundaries must not be negative, got {int(bounds[0])} first")
    falls = np.flatnonzero(bounds[1:] <= bounds[:-1])
    if falls.size:
        at = int(falls[0])
        raise ValueError(
            f"boundaries must increase, got {int(bounds[at])} before {int(bounds[at + 1])}: "
            "pass each bound once, the smallest first"
        )
    return bounds


def _cut(group_sizes: Array, batch_size: int, drop_last: bool) -> tuple[Array, Array]:
    """Return where each batch begins and ends among the sorted items; no batch has items of two groups."""
    n_batches = group_sizes // batch_size if drop_last else -(-group_sizes // batch_size)
    group_ptr = pointer(group_sizes)
    within = np.arange(n_batches.sum()) - np.repeat(np.cumsum(n_batches) - n_batches, n_batches)
    begin = np.repeat(group_ptr[:-1], n_batches) + within * batch_size
    return begin, np.minimum(begin + batch_size, np.repeat(group_ptr[1:], n_batches))
