"""Cross-entropy of a linear classifier, its logits a part at a time (the equations: ``reference/_criterion.py``).

Schedule: chunks of rows go through one reused buffer; in it, each block of classes is contiguous.

1. For each block: the product of the chunk with the block's weights, and while it is in cache each row's maximum, its
   exponentials in place and their sums.
2. For each row: loss and log-sum-exp from the sums of its blocks.
3. For each block: exponentials become the gradient of the logits, and while it is in cache it is carried on: to dW and
   db of the block, and to dx, whose parts are added up by segments of blocks, and the segments in their order.

Every product is one BLAS call on the thread that goes on with it; blocks, segments and chunks are cut by shapes and the
workspace alone. So results are the same bits for any number of threads.
Without gradients, a task holds one block of logits. Flops: 2 N V D for the loss, 6 N V D with both gradients.
"""

from __future__ import annotations

import numpy as np

from fastnlp._blas import single_threaded_gemm
from fastnlp._threads import run
from fastnlp.kernels.cpu import _class_blocks as parts
from fastnlp.kernels.cpu._gemm import add_up, limit_threads, matrix, multiply, transposed
from fastnlp.kernels.cpu._jit import jit
from fastnlp.kernels.cpu._schedule import Weights, chunks, least_bytes, schedule


def least_workspace(rows, features, classes, itemsize, gradients):
    """Return the least bytes of temporaries with which a batch can be computed."""
    return least_bytes(features, classes, itemsize, gradients, parts.ALL_SUMS)


def forward(x, weight, bias, criterion, kept, loss, lse, stats, workspace, blas):
    # (N, D), (V, D), (V,) or None, Criterion, (K,) or None, (N,), (N,), Stats or None
    """Loss and lse of the rows `kept`, and stats where they are wanted."""
    n = len(x) if kept is None else len(kept)
    weight = weight if Weights.of(weight) else np.ascontiguousarray(weight)
    cut = schedule(n, x.shape[1], len(weight), x.itemsize, workspace, False, parts.ALL_SUMS)
    with single_threaded_gemm(blas, x.itemsize) as gemm:
        for where in chunks(n, kept, cut.rows):
            chunk = _Chunk(x, weight, bias, criterion, where, cut, stats is not None)
            chunk.losses(gemm, np.empty(0, x.dtype))
            chunk.tell(where, loss, lse, stats)


def gradient(x, weight, bias, criterion, kept, scale, lse_scale, loss, lse, stats, dx, dweight, dbias, workspace, blas):
    # as forward; (N,), (N,) or None; (N, D) or None, (V, D) or None, (V,) or None
    """As forward, and the gradients of sum_n scale_n l_n + lse_scale_n lse_n^2; those that are None are left out."""
    n = len(x) if kept is None else len(kept)
    weight = weight if Weights.of(weight) else np.ascontiguousarray(weight)
    cut = schedule(n, x.shape[1], len(weight), x.itemsize, workspace, True, parts.ALL_SUMS)
    sums = np.zeros(0 if dbias is None else len(weight))
    if dweight is not None and not n:
        dweight[...] = 0
    buffer = np.empty(min(cut.rows, n) * len(weight), x.dtype)
    with single_threaded_gemm(blas, x.itemsize) as gemm:
        for begin, where in enumerate(chunks(n, kept, cut.rows)):
            chunk = _Chunk(x, weight, bias, criterion, where, cut, stats is not None)
            chunk.losses(gemm, buffer)
            chunk.tell(where, loss, lse, stats)
            squared = np.zeros(len(chunk.x), x.dtype) if lse_scale is None else lse_scale[where]
            chunk.gradients(gemm, buffer, scale[where], squared, where, dx, dweight, sums, begin > 0)
    if dbias is not None:
        dbias[...] = sums


class _Chunk:
    """Some rows against all classes."""

    def __init__(self, x, weight, bias, criterion, where, cut, stats):
        self.x = x[where]  # (R, D)
        self.weight = Weights.of(weight)
        empty = np.empty(0, x.dtype)
        self.bias = empty if bias is None else bias
        soft = criterion.probabilities is not None
        self.target = np.empty(0, np.int64) if soft else criterion.target[where]
        self.probabilities = criterion.probabilities if soft else empty.reshape(0, 0)
        self.index = np.arange(where.start, where.stop) if isinstance(where, slice) else where
        self.class_weight = empty if criterion.class_weight is None else criterion.class_weight
        self.smoothing = criterion.label_smoothing
        self.inverse, self.softcap = 1 / criterion.temperature, criterion.softcap or 0.0
        self.width, self.segments = cut.width, cut.segments
        plain = not (soft or stats or self.smoothing or self.softcap) and self.inverse == 1
        if plain:
            self.probabilities = None
        rows, blocks = len(self.x), -(-len(weight) // cut.width)
        self.sums = np.empty((blocks, rows, parts.PLAIN_SUMS if plain else parts.ALL_SUMS))
        self.logit = np.full(rows, np.nan, x.dtype)
        self.loss, self.lse = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
        self.known, self.argmax = np.empty((rows, parts.KNOWN)), np.empty(rows, np.int64)

    def losses(self, gemm, logits):
        """Fill what is known of the rows; leave exponentials (z under a soft-cap) in `logits` if it has room."""
        tasks = len(self.segments) - 1 if not logits.size else self.segments[-1]
        cuts = self.segments if not logits.size else np.arange(tasks + 1)
        inputs = (self.x, *self.weight, self.bias, self.target, self.probabilities, self.index, self.class_weight)
        numbers = (self.smoothing, self.inverse, self.softcap)
        run(_losses, tasks, *gemm, cuts, self.width, *inputs, *numbers, logits, self.sums, self.logit, grain=1)
        known = (self.loss, self.lse, self.known, self.argmax)
        inputs = (self.sums, self.target, self.logit, self.class_weight, self.smoothing)
        run(parts.join, len(self.x), *inputs, *known, grain=64)

    @np.errstate(over="ignore")  # a loss beyond float32 is inf
    def tell(self, where, loss, lse, stats):
        loss[where], lse[where] = self.loss, self.lse
        if stats is not None:
            stats.nll[where], stats.entropy[where] = self.known[:, parts.NLL], self.known[:, parts.SPREAD]
            stats.argmax[where] = self.argmax

    def gradients(self, gemm, logits, scale, lse_scale, where, dx, dweight, dbias, add):
        """Turn `logits` into their gradient and carry it on."""
        segments, (rows, features) = len(self.segments) - 1, self.x.shape
        dxs = np.empty((0 if dx is None else segments, rows, features), self.x.dtype)
        dweight = np.empty((0, features), self.x.dtype) if dweight is None else dweight
        inputs = (self.x, *self.weight, self.target, self.probabilities, self.index, self.class_weight)
        numbers = (self.smoothing, self.inverse, self.softcap)
        known = (self.sums, self.logit, self.lse, self.known, self.argmax, scale, lse_scale)
        outputs = (logits, dxs, dweight, dbias, add)
        run(_gradients, segments, *gemm, self.segments, self.width, *inputs, *numbers, *known, *outputs, grain=1)
        if dx is not None:
            total = dx[where] if isinstance(where, slice) else np.empty_like(self.x)
            run(add_up, rows, dxs, total, grain=64)
            if not isinstance(where, slice):
                dx[where] = total


# Without options, where there are no probabilities at all, the kernels are compiled to less.
_PROBABILITIES = ("none", "{f}[:, ::1]")


@jit(
    *(
        "(int64, int64, int64, int64, int64[::1], int64, {f}[:, ::1], int64, int64, boolean, int64, {f}[::1],"
        f" int64[::1], {kind}, int64[::1], {{f}}[::1], float64, float64, float64, {{f}}[::1], float64[:, :, ::1],"
        " {f}[::1])"
        for kind in _PROBABILITIES
    )
)
def _losses(
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
    bias,
    target,
    probabilities,
    index,
    class_weight,
    smoothing,
    inverse,
    softcap,
    logits,
    sums,
    logit,
):
    before = limit_threads(limit, 1)
    (rows, features), held = x.shape, logits.size > 0
    tile = np.empty(0 if held else rows * width, x.dtype)
    mass, below, scratch = np.empty(width, x.dtype), np.empty(width, x.dtype), np.empty(width, x.dtype)
    for b in range(cuts[begin], cuts[end]):
        first, last = b * width, min((b + 1) * width, classes)
        n = last - first
        z = (logits[rows * first : rows * last] if held else tile[: rows * n]).reshape(rows, n)
        of_block = weight + first * x.itemsize * (1 if columns else step), step, not columns
        multiply(gemm, matrix(x), of_block, features, z, False)
        for r in range(rows):
            row = z[r]
            parts.row_add(row, bias[first:last])
            if probabilities is None:
                if first <= target[r] < last:
                    logit[r] = row[target[r] - first]
                parts.row_exponentials(row, sums[b, r])
            else:
                parts.row_transform(row, inverse, softcap)
                if target.size and first <= target[r] < last:
                    logit[r] = row[target[r] - first]
                m = n if probabilities.size or smoothing != 0 else 0
                plain = probabilities[index[r], first:last] if probabilities.size else class_weight[:0]
                parts.row_mass(plain, class_weight[first : first + m], smoothing, classes, mass[:m])
                parts.row_below(row, below[:n], sums[b, r])
                parts.row_mass_sums(mass[:m], plain, below[:n], sums[b, r])
                sums[b, r, parts.ARGMAX] += first
                exponentials = row
                if softcap != 0 and held:  # the gradient will want z itself
                    exponentials = scratch[:n]
                    exponentials[:] = row
                parts.row_exponentials_and_entropy(exponentials, sums[b, r])
    limit_threads(limit, before)


@jit(
    *(
        "(int64, int64, int64, int64, int64[::1], int64, {f}[:, ::1], int64, int64, boolean, int64, int64[::1],"
        f" {kind}, int64[::1], {{f}}[::1], float64, float64, float64, float64[:, :, ::1], {{f}}[::1], {{f}}[::1],"
        " float64[:, ::1], int64[::1], {f}[::1], {f}[::1], {f}[::1], {f}[:, :, ::1], {f}[:, ::1], float64[::1],"
        " boolean)"
        for kind in _PROBABILITIES
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
    target,
    probabilities,
    index,
    class_weight,
    smoothing,
    inverse,
    softcap,
    sums,
    logit,
    lse,
    known,
    argmax,
    scale,
    lse_scale,
    logits,
    dxs,
    dweight,
    dbias,
    add,
):
    before = limit_threads(limit, 1)
    rows = x.shape[0]
    mass, slope = np.empty(width, x.dtype), np.empty(width, x.dtype)
    for segment in range(begin, end):
        for b in range(cuts[segment], cuts[segment + 1]):
            first, last = b * width, min((b + 1) * width, classes)
            n = last - first
            z = logits[rows * first : rows * last].reshape(rows, n)
            for r in range(rows):
                row = z[r]
                s, squared = scale[r] * inverse, 2.0 * lse_scale[r] * lse[r] * inverse
                special, of_special = argmax[r] - first, 0.0
                if probabilities is not None and softcap != 0:
                    parts.row_slope(row, softcap, slope[:n])
                    parts.row_exponentials(row, sums[b, r])
                parts.row_softmax(row, s * known[r, parts.SUM_MASS] + squared, sums[b, r], known[r])
                if probabilities is not None and (probabilities.size or smoothing != 0):
                    plain = probabilities[index[r], first:last] if probabilities.size else class_weight[:0]
                    parts.row_mass(plain, class_weight[first:last], smoothing, classes, mass[:n])
                    parts.row_subtract(row, mass[:n], s)
                if target.size:
                    special = target[r] - first
                    if 0 <= special < n:
                        of_special = (1 - smoothing) * (class_weight[target[r]] if class_weight.size else 1.0)
                        row[special] -= s * of_special
                        if logit[r] < known[r, parts.TOP]:
                            special = -1
                if 0 <= special < n:
                    if probabilities is not None and (probabilities.size or smoothing != 0):
                        of_special += mass[special]
                    row[special] = parts.top_gradient(s, squared, of_special, known[r])
                if probabilities is not None and softcap != 0:
                    parts.row_multiply(row, slope[:n])
                for v in range(n if dbias.size else 0):
                    dbias[first + v] += np.float64(row[v])
            if dxs.shape[0]:
                of_block = weight + first * x.itemsize * (1 if columns else step), step, columns
                multiply(gemm, matrix(z), of_block, n, dxs[segment], b > cuts[segment])
            if dweight.shape[0]:
                multiply(gemm, transposed(matrix(z)), matrix(x), rows, dweight[first:last], add)
    limit_threads(limit, before)
