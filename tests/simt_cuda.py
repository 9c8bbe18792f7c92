"""numba.cuda, NumPy and math as kernels and the parts of prims see them in the simulator.

Ints of a kernel are Python ints, as its sums are 64 bits wide on the device; ``np.int32(...)`` and the like wrap.
"""

from __future__ import annotations

import functools
import math
import sys

import numpy as np

from tests.simt_memory import Shared, fail, now
from tests.simt_prims import block, blocks, largest, least, syncthreads, thread, threads


class _Threads:
    """A dim3 of which kernels use x alone."""

    def __init__(self, x):
        self._x = x

    @property
    def x(self):
        return self._x()


@functools.cache
def _dtype(dtype):
    return np.dtype(getattr(dtype, "dtype", None) or (dtype if isinstance(dtype, type) else str(dtype)))


def _calls():
    """Return the calls that led here, from the kernel on: what tells two arrays of one function from each other."""
    frame, found = sys._getframe(2), []
    while frame is not None and frame.f_globals.get("__simulated__"):
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


class _SharedArrays:
    def array(self, shape, dtype, alignment=None):
        calls = _calls()
        found = now.machine.shared.get(calls)
        if found is None:
            name = f"shared array {len(now.machine.shared)}"
            found = now.machine.shared[calls] = Shared(name, shape, _dtype(dtype))
        return found


class _LocalArrays:
    def array(self, shape, dtype, alignment=None):
        return Shared("local array", shape, _dtype(dtype), logged=False)


class _Atomic:
    def add(self, array, index, value):
        return array.change(index, lambda old: old + value)

    def max(self, array, index, value):
        return array.change(index, lambda old: largest(old, value))

    def min(self, array, index, value):
        return array.change(index, lambda old: least(old, value))

    def exch(self, array, index, value):
        return array.change(index, lambda old: value)

    def cas(self, array, index, old, value):
        return array.change(index, lambda was: value if was == old else was)


class Cuda:
    """The part of numba.cuda that prims may use."""

    threadIdx, blockDim = _Threads(thread), _Threads(threads)  # noqa: N815 (as CUDA calls them)
    blockIdx, gridDim = _Threads(block), _Threads(blocks)  # noqa: N815
    shared, local, atomic, warpsize = _SharedArrays(), _LocalArrays(), _Atomic(), 32

    @property
    def laneid(self):
        return now.thread.index & 31

    syncthreads = staticmethod(syncthreads)

    def syncthreads_or(self, value):
        return int(any(now.machine.barrier("syncthreads_or", value)))

    def syncthreads_and(self, value):
        return int(all(now.machine.barrier("syncthreads_and", value)))

    def syncthreads_count(self, value):
        return sum(map(bool, now.machine.barrier("syncthreads_count", value)))

    def syncwarp(self, mask=0xFFFFFFFF):
        now.machine.exchange("syncwarp", int(mask), None)

    def _from(self, kind, mask, value, lane):
        got = now.machine.exchange(kind, int(mask), value)
        if lane not in got:
            fail(f"{kind} reads lane {lane}, which is not active")
        return got[lane]

    def shfl_sync(self, mask, value, lane):
        return self._from("shfl_sync", mask, value, lane & 31)

    def shfl_xor_sync(self, mask, value, bits):
        return self._from("shfl_xor_sync", mask, value, (now.thread.index & 31) ^ bits)

    def shfl_down_sync(self, mask, value, delta):
        lane = now.thread.index & 31
        return self._from("shfl_down_sync", mask, value, lane + delta if lane + delta < 32 else lane)

    def shfl_up_sync(self, mask, value, delta):
        lane = now.thread.index & 31
        return self._from("shfl_up_sync", mask, value, lane - delta if lane >= delta else lane)

    def ballot_sync(self, mask, value):
        return sum(1 << lane for lane, v in now.machine.exchange("ballot_sync", int(mask), value).items() if v)

    def any_sync(self, mask, value):
        return any(now.machine.exchange("any_sync", int(mask), value).values())

    def all_sync(self, mask, value):
        return all(now.machine.exchange("all_sync", int(mask), value).values())

    def match_any_sync(self, mask, value):
        got = now.machine.exchange("match_any_sync", int(mask), value)
        return sum(1 << lane for lane, v in got.items() if v == value)

    def popc(self, x):
        return (int(x) & 0xFFFFFFFFFFFFFFFF).bit_count()

    def ffs(self, x):
        return (int(x) & -int(x)).bit_length()

    def clz(self, x):
        return 32 - (int(x) & 0xFFFFFFFF).bit_length()

    def fma(self, a, b, c):
        return type(a)(np.float64(a) * np.float64(b) + np.float64(c))

    def selp(self, condition, a, b):
        return a if condition else b


# --- NumPy and math


def _wrapping(name):
    limits = np.iinfo(name)
    low, high, period = int(limits.min), int(limits.max), 1 << limits.bits

    def convert(x):
        if isinstance(x, (float, np.floating)) and not abs(x) < high:  # as cvt.rzi does
            return 0 if x != x else high if x > 0 else low
        n = int(x)
        return n if low <= n <= high else (n - low) % period + low

    convert.dtype = np.dtype(name)
    return convert


class Numpy:
    """NumPy whose ints are Python's, wrapped where they are converted."""

    def __init__(self):
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
            setattr(self, name, _wrapping(name))

    def __getattr__(self, name):
        setattr(self, name, getattr(np, name))
        return getattr(np, name)


class Math:
    """The functions of math on float32, with inf and NaN where Python raises."""

    def __getattr__(self, name):
        found = getattr(np, {"fabs": "abs", "pow": "power"}.get(name, name), None)
        setattr(self, name, found if isinstance(found, np.ufunc) else getattr(math, name))
        return getattr(self, name)

    def floor(self, x):
        return int(np.floor(x))

    def ceil(self, x):
        return int(np.ceil(x))
