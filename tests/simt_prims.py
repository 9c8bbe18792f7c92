"""What the primitives of ``kernels/cuda/prims.py`` do in the simulator.

`SIMULATED` has the intrinsics, by name; a `part` of prims needs no entry, its own source runs (see ``simt_cuda``).
"""

from __future__ import annotations

import operator

import numpy as np

from tests.simt_memory import READ, WRITE, converted, fail, now

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
            if not now.float64 and not isinstance(value, int):
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
