"""Linear map with bias and activation, and its gradients (the equations: ``reference/linear.py``).

Schedule: a GEMM for a chunk of rows, then bias and activation in one pass over the chunk while it is in cache.
Flops: 2 N V D forward, 4 N V D backward. Column sums are cut by columns, each summed in the order of the rows, so that
they are the same bits for any number of threads.
"""

from __future__ import annotations

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._rows import rows_a_task
from fastnlp.kernels.scalar import (
    relu,
    relu_gradient,
    sigmoid,
    sigmoid_gradient,
    tanh,
    tanh_gradient,
)

_CHUNK_BYTES = 4 << 20  # of the output: stays in the last-level cache between the GEMM and the pass over it
_COLUMNS_A_TASK = 512


def row_chunks(rows, row_bytes):
    """Yield the (begin, end) of chunks of rows that stay in cache, never so few that a GEMM slows down."""
    step = max(128, _CHUNK_BYTES // max(1, row_bytes))
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)


def forward(x, weight, bias, activation, out, matmul):  # (N, D), (V, D), (V,) or None, (N, V)
    """out = f(x weight' + bias)."""
    if bias is None and activation is None:
        matmul(x, weight.T, out=out)
        return
    for begin, end in row_chunks(x.shape[0], out.shape[1] * out.itemsize):
        chunk = out[begin:end]
        matmul(x[begin:end], weight.T, out=chunk)
        if bias is not None:
            run(_add_bias, end - begin, chunk, bias, grain=rows_a_task(chunk.shape[1]))
        if activation is not None:
            run(_ACTIVATION[activation], end - begin, chunk, grain=rows_a_task(chunk.shape[1]))


def activation_backward(y, dy, activation, dz):  # (N, V) each
    """dz = dy f'(z), from y = f(z)."""
    run(_ACTIVATION_BACKWARD[activation], y.shape[0], y, dy, dz, grain=rows_a_task(y.shape[1]))


def backward(dz, x, weight, dx, dweight, dbias, matmul):  # (N, V), (N, D), (V, D); outputs may be None
    """Fill those of dx = dz weight, dweight = dz' x, dbias = sum_n dz that are not None."""
    if dx is not None:
        matmul(dz, weight, out=dx)
    if dweight is not None:
        matmul(dz.T, x, out=dweight)
    if dbias is not None:
        dbias[...] = 0
        add_column_sums(dz, dbias)


def add_column_sums(x, total):  # (N, V), (V,)
    """total += sum_n x_n."""
    run(_add_column_sums, x.shape[1], x, total, grain=_COLUMNS_A_TASK)


@jit("(int64, int64, {f}[:, ::1], {f}[::1])")
def _add_bias(begin, end, y, bias):
    for n in range(begin, end):
        row = y[n]
        for v in range(row.size):
            row[v] += bias[v]


@jit("(int64, int64, {f}[:, ::1])")
def _relu(begin, end, y):
    for n in range(begin, end):
        row = y[n]
        for v in range(row.size):
            row[v] = relu(row[v])


@jit("(int64, int64, {f}[:, ::1])")
def _sigmoid(begin, end, y):
    for n in range(begin, end):
        row = y[n]
        for v in range(row.size):
            row[v] = sigmoid(row[v])


@jit("(int64, int64, {f}[:, ::1])")
def _tanh(begin, end, y):
    for n in range(begin, end):
        row = y[n]
        for v in range(row.size):
            row[v] = tanh(row[v])


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f}[:, ::1])")
def _relu_backward(begin, end, y, dy, dz):
    for n in range(begin, end):
        value, upstream, written = y[n], dy[n], dz[n]
        for v in range(value.size):
            written[v] = relu_gradient(value[v], upstream[v])


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f}[:, ::1])")
def _sigmoid_backward(begin, end, y, dy, dz):
    for n in range(begin, end):
        value, upstream, written = y[n], dy[n], dz[n]
        for v in range(value.size):
            written[v] = sigmoid_gradient(value[v], upstream[v])


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], {f}[:, ::1])")
def _tanh_backward(begin, end, y, dy, dz):
    for n in range(begin, end):
        value, upstream, written = y[n], dy[n], dz[n]
        for v in range(value.size):
            written[v] = tanh_gradient(value[v], upstream[v])


@jit("(int64, int64, {f}[:, ::1], {f}[::1])")
def _add_column_sums(begin, end, x, total):
    block = total[begin:end]
    for n in range(x.shape[0]):
        row = x[n, begin:end]
        for v in range(block.size):
            block[v] += row[v]


_ACTIVATION = {"relu": _relu, "sigmoid": _sigmoid, "tanh": _tanh}
_ACTIVATION_BACKWARD = {"relu": _relu_backward, "sigmoid": _sigmoid_backward, "tanh": _tanh_backward}
