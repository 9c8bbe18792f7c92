"""What changes while GloVe is trained: vectors, biases, and their accumulated squared gradients."""

from __future__ import annotations

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._glove_checks import Given
from fastnlp.ops._glove_grid import Grid

_LANES = 8  # vectors are padded to a multiple of it, so that loops over them have no remainder
_UNMOVED = np.float32(1e38)  # an accumulated gradient beside which every step vanishes

NAMES = ("word_vectors", "context_vectors", "word_bias", "context_bias")


class State:
    """The parameters of training: x = (w, b, 1) and y = (v, 1, c), padded with zeros, and the squares gx and gy.

    Rows stand in the order of the grid. `take` and `put` give and set them in the order of the words, by name.
    """

    def __init__(self, grid: Grid, dim: int, rng: np.random.Generator, first_bias_square: float) -> None:
        self.label, self.dim = grid.label, dim
        shape = (grid.words.size, -(-(dim + 2) // _LANES) * _LANES)
        self.x, self.y = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.gx, self.gy = np.ones(shape, np.float32), np.ones(shape, np.float32)
        for z, g, bias, one in ((self.x, self.gx, dim, dim + 1), (self.y, self.gy, dim + 1, dim)):
            initial = (rng.random((self.label.size, dim + 1), np.float32) - np.float32(0.5)) / np.float32(dim)
            z[self.label, :dim], z[self.label, bias] = initial[:, :dim], initial[:, dim]
            g[:, bias] = first_bias_square
            z[:, one], g[:, one] = 1, _UNMOVED
        self._frozen: tuple[Array, Array, Array] | None = None

    def begin_from(self, given: Given) -> None:
        """Take over vectors and biases. Vectors that are equal get their random start on top, with opposite signs."""
        rows, dim = self.label[given.rows], self.dim
        apart = given.word_vectors is given.context_vectors
        start = self.x[rows, :dim] if apart else np.float32(0)
        self.x[rows, :dim], self.y[rows, :dim] = given.word_vectors + start, given.context_vectors - start
        if given.word_bias is not None:
            self.x[rows, dim], self.y[rows, dim + 1] = given.word_bias, given.context_bias

    def freeze(self, rows: Array) -> None:
        """Let no step move the vectors of these words."""
        at = self.label[rows]
        self.gx[at, : self.dim] = self.gy[at, : self.dim] = _UNMOVED
        self._frozen = at, self.x[at, : self.dim], self.y[at, : self.dim]

    @property
    def frozen(self) -> bool:
        """Whether some vectors are."""
        return self._frozen is not None

    def limits(self, clip: float) -> Array:
        """Return for each column how large an element of its gradient may be: vectors are clipped, biases not."""
        limits = np.full(self.x.shape[1], np.inf, np.float32)
        limits[: self.dim] = min(clip, float(np.finfo(np.float32).max))
        return limits

    def pull(self, rows: Array, targets: Array, strength: float, rate: float) -> None:
        """Take the implicit AdaGrad step of ``strength |w + v - target|^2``: it cannot go too far."""
        at, dim = self.label[rows], self.dim
        a, b = (np.float32(2 * strength * rate) / np.sqrt(g[at, :dim]) for g in (self.gx, self.gy))
        off = (self.x[at, :dim] + self.y[at, :dim] - targets) / (1 + a + b)
        self.x[at, :dim] -= a * off
        self.y[at, :dim] -= b * off

    def end_epoch(self) -> bool:
        """Undo what rounding did to frozen vectors; tell whether all vectors and biases are finite."""
        if self._frozen is not None:
            at, x, y = self._frozen
            self.x[at, : self.dim], self.y[at, : self.dim] = x, y
        return bool(np.isfinite(self.x).all() and np.isfinite(self.y).all())

    def take(self) -> dict[str, Array]:
        """Return copies of the vectors and biases, in the order of the words."""
        return self._by_words(self.x, self.y)

    def take_squares(self) -> dict[str, Array]:
        """Return copies of the accumulated squares of the gradients, in the order of the words."""
        return self._by_words(self.gx, self.gy)

    def put(self, values: dict[str, Array], squares: dict[str, Array]) -> None:
        """Set what `take` and `take_squares` returned."""
        for x, y, given in ((self.x, self.y, values), (self.gx, self.gy, squares)):
            for at, name in zip(self._places(x, y), NAMES, strict=True):
                array, column = at
                array[self.label, column] = given[name]

    def _by_words(self, x: Array, y: Array) -> dict[str, Array]:
        return {
            name: array[self.label, column] for (array, column), name in zip(self._places(x, y), NAMES, strict=True)
        }

    def _places(self, x: Array, y: Array) -> list[tuple[Array, slice | int]]:
        vectors = slice(self.dim)
        return [(x, vectors), (y, vectors), (x, self.dim), (y, self.dim + 1)]
