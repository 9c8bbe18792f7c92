"""How many items a batch may have, and where sorted items are cut into batches."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import LARGEST, integer
from fastnlp.ops._groups import pointer
from fastnlp.ops._ranks import Stretches


class Budget(NamedTuple):
    """The most that a batch may have: places for tokens, padding included, and items."""

    max_tokens: int | None
    max_items: int
    batch_multiple: int
    pad_to_multiple: int

    def padded(self, lengths: Array) -> Array:
        """Return lengths rounded up to the multiple, int64."""
        padded: Array = -(-lengths.astype(np.int64) // self.pad_to_multiple) * self.pad_to_multiple
        return padded

    def items(self, padded: Array) -> Array:
        """Return how many items a complete batch of each of these padded lengths has; 0 where none fits."""
        most = np.full(padded.shape, self.max_items)
        if self.max_tokens is not None:
            np.minimum(most, self.max_tokens // np.maximum(padded, 1), out=most)
        return np.where(most < self.batch_multiple, most, most - most % self.batch_multiple)


def checked_budget(
    batch_size: int | None,
    max_tokens: int | None,
    max_sentences: int | None,
    batch_multiple: int,
    pad_to_multiple: int,
) -> Budget:
    """Return the budget that the options of `bucket_batches` ask for.

    Raises
    ------
    TypeError
        An option is no integer.
    ValueError
        An option is out of range, or two do not go together.
    """
    batch_multiple = integer("batch_multiple", batch_multiple, least=1)
    pad_to_multiple = integer("pad_to_multiple", pad_to_multiple, least=1)
    if batch_size is None and max_tokens is None:
        raise ValueError(
            "batch_size is missing: pass batch_size (items) or max_tokens (tokens with padding) of a batch"
        )
    if batch_size is not None:
        batch_size = integer("batch_size", batch_size, least=1)
        for name, value in (("max_tokens", max_tokens), ("max_sentences", max_sentences)):
            if value is not None:
                raise ValueError(
                    f"pass batch_size or {name}, got {batch_size} and {value}: max_sentences goes with max_tokens"
                )
        if batch_size % batch_multiple:
            raise ValueError(f"batch_size must be a multiple of batch_multiple, got {batch_size} and {batch_multiple}")
        return Budget(None, batch_size, batch_multiple, pad_to_multiple)
    max_tokens = integer("max_tokens", max_tokens, least=1, most=None)
    if max_tokens > np.iinfo(np.int64).max:
        raise ValueError(f"max_tokens must be below 2**63, got {max_tokens}")
    most = LARGEST if max_sentences is None else integer("max_sentences", max_sentences, least=1)
    return Budget(max_tokens, most, batch_multiple, pad_to_multiple)


def even_cuts(group_sizes: Array, most: Array, drop_last: bool) -> Stretches:
    """Cut each group of sorted items into batches of as many items as `most` says for it; the last may have fewer."""
    most = np.maximum(most, 1)  # where it is 0, the group is empty
    n_batches = group_sizes // most if drop_last else -(-group_sizes // most)
    group_ptr = pointer(group_sizes)
    group = np.repeat(np.arange(group_sizes.size), n_batches)
    within = np.arange(group.size) - np.repeat(np.cumsum(n_batches) - n_batches, n_batches)
    begin = group_ptr[group] + within * most[group]
    return Stretches(group, begin, np.minimum(begin + most[group], group_ptr[group + 1]))


def budget_cuts(kernels: ModuleType, most: Array, ends: Array, group_ends: Array, drop_last: bool) -> Stretches:
    """Cut each group of sorted items into batches, from the longest item down.

    Items are in runs that end at `ends`. A batch whose longest item is of run d has ``most[d]`` items; the one of the
    shortest items of a group may have fewer.
    """
    n = int(group_ends[-1]) if group_ends.size else 0
    begin, used = np.empty(n, np.int64), np.zeros(1, np.int64)  # memory that is not used is never touched
    kernels.cut(most, ends, group_ends, begin, used)
    begin = begin[: used[0]][::-1].copy()
    end = np.append(begin[1:], n)[: begin.size]
    cuts = Stretches(np.zeros_like(begin), begin, end)  # all of one bucket
    return cuts.take(end - begin == most[np.searchsorted(ends, end)]) if drop_last else cuts


def split_tails(cuts: Stretches, multiple: int) -> Stretches:
    """Split the batches whose size is above `multiple` and no multiple of it: the rest, of short items, goes apart."""
    sizes = cuts.end - cuts.begin
    rest = np.where(sizes > multiple, sizes % multiple, 0)
    if not rest.any():
        return cuts
    place = np.repeat(np.arange(sizes.size), np.where(rest, 2, 1))
    second = np.append(False, place[1:] == place[:-1])
    first = np.append(second[1:], False)
    middle = (cuts.begin + rest)[place]
    begin, end = np.where(second, middle, cuts.begin[place]), np.where(first, middle, cuts.end[place])
    return Stretches(cuts.group[place], begin, end)
