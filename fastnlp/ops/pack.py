"""`pack`, `Packing`.

A backend provides ``first_fit_decreasing(sizes, counts, capacity, max_per_row, ...)``, which plans rows for a histogram
of lengths, and ``deal(keys, visit, n_keys, ...)``, which deals the items to a plan's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import integer
from fastnlp._dispatch import kernels_for
from fastnlp.ops._groups import IndexGroups, pointer, share, sums
from fastnlp.ops._lengths import checked_lengths, sort_keys

ALGORITHMS = ("first_fit_decreasing",)
OVERLONG = ("error", "truncate", "drop")


@dataclass(frozen=True, eq=False, repr=False)
class Packing(IndexGroups):
    """Rows of item indices; ``packing[i]`` are the items of row i, ``len(packing)`` the number of rows.

    Attributes
    ----------
    row_ptr
        ``(rows + 1,)`` int64; row i is ``items[row_ptr[i] : row_ptr[i + 1]]``.
    items
        Indices into the lengths that were packed, row by row, int64.
    lengths
        Tokens of each of these items in its row, int32.
    row_tokens
        Tokens in each row, ``(rows,)`` int64.
    row_squares
        The sum of their squared lengths, which attention costs, ``(rows,)`` int64.
    capacity
        Tokens that a row can hold.
    lower_bound
        No packing of these items, whatever the algorithm, has fewer rows.
    n_truncated, n_dropped
        Items longer than the capacity that were counted as `capacity` tokens, or left out.
    """

    _unit: ClassVar[str] = "rows"
    _ptr_field: ClassVar[str] = "row_ptr"

    row_ptr: Array
    items: Array
    lengths: Array
    row_tokens: Array
    row_squares: Array
    capacity: int
    lower_bound: int
    n_truncated: int
    n_dropped: int
    seed: int | None = None
    epoch: int = 0

    @property
    def efficiency(self) -> float:
        """Tokens in the rows divided by ``rows * capacity``; 1.0 where there are no rows."""
        return share(int(self.row_tokens.sum()), len(self) * self.capacity)

    def _regroup(self, group: Array, ptr: Array, lengths: Array) -> dict[str, Any]:
        tokens = sums(lengths, ptr)
        fewest = max(1, -(-int(tokens.sum()) // self.capacity)) if group.size else 0
        return {"row_tokens": tokens, "row_squares": sums(lengths.astype(np.int64) ** 2, ptr), "lower_bound": fewest}

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
            "dropped": self.n_dropped,
        }


def pack(
    lengths: Any,
    capacity: int,
    *,
    algorithm: str = "first_fit_decreasing",
    max_per_bin: int | None = None,
    overlong: str = "error",
    backend: str | None = None,
) -> Packing:
    """Pack items into as few rows of `capacity` tokens as the algorithm finds.

    First-fit-decreasing takes the items from the longest to the shortest and puts each into the first row that has
    room. Here it is planned on the histogram of lengths: one row is filled with the longest items that fit, and
    repeated as long as the counts of its lengths last. The rows are those of the item-by-item algorithm, items of one
    length in the order of their indices; the plan's time does not grow with the number of items.

    Parameters
    ----------
    lengths
        Tokens of each item, ``(N,)`` integers. An item of length 0 goes to the first row that has a place for it and
        takes no tokens there. No items give no rows.
    capacity
        Tokens that a row can hold.
    algorithm
        "first_fit_decreasing".
    max_per_bin
        The most items that a row may have; None: any number.
    overlong
        What becomes of items longer than `capacity`: "error"; "truncate" counts `capacity` tokens for each, the caller
        cuts the item; "drop" puts them in no row. The result has their number.
    backend
        "reference" or "cpu"; default: cpu. Both give the same rows.

    Returns
    -------
    Packing
        The rows, longest items first, with their efficiency and a lower bound on the number of rows: the larger of
        ``ceil(sum(lengths) / capacity)``, Martello and Toth's L2 and ``ceil(N / max_per_bin)``.

    Raises
    ------
    TypeError
        `lengths` are not integers, or `capacity` or `max_per_bin` is none.
    ValueError
        A length is negative or beyond int32, or longer than `capacity` with ``overlong="error"``; `lengths` has not one
        axis; `capacity` or `max_per_bin` is below 1; `algorithm` or `overlong` is unknown.

    References
    ----------
    D. S. Johnson, "Near-optimal bin packing algorithms", PhD thesis, MIT, 1973. S. Martello and P. Toth, "Lower bounds
    and reduction procedures for the bin packing problem", Discrete Applied Mathematics 28, 1990. M. M. Krell et al.,
    "Efficient sequence packing without cross-contamination", arXiv:2107.02027 (packing the histogram).

    Examples
    --------
    >>> import fastnlp
    >>> packing = fastnlp.pack([5, 3, 8, 2], capacity=10)
    >>> [row.tolist() for row in packing], packing.efficiency
    ([[2, 3], [0, 1]], 0.9)
    """
    kernels = kernels_for("pack", backend, lengths)
    lengths = checked_lengths(lengths)
    capacity = integer("capacity", capacity, least=1)
    most = None if max_per_bin is None else integer("max_per_bin", max_per_bin, least=1)
    for name, value, known in (("algorithm", algorithm, ALGORITHMS), ("overlong", overlong, OVERLONG)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")

    n_overlong = int(np.count_nonzero(lengths > capacity))
    if n_overlong and overlong == "error":
        raise ValueError(_overlong_message(lengths, capacity, n_overlong))
    if overlong == "truncate":
        lengths = np.minimum(lengths, capacity)

    keys, key_lengths = sort_keys(lengths)
    counts = np.bincount(keys, minlength=key_lengths.size)
    present = np.flatnonzero(counts)
    sizes, counts = key_lengths[present], counts[present]
    fitting = int(np.searchsorted(sizes, capacity, "right"))  # what is dropped sorts behind and is never dealt
    sizes, counts = sizes[:fitting], counts[:fitting]
    n = int(counts.sum())
    most = min(most or n, n)

    repeats, tokens, entry_ptr, start, copies = _plan(kernels, algorithm, sizes, counts, capacity, most)
    width = np.diff(pointer(copies)[entry_ptr])
    row_ptr = pointer(np.repeat(width, repeats))
    items = np.empty(n, np.int64)
    kernels.deal(keys, np.arange(keys.size), key_lengths.size, repeats, entry_ptr, start, copies, row_ptr, items)
    placed = lengths[items]
    return Packing(
        row_ptr,
        items,
        placed,
        np.repeat(tokens, repeats),
        sums(placed.astype(np.int64) ** 2, row_ptr),
        capacity,
        lower_bound=_lower_bound(sizes, counts, capacity, most),
        n_truncated=n_overlong if overlong == "truncate" else 0,
        n_dropped=n_overlong if overlong == "drop" else 0,
    )


def _overlong_message(lengths: Array, capacity: int, n_overlong: int) -> str:
    first = int(np.argmax(lengths > capacity))
    return (
        f"{n_overlong} of {lengths.size} lengths exceed the capacity of {capacity}, the first at index {first} "
        f"({int(lengths[first])} tokens): raise capacity, or pass overlong='truncate' or overlong='drop'"
    )


def _plan(
    kernels: ModuleType, algorithm: str, sizes: Array, counts: Array, capacity: int, most: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Return repeats, tokens, entry_ptr, start and copies of the plan, cut to what it used.

    A pattern uses up a length, or leaves too few of one for the next row, which then uses it up: at most two patterns
    for each length. A row of C tokens has at most m different lengths above 0, with 1 + 2 + ... + m <= C.
    """
    n = int(counts.sum())
    most_patterns = min(2 * sizes.size, n)
    most_entries = min(most_patterns * (isqrt(2 * capacity) + 1), n)
    repeats, tokens = np.empty((2, most_patterns), np.int64)
    entry_ptr = np.empty(most_patterns + 1, np.int64)
    start, copies = np.empty((2, most_entries), np.int64)  # memory that is not used is never touched
    used = np.empty(2, np.int64)
    plan = getattr(kernels, algorithm)
    plan(sizes, counts, capacity, most, repeats, tokens, entry_ptr, start, copies, used)
    patterns, entries = used.tolist()
    return repeats[:patterns], tokens[:patterns], entry_ptr[: patterns + 1], start[:entries], copies[:entries]


def _lower_bound(sizes: Array, counts: Array, capacity: int, most: int) -> int:
    """Return the number of rows that any packing needs at least.

    Martello and Toth's L2: items above C / 2 have a row each. For a threshold a <= C / 2, those above C - a share their
    row with no item of a or more; the others have room for `left` tokens of the items from a to C / 2, of which `short`
    need further rows.
    """
    n = int(counts.sum())
    if n == 0:
        return 0
    items, tokens = pointer(counts), pointer(counts * sizes)
    half = int(np.searchsorted(2 * sizes, capacity, "right"))
    threshold = np.append(0, sizes[:half])
    begin = np.append(0, np.arange(half))  # the first length that is not below the threshold
    top = np.searchsorted(sizes, capacity - threshold, "right")
    left = (items[top] - items[half]) * capacity - (tokens[top] - tokens[half])
    short = int((tokens[half] - tokens[begin] - left).max())
    bound = n - int(items[half]) + max(0, -(-short // capacity))
    return max(1, bound, -(-n // most))
