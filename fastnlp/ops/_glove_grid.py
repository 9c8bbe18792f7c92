"""The grid that GloVe is trained on: words dealt to blocks, the entries in them, and the order of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._glove_checks import csr_arrays

if TYPE_CHECKING:
    from scipy import sparse

_BLOCK = 512  # words of a block: at 50 features its four arrays take 0.5 MB, and stay near the core
_MOST_BLOCKS = 64  # no more threads than that can work at once
_MOST_WORDS = 1 << 16  # of a block: the place of a word is a uint16
_COUNTED = 1 << 22  # columns that are counted at a time: NumPy widens them to int64
_VISIT = 256  # diagonals of a block that are trained in one go; more would teach a word too much at a time


class Grid(NamedTuple):
    """The words cut into B blocks of S: word v is number ``place[v]`` of block ``block[v]``."""

    block: Array  # (V,)
    place: Array  # (V,)
    words: Array  # (B, S), the inverse; -1 where a block has no word

    @property
    def label(self) -> Array:
        """The number of each word in training: its row of the parameters."""
        return self.block * np.int32(self.words.shape[1]) + self.place

    @classmethod
    def deal(cls, matrix: sparse.csr_array, rng: np.random.Generator) -> Grid:
        """Deal the words to blocks at random, so that each gets its share of those with many entries and with few."""
        vocabulary = matrix.shape[0]
        blocks = max(min(_MOST_BLOCKS, -(-vocabulary // _BLOCK)), -(-vocabulary // _MOST_WORDS))
        size = -(-vocabulary // blocks)
        entries = np.diff(matrix.indptr).astype(np.int64)
        for begin in range(0, matrix.nnz, _COUNTED):
            entries += np.bincount(matrix.indices[begin : begin + _COUNTED], minlength=vocabulary)
        order = np.argsort(-entries, kind="stable")
        hands = rng.permuted(np.tile(np.arange(blocks, dtype=np.int32), (size, 1)), axis=1).reshape(-1)[:vocabulary]
        places = rng.permuted(np.tile(np.arange(size, dtype=np.int32), (blocks, 1)), axis=1)
        block, place = np.empty(vocabulary, np.int32), np.empty(vocabulary, np.int32)
        block[order] = hands
        place[order] = places[hands, np.arange(vocabulary) // blocks]
        words = np.full((blocks, size), -1, np.int32)
        words[block, place] = np.arange(vocabulary)
        return cls(block, place, words)

    def arrange(
        self, kernels: ModuleType, matrix: sparse.csr_array, x_max: float, alpha: float
    ) -> tuple[Array, Array, Array]:
        """Return ``(places, values, starts)``: the entries by round, block and diagonal, 12 bytes each."""
        starts = np.empty(self.words.shape[0] * self.words.size + 1, np.int64)
        places, values = np.empty((matrix.nnz, 2), np.uint16), np.empty((matrix.nnz, 2), np.float32)
        kernels.arrange(*csr_arrays(matrix), *self, x_max, alpha, starts, places, values)
        return places, values, starts

    def order(self, rng: np.random.Generator) -> list[tuple[int, Array]]:
        """Return a random order of an epoch: visits ``(s, diagonals)`` to some diagonals of all blocks of round s."""
        blocks, size = self.words.shape
        diagonals = rng.permuted(np.tile(np.arange(size, dtype=np.int32), (blocks, 1)), axis=1)
        visits = list(self._visits(diagonals))
        return [visits[v] for v in rng.permutation(len(visits))]

    def _visits(self, diagonals: Array) -> Iterator[tuple[int, Array]]:
        parts = -(-diagonals.shape[1] // _VISIT)
        for s, of_round in enumerate(diagonals):
            yield from ((s, part) for part in np.array_split(of_round, parts))

    def pair(self, s: int, block: int, places: Array) -> tuple[int, int]:
        """Return the words (row, column) of an entry of a block of round s from their places."""
        column = (block + s) % len(self.words)
        return int(self.words[block, places[0]]), int(self.words[column, places[1]])
