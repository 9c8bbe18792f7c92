"""`IndexGroups`: groups of item indices in one flat array, what a packing and a set of batches have in common."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from fastnlp._arrays import Array


class IndexGroups(ABC):
    """A sequence of groups of item indices; group k is ``items[ptr[k] : ptr[k + 1]]``, a view.

    Subclasses are frozen dataclasses that name the pointer as their users do. Their arrays are flagged read-only.
    """

    _unit: ClassVar[str]  # "rows", "batches"
    items: Array  # (M,) int64, indices group by group

    @property
    @abstractmethod
    def _ptr(self) -> Array:
        """The first place of each group in `items`, and the end: ``(groups + 1,)`` int64."""

    @property
    @abstractmethod
    def efficiency(self) -> float:
        """Real tokens divided by all places for tokens; 1.0 where there are none."""

    @abstractmethod
    def _figures(self) -> dict[str, object]:
        """The figures that `report` lists, by their labels."""

    def report(self) -> str:
        """Return the figures as text, one a line."""
        figures = self._figures()
        width = max(map(len, figures))
        return "\n".join(f"{label:<{width}}  {_text(figure)}" for label, figure in figures.items())

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__post_init__()  # the flags are not pickled

    def __len__(self) -> int:
        return self._ptr.size - 1

    def __getitem__(self, k: int) -> Array:
        groups = len(self)
        at = operator.index(k)
        if not -groups <= at < groups:
            raise IndexError(f"index {at} is out of range for {groups} {self._unit}")
        at %= groups
        return self.items[self._ptr[at] : self._ptr[at + 1]]

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


def _text(figure: object) -> str:
    return f"{figure:.3%}" if isinstance(figure, float) else f"{figure:,}" if isinstance(figure, int) else str(figure)
