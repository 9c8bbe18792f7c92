"""Linear map with bias and activation, and its gradients (the equations: the reference's).

The products are cuBLAS's; bias and activation are one pass over what it wrote. Sums over rows are taken in a fixed
order: slices of rows a block each, then the slices.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._eights import plus8
from fastnlp.kernels.cuda._rows import LOG2E
from fastnlp.kernels.cuda._schedule import grid, whole
from fastnlp.kernels.cuda.prims import (
    block,
    blocks,
    exp2,
    given,
    kernel,
    load1,
    load8,
    part,
    store1,
    store8,
    tanh,
    thread,
    threads,
)
from fastnlp.kernels.scalar import relu, relu_gradient, sigmoid_gradient, tanh_gradient

_ZERO, _ONE = np.float32(0), np.float32(1)
_ACTIVATIONS = (None, "relu", "tanh", "sigmoid")
_THREADS = 256
_ROWS_A_SLICE = 256


def forward(x, weight, bias, activation, out, matmul):  # (N, D), (V, D), (V,) or None, (N, V)
    """out = f(x weight' + bias); `matmul` names a CPU's BLAS, the GPU's is used."""
    x.library.matmul(x, weight.T, out)
    if bias is not None or activation is not None:
        _finish(out, bias, activation)


def activation_backward(y, dy, activation, dz):  # (N, V) each
    """dz = dy f'(z), from y = f(z)."""
    n, v = y.shape
    arrays = (y, y.pitch, dy, dy.pitch, dz, dz.pitch)
    code = _ACTIVATIONS.index(activation)
    y.library.launch(activation_gradient, *grid(y.library, n, v, _THREADS), *arrays, code, v, whole(y, dy, dz), n)


def backward(dz, x, weight, dx, dweight, dbias, matmul):  # (N, V), (N, D), (V, D); outputs may be None
    """Fill those of dx = dz weight, dweight = dz' x, dbias = sum_n dz that are not None."""
    if dx is not None:
        x.library.matmul(dz, weight, dx)
    if dweight is not None:
        x.library.matmul(dz.T, x, dweight)
    if dbias is not None:
        add_columns(dz, dbias, accumulate=False)


def logits(x, weight, bias, out):  # (N, D), (V, D), (V,) or None, (N, V)
    """out = x weight' + bias."""
    forward(x, weight, bias, None, out, None)


def add_columns(x, total, *, accumulate):  # (N, V), (V,) float32
    """total = sum_n x_n, or that added to it."""
    (n, v), library = x.shape, x.library
    slices = max(1, -(-n // _ROWS_A_SLICE))
    partial = library.empty((slices, v), np.float32)
    columns = -(-v // _THREADS)
    library.launch(sum_slices, slices * columns, _THREADS, x, x.pitch, n, v, columns, _ROWS_A_SLICE, partial)
    library.launch(sum_partial, columns, _THREADS, partial, slices, v, int(accumulate), total)


def _finish(z, bias, activation):
    n, v = z.shape
    wide = whole(z) if bias is None else whole(z, bias.reshape(1, v))
    code = _ACTIVATIONS.index(activation)
    z.library.launch(finish_rows, *grid(z.library, n, v, _THREADS), z, z.pitch, bias, code, v, wide, n)


@part
def _activated(x, code):
    """Return f(x), f as `_ACTIVATIONS` counts them."""
    if code == 1:
        return relu(x)
    if code == 2:
        return tanh(x)
    if code == 3:
        return _ONE / (_ONE + exp2(-x * LOG2E))
    return x


@part
def _gradient(y, dy, code):
    """Return dy f'(x), from y = f(x)."""
    if code == 1:
        return relu_gradient(y, dy)
    if code == 2:
        return tanh_gradient(y, dy)
    return sigmoid_gradient(y, dy)


@kernel("x* i64 x* i64 i64 i64 i64", threads=_THREADS, loads=2, stores=1)
def finish_rows(z, pitch, bias, activation, classes, whole, n):
    """z = f(z + bias), a row a block at a time."""
    row = block()
    while row < n:
        base = row * pitch
        i = np.int32(thread() * 8)
        while i < whole:
            a = load8(z, base + i)
            if given(bias):
                a = plus8(a, load8(bias, i))
            store8(
                z,
                base + i,
                (
                    _activated(a[0], activation),
                    _activated(a[1], activation),
                    _activated(a[2], activation),
                    _activated(a[3], activation),
                    _activated(a[4], activation),
                    _activated(a[5], activation),
                    _activated(a[6], activation),
                    _activated(a[7], activation),
                ),
            )
            i = np.int32(i + threads() * 8)
        i = np.int32(whole + thread())
        while i < classes:
            one = load1(z, base + i)
            if given(bias):
                one += load1(bias, i)
            store1(z, base + i, _activated(one, activation))
            i = np.int32(i + threads())
        row += blocks()


@kernel("x* i64 x* i64 x* i64 i64 i64 i64 i64", threads=_THREADS, loads=2, stores=1)
def activation_gradient(y, y_pitch, dy, dy_pitch, dz, dz_pitch, activation, classes, whole, n):
    """dz = dy f'(z), from y = f(z), a row a block at a time; it may be dy."""
    row = block()
    while row < n:
        of, up, to = row * y_pitch, row * dy_pitch, row * dz_pitch
        i = np.int32(thread() * 8)
        while i < whole:
            a, b = load8(y, of + i), load8(dy, up + i)
            store8(
                dz,
                to + i,
                (
                    _gradient(a[0], b[0], activation),
                    _gradient(a[1], b[1], activation),
                    _gradient(a[2], b[2], activation),
                    _gradient(a[3], b[3], activation),
                    _gradient(a[4], b[4], activation),
                    _gradient(a[5], b[5], activation),
                    _gradient(a[6], b[6], activation),
                    _gradient(a[7], b[7], activation),
                ),
            )
            i = np.int32(i + threads() * 8)
        i = np.int32(whole + thread())
        while i < classes:
            store1(dz, to + i, _gradient(load1(y, of + i), load1(dy, up + i), activation))
            i = np.int32(i + threads())
        row += blocks()


@kernel("x* i64 i64 i64 i64 i64 f32*", threads=_THREADS)
def sum_slices(x, pitch, n, classes, columns, rows, partial):
    """Sum `rows` rows a block, a column a thread: partial (slices, classes)."""
    part = np.int64(block()) // columns
    v = (np.int64(block()) - part * columns) * threads() + thread()
    while v < classes:
        total = _ZERO
        row, end = part * rows, min(part * rows + rows, n)
        while row < end:
            total += load1(x, row * pitch + v)
            row += 1
        partial[part * classes + v] = total
        v += columns * threads()


@kernel("f32* i64 i64 i64 f32*", threads=_THREADS)
def sum_partial(partial, slices, classes, accumulate, total):
    """total = the sum over slices, in order, or that added to it."""
    v = np.int64(block()) * threads() + thread()
    while v < classes:
        s = total[v] if accumulate == 1 else _ZERO
        part = np.int64(0)
        while part < slices:
            s += partial[part * classes + v]
            part += 1
        total[v] = s
        v += np.int64(blocks()) * threads()
