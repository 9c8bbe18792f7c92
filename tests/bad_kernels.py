"""Kernels that are bad on purpose: the gate must refuse each, and say why."""

from __future__ import annotations

import numpy as np
from numba import cuda, types

from fastnlp.kernels.cuda import prims
from fastnlp.kernels.cuda._rows import sum8
from fastnlp.kernels.cuda.prims import block, load1, load8, store1, store8, thread, threads

BAD = {}
"""Each kernel, with what the gate says of it."""


def bad(says, signature="f32* f32* i64", *, width=256, registers=64, loads=0, stores=0):
    """Declare a kernel that the library does not know."""

    def declare(function):
        kernel = prims.Kernel(function, signature, width, registers, loads, stores, float64=False)
        BAD[function.__name__] = kernel, says
        return kernel

    return declare


@bad([])
def good(x, out, n):
    i = np.int64(block()) * threads() + thread()
    if i < n:
        store1(out, i, load1(x, i) + np.float32(1))


@bad([r"a stack frame of 256 bytes, none is allowed", r"\d+ accesses to local memory, none are allowed"])
def local_array(x, out, n):
    seen = cuda.local.array(64, types.float32)
    for i in range(n):
        seen[i & 63] = load1(x, i)
    store1(out, thread(), seen[n & 63])


@bad(
    [
        r"a stack frame of \d+ bytes, none is allowed",
        r"\d+ bytes of spilled registers, none are allowed",
        r"\d+ accesses to local memory, none are allowed",
    ],
    width=1024,
)
def spilled(x, out, n):
    """96 values that live until the end, where a block of 1,024 threads leaves 64 registers."""
    a, b, c, d = load8(x, 0), load8(x, n), load8(x, 2 * n), load8(x, 3 * n)
    e, f, g, h = load8(x, 4 * n), load8(x, 5 * n), load8(x, 6 * n), load8(x, 7 * n)
    i, j, k, m = load8(x, 8 * n), load8(x, 9 * n), load8(x, 10 * n), load8(x, 11 * n)
    prims.syncthreads()
    store8(out, 0, a)
    store8(out, n, b)
    store8(out, 2 * n, c)
    store8(out, 3 * n, d)
    store8(out, 4 * n, e)
    store8(out, 5 * n, f)
    store8(out, 6 * n, g)
    store8(out, 7 * n, h)
    store8(out, 8 * n, i)
    store8(out, 9 * n, j)
    store8(out, 10 * n, k)
    store8(out, 11 * n, m)


@bad([r"\d\d registers a thread, at most 16"], registers=16)
def too_many_registers(x, out, n):
    a, b, c = load8(x, 0), load8(x, n), load8(x, 2 * n)
    prims.syncthreads()
    store8(out, 0, a)
    store8(out, n, b)
    store8(out, 2 * n, c)


@bad([r"[1-9]\d* float64 instructions, none are allowed"])
def float64_literal(x, out, n):
    store1(out, thread(), np.float32(load1(x, thread()) * 0.1))


@bad([r"0 16-byte loads, at least 2"], loads=2)
def scalar_loads(x, out, n):
    first = 8 * thread()
    for i in range(8):
        store1(out, first + i, load1(x, first + i))


@bad([r"1 16-byte loads, at least 2", r"0 16-byte stores, at least 1"], "bf16* f32* i64", loads=2, stores=1)
def few_vectors(x, out, n):
    store1(out, n, sum8(load8(x, 8 * thread())))


@bad([r"does not compile: TypingError: .*'shape'"])
def pointer_as_array(x, out, n):
    if thread() < x.shape[0]:
        store1(out, thread(), load1(x, thread()))


@bad([r"does not compile: .*too much shared data|65536 bytes of shared memory, at most 49152"])
def too_much_shared(x, out, n):
    shared = cuda.shared.array(16_384, types.float32)
    shared[thread()] = load1(x, thread())
    prims.syncthreads()
    store1(out, thread(), shared[n])
