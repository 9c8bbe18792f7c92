"""Divergence of a linear classifier from a teacher, a chunk of rows at a time (equations: ``reference/linear_kl_div.py``).

Schedule, as in ``linear_cross_entropy.py``: a chunk's logits of student and teacher stand in two reused buffers, in
which each block of classes is contiguous.

1. For each block: the products of student and teacher (or a copy of what is given), and while they are in cache each
   row's maxima and sums of exponentials.
2. For each block: each row's part of the divergence, which wants the normalisers of the whole rows.
3. For each block: the gradient over the teacher's logits, carried on to dW, db and parts of dx. That of KL(p || q) does
   not want the divergence, so that step 2 is done on the way.

Without gradients the logits are held all the same: summed while the normalisers are not known, float32 would lose the
digits of a small divergence. Blocks, segments and chunks are cut by shapes and the workspace alone, and every product
is made on one thread: results are the same bits for any number of threads.
Flops: 2 N V (D + E) for the loss, 2 N V (3 D + E) with both gradients.
"""

from __future__ import annotations

import numpy as np

from fastnlp._blas import single_threaded_gemm
from fastnlp._threads import run
from fastnlp.kernels.cpu import _divergence_blocks as parts
from fastnlp.kernels.cpu._class_blocks import row_add
from fastnlp.kernels.cpu._divergence import swapped
from fastnlp.kernels.cpu._divergence_rows import (
    js_slope_of_q,
    js_sums,
    kl_slope_of_p,
    kl_sum,
    kl_sum_and_slope_of_q,
)
from fastnlp.kernels.cpu._gemm import limit_threads, matrix, multiply, transposed
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._schedule import Weights, chunks, least_bytes, schedule

_SUMS = parts.SUMS + 4  # and temporaries of joining them


def least_workspace(features, teacher_features, classes, itemsize, gradients):
    """Return the least bytes of temporaries with which a batch can be computed."""
    return least_bytes(*_row(features, teacher_features, classes, itemsize, gradients))


def forward(x, weight, bias, teacher, objective, kept, loss, workspace, blas):
    # (N, D), (V, D), (V,) or None, Teacher, Objective, (K,) or None, (N,)
    """Loss of the rows `kept`."""
    for chunk in _chunks(x, weight, bias, teacher, objective, kept, workspace, blas, False):
        chunk.divergences()
        loss[chunk.where] = chunk.loss()


def gradient(x, weight, bias, teacher, objective, kept, scale, loss, dx, dweight, dbias, workspace, blas):
    # as forward; (N,), (N,), (N, D) or None, (V, D) or None, (V,) or None
    """Loss as in forward, and the gradients of sum_n scale_n l_n; those that are None are left out."""
    sums, add = np.zeros(0 if dbias is None else len(weight)), False
    for chunk in _chunks(x, weight, bias, teacher, objective, kept, workspace, blas, True):
        if objective.beta != 0:
            chunk.divergences()
            loss[chunk.where] = chunk.loss()
        chunk.gradients(scale[chunk.where], dx, dweight, sums, add)
        if objective.beta == 0:
            loss[chunk.where] = chunk.loss()
        add = True
    if dweight is not None and not add:
        dweight[...] = 0
    if dbias is not None:
        dbias[...] = sums


def _row(features, teacher_features, classes, itemsize, gradients):
    """Return what a `schedule` wants to know of a row. Both logits are held; the parts of dx with gradients alone."""
    beside = classes + teacher_features + (0 if gradients else features)
    return features if gradients else 0, classes, itemsize, True, _SUMS, beside


def _chunks(x, weight, bias, teacher, objective, kept, workspace, blas, gradients):
    """Yield the chunks, their logits and normalisers computed; the memory of one is that of the next."""
    n = len(x) if kept is None else len(kept)
    student, linear = _Linear(x, weight, bias), teacher.linear
    tutor = _Linear(*(linear[:3] if linear else (x[:, :0], np.empty((0, 0), x.dtype), None)))
    row = _row(x.shape[1], tutor.x.shape[1], len(weight), x.itemsize, gradients)
    cut = schedule(n, *row[:3], workspace, *row[3:])
    buffers = np.empty((2, min(cut.rows, n) * len(weight)), x.dtype)
    with single_threaded_gemm(blas, x.itemsize) as gemm:
        for where in chunks(n, kept, cut.rows):
            yield _Chunk(student, tutor, teacher, objective, where, cut, buffers, gemm)


class _Linear:
    """A linear map as kernels take it."""

    def __init__(self, x, weight, bias):
        self.array = weight if Weights.of(weight) else np.ascontiguousarray(weight)  # lives as long as its address
        self.x, self.weight = x, Weights.of(self.array)
        self.bias = np.empty(0, x.dtype) if bias is None else bias


class _Chunk:
    """Some rows against all classes."""

    def __init__(self, student, tutor, teacher, objective, where, cut, buffers, gemm):
        self.x, self.weight, self.where = student.x[where], student.weight, where
        self.objective, self.cut, self.gemm = objective, cut, gemm
        kind, rows, classes = self.x.dtype.type, len(self.x), self.weight.classes
        self.scale, self.beta = kind(objective.scale), objective.beta if 0 < objective.beta < 1 else None
        self.labels = np.empty(0, np.int64) if objective.labels is None else objective.labels[where]
        self.z, self.y = buffers[:, : rows * classes]
        probabilities = teacher.probabilities is not None
        given = teacher.probabilities if probabilities else teacher.logits
        given = np.empty((0, 0), self.x.dtype) if given is None else given
        index = np.arange(where.start, where.stop) if isinstance(where, slice) else where
        self.sums, logit = np.zeros((cut.segments[-1], rows, parts.SUMS)), np.full(rows, np.nan, self.x.dtype)
        linear = (self.x, *self.weight, student.bias, tutor.x[where], *tutor.weight, tutor.bias)
        compared = (given, index, probabilities, kind(1 / objective.scale), self.labels, self.scale)
        run(_logits, len(self.sums), *gemm, cut.width, *linear, *compared, self.z, self.y, self.sums, logit, grain=1)
        self.known = parts.join(self.sums, float(self.scale), probabilities)
        self.hard, self.total = parts.hard_loss(self.known, logit) if self.labels.size else (0.0, np.ones(rows))

    def divergences(self):
        """Fill each block's part of the divergence."""
        how = (self.cut.width, self.weight.classes, self.beta, self.objective.beta == 1, self.scale)
        run(_divergences, len(self.sums), *how, self.known, self.z, self.y, self.sums, grain=1)

    def loss(self):
        """Return the loss of each row, and know what is subtracted in the gradient."""
        loss = self.objective.soft * parts.divergence(self.sums, self.known, self.objective.beta)
        return loss + self.objective.hard * self.hard

    def gradients(self, upstream, dx, dweight, dbias, add):
        """Turn the teacher's logits into the gradient and carry it on; fill the divergence if it is KL(p || q)."""
        objective, kind, cuts = self.objective, self.x.dtype.type, self.cut.segments
        soft = objective.soft * float(self.scale) * (1.0 if self.beta is None else 1 - self.beta)
        soft, hard = upstream * kind(soft), upstream.astype(np.float64) * objective.hard
        dxs = np.empty((0 if dx is None else len(cuts) - 1, *self.x.shape), self.x.dtype)
        dweight = np.empty((0, self.x.shape[1]), self.x.dtype) if dweight is None else dweight
        how = (self.x, *self.weight, self.labels, self.beta, objective.beta == 1, self.scale)
        known = (self.known, self.total, soft, hard, self.z, self.y, self.sums)
        run(
            _gradients, len(cuts) - 1, *self.gemm, cuts, self.cut.width, *how, *known, dxs, dweight, dbias, add, grain=1
        )
        if dx is not None:
            dx[self.where] = dxs.sum(axis=0)


@kernel_part
def _of_block(weight, step, columns, first, itemsize):
    """Return the weights (n, D) of a block as an operand."""
    return weight + first * itemsize * (1 if columns else step), step, columns


@jit(
    "(int64, int64, int64, int64, int64, {f}[:, ::1], int64, int64, boolean, int64, {f}[::1], {f}[:, ::1], int64, int64,"
    " boolean, int64, {f}[::1], {f}[:, ::1], int64[::1], boolean, {f}, int64[::1], {f}, {f}[::1], {f}[::1],"
    " float64[:, :, ::1], {f}[::1])"
)
def _logits(
    begin,
    end,
    gemm,
    limit,
    width,
    x,
    weight,
    step,
    columns,
    classes,
    bias,
    teacher_x,
    teacher_weight,
    teacher_step,
    teacher_columns,
    teacher_classes,
    teacher_bias,
    given,
    index,
    probabilities,
    temperature,
    labels,
    scale,
    logits,
    teacher_logits,
    sums,
    logit,
):
    before = limit_threads(limit, 1)
    rows, item = x.shape[0], x.itemsize
    for b in range(begin, end):
        first, last = b * width, min((b + 1) * width, classes)
        z = logits[rows * first : rows * last].reshape(rows, last - first)
        y = teacher_logits[rows * first : rows * last].reshape(rows, last - first)
        of_block = transposed(_of_block(weight, step, columns, first, item))
        multiply(gemm, matrix(x), of_block, x.shape[1], z, False)
        if teacher_classes:
            of_block = transposed(_of_block(teacher_weight, teacher_step, teacher_columns, first, item))
            multiply(gemm, matrix(teacher_x), of_block, teacher_x.shape[1], y, False)
        for r in range(rows):
            if teacher_classes:
                row_add(y[r], teacher_bias[first:last])
            else:
                parts.row_given(given[index[r], first:last], probabilities, temperature, y[r], sums[b, r])
            row_add(z[r], bias[first:last])
            parts.row_sums(z[r], y[r], probabilities, scale, sums[b, r])
            if labels.size:
                of_label = parts.row_others(z[r], labels[r] - first, sums[b, r])
                if first <= labels[r] < last:
                    logit[r] = of_label
    limit_threads(limit, before)


# Of divergences that are not mixed (beta 0 or 1), the kernels are compiled to less.
_BETA = ("none", "float64")


@jit(
    *(
        f"(int64, int64, int64, int64, {beta}, boolean, {{f}}, float64[:, ::1], {{f}}[::1], {{f}}[::1],"
        " float64[:, :, ::1])"
        for beta in _BETA
    )
)
def _divergences(begin, end, width, classes, beta, reverse, scale, known, logits, teacher_logits, sums):
    rows = known.shape[0]
    for b in range(begin, end):
        first, n = rows * b * width, min(width, classes - b * width)
        for r in range(rows):
            z, y = logits[first + r * n : first + (r + 1) * n], teacher_logits[first + r * n : first + (r + 1) * n]
            two = parts.pair_of(known[r], scale)
            if beta is not None:
                sums[b, r, parts.OF_P], sums[b, r, parts.OF_Q] = js_sums(y, z, two, beta)
            elif reverse:
                sums[b, r, parts.OF_Q] = kl_sum(z, y, swapped(two))
            else:
                sums[b, r, parts.OF_P] = kl_sum(y, z, two)


@jit(
    *(
        "(int64, int64, int64, int64, int64[::1], int64, {f}[:, ::1], int64, int64, boolean, int64, int64[::1],"
        f" {beta}, boolean, {{f}}, float64[:, ::1], float64[::1], {{f}}[::1], float64[::1], {{f}}[::1], {{f}}[::1],"
        " float64[:, :, ::1], {f}[:, :, ::1], {f}[:, ::1], float64[::1], boolean)"
        for beta in _BETA
    )
)
def _gradients(
    begin,
    end,
    gemm,
    limit,
    cuts,
    width,
    x,
    weight,
    step,
    columns,
    classes,
    labels,
    beta,
    reverse,
    scale,
    known,
    total,
    soft,
    hard,
    logits,
    teacher_logits,
    sums,
    dxs,
    dweight,
    dbias,
    add,
):
    before = limit_threads(limit, 1)
    rows, kind = x.shape[0], type(scale)
    for segment in range(begin, end):
        for b in range(cuts[segment], cuts[segment + 1]):
            first, last = b * width, min((b + 1) * width, classes)
            z = logits[rows * first : rows * last].reshape(rows, last - first)
            dz = teacher_logits[rows * first : rows * last].reshape(rows, last - first)
            for r in range(rows):
                two, mean = parts.pair_of(known[r], scale), kind(known[r, parts.MEAN])
                if beta is not None:
                    js_slope_of_q(dz[r], z[r], two, kind(beta), kind(1 - beta), mean, soft[r], dz[r])
                elif reverse:
                    kl_slope_of_p(z[r], dz[r], swapped(two), mean, soft[r], dz[r])
                else:
                    mass = kind(known[r, parts.MASS])
                    sums[b, r, parts.OF_P] = kl_sum_and_slope_of_q(dz[r], z[r], two, mass, soft[r])
                if labels.size:
                    parts.row_add_hard_slope(z[r], labels[r] - first, known[r], total[r], hard[r], dz[r])
                for v in range(last - first if dbias.size else 0):
                    dbias[first + v] += np.float64(dz[r, v])
            if dxs.shape[0]:
                of_block = _of_block(weight, step, columns, first, x.itemsize)
                multiply(gemm, matrix(dz), of_block, last - first, dxs[segment], b > cuts[segment])
            if dweight.shape[0]:
                multiply(gemm, transposed(matrix(dz)), matrix(x), rows, dweight[first:last], add)
    limit_threads(limit, before)
