"""Linear map with bias and activation, and its gradients (the equations: the reference's).

The products are cuBLAS's; bias and activation are one pass over what it wrote. Sums over rows are taken in a fixed
order: slices of rows a block each, then the slices.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._rows import LOG2E
from fastnlp.kernels.cuda.prims import block, blocks, exp2, given, kernel, load1, store1, tanh, thread, threads
from fastnlp.kernels.scalar import relu, relu_gradient, sigmoid_gradient, tanh_gradient

_ZERO, _ONE = np.float32(0), np.float32(1)
_ACTIVATIONS = (None, "relu", "tanh", "sigmoid")
_THREADS = 256
_ROWS_A_SLICE = 256


def forward(x, weight, bias, activation, out, matmul):  # (N, D), (V, D), (V,) or None, (N, V)
    """out = f(x weight' + bias); `matmul` names a CPU's BLAS, the GPU's is used."""
    x.library.matmul(x, weight.T, out)
    if bias is not None or activation is not None:
        n, v = out.shape
        code = _ACTIVATIONS.index(activation)
        x.library.launch(finish_rows, *_elements(out), out, out.pitch, bias, code, n, v)


def activation_backward(y, dy, activation, dz):  # (N, V) each
    """dz = dy f'(z), from y = f(z)."""
    n, v = y.shape
    code = _ACTIVATIONS.index(activation)
    y.library.launch(activation_gradient, *_elements(y), y, y.pitch, dy, dy.pitch, dz, dz.pitch, code, n, v)


def backward(dz, x, weight, dx, dweight, dbias, matmul):  # (N, V), (N, D), (V, D); outputs may be None
    """Fill those of dx = dz weight, dweight = dz' x, dbias = sum_n dz that are not None."""
    if dx is not None:
        x.library.matmul(dz, weight, dx)
    if dweight is not None:
        x.library.matmul(dz.T, x, dweight)
    if dbias is not None:
        add_columns(dz, dbias, accumulate=False)


def add_bias(logits, bias):  # (N, V), (V,)
    """logits += bias."""
    n, v = logits.shape
    logits.library.launch(finish_rows, *_elements(logits), logits, logits.pitch, bias, 0, n, v)


def add_columns(x, total, *, accumulate):  # (N, V), (V,) float32
    """total = sum_n x_n, or that added to it."""
    (n, v), library = x.shape, x.library
    slices = max(1, -(-n // _ROWS_A_SLICE))
    partial = library.empty((slices, v), np.float32)
    columns = -(-v // _THREADS)
    library.launch(sum_slices, slices * columns, _THREADS, x, x.pitch, n, v, columns, _ROWS_A_SLICE, partial)
    library.launch(sum_partial, columns, _THREADS, partial, slices, v, int(accumulate), total)


def _elements(x):
    """Return a grid in which each thread takes every so many elements."""
    return max(1, min(-(-x.size // (4 * _THREADS)), 16 * x.library.processors)), _THREADS


@kernel("x* i64 x* i64 i64 i64", threads=_THREADS)
def finish_rows(z, pitch, bias, activation, n, classes):
    """z = f(z + bias), f as `_ACTIVATIONS` counts them."""
    i = np.int64(block()) * threads() + thread()
    while i < n * classes:
        row = i // classes
        v = i - row * classes
        y = load1(z, row * pitch + v)
        if given(bias):
            y += load1(bias, v)
        if activation == 1:
            y = relu(y)
        elif activation == 2:
            y = tanh(y)
        elif activation == 3:
            y = _ONE / (_ONE + exp2(-y * LOG2E))
        store1(z, row * pitch + v, y)
        i += np.int64(blocks()) * threads()


@kernel("x* i64 x* i64 x* i64 i64 i64 i64", threads=_THREADS)
def activation_gradient(y, y_pitch, dy, dy_pitch, dz, dz_pitch, activation, n, classes):
    """dz = dy f'(z), from y = f(z); it may be dy."""
    i = np.int64(block()) * threads() + thread()
    while i < n * classes:
        row = i // classes
        v = i - row * classes
        a, b = load1(y, row * y_pitch + v), load1(dy, row * dy_pitch + v)
        if activation == 1:
            b = relu_gradient(a, b)
        elif activation == 2:
            b = tanh_gradient(a, b)
        elif activation == 3:
            b = sigmoid_gradient(a, b)
        store1(dz, row * dz_pitch + v, b)
        i += np.int64(blocks()) * threads()


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
