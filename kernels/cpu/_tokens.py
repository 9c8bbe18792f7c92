"""Stretches of a flat array, copied to other places or filled (the meaning: ``reference/_tokens.py``).

Schedule: one pass over the stretches, in parallel where they are many tokens. Bytes a token: its read and its write.
"""

from __future__ import annotations

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit

TOKENS_A_TASK = 1 << 16


def copy_stretches(x, begin, lengths, place, out):  # (T,), (N,), (N,), (N,), (M,)
    """out[place[n] + j] = x[begin[n] + j] for j < lengths[n]; what is between the places is left as it is."""
    n = lengths.size
    run(_copy, n, x, begin, lengths, place, out, grain=grain_of(n, out.size))


def fill_stretches(begin, lengths, value, out):  # (N,), (N,), (M,)
    """out[begin[n] + j] = value for j < lengths[n]."""
    n = lengths.size
    run(_fill, n, begin, lengths, value, out, grain=grain_of(n, out.size))


def grain_of(n, tokens):
    """Return how many of n stretches of that many tokens in all make a task."""
    return n if tokens <= TOKENS_A_TASK else max(1, TOKENS_A_TASK * n // tokens)


# token ids to ids; and whole features, as words of their size
_PLACES = "int64[::1], int64[::1], int64[::1]"


@jit(
    f"(int64, int64, uint8[::1], {_PLACES}, uint8[::1])",
    f"(int64, int64, uint16[::1], {_PLACES}, {{i}}[::1])",
    f"(int64, int64, int32[::1], {_PLACES}, {{i}}[::1])",
    f"(int64, int64, int64[::1], {_PLACES}, int64[::1])",
)
def _copy(first, last, x, begin, lengths, place, out):
    for n in range(first, last):
        source = x[begin[n] : begin[n] + lengths[n]]
        target = out[place[n] : place[n] + lengths[n]]
        for j in range(source.size):
            target[j] = source[j]


@jit("(int64, int64, int64[::1], int64[::1], int64, {i}[::1])")
def _fill(first, last, begin, lengths, value, out):
    for n in range(first, last):
        out[begin[n] : begin[n] + lengths[n]] = value
