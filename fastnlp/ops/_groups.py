"""`IndexGroups`: groups of item indices in one flat array, what a packing and a set of batches have in common."""

from __future__ import annotations

import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any, ClassVar, Self, overload

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import flag, integer
from fastnlp._dispatch import backend_for_items
from fastnlp.ops._group_files import read, write
from fastnlp.ops._ranks import BALANCES, Stretches, checked_done, remaining


class IndexGroups(ABC):
    """A sequence of groups of item indices; group k is ``items[ptr[k] : ptr[k + 1]]``, a view.

    ``groups[k]`` are the items of group k; a slice or an array of indices gives an object of these groups. Subclasses
    are frozen dataclasses that name the pointer as their users do. Their arrays are flagged read-only.
    """

    _unit: ClassVar[str]  # "rows", "batches"
    _ptr_field: ClassVar[str]
    _per_item: ClassVar[tuple[str, ...]] = ("items", "lengths")
    """The fields that have an entry for each placed item; one of them may be None."""

    items: Array  # (M,) indices, group by group
    lengths: Array  # (M,) int32, the tokens of each
    seed: int | None  # of the shuffle; None: there was none
    epoch: int
    n_dropped: int

    @property
    @abstractmethod
    def efficiency(self) -> float:
        """Real tokens divided by all places for tokens; 1.0 where there are none."""

    @abstractmethod
    def _figures(self) -> dict[str, object]:
        """The figures that `report` lists, by their labels."""

    @abstractmethod
    def _regroup(self, group: Array, ptr: Array, lengths: Array) -> dict[str, Any]:
        """Return the fields of new groups, by their names: stretches of `lengths` that came from these groups."""

    @abstractmethod
    def _cost(self, balance: str) -> Array:
        """Return the work of each group, by "tokens" or by "squares"."""

    @property
    def _ptr(self) -> Array:
        """The first place of each group in `items`, and the end: ``(groups + 1,)`` int64."""
        ptr: Array = getattr(self, self._ptr_field)
        return ptr

    def shard(
        self,
        rank: int,
        world_size: int,
        *,
        balance: str | None = None,
        drop_last: bool = False,
        done: Iterable[tuple[int, int]] = (),
    ) -> Self:
        """Return the groups that one rank of a distributed job works on, in order.

        Every rank gets equally many; together they get all, and none gets what another has. Each rank finds its own
        from the plan alone.

        Parameters
        ----------
        rank, world_size
            The rank, from 0 on, and how many there are.
        balance
            "tokens" or "squares": the ranks have groups of nearly equal work in each step, by tokens with padding or by
            the sum of squared lengths, which attention costs. None: groups in their order.
        drop_last
            Leave the last groups out where their number does not divide, and count their items in `n_dropped` (unless
            something was done before). Otherwise the groups with most items are halved until it does.
        done
            What was done of this plan before, as pairs (world_size, steps), the first one first: the rest is dealt.

        Raises
        ------
        TypeError
            A number is no integer, `drop_last` is no bool, or `done` holds no pairs.
        ValueError
            `rank` is outside ``[0, world_size)``; `balance` is unknown; there are fewer items than ranks; more is said
            to be done than there is.
        """
        world_size = integer("world_size", world_size, least=1)
        rank = integer("rank", rank, least=0)
        if rank >= world_size:
            raise ValueError(f"rank must be below world_size, got rank {rank} of {world_size}: ranks count from 0")
        if balance is not None and balance not in BALANCES:
            raise ValueError(f"balance must be one of {', '.join(map(repr, BALANCES))} or None, got {balance!r}")
        ptr, before = self._ptr, checked_done(done)
        rest = remaining(
            Stretches(np.arange(len(self)), ptr[:-1], ptr[1:]),
            before,
            world_size,
            drop_last=flag("drop_last", drop_last),
            cost=None if balance is None else partial(self._cost_of, balance),
            shuffle=None if self.seed is None else self._shuffled_steps,
        )
        dealt = int((rest.end - rest.begin).sum())
        mine = self._take(rest.take(slice(rank, None, world_size)))
        return mine._with(n_dropped=self.n_dropped + self.items.size - dealt) if drop_last and not before else mine

    def _cost_of(self, balance: str, some: Stretches) -> Array:
        cost = self._cost(balance)[some.group]
        part = (some.begin > self._ptr[some.group]) | (some.end < self._ptr[some.group + 1])
        if part.any():
            cost[part] = self._take(some.take(part))._cost(balance)
        return cost

    def _shuffled_steps(self, n: int) -> Array:
        from fastnlp.ops._shuffle import permutation

        assert self.seed is not None
        return permutation(n, self.seed, self.epoch, use="steps", backend=backend_for_items("_shuffle", None, n))

    def _take(self, some: Stretches) -> Self:
        """Return an object of these stretches."""
        ptr = pointer(some.end - some.begin)
        contiguous = some.n and bool((some.begin[1:] == some.end[:-1]).all())
        if contiguous:
            places: Any = slice(int(some.begin[0]), int(some.end[-1]))
        else:
            places = np.arange(ptr[-1]) + np.repeat(some.begin - ptr[:-1], np.diff(ptr))
        given = ((name, getattr(self, name)) for name in self._per_item)
        per_item = {name: None if x is None else x[places] for name, x in given}
        grouped = self._regroup(some.group, ptr, self.lengths[places])
        return self._with(**{self._ptr_field: ptr}, **per_item, **grouped)

    def _with(self, **changes: Any) -> Self:
        return replace(self, **changes)  # type: ignore[type-var]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write this object to a file in NumPy's ``.npz`` format, whole or not at all.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        write(path, type(self).__name__, values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        OSError
            The file cannot be opened.
        ValueError
            It holds no such object, or is damaged.
        """
        values = read(path, cls.__name__)
        try:
            loaded = cls(**values)
        except TypeError as error:
            raise ValueError(f"{os.fspath(path)} was written by another version: make it again ({error})") from error
        ptr, per_item = loaded._ptr, [getattr(loaded, name) for name in cls._per_item]
        if (
            not ptr.size
            or ptr[0]
            or (ptr[1:] < ptr[:-1]).any()
            or any(x is not None and len(x) != ptr[-1] for x in per_item)
        ):
            raise ValueError(f"{os.fspath(path)} holds arrays that do not fit together: make it again")
        return loaded

    def report(self) -> str:
        """Return the figures as text, one a line."""
        return figures_text(self._figures())

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__post_init__()  # the flags are not pickled

    def __len__(self) -> int:
        return self._ptr.size - 1

    @overload
    def __getitem__(self, k: int) -> Array: ...
    @overload
    def __getitem__(self, k: slice | Array | list[int]) -> Self: ...
    def __getitem__(self, k: Any) -> Any:
        ptr, groups = self._ptr, len(self)
        if isinstance(k, slice):
            chosen = np.arange(groups)[k]
        elif isinstance(k, list | np.ndarray) and np.ndim(k):
            chosen = np.asarray(k, dtype=None if len(k) else np.int64)
            if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
                raise TypeError(f"{self._unit} are chosen by integers, got an array of {chosen.dtype.name}")
        else:
            at = self._place(k)
            return self.items[ptr[at] : ptr[at + 1]]
        if chosen.size and not (-groups <= chosen.min() and chosen.max() < groups):
            self._place(int(chosen.min() if chosen.min() < -groups else chosen.max()))
        chosen = chosen.astype(np.int64) % max(1, groups)
        return self._take(Stretches(chosen, ptr[chosen], ptr[chosen + 1]))

    def _place(self, k: Any) -> int:
        at, groups = operator.index(k), len(self)
        if not -groups <= at < groups:
            raise IndexError(f"index {at} is out of range for {groups} {self._unit}")
        return at % groups

    def __iter__(self) -> Iterator[Array]:
        begin = 0
        for end in self._ptr[1:].tolist():
            yield self.items[begin:end]
            begin = end

    def __repr__(self) -> str:
        what = f"{len(self):,} {self._unit} of {self.items.size:,} items"
        return f"<{type(self).__name__}: {what}, {_text(self.efficiency)} real tokens>"


def share(real: int, places: int) -> float:
    """Return ``real / places``; 1.0 where there are no places, since none is wasted."""
    return real / places if places else 1.0


def pointer(sizes: Array) -> Array:
    """Return where each of ``(K,)`` groups laid one after another begins, and the end: ``(K + 1,)`` int64."""
    ptr = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes, out=ptr[1:])
    return ptr


def sums(values: Array, ptr: Array) -> Array:
    """Return the sum of the values of each group, ``(K,)`` int64; 0 for an empty one."""
    total = np.zeros(values.size + 1, np.int64)
    np.cumsum(values, out=total[1:])
    return total[ptr[1:]] - total[ptr[:-1]]


def figures_text(figures: dict[str, object]) -> str:
    """Return figures by their labels as text, one a line."""
    width = max(map(len, figures))
    return "\n".join(f"{label:<{width}}  {_text(figure)}" for label, figure in figures.items())


def _text(figure: object) -> str:
    return f"{figure:.3%}" if isinstance(figure, float) else f"{figure:,}" if isinstance(figure, int) else str(figure)
