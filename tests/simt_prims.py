"""What the names of ``kernels/cuda/prims.py`` and of numba.cuda, NumPy and math do in the simulator.

`SIMULATED` has the intrinsics of prims, by name; a `part` of prims needs no entry, its own source runs. Ints of a
kernel are Python ints, as its sums are 64 bits wide on the device; ``np.int32(...)`` and the like wrap.
"""

from __future__ import annotations

import functools
import math
import operator
import sys

import numpy as np

from tests.simt_memory import READ, WRITE, Shared, converted, fail, now

_F32, _TINY = np.float32, np.finfo(np.float32).tiny


# --- where a thread is


def thread():
    return now.thread.index


def threads():
    return now.threads


def block():
    return now.block


def blocks():
    return now.blocks


def syncthreads():
    now.machine.barrier("syncthreads")


# --- memory


def _floats(pointer, values):
    """Return float32 values as the elements of a pointer hold them."""
    for value in values:
        if type(value) is not _F32:
            if not now.float64:
                fail(f"{pointer.name}: {type(value).__name__} {value!r} is stored as float32: computed in float64")
            values = tuple(map(_F32, values))
    if pointer.bits == 16:
        return list(np.array(values, _F32).astype(pointer.dtype).astype(_F32))
    return values


def load1(pointer, index):
    return pointer.cells[pointer.at(index, 1, READ)]


def _load(pointer, index, count, aligned):
    pointer.aligned(index, aligned)
    at = pointer.at(index, count, READ)
    return tuple(pointer.cells[at : at + count])


def _store(pointer, index, values, count, aligned):
    if len(values) != count:
        fail(f"{len(values)} values are stored as {count}")
    pointer.aligned(index, aligned)
    at = pointer.at(index, count, WRITE)
    pointer.cells[at : at + count] = _floats(pointer, values)


def store1(pointer, index, value):
    pointer.cells[pointer.at(index, 1, WRITE)] = _floats(pointer, (value,))[0]


def load8(pointer, index):
    return _load(pointer, index, 8, 4 if pointer.bits == 32 else 8)


def store8(pointer, index, values):
    _store(pointer, index, values, 8, 4 if pointer.bits == 32 else 8)


def load4(pointer, index):
    return _load(pointer, index, 4, 4)


def load4_fresh(pointer, index):
    return load4(pointer, index)


def store4(pointer, index, values):
    _store(pointer, index, values, 4, 4)


def store4_int(pointer, index, values):
    pointer.aligned(index, 128 // pointer.bits)
    at = pointer.at(index, 4, WRITE)
    pointer.cells[at : at + 4] = [converted(pointer, value) for value in values]


def prefetch(pointer, index):
    if not 0 <= index < pointer.size:
        fail(f"{pointer.name}[{index}] is out of range: {pointer.size} elements")


def atomic_add(pointer, index, value):
    return pointer.change(index, lambda old: old + value)


def atomic_max(pointer, index, value):
    return pointer.change(index, lambda old: max(old, value))


def atomic_add_float(pointer, index, value):
    pointer.change(index, lambda old: old + value)


def given(pointer):
    return pointer is not None


# --- arithmetic


def _checked(name, x):
    if type(x) is not _F32:
        fail(f"{name} of {type(x).__name__}: computed in float64")
    return x


def _flushed(x):
    return x if not abs(x) < _TINY else x * _F32(0)


def above8(a, b):
    return tuple(bool(x > y or (x != x and y == y)) for x, y in zip(a, b, strict=True))


def choose8(chosen, a, b):
    return tuple(x if c else y for c, x, y in zip(chosen, a, b, strict=True))


def exp2(x):
    return _flushed(np.exp2(_checked("exp2", x)))


def reciprocal(x):
    return _flushed(_F32(1) / _flushed(_checked("reciprocal", x)))


def rsqrt(x):
    return _flushed(_F32(1) / np.sqrt(_flushed(_checked("rsqrt", x))))


def maximum(a, b):
    return np.maximum(_checked("maximum", a), _checked("maximum", b))


def largest(*values):
    """The device's max: of a number and NaN the number."""
    found = values[0]
    for value in values[1:]:
        found = found if found >= value or value != value else value
    return found


def least(*values):
    """The device's min: of a number and NaN the number."""
    found = values[0]
    for value in values[1:]:
        found = found if found <= value or value != value else value
    return found


# the intrinsics of prims, and what of numba.cuda it hands on: a new one is added here
_WHERE = (thread, threads, block, blocks, syncthreads)
_MEMORY = (load1, load4, load4_fresh, load8, store1, store4, store8, store4_int, given, prefetch)
_ATOMICS = (atomic_add, atomic_max, atomic_add_float)
_ARITHMETIC = (exp2, reciprocal, rsqrt, maximum, above8, choose8)
SIMULATED = {f.__name__: f for f in (*_WHERE, *_MEMORY, *_ATOMICS, *_ARITHMETIC)}


def _tree(kind, value, two):
    """Return what 5 rounds of xor shuffles make of the values of a warp, in one."""

    def combine(got):
        values = [got[lane] for lane in range(32)]
        while len(values) > 1:
            half = len(values) // 2
            values = [two(a, b) for a, b in zip(values[:half], values[half:], strict=True)]
        return values[0]

    return now.machine.exchange(kind, 0xFFFFFFFF, value, combine)


def warp_sum(value):
    return _tree("warp_sum", value, operator.add)


def warp_max(value):
    return _tree("warp_max", value, largest)


SHORTCUTS = {f.__name__: f for f in (warp_sum, warp_max)}
"""Parts of prims that give the same bits sooner than their source does."""

BUILTINS = {"max": largest, "min": least}


# --- numba.cuda, as prims uses it


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
