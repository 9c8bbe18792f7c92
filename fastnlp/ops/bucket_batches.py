"""`bucket_batches`.

A backend provides ``count_keys``, ``sort_by_key`` and ``counting_sort``, which sort items; ``cut(most, ends, ...)``,
which cuts sorted items into batches within a budget; ``collect(order, lengths, begin, ...)``, which fills batches from
stretches of sorted items; and ``optimal_boundaries(sizes, counts, bounds)``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import flag, integer
from fastnlp._dispatch import backend_for_items, implementation
from fastnlp.ops._batches import Batches as Batches
from fastnlp.ops._boundaries import bucket_pads, checked_boundaries, is_number, optimal_boundaries
from fastnlp.ops._cuts import Budget, budget_cuts, checked_budget, even_cuts, split_tails
from fastnlp.ops._groups import pointer
from fastnlp.ops._lengths import checked_lengths, sort_keys
from fastnlp.ops._ranks import Stretches
from fastnlp.ops._shuffle import Shuffle, index_dtype

_ITEMS_A_CHUNK = 1 << 17


def bucket_batches(
    lengths: Any,
    *,
    batch_size: int | None = None,
    max_tokens: int | None = None,
    max_sentences: int | None = None,
    boundaries: Any = None,
    window: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    drop_last: bool = False,
    batch_multiple: int = 1,
    pad_to_multiple: int = 1,
    pad_to_boundary: bool | None = None,
    balance: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    backend: str | None = None,
) -> Batches:
    """Group items of like length into batches, so that little padding is needed.

    The items are shuffled, sorted by length (items of one length stay shuffled), and cut into batches, which are then
    shuffled. Less order makes batches more random and pads more: with a `window` only so many items at a time are
    sorted; with `boundaries` the items are sorted by bucket, shuffled within, and a batch has items of one bucket only.

    Parameters
    ----------
    lengths
        Tokens of each item, ``(N,)`` integers: a list, an array, a CPU tensor, an Arrow array. None give no batches.
    batch_size
        Items in a batch.
    max_tokens
        Instead of `batch_size`: the places for tokens in a batch, ``items * padded length <= max_tokens``. A batch has
        as many items as that allows its longest one. Each place of an empty item counts as one.
    max_sentences
        With `max_tokens`: the most items that a batch may have.
    boundaries
        Increasing bucket bounds b: bucket k has the lengths in ``(b[k - 1], b[k]]``, a last bucket those above all
        bounds. A number K: the K bounds (or fewer, where there are fewer lengths) that pad least, found by dynamic
        programming; all batches then have one of K padded lengths, for ``torch.compile`` and CUDA graphs. All batches
        of a bucket have the same number of items, which with `max_tokens` follows from the longest padded length that
        the bucket can have; its last batch may have fewer. None: no buckets.
    window
        The number of items, consecutive after the shuffle, that are sorted together and make batches with no others;
        with `batch_size` rounded up to a multiple of it. None: all. Not together with `boundaries`.
    shuffle
        False: items of one length (or bucket) in the order of their indices, batches from short to long, window after
        window.
    seed, epoch
        Both decide the shuffles: equal ones give equal batches, whatever the backend and the threads; another epoch
        gives others.
    drop_last
        Leave out the items that would make an incomplete batch. With `batch_size`: of all items (of each bucket, where
        there are boundaries) the last in shuffled order, so that it is not always the longest. With `max_tokens` and no
        boundaries: the shortest ones (of each window). Also leave out the batches that would make an incomplete step of
        all ranks; otherwise the largest batches are halved until their number divides.
    batch_multiple
        Batches have a multiple of it of items wherever as many fit. Only the last ones (of each bucket or window) have
        the rest, in a batch of its own. `batch_size` must be a multiple of it.
    pad_to_multiple
        Padded lengths are rounded up to a multiple of it; a number K of boundaries gives multiples.
    pad_to_boundary
        Pad the batches to the bound of their bucket instead of to their longest item. None: for a number of boundaries.
    balance
        "tokens" or "squares": in each step the ranks have batches of nearly equal work, by tokens with padding or by
        items times squared padded length. None: they take the batches in turn.
    rank, world_size
        Return the batches of this rank only; see `Batches.shard`. All ranks must pass the same other arguments; they
        get equally many batches, and together all.
    backend
        "reference" or "cpu"; both give the same batches. Default: cpu, but the reference for the first half
        million items of a process, which NumPy has grouped before a compiler is loaded.

    Returns
    -------
    Batches
        The batches with their padded lengths. Each item is in one batch (of one rank), except for `n_dropped`.

    Raises
    ------
    TypeError
        `lengths`, `boundaries` or a numeric argument is not of integers, or `shuffle`, `drop_last` or `pad_to_boundary`
        is not a bool.
    ValueError
        Not one of `batch_size` and `max_tokens` is given; a length or an argument is out of range; an item (or a bound
        that is padded to) takes more than `max_tokens`, or an item is above the last bound that is padded to;
        `boundaries` do not increase, are negative or come with a `window`; there are fewer items than ranks.

    References
    ----------
    The budget is that of fairseq's ``batch_by_size``. The best bounds: a segmentation of the histogram by divide and
    conquer, as the best predecessor grows with the bound.

    Examples
    --------
    >>> import fastnlp
    >>> batches = fastnlp.bucket_batches([5, 1, 6, 2], batch_size=2, shuffle=False)
    >>> [batch.tolist() for batch in batches], batches.padded_lengths.tolist()
    ([[1, 3], [0, 2]], [2, 6])
    """
    lengths = checked_lengths(lengths, copy=False)
    backend = backend_for_items("bucket_batches", backend, lengths.size)
    kernels = implementation("bucket_batches", backend)
    budget = checked_budget(batch_size, max_tokens, max_sentences, batch_multiple, pad_to_multiple)
    shuffle, drop_last = flag("shuffle", shuffle), flag("drop_last", drop_last)
    seed, epoch = integer("seed", seed, least=0, most=None), integer("epoch", epoch, least=0, most=None)
    window = None if window is None else integer("window", window, least=1)
    if boundaries is None and pad_to_boundary:
        raise ValueError("pad_to_boundary=True needs boundaries: pass bounds, or how many there shall be")
    if boundaries is not None and window is not None:
        raise ValueError("window sorts by length, boundaries by bucket: pass one of them")
    to_bound = is_number(boundaries) if pad_to_boundary is None else flag("pad_to_boundary", pad_to_boundary)

    order_of = Shuffle(seed, epoch, backend) if shuffle else None
    keys, key_lengths = sort_keys(lengths)
    _check_fit(lengths, key_lengths, budget)
    bounds = pads = None
    if boundaries is None:
        order, cuts = _by_length(kernels, keys, key_lengths, budget, window, order_of, drop_last)
    else:
        counts = np.bincount(keys, minlength=key_lengths.size)
        if is_number(boundaries):
            bounds = optimal_boundaries(kernels, budget.padded(key_lengths), counts, boundaries)
        else:
            bounds = checked_boundaries(boundaries)
        bucket = np.searchsorted(bounds, key_lengths).astype(np.int32)  # of each key
        pads = bucket_pads(lengths, bounds, key_lengths, counts, bucket, budget, to_bound)
        order, ptr = _sorted(kernels, bucket[keys], pads.size, order_of)
        cuts = even_cuts(np.diff(ptr), budget.items(pads), drop_last)

    cuts = split_tails(cuts, budget.batch_multiple)
    if order_of is not None:
        cuts = cuts.take(order_of.permutation(cuts.n, use="batches"))
    batch_ptr = pointer(cuts.end - cuts.begin)
    items = np.empty(batch_ptr[-1], order.dtype)
    item_lengths = np.empty(items.size, np.int32)
    longest, tokens = np.empty((2, cuts.n), np.int64)
    kernels.collect(order, lengths, cuts.begin, batch_ptr, items, item_lengths, longest, tokens)
    batches = Batches(
        batch_ptr,
        items,
        item_lengths,
        pads[cuts.group] if pads is not None and to_bound else budget.padded(longest),
        tokens,
        n_dropped=lengths.size - items.size,
        boundaries=bounds,
        seed=seed if shuffle else None,
        epoch=epoch,
    )
    if (rank, world_size, balance) == (0, 1, None):
        return batches
    return batches.shard(rank, world_size, balance=balance, drop_last=drop_last)


def _check_fit(lengths: Array, key_lengths: Array, budget: Budget) -> None:
    if budget.max_tokens is None or not key_lengths.size or budget.padded(key_lengths[-1:])[0] <= budget.max_tokens:
        return
    first = int(np.argmax(budget.padded(lengths) > budget.max_tokens))
    padded = int(budget.padded(lengths[first : first + 1])[0])
    raise ValueError(
        f"the item at index {first} has {int(lengths[first])} tokens ({padded} when padded), more than max_tokens="
        f"{budget.max_tokens}: raise max_tokens, or cut or leave out such items"
    )


def _sorted(kernels: ModuleType, keys: Array, n_keys: int, shuffle: Shuffle | None) -> tuple[Array, Array]:
    """Return the items sorted by key, those of one key shuffled, and where each key's begin and end, ``(K + 1,)``."""
    counts = np.empty((max(1, keys.size // max(_ITEMS_A_CHUNK, 4 * n_keys)), n_keys), np.int64)
    kernels.count_keys(keys, counts)
    order, ptr = np.empty(keys.size, index_dtype(keys.size)), pointer(counts.sum(axis=0))
    kernels.sort_by_key(keys, None, counts, order)
    if shuffle is not None:
        shuffle.runs(ptr, order)
    return order, ptr


def _by_length(
    kernels: ModuleType,
    keys: Array,
    key_lengths: Array,
    budget: Budget,
    window: int | None,
    shuffle: Shuffle | None,
    drop_last: bool,
) -> tuple[Array, Stretches]:
    """Return the items sorted by length, window by window, and where they are cut."""
    n, even = keys.size, budget.max_tokens is None
    order, ptr = _sorted(kernels, keys, key_lengths.size, shuffle)
    extra = n % budget.max_items if even and drop_last else 0
    if window is not None and even:
        window = -(-window // budget.max_items) * budget.max_items
    windows = 1 if window is None else -(-(n - extra) // window)
    if extra or windows > 1:
        turn = np.arange(n, dtype=index_dtype(n))  # in the shuffled order
        if shuffle is not None:
            turn[shuffle.permutation(n)] = turn.copy()
        if extra:
            order = order[turn[order] < n - extra]
        if window is not None and windows > 1:
            by_length, order = order, np.empty_like(order)
            kernels.counting_sort((turn // window).astype(np.int32), by_length, windows, order)
    group_ends = np.append(np.arange(1, windows) * (window or 0), order.size)
    if even:
        return order, even_cuts(np.diff(group_ends, prepend=0), np.full(group_ends.size, budget.max_items), drop_last)
    most, ends = budget.items(budget.padded(key_lengths)), ptr[1:]
    if windows > 1:
        most, ends = most[keys[order]], np.arange(1, n + 1)  # each item is a run
    return order, budget_cuts(kernels, most, ends, group_ends, drop_last)
