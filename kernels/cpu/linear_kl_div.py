"""Divergence of a linear classifier from a teacher, chunk by chunk (the equations: ``reference/linear_kl_div.py``).

Schedule: chunks of rows over all classes, in two buffers used again: GEMMs write the logits of student and teacher, one
kernel adds the biases, takes both normalisers and the divergence, and writes the gradient over the teacher's logits,
which nobody needs any more; two GEMMs carry that on.
Flops: 2 N V (D + E) for the loss, 2 N V (3 D + E) with both gradients. Bytes beside the GEMMs': a read of both logits
and a write of the gradient.
"""

from __future__ import annotations

import math

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._divergence import (
    js_slope_of_q,
    js_sums,
    kl_slope_of_p,
    kl_slope_of_q,
    kl_sum,
    pair,
)
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._rows import row_exp_sum, row_max, row_max_and_exp_sum, rows_a_task
from fastnlp.kernels.cpu.linear import add_column_sums
from fastnlp.kernels.reference._student_teacher import carry_on, chunks, classes_a_step, row_bytes, rows_a_chunk
from fastnlp.kernels.scalar import exp, log


def least_workspace(features, teacher_features, classes, itemsize, gradients):
    """Return the least bytes of temporaries with which a batch can be computed."""
    one_class = features * itemsize if gradients else 0
    return row_bytes(features, teacher_features, classes, itemsize) + one_class


def forward(x, weight, bias, teacher, objective, kept, loss, workspace, blas):
    # (N, D), (V, D), (V,) or None, Teacher, Objective, (K,) or None, (N,)
    """Loss of the rows `kept`."""
    rows = rows_a_chunk(x, weight, teacher, workspace)
    for at, _, z, y in chunks(x, weight, bias, teacher, kept, rows, blas):
        of_rows = np.empty(len(at), x.dtype)
        _run(_kl, _js, z, y, teacher, objective, at, of_rows)
        loss[at] = of_rows


def gradient(x, weight, bias, teacher, objective, kept, scale, loss, dx, dweight, dbias, workspace, blas):
    # as forward; (N,), (N,), (N, D) or None, (V, D) or None, (V,) or None
    """Loss as in forward, and the gradients of sum_n scale_n l_n; those that are None are left out."""
    step = classes_a_step(weight, workspace, x.itemsize)
    rows = rows_a_chunk(x, weight, teacher, workspace - step * weight.shape[1] * x.itemsize)
    for total in (dweight, dbias):
        if total is not None:
            total[...] = 0
    for at, xs, z, y in chunks(x, weight, bias, teacher, kept, rows, blas):
        of_rows = np.empty(len(at), x.dtype)
        _run(_kl_gradient, _js_gradient, z, y, teacher, objective, at, of_rows, scale[at])
        loss[at] = of_rows
        carry_on(y, at, xs, weight, dx, dweight, step, blas)
        if dbias is not None:
            add_column_sums(y, dbias)


def _run(kl, js, z, y, teacher, objective, at, loss, *scale):
    """Run a kernel on a chunk, probabilities of the teacher as logits at the temperature, their sums beside them."""
    beta, kind, grain = objective.beta, z.dtype.type, rows_a_task(z.shape[1])
    mass = np.empty(0)
    if teacher.probabilities is not None:
        mass = np.empty(len(z))
        run(_log_probabilities, len(z), y, kind(1 / objective.scale), mass, grain=grain)
    labels = np.empty(0, np.int64) if objective.labels is None else objective.labels[at]
    args = (labels, kind(objective.scale), objective.soft, objective.hard, loss, *scale)
    if 0 < beta < 1:
        run(js, len(z), z, y, mass, beta, *args, grain=grain)
    else:
        run(kl, len(z), z, y, mass, beta == 1, *args, grain=grain)


@jit("(int64, int64, {f}[:, ::1], {f}, float64[::1])")
def _log_probabilities(begin, end, y, temperature, mass):
    for n in range(begin, end):
        row = y[n]
        total = 0.0
        for v in range(row.size):
            total += np.float64(row[v])
        mass[n] = total
        for v in range(row.size):
            row[v] = temperature * log(row[v])


@kernel_part
def _normalisers(z, y, scale, given):  # (V,), (V,)
    """Return maximum and sum of exponentials of teacher and student; 0 and 1 of log-probabilities that are `given`."""
    top_q, total_q = row_max_and_exp_sum(z, scale)
    top_p, total_p = z.dtype.type(0), 1.0
    if not given:
        top_p, total_p = row_max_and_exp_sum(y, scale)
    return top_p, total_p, top_q, total_q


@kernel_part
def _hard_loss(z, label):  # (V,)
    """Return the cross-entropy, its row's maximum and its sum of exponentials; a small loss keeps its digits."""
    top, one, logit = row_max(z), z.dtype.type(1), z[label]
    z[label] = -np.inf
    others = row_exp_sum(z, top, one)
    z[label] = logit
    of_label = math.exp(np.float64(logit - top))
    total = of_label + others
    return math.log1p(others / of_label) if others < of_label else math.log(total) - np.float64(logit - top), top, total


@kernel_part
def _add_hard_slope(z, label, top, total, factor, dz):  # (V,), (V,)
    """dz += factor (softmax(z) - onehot(label))."""
    share = z.dtype.type(factor / total)
    for v in range(z.size):
        dz[v] += share * exp(z[v] - top)
    dz[label] -= factor


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], float64[::1], boolean, int64[::1], {f}, float64, float64, {f}[::1])")
def _kl(begin, end, z, y, mass, reverse, labels, scale, soft, hard, loss):
    for n in range(begin, end):
        top_p, total_p, top_q, total_q = _normalisers(z[n], y[n], scale, mass.size > 0)
        extra = mass[n] - 1 if mass.size else 0.0
        if reverse:
            value = kl_sum(z[n], y[n], pair(scale, top_q, total_q, top_p, total_p)) - extra
        else:
            value = kl_sum(y[n], z[n], pair(scale, top_p, total_p, top_q, total_q)) + extra
        value *= soft
        if labels.size:
            value += hard * _hard_loss(z[n], labels[n])[0]
        loss[n] = value


@jit("(int64, int64, {f}[:, ::1], {f}[:, ::1], float64[::1], float64, int64[::1], {f}, float64, float64, {f}[::1])")
def _js(begin, end, z, y, mass, beta, labels, scale, soft, hard, loss):
    for n in range(begin, end):
        top_p, total_p, top_q, total_q = _normalisers(z[n], y[n], scale, mass.size > 0)
        sum_p, sum_q = js_sums(y[n], z[n], pair(scale, top_p, total_p, top_q, total_q), beta)
        value = soft * (beta * sum_p + (1 - beta) * sum_q)
        if labels.size:
            value += hard * _hard_loss(z[n], labels[n])[0]
        loss[n] = value


@jit(
    "(int64, int64, {f}[:, ::1], {f}[:, ::1], float64[::1], boolean, int64[::1], {f}, float64, float64, {f}[::1],"
    " {f}[::1])"
)
def _kl_gradient(begin, end, z, y, mass, reverse, labels, scale, soft, hard, loss, upstream):
    kind = z.dtype.type
    for n in range(begin, end):
        top_p, total_p, top_q, total_q = _normalisers(z[n], y[n], scale, mass.size > 0)
        total = mass[n] if mass.size else 1.0
        factor = kind(soft * scale * upstream[n])
        if reverse:
            two = pair(scale, top_q, total_q, top_p, total_p)
            value = kl_sum(z[n], y[n], two) - (total - 1)
            kl_slope_of_p(z[n], y[n], two, kind(value), factor, y[n])
        else:
            two = pair(scale, top_p, total_p, top_q, total_q)
            value = kl_sum(y[n], z[n], two) + (total - 1)
            kl_slope_of_q(y[n], z[n], two, kind(total), factor, y[n])
        value *= soft
        if labels.size:
            nll, top, total = _hard_loss(z[n], labels[n])
            value += hard * nll
            _add_hard_slope(z[n], labels[n], top, total, kind(hard * upstream[n]), y[n])
        loss[n] = value


@jit(
    "(int64, int64, {f}[:, ::1], {f}[:, ::1], float64[::1], float64, int64[::1], {f}, float64, float64, {f}[::1],"
    " {f}[::1])"
)
def _js_gradient(begin, end, z, y, mass, beta, labels, scale, soft, hard, loss, upstream):
    kind = z.dtype.type
    for n in range(begin, end):
        top_p, total_p, top_q, total_q = _normalisers(z[n], y[n], scale, mass.size > 0)
        two = pair(scale, top_p, total_p, top_q, total_q)
        sum_p, sum_q = js_sums(y[n], z[n], two, beta)
        value = soft * (beta * sum_p + (1 - beta) * sum_q)
        mean = kind(sum_q - beta * (mass[n] - 1) if mass.size else sum_q)
        factor = kind(soft * (1 - beta) * scale * upstream[n])
        js_slope_of_q(y[n], z[n], two, kind(beta), kind(1 - beta), mean, factor, y[n])
        if labels.size:
            nll, top, total = _hard_loss(z[n], labels[n])
            value += hard * nll
            _add_hard_slope(z[n], labels[n], top, total, kind(hard * upstream[n]), y[n])
        loss[n] = value
