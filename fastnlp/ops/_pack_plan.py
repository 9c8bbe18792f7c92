"""Plans of rows on a histogram of lengths, for `pack`; what a plan is says ``kernels/reference/pack.py``."""

from __future__ import annotations

from itertools import pairwise
from math import isqrt
from types import ModuleType
from typing import NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._groups import pointer


class Plan(NamedTuple):
    """Patterns of rows, int64."""

    repeats: Array  # (P,)
    tokens: Array  # (P,)
    entry_ptr: Array  # (P + 1,)
    start: Array  # (E,)
    copies: Array  # (E,)

    @property
    def rows(self) -> tuple[Array, Array, Array, Array]:
        """All but the tokens."""
        return self.repeats, self.entry_ptr, self.start, self.copies

    @property
    def widths(self) -> Array:
        """The number of items in a row of each pattern, ``(P,)``."""
        return np.diff(pointer(self.copies)[self.entry_ptr])


def decreasing(
    kernels: ModuleType, algorithm: str, sizes: Array, counts: Array, capacity: int, max_per_row: int
) -> Plan:
    """Return the plan of first-fit-decreasing or best-fit-decreasing.

    A length adds at most two patterns. A first-fit row uses up a length, or leaves too few of one for the next row,
    which then uses it up. Best-fit cuts at most one group of like rows: into those that are full of the length, one
    that takes the few that are left, and the others. A row of C tokens has at most m different lengths above 0, with
    1 + 2 + ... + m <= C.
    """
    n = int(counts.sum())
    most_patterns = min(2 * sizes.size, n)
    most_entries = min(most_patterns * (isqrt(2 * capacity) + 2), n)
    repeats, tokens = np.empty((2, most_patterns), np.int64)  # memory that is not used is never touched
    entry_ptr = np.empty(most_patterns + 1, np.int64)
    start, copies = np.empty((2, most_entries), np.int64)
    used = np.empty(2, np.int64)
    plan = getattr(kernels, algorithm)
    plan(sizes, counts, capacity, max_per_row, repeats, tokens, entry_ptr, start, copies, used)
    patterns, entries = used.tolist()
    return Plan(repeats[:patterns], tokens[:patterns], entry_ptr[: patterns + 1], start[:entries], copies[:entries])


def with_empty_items(plan: Plan, n: int, max_per_row: int) -> Plan:
    """Return a plan with n items of length 0 in addition, which sort before its others: the first places are theirs."""
    patterns: list[tuple[int, int, list[tuple[int, int]]]] = []  # repeats, tokens, entries (start, copies)
    placed = 0
    entries = list(zip((plan.start + n).tolist(), plan.copies.tolist(), strict=True))
    bounds = pairwise(plan.entry_ptr.tolist())
    for times, tokens, width, (low, high) in zip(
        plan.repeats.tolist(), plan.tokens.tolist(), plan.widths.tolist(), bounds, strict=True
    ):
        row = 0
        while row < times:
            k = min(max_per_row - width, n - placed)
            rows = min(times - row, (n - placed) // k) if k else times - row
            some = [(start + row * copies, copies) for start, copies in entries[low:high]]
            patterns.append((rows, tokens, [*some, (placed, k)] if k else some))
            placed += rows * k
            row += rows
    while placed < n:
        k = min(max_per_row, n - placed)
        rows = (n - placed) // k
        patterns.append((rows, 0, [(placed, k)]))
        placed += rows * k
    repeats, tokens_, rows_ = zip(*patterns, strict=True)
    start, copies = np.array([entry for row in rows_ for entry in row], np.int64).T.copy()
    return Plan(np.array(repeats), np.array(tokens_), pointer(np.array([len(row) for row in rows_])), start, copies)


def lower_bound(sizes: Array, counts: Array, capacity: int, max_per_row: int) -> int:
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
    return max(1, bound, -(-n // max_per_row))
