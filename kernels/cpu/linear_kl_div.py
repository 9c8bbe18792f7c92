"""Divergence of a linear classifier from a teacher, chunk by chunk (the equations: ``reference/linear_kl_div.py``).

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
from fastnlp.kernels.cpu._gemm import add_up, limit_threads, matrix, multiply, transposed
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._rows import row_max_and_exp_sum
from fastnlp.kernels.cpu._schedule import Weights, chunks, least_bytes, schedule

_SUMS = 10  # numbers that a row keeps of a block, and temporaries of joining them


def least_workspace(features, teacher_features, classes, itemsize, gradients):
    """Return the least bytes of temporaries with which a batch can be computed."""
    features, beside = _held(features, teacher_features, classes, gradients)
    return least_bytes(features, classes, itemsize, True, _SUMS, beside)


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


def _held(features, teacher_features, classes, gradients):
    """Return the features of a row's parts of dx, and the elements that it holds beside: both logits in any case."""
    beside = classes + teacher_features
    return (features, beside) if gradients else (0, beside + features)


def _chunks(x, weight, bias, teacher, objective, kept, workspace, blas, gradients):
    """Yield the chunks, their logits and normalisers computed; the memory of one is that of the next."""
    n = len(x) if kept is None else len(kept)
    student, linear = _Linear(x, weight, bias), teacher.linear
    tutor = None if linear is None else _Linear(*linear[:3])
    features, beside = _held(x.shape[1], 0 if tutor is None else tutor.x.shape[1], len(weight), gradients)
    cut = schedule(n, features, len(weight), x.itemsize, workspace, True, _SUMS, beside)
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
        self.student, self.x, self.where = student, student.x[where], where
        self.objective, self.cut, self.gemm = objective, cut, gemm
        kind, rows, blocks, classes = self.x.dtype.type, len(self.x), cut.segments[-1], student.weight.classes
        self.scale, self.beta = kind(objective.scale), objective.beta if 0 < objective.beta < 1 else None
        self.z, self.y = buffers[:, : rows * classes]
        self.sums = np.zeros((blocks, rows, 2))
        of_student, of_teacher = np.empty((2, blocks, rows, 2))
        self._products(student, self.z, of_student)
        probabilities = teacher.probabilities is not None
        if tutor is not None:
            self._products(tutor, self.y, of_teacher)
        else:
            given = teacher.probabilities if probabilities else teacher.logits
            inputs = (given, self._index(), probabilities, kind(1 / objective.scale), self.scale)
            run(_given, blocks, cut.width, *inputs, self.y, of_teacher, grain=1)
        self.known = parts.join(of_student, of_teacher, float(self.scale), probabilities)
        self.labels, self.others, self.total = np.empty(0, np.int64), np.empty(rows), np.ones(rows)
        self.hard = 0.0
        if objective.labels is not None:
            self._compare_with(objective.labels[where], of_student[:, :, parts.TOP])

    def _products(self, linear, logits, sums):
        inputs = (linear.x[self.where], *linear.weight, linear.bias, self.scale)
        run(_products, len(sums), *self.gemm, self.cut.width, *inputs, logits, sums, grain=1)

    def _index(self):
        where = self.where
        return np.arange(where.start, where.stop) if isinstance(where, slice) else where

    def _compare_with(self, labels, top):
        """Compute the cross-entropy."""
        self.labels, others, logit = labels, np.empty(top.shape), np.empty_like(self.x, shape=len(labels))
        how = (self.cut.width, self.student.weight.classes, labels, np.ascontiguousarray(top))
        run(_others, len(others), *how, self.z, others, logit, grain=1)
        self.others = parts.join_sums(top, others, 1.0)[1]
        self.hard, self.total = parts.hard_loss(self.others, logit - self.known[:, parts.TOP_Q])

    def divergences(self):
        """Fill each block's part of the divergence."""
        how = (self.cut.width, self.student.weight.classes, self.beta, self.objective.beta == 1, self.scale)
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
        how = (cuts, self.cut.width, self.x, *self.student.weight, self.beta, objective.beta == 1, self.scale)
        known = (self.known, soft, self.labels, self.others, self.total, hard, self.z, self.y, self.sums)
        run(_gradients, len(cuts) - 1, *self.gemm, *how, *known, dxs, dweight, dbias, add, grain=1)
        if dx is not None:
            total = np.empty_like(self.x)
            run(add_up, len(total), dxs, total, grain=64)
            dx[self.where] = total


@kernel_part
def _of_block(weight, step, columns, first, itemsize):
    """Return the weights (n, D) of a block as an operand."""
    return weight + first * itemsize * (1 if columns else step), step, columns


@jit(
    "(int64, int64, int64, int64, int64, {f}[:, ::1], int64, int64, boolean, int64, {f}[::1], {f}, {f}[::1],"
    " float64[:, :, ::1])"
)
def _products(begin, end, gemm, limit, width, x, weight, step, columns, classes, bias, scale, logits, sums):
    before = limit_threads(limit, 1)
    rows = x.shape[0]
    for b in range(begin, end):
        first, last = b * width, min((b + 1) * width, classes)
        z = logits[rows * first : rows * last].reshape(rows, last - first)
        of_block = transposed(_of_block(weight, step, columns, first, x.itemsize))
        multiply(gemm, matrix(x), of_block, x.shape[1], z, False)
        for r in range(rows):
            row_add(z[r], bias[first:last])
            sums[b, r, parts.TOP], sums[b, r, parts.TOTAL] = row_max_and_exp_sum(z[r], scale)
    limit_threads(limit, before)


@jit("(int64, int64, int64, {f}[:, ::1], int64[::1], boolean, {f}, {f}, {f}[::1], float64[:, :, ::1])")
def _given(begin, end, width, given, index, probabilities, temperature, scale, logits, sums):
    rows, classes = index.size, given.shape[1]
    for b in range(begin, end):
        first, last = b * width, min((b + 1) * width, classes)
        y = logits[rows * first : rows * last].reshape(rows, last - first)
        for r in range(rows):
            row, given_row = y[r], given[index[r], first:last]
            for v in range(row.size):
                row[v] = given_row[v]
            if probabilities:
                sums[b, r, parts.TOP], sums[b, r, parts.TOTAL] = 0, parts.row_log(row, temperature)
            else:
                sums[b, r, parts.TOP], sums[b, r, parts.TOTAL] = row_max_and_exp_sum(row, scale)


@jit("(int64, int64, int64, int64, int64[::1], float64[:, ::1], {f}[::1], float64[:, ::1], {f}[::1])")
def _others(begin, end, width, classes, labels, top, logits, others, logit):
    rows = labels.size
    for b in range(begin, end):
        first, last = b * width, min((b + 1) * width, classes)
        z = logits[rows * first : rows * last].reshape(rows, last - first)
        for r in range(rows):
            if first <= labels[r] < last:
                logit[r] = z[r, labels[r] - first]
            others[b, r] = parts.row_others(z[r], labels[r] - first, z.dtype.type(top[b, r]))


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
        f"(int64, int64, int64, int64, int64[::1], int64, {{f}}[:, ::1], int64, int64, boolean, int64, {beta}, boolean,"
        " {f}, float64[:, ::1], {f}[::1], int64[::1], float64[::1], float64[::1], float64[::1], {f}[::1], {f}[::1],"
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
    beta,
    reverse,
    scale,
    known,
    soft,
    labels,
    others,
    total,
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
    out = np.empty(width, x.dtype)  # where the output may be an input, LLVM does not vectorise
    for segment in range(begin, end):
        for b in range(cuts[segment], cuts[segment + 1]):
            first, last = b * width, min((b + 1) * width, classes)
            z = logits[rows * first : rows * last].reshape(rows, last - first)
            dz = teacher_logits[rows * first : rows * last].reshape(rows, last - first)
            for r in range(rows):
                two, mean = parts.pair_of(known[r], scale), kind(known[r, parts.MEAN])
                row = out[: last - first]
                if beta is not None:
                    js_slope_of_q(dz[r], z[r], two, kind(beta), kind(1 - beta), mean, soft[r], row)
                elif reverse:
                    kl_slope_of_p(z[r], dz[r], swapped(two), mean, soft[r], row)
                else:
                    mass = kind(known[r, parts.MASS])
                    sums[b, r, parts.OF_P] = kl_sum_and_slope_of_q(dz[r], z[r], two, mass, soft[r], row)
                if labels.size:
                    top = kind(known[r, parts.TOP_Q])
                    parts.row_add_hard_slope(z[r], labels[r] - first, top, others[r], total[r], hard[r], row)
                for v in range(last - first if dbias.size else 0):
                    dbias[first + v] += np.float64(row[v])
                for v in range(last - first):
                    dz[r, v] = row[v]
            if dxs.shape[0]:
                of_block = _of_block(weight, step, columns, first, x.itemsize)
                multiply(gemm, matrix(dz), of_block, last - first, dxs[segment], b > cuts[segment])
            if dweight.shape[0]:
                multiply(gemm, transposed(matrix(dz)), matrix(x), rows, dweight[first:last], add)
    limit_threads(limit, before)
