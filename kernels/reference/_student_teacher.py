"""What distillation shares over the backends: chunks of the logits of student and teacher, within a budget of bytes."""

from __future__ import annotations

import numpy as np

from fastnlp._blas import matmul as product

_SCRATCH = 4 << 20  # bytes at most for the product that is added to dW


def row_bytes(features, teacher_features, classes, itemsize):
    """Return the bytes of a row in a chunk: both logits, the gathered features, the gradient."""
    return (2 * classes + 2 * features + teacher_features) * itemsize + 3 * 8


def rows_a_chunk(x, weight, teacher, workspace):
    """Return how many rows go through the buffers at a time."""
    teacher_features = 0 if teacher.linear is None else teacher.linear.x.shape[1]
    return max(1, workspace // row_bytes(x.shape[1], teacher_features, len(weight), x.itemsize))


def classes_a_step(weight, workspace, itemsize):
    """Return how many classes of dW are added to at a time, so that the product stays small."""
    classes, features = weight.shape
    return max(1, min(classes, min(workspace // 8, _SCRATCH) // max(1, features * itemsize)))


def chunks(x, weight, bias, teacher, kept, rows, blas):
    """Yield where the rows of a chunk stand, the rows, and the logits of student and teacher, in buffers used again.

    Probabilities and logits that are given come as they are; biases are added.
    """
    n, matmul, linear = len(x) if kept is None else len(kept), product(blas), teacher.linear
    given = teacher.logits if teacher.probabilities is None else teacher.probabilities
    rows = max(1, -(-n // max(1, -(-n // rows))))  # of nearly equal size
    of_student, of_teacher = (np.empty((min(rows, n), len(weight)), x.dtype) for _ in range(2))
    for begin in range(0, n, rows):
        chunk = slice(begin, min(begin + rows, n))
        at = np.arange(chunk.start, chunk.stop) if kept is None else kept[chunk]
        where = chunk if kept is None else at
        xs, z, y = x[where], of_student[: chunk.stop - begin], of_teacher[: chunk.stop - begin]
        matmul(xs, weight.T, out=z)
        if bias is not None:
            z += bias
        if linear is None:
            y[...] = given[where]
        else:
            matmul(linear.x[where], linear.weight.T, out=y)
            if linear.bias is not None:
                y += linear.bias
        yield at, xs, z, y


def carry_on(dz, at, xs, weight, dx, dweight, step, blas):  # (R, V), (R,), (R, D), (V, D), (N, D), (V, D)
    """dx = dz weight where the rows stand, and dweight += dz' x, `step` classes at a time."""
    matmul = product(blas)
    if dx is not None:
        dx[at] = matmul(dz, weight, out=np.empty_like(xs))
    if dweight is not None:
        scratch = np.empty((step, dweight.shape[1]), dweight.dtype)
        for begin in range(0, len(dweight), step):
            part = dweight[begin : begin + step]
            part += matmul(dz[:, begin : begin + step].T, xs, out=scratch[: len(part)])
