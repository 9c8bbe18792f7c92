"""Divergence of a linear classifier from a teacher, logits a chunk of rows at a time (of a row: ``_divergence.py``).

    z = x W' + b       y = x_t W_t' + b_t, or given       q = softmax(scale z)       p = softmax(scale y), or given
    l = soft D(p, q) + hard (lse z - z_label)             dz = soft scale D' + hard (softmax z - onehot(label))
    dx = dz W          dW = dz' x                         db = sum_n dz_n

Chunks of rows that count go through buffers of both logits; the student's turn into their gradient.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.reference._divergence import divergence, log_softmax, slope
from fastnlp.kernels.reference._student_teacher import carry_on, chunks, classes_a_step, row_bytes, rows_a_chunk

_TEMPORARIES = 12 * 8  # bytes a logit: arrays of float64
_IN_CACHE = 4 << 20  # bytes of them at most


def least_workspace(features, teacher_features, classes, itemsize, gradients):
    """Return the least bytes of temporaries with which a batch can be computed."""
    one_class = features * itemsize if gradients else 0
    return row_bytes(features, teacher_features, classes, itemsize) + classes * _TEMPORARIES + one_class


def forward(x, weight, bias, teacher, objective, kept, loss, workspace, blas):
    # (N, D), (V, D), (V,) or None, Teacher, Objective, (K,) or None, (N,)
    """Loss of the rows `kept`."""
    block = _block(len(weight), workspace)
    rows = rows_a_chunk(x, weight, teacher, workspace - block * len(weight) * _TEMPORARIES)
    for at, _, z, y in chunks(x, weight, bias, teacher, kept, rows, blas):
        for begin in range(0, len(at), block):
            part = slice(begin, begin + block)
            loss[at[part]], _ = _rows(z[part], y[part], teacher, objective, at[part], None)


def gradient(x, weight, bias, teacher, objective, kept, scale, loss, dx, dweight, dbias, workspace, blas):
    # as forward; (N,), (N,), (N, D) or None, (V, D) or None, (V,) or None
    """Loss as in forward, and the gradients of sum_n scale_n l_n; those that are None are left out."""
    block, step = _block(len(weight), workspace), classes_a_step(weight, workspace, x.itemsize)
    spare = workspace - block * len(weight) * _TEMPORARIES - step * weight.shape[1] * x.itemsize
    for total in (dweight, dbias):
        if total is not None:
            total[...] = 0
    for at, xs, z, y in chunks(x, weight, bias, teacher, kept, rows_a_chunk(x, weight, teacher, spare), blas):
        for begin in range(0, len(at), block):
            part = slice(begin, begin + block)
            loss[at[part]], z[part] = _rows(z[part], y[part], teacher, objective, at[part], scale)
        carry_on(z, at, xs, weight, dx, dweight, step, blas)
        if dbias is not None:
            dbias += z.sum(axis=0)


def _block(classes, workspace):
    """Return how many rows have their temporaries at a time."""
    return max(1, min(workspace // 4, _IN_CACHE) // max(1, classes * _TEMPORARIES))


def _rows(z, y, teacher, objective, at, scale):  # (R, V), (R, V), ..., (R,), (N,) or None
    """Return the losses of some rows, and their gradients times scale unless that is None."""
    log_q, mass = log_softmax(z, objective.scale), 1.0
    if teacher.probabilities is None:
        log_p = log_softmax(y, objective.scale)
    else:
        mass = y.sum(axis=1, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_p = np.log(y, dtype=np.float64)
    loss = objective.soft * divergence(log_p, log_q, objective.beta, mass)
    dz = None if scale is None else slope(log_p, log_q, objective.beta) * (objective.soft * objective.scale)
    if objective.labels is not None:
        of_label = np.arange(len(z)), objective.labels[at]
        log_q = log_softmax(z, 1.0)
        others = np.exp(log_q)
        others[of_label] = 0
        rest = others.sum(axis=1)
        sure = rest < 0.5
        loss -= objective.hard * np.where(sure, np.log1p(-np.where(sure, rest, 0)), log_q[of_label])
        if dz is not None:
            others[of_label] = -rest
            others *= objective.hard
            dz += others
    return loss, None if dz is None else dz * scale[at][:, None]
