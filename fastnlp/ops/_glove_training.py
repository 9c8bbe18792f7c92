"""What runs the visits of an epoch of GloVe: here the kernels of the CPU, on the state itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._glove_grid import Grid
from fastnlp.ops._glove_state import State

if TYPE_CHECKING:
    from scipy import sparse

Order = Sequence[tuple[int, Array]]
"""Visits ``(s, diagonals)``, as `Grid.order` gives them."""
Change = Callable[[], None]


class Training:
    """Training where the state is.

    Parameters
    ----------
    kernels
        A backend's.
    matrix
        The counts.
    x_max, alpha
        The weight of a count.
    limits, rate
        How large an element of a gradient may be, ``(P,)``, and what it is multiplied by.
    """

    def __init__(
        self,
        kernels: ModuleType,
        matrix: sparse.csr_array,
        grid: Grid,
        state: State,
        x_max: float,
        alpha: float,
        limits: Array,
        rate: float,
    ) -> None:
        self._train, self._state = kernels.train, state
        self._entries = grid.arrange(kernels, matrix, x_max, alpha)
        self._steps = limits, rate
        self._blocks = len(grid.words)

    def visits(self, order: Order) -> Iterator[tuple[Array, Array]]:
        """Make visits and yield ``(cost, failed)`` of some at a time, ``(n, B)``: see ``train`` of the kernels."""
        cost, failed = np.empty((1, self._blocks)), np.empty((1, self._blocks), np.int64)
        state = self._state
        for s, diagonals in order:
            parameters = state.x, state.y, state.gx, state.gy
            self._train(*self._entries, s, diagonals, *parameters, *self._steps, cost[0], failed[0])
            yield cost, failed

    def places(self, entry: Any) -> Array:
        """Return the places of an entry's row and column in their blocks."""
        found: Array = self._entries[0][entry]
        return found

    def bring(self) -> None:
        """Bring the state on the host up to date: it always is."""

    def end_epoch(self, change: Change | None) -> bool:
        """Let `change` change the state, undo what rounding did to frozen vectors, tell whether all is finite."""
        if change is not None:
            change()
        return self._state.end_epoch()

    def keep(self, take: Callable[[], None]) -> None:
        """Note that the vectors of now are to be kept: `take` takes them from the state, here at once."""
        take()

    def close(self) -> None:
        """Bring what was noted to be kept: nothing is left."""
