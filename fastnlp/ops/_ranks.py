"""Dealing groups of items to the ranks of a distributed job, without any talk between them.

The groups (rows, batches) of a plan are worked on in steps: in a step each of W ranks takes one. Every rank derives the
same order of all groups from the plan alone and takes those at ``rank, rank + W, rank + 2 W, ...``. So that all ranks
have equally many, the largest groups are halved until their number divides; or the last ones are left out. No item is
repeated.

After k steps the first ``k W`` groups of that order are done. Whoever goes on, perhaps on another number of ranks,
deals the rest in the same way: what is done is told by a short list of ``(world_size, steps)``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import integer

BALANCES = ("tokens", "squares")


class Stretches(NamedTuple):
    """Stretches of a plan's items in the order of work: items ``begin[k]`` to ``end[k]``, of group ``group[k]``."""

    group: Array
    begin: Array
    end: Array

    def take(self, chosen: Array | slice) -> Stretches:
        """Return those stretches, in that order."""
        return Stretches(self.group[chosen], self.begin[chosen], self.end[chosen])

    @property
    def n(self) -> int:
        """The number of stretches."""
        return self.group.size


def checked_done(done: Any) -> list[tuple[int, int]]:
    """Return what was done before as pairs of ints, (world_size, steps).

    Raises
    ------
    TypeError
        Not pairs of integers.
    ValueError
        A number is out of range.
    """
    try:
        pairs = [(ranks, steps) for ranks, steps in done]
    except (TypeError, ValueError):
        raise TypeError(f"done must hold pairs (world_size, steps), got {done!r}: pass a list of them") from None
    return [
        (integer("world_size in done", ranks, least=1), integer("steps in done", steps, least=0))
        for ranks, steps in pairs
    ]


def remaining(
    plan: Stretches,
    done: Iterable[tuple[int, int]],
    world_size: int,
    *,
    drop_last: bool,
    cost: Callable[[Stretches], Array] | None,
    shuffle: Callable[[int], Array] | None,
) -> Stretches:
    """Return what is left to do, in the order of work on `world_size` ranks: their number of stretches divides.

    Parameters
    ----------
    plan
        All groups.
    done
        What was done before: so many steps on so many ranks, in order.
    world_size
        The number of ranks that go on.
    drop_last
        Leave out the last stretches that would make an incomplete step, instead of halving the largest.
    cost
        Returns the work of each stretch. Those of nearly equal work then make a step. None: the order of the plan.
    shuffle
        Returns a permutation of so many steps, which would else go from much work to little.

    Raises
    ------
    ValueError
        There are fewer items than ranks, or more steps were done than there are.
    """
    rest, dealt_to = plan, None
    for ranks, steps in (*done, (world_size, 0)):
        if ranks != dealt_to:  # who goes on with as many ranks goes on in the same order
            rest, dealt_to = _deal(rest, ranks, drop_last=drop_last, cost=cost, shuffle=shuffle), ranks
        if steps * ranks > rest.n:
            raise ValueError(
                f"{steps:,} steps of {ranks} ranks are said to be done, but there are {rest.n // ranks:,}: "
                "the state belongs to other data or options"
            )
        rest = rest.take(slice(steps * ranks, None))
    return rest


def _deal(
    rest: Stretches,
    ranks: int,
    *,
    drop_last: bool,
    cost: Callable[[Stretches], Array] | None,
    shuffle: Callable[[int], Array] | None,
) -> Stretches:
    if drop_last:
        rest = rest.take(slice(0, rest.n - rest.n % ranks))
    elif rest.n % ranks:
        rest = _halved(rest, -rest.n % ranks)
    if cost is None or ranks == 1 or not rest.n:
        return rest
    order = np.argsort(-cost(rest), kind="stable").reshape(-1, ranks)
    if shuffle is not None:
        order = order[shuffle(len(order))]
    order[1::2] = order[1::2, ::-1].copy()  # no rank always has the most work
    return rest.take(order.reshape(-1))


def _halved(rest: Stretches, more: int) -> Stretches:
    """Return `more` stretches in addition, by halving the one with most items so many times; halves stay neighbours."""
    sizes = rest.end - rest.begin
    most = np.argsort(-sizes, kind="stable")[:more]  # no other is ever halved
    if int(sizes[most].sum()) < most.size + more:
        raise ValueError(
            f"{int(sizes.sum())} items cannot be dealt to {rest.n + more} places, one each: "
            "use fewer ranks, or drop_last=True"
        )
    heap = [(-int(sizes[k]), int(k), int(rest.begin[k]), int(rest.end[k])) for k in most]
    heapq.heapify(heap)
    for _ in range(more):
        _, k, begin, end = heapq.heappop(heap)
        middle = (begin + end + 1) // 2
        heapq.heappush(heap, (begin - middle, k, begin, middle))
        heapq.heappush(heap, (middle - end, k, middle, end))
    parts = np.array(sorted(part[1:] for part in heap), np.int64)  # (place, begin, end)
    whole = np.delete(np.arange(rest.n), most)
    table = np.vstack([np.column_stack([whole, rest.begin[whole], rest.end[whole]]), parts])
    place, begin, end = table[np.argsort(table[:, 0], kind="stable")].T.copy()
    return Stretches(rest.group[place], begin, end)
