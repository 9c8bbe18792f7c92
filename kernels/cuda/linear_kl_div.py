"""Divergence of a linear classifier from a teacher, logits a chunk of rows at a time (the frame: ``_chunks.py``).

    z = x W' + b       y = x_t W_t' + b_t, or given
    dx = dz W          dW = dz' x                         db = sum_n dz_n

dz is what the row kernels make of z and y (``_kl.py``, ``_reverse_kl.py``, ``_js.py``). Both logits of a chunk stand in
buffers of the dtype of x; the student's turn into their gradient in place. A teacher's logits or probabilities that are
given are read where they are. Rows that do not count, whose label is -1, are skipped by the row kernels; with `kept`,
indices of rows, these alone are gathered before the products and put back afterwards.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda import _chunks, linear
from fastnlp.kernels.cuda._teacher import rows as teacher_rows


def least_workspace(features, teacher_features, classes, itemsize, gradients):
    """Return the least bytes of temporaries with which a batch can be computed: a row of logits of each."""
    return _chunks.pitch(classes, itemsize) * itemsize * (2 if teacher_features else 1)


def forward(x, weight, bias, teacher, objective, kept, loss, workspace, blas):
    # (N, D), (V, D), (V,) or None, Teacher, Objective, (K,) or None, (N,)
    """Loss of the rows `kept`, 0 where a label is -1; `blas` is a CPU's, the GPU's is used."""
    _run(x, weight, bias, teacher, objective, kept, None, loss, None, None, None, workspace)


def gradient(x, weight, bias, teacher, objective, kept, scale, loss, dx, dweight, dbias, workspace, blas):
    # as forward; (N,), (N,), (N, D) or None, (V, D) or None, (V,) or None, float32
    """Loss as in forward, and the gradients of sum_n scale_n l_n; those that are None are left out."""
    _run(x, weight, bias, teacher, objective, kept, scale, loss, dx, dweight, dbias, workspace)


def _run(x, weight, bias, teacher, objective, kept, scale, loss, dx, dweight, dbias, workspace):
    library, classes, linear_teacher = x.library, len(weight), teacher.linear
    n = len(x) if kept is None else len(kept)
    teacher_features = 0 if linear_teacher is None else linear_teacher.x.shape[1]
    a_row = least_workspace(x.shape[1], teacher_features, classes, x.itemsize, scale is not None)
    rows = _chunks.rows_a_chunk(n, a_row, workspace)
    of_student = _chunks.buffer(x, min(rows, n), classes)
    of_teacher = None if linear_teacher is None else _chunks.buffer(x, min(rows, n), classes)
    label = library.zeros(len(x), np.int64) if objective.labels is None else objective.labels
    how = (objective.beta, 1 - objective.beta, objective.scale, objective.soft, objective.hard)
    for total in (dweight, dbias):
        if total is not None and not n:
            library.clear(total)
    for begin, end in _chunks.spans(n, rows):
        at = slice(begin, end) if kept is None else kept[begin:end]
        xs, z = _of_rows(x, at), of_student[: end - begin]
        linear.logits(xs, weight, bias, z)
        if linear_teacher is not None:
            y = of_teacher[: end - begin]
            linear.logits(_of_rows(linear_teacher.x, at), linear_teacher.weight, linear_teacher.bias, y)
        else:
            y = _of_rows(teacher.logits if teacher.probabilities is None else teacher.probabilities, at)
        of_loss, of_dx = _results(library, at, loss, dx)
        factors = (None, of_loss, None) if scale is None else (_of_rows(scale, at), of_loss, z)
        teacher_rows(z, y, teacher.probabilities is not None, _of_rows(label, at), *how, *factors)
        if scale is not None:
            _chunks.products(z, xs, weight, of_dx, dweight, dbias, begin == 0)
        if kept is not None:
            for source, out in ((of_loss, loss), (of_dx, dx)):
                if out is not None:
                    _chunks.put(source, at, out)


def _of_rows(array, at):
    """Return the rows `at`, a slice or indices."""
    return array[at] if isinstance(at, slice) else array.library.take(array, at)


def _results(library, at, *whole):
    """Return where the results of the rows `at` are written: into the whole, or beside it."""
    if isinstance(at, slice):
        return [None if out is None else out[at] for out in whole]
    return [None if out is None else library.empty((len(at), *out.shape[1:]), np.float32) for out in whole]
