"""`permutation`: a seeded shuffle that depends on nothing but its arguments.

Place i of a stream has a hash of 64 bits, SplitMix64's, whose first state is drawn from the arguments. The permutation
lists the places by increasing hash. The hash is one-to-one: there are no ties, and any way of sorting gives the same.
"""

from __future__ import annotations

import numpy as np

from fastnlp._arrays import Array
from fastnlp._dispatch import kernels_for


def permutation(n: int, seed: int, epoch: int = 0, *, use: str = "items", backend: str | None = None) -> Array:
    """Return a random order of ``0 .. n - 1``, the same on every backend, machine and version: ``(n,)`` int32 or int64.

    Parameters
    ----------
    n
        How many there are.
    seed, epoch
        Integers of any size: another seed or epoch, another order.
    use
        What is ordered; orders of the same seed and epoch for different uses have nothing in common.
    backend
        "reference" or "cpu"; default: cpu.

    References
    ----------
    G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    from hashlib import blake2b

    words = f"{use} {seed} {epoch}"
    stream = np.uint64(int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "little"))
    order = np.empty(n, index_dtype(n))
    if n:
        kernels_for("_shuffle", backend).order_by_hash(stream, order)
    return order


def index_dtype(n: int) -> type[np.signedinteger]:
    """Return the dtype of indices below `n`: int32 where it can hold them."""
    return np.int32 if n < 2**31 else np.int64
