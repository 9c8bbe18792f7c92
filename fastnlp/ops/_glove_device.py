"""What runs the visits of an epoch of GloVe on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnlp._arrays import Array
from fastnlp._device import DeviceArray, Library
from fastnlp.ops._glove_checks import csr_arrays
from fastnlp.ops._glove_grid import Grid
from fastnlp.ops._glove_state import State
from fastnlp.ops._glove_training import Order

if TYPE_CHECKING:
    from scipy import sparse

_AT_ONCE = 1 << 25  # entries that are trained before the host looks: tenths of a second
_NAMES = ("x", "y", "gx", "gy")
_REMEDY = "fewer words, fewer counts or a smaller dim take less, and backend='cpu' takes none"


class DeviceTraining:
    """Training on a GPU, with copies of the counts and of the state there.

    The parameters are those of `Training`; `library` is that of the GPU, and with `hogwild` the kernels' faster way is
    taken, which does not repeat.
    """

    def __init__(
        self,
        library: Library,
        kernels: ModuleType,
        matrix: sparse.csr_array,
        grid: Grid,
        state: State,
        x_max: float,
        alpha: float,
        limits: Array,
        rate: float,
        hogwild: bool,
    ) -> None:
        self._library, self._kernels, self._state = library, kernels, state
        self._train = kernels.train_hogwild if hogwild else kernels.train
        self._blocks = len(grid.words)
        self._parameters: tuple[DeviceArray, ...] = ()
        self._kept: tuple[DeviceArray, ...] = ()
        self._take: Callable[[], None] | None = None
        with library.memory_errors(_REMEDY):
            self._entries = _arranged(library, kernels, matrix, grid, x_max, alpha)
            self._steps = library.upload(limits), rate
            self._send()
            self._kept = tuple(library.empty(state.x.shape, np.float32) for _ in range(2))

    def visits(self, order: Order) -> Iterator[tuple[Array, Array]]:
        """Make visits and yield ``(cost, failed)`` of some at a time, ``(n, B)``: see ``train`` of the kernels."""
        if not order:
            return
        library, n = self._library, max(1, min(len(order), _AT_ONCE * len(order) // len(self._entries[0])))
        cost, failed = (library.empty((n, self._blocks), dtype) for dtype in (np.float64, np.int64))
        ends = np.cumsum([0, *(diagonals.size for _, diagonals in order)]).tolist()
        everything = library.upload(np.concatenate([diagonals for _, diagonals in order]))
        for first in range(0, len(order), n):
            some = order[first : first + n]
            for k, (s, _) in enumerate(some):
                diagonals = everything[ends[first + k] : ends[first + k + 1]]
                self._train(*self._entries, s, diagonals, *self._parameters, *self._steps, cost[k], failed[k])
            yield library.read(cost)[: len(some)], library.read(failed)[: len(some)]

    def places(self, entry: Any) -> Array:
        """Return the places of an entry's row and column in their blocks."""
        both = self._library.read(self._entries[0][int(entry) : int(entry) + 1])
        return both.view(np.uint16)

    def bring(self) -> None:
        """Bring the state on the host up to date."""
        for name, values in zip(_NAMES, self._parameters, strict=True):
            getattr(self._state, name)[...] = self._library.read(values)

    def end_epoch(self, change: Callable[[], None] | None) -> bool:
        """Let `change` change the state, undo what rounding did to frozen vectors, tell whether all is finite."""
        if change is None and not self._state.frozen:
            found = self._library.zeros(1, np.int64)
            for vectors in self._parameters[:2]:
                self._kernels.find_infinite(vectors, found)
            return not self._library.read(found)[0]
        self.bring()
        if change is not None:
            change()
        finite = self._state.end_epoch()
        self._send()
        return finite

    def keep(self, take: Callable[[], None]) -> None:
        """Note that the vectors of now are to be kept: they stay on the GPU until `close`, where `take` takes them."""
        library, vectors = self._library, self._parameters[:2]
        for one, copy in zip(vectors, self._kept, strict=True):
            library.copy(one, copy)
        self._take = take

    def close(self) -> None:
        """Bring what was noted to be kept."""
        if self._take is not None:
            for name, values in zip(_NAMES, self._kept, strict=False):
                getattr(self._state, name)[...] = self._library.read(values)
            self._take()

    def _send(self) -> None:
        self._parameters = ()  # the old ones go first
        self._parameters = tuple(self._library.upload(getattr(self._state, name)) for name in _NAMES)


def cupy_library() -> Library:
    """Return CuPy's current device.

    Raises
    ------
    ImportError
        CuPy is not installed.
    RuntimeError
        There is no GPU.
    """
    from importlib.util import find_spec

    if find_spec("cupy") is None:
        raise ImportError("GloVe on a GPU needs CuPy, which is not installed: pip install 'fastnlp-kernels[cuda]'")
    import cupy

    from fastnlp._device_cupy import library_on

    try:
        return library_on(cupy.cuda.runtime.getDevice())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        from fastnlp._detect import explained

        raise explained(error) from error


def _arranged(
    library: Library, kernels: ModuleType, matrix: sparse.csr_array, grid: Grid, x_max: float, alpha: float
) -> tuple[DeviceArray, ...]:
    """Return ``(places, values, starts)`` as the kernels of a GPU have them."""
    starts = library.empty(grid.words.shape[0] * grid.words.size + 1, np.int64)
    places, values = library.empty(matrix.nnz, np.int32), library.empty((matrix.nnz, 2), np.float32)
    indptr, indices, data = (library.upload(array) for array in csr_arrays(matrix))
    block, place = library.upload(grid.block), library.upload(grid.place)
    kernels.arrange(indptr, indices, data, block, place, grid.words, x_max, alpha, starts, places, values)
    return places, values, starts
