"""The weights of distances as integers, and the way back: what makes co-occurrence counts exact."""

from __future__ import annotations

from math import lcm
from typing import Any, NamedTuple

import numpy as np

from fastnlp._arrays import Array, read

EXACT_WINDOW = 20
"""The largest window whose weights 1/d are counted over the common multiple of the distances."""
_BITS = 32  # of the largest weight, where weights are counted in fixed point
_LARGEST = 500  # weights lie between 2 to the power of -this and this


class Weights(NamedTuple):
    """Integers to count in, and what a count is to be divided by."""

    integers: Array
    """uint64: the weight of each distance from 0, which has none."""
    divisor: float
    """An integer below 2^32, or a power of two."""


def weights_of(window: int, weighting: Any, reach: int) -> Weights:
    """Return the weights that `weighting` gives to the distances up to `window`, as far as `reach`, 1 at least.

    Raises
    ------
    TypeError
        An array that does not hold numbers.
    ValueError
        An unknown name, or an array that is not of shape ``(window,)``, with entries that are negative, not finite or
        all 0, or whose largest is out of range.
    """
    if isinstance(weighting, str):
        if weighting == "uniform":
            return Weights(np.array([0] + [1] * reach, np.uint64), 1.0)
        if weighting != "harmonic":
            raise ValueError(
                f"weighting must be 'harmonic', 'uniform' or an array of {window} weights, got {weighting!r}"
            )
        distances = range(1, reach + 1)
        if window <= EXACT_WINDOW:
            divisor = lcm(*range(1, window + 1))
            return Weights(np.array([0, *(divisor // d for d in distances)], np.uint64), float(divisor))
        one = 1 << (_BITS - 1)
        return Weights(np.array([0, *((2 * one + d) // (2 * d) for d in distances)], np.uint64), float(one))
    given = _fixed_point(window, read("weighting", weighting))
    return Weights(given.integers[: reach + 1].copy(), given.divisor)


def _fixed_point(window: int, given: Array) -> Weights:
    if given.dtype.kind not in "iuf":
        raise TypeError(f"weighting must be a name or an array of numbers, got {given.dtype.name}")
    if given.shape != (window,):
        raise ValueError(
            f"weighting must hold one weight for each distance, shape ({window},) for window {window}, "
            f"got shape {given.shape}"
        )
    weights = given.astype(np.float64)
    wrong = ~np.isfinite(weights) | (weights < 0)
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"weighting must hold finite numbers, 0 or more, got {weights[at]} for distance {at + 1}")
    largest = float(weights.max())
    if not 2.0**-_LARGEST <= largest < 2.0**_LARGEST:
        raise ValueError(f"the largest weight must be between 2^-{_LARGEST} and 2^{_LARGEST}, got {largest}: scale it")
    power = _BITS - int(np.frexp(largest)[1])  # brings the largest into [2^31, 2^32)
    integers = np.rint(np.ldexp(weights, power)).astype(np.uint64)
    everything = int(np.bitwise_or.reduce(integers))
    spare = (everything & -everything).bit_length() - 1  # a power of two that all of them share
    return Weights(np.concatenate([np.zeros(1, np.uint64), integers >> np.uint64(spare)]), 2.0 ** (power - spare))


def divide(counts: Array, divisor: float, out: Array) -> None:
    """Write ``counts / divisor``, each the float64 nearest to the quotient of integers."""
    np.divide(counts, divisor, out=out)
    whole = int(divisor)
    if divisor < 1 or not whole & (whole - 1):  # a power of two: only the count was rounded
        return
    large = counts >= np.uint64(1 << 53)
    if large.any():  # the division rounded what was rounded before
        quotient, rest = np.divmod(counts[large], np.uint64(whole))
        # 55 bits or more of the quotient, the lowest of them set if anything is left: rounded once, as all of it would.
        bits = np.uint64(64) - np.frexp(quotient)[1].astype(np.uint64)
        shift = np.minimum(bits, np.uint64(64 - whole.bit_length())) - np.uint64(1)
        more, rest = np.divmod(rest << shift, np.uint64(whole))
        out[large] = np.ldexp(((quotient << shift) | more | (rest != 0)).astype(np.float64), -shift.astype(np.int64))
