"""Stretches of a flat array, copied to other places or filled."""

from __future__ import annotations

import numpy as np


def copy_stretches(x, begin, lengths, place, out):  # (T,), (N,), (N,), (N,), (M,)
    """out[place[n] + j] = x[begin[n] + j] for j < lengths[n]; what is between the places is left as it is."""
    out[spread(place, lengths)] = x[spread(begin, lengths)]


def fill_stretches(begin, lengths, value, out):  # (N,), (N,), (M,)
    """out[begin[n] + j] = value for j < lengths[n]."""
    out[spread(begin, lengths)] = value


def spread(begin, lengths):  # (N,), (N,)
    """Return begin[n], begin[n] + 1, ..., lengths[n] of them, for each n: ``(sum(lengths),)``."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if ends.size else 0
    return np.repeat(begin - (ends - lengths), lengths) + np.arange(total)
