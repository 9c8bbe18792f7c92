"""`Shuffle`: random orders that depend on nothing but a seed and an epoch, not on the machine, backend or version.

Item i has a hash of 64 bits, the number i of SplitMix64's stream, which begins where the arguments say. An order lists
the items by increasing hash. The hash is one-to-one: there are no ties, and any way of sorting gives the same.

References: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp._dispatch import backend_for_items, implementation


class Shuffle(NamedTuple):
    """The random orders of a seed and an epoch, integers of any size: others of either have nothing in common."""

    seed: int
    epoch: int = 0
    backend: str | None = None

    def permutation(self, n: int, *, use: str = "items") -> Array:
        """Return a random order of ``0 .. n - 1``, ``(n,)`` int32 or int64; `use` names what is ordered.

        Orders of different uses have nothing in common.
        """
        order = np.empty(n, index_dtype(n))
        self._kernels(n).order_by_hash(self._stream(use), order)
        return order

    def runs(self, ptr: Array, order: Array, *, use: str = "items") -> None:
        """Sort each run of `order`, ``order[ptr[r] : ptr[r + 1]]``, to where `permutation` has its items.

        Parameters
        ----------
        ptr
            ``(R + 1,)`` int64, from 0 to N.
        order
            ``(N,)`` int32 or int64 items, is changed.
        """
        self._kernels(order.size).shuffle_runs(self._stream(use), ptr, order)

    def _kernels(self, n: int) -> ModuleType:
        return implementation("_shuffle", backend_for_items("_shuffle", self.backend, n))

    def _stream(self, use: str) -> np.uint64:
        from hashlib import blake2b

        words = f"{use} {self.seed} {self.epoch}".encode()
        return np.uint64(int.from_bytes(blake2b(words, digest_size=8).digest(), "little"))


def permutation(n: int, seed: int, epoch: int = 0, *, use: str = "items", backend: str | None = None) -> Array:
    """Return a random order of ``0 .. n - 1``: `Shuffle.permutation`."""
    return Shuffle(seed, epoch, backend).permutation(n, use=use)


def index_dtype(n: int) -> type[np.signedinteger]:
    """Return the dtype of indices below `n`: int32 where it can hold them."""
    return np.int32 if n < 2**31 else np.int64
