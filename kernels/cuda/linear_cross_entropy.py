"""Cross-entropy of a linear classifier, logits a chunk of rows at a time (the frame: ``_chunks.py``).

Rows that do not count are skipped by the row kernels; with `kept`, their indices, the others are gathered before the
products and put back afterwards.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda import _chunks, linear
from fastnlp.kernels.cuda._criterion import rows as criterion_rows


def least_workspace(rows, features, classes, itemsize, gradients):
    """Return the least bytes of temporaries with which a batch can be computed."""
    return _chunks.pitch(classes, itemsize) * itemsize


def forward(x, weight, bias, criterion, kept, loss, lse, stats, workspace, blas):
    # (N, D), (V, D), (V,) or None, Criterion, (K,) or None, (N,), (N,), Stats or None
    """Loss and lse of the rows `kept`, and stats where they are wanted; `blas` is a CPU's, the GPU's is used."""
    _run(x, weight, bias, criterion, kept, None, None, loss, lse, stats, None, None, None, workspace)


def gradient(x, weight, bias, criterion, kept, scale, lse_scale, loss, lse, stats, dx, dweight, dbias, workspace, blas):
    # as forward; (N,), (N,) or None; (N, D) or None, (V, D) or None, (V,) or None, float32
    """As forward, and the gradients of sum_n scale_n l_n + lse_scale_n lse_n^2; those that are None are left out."""
    _run(x, weight, bias, criterion, kept, scale, lse_scale, loss, lse, stats, dx, dweight, dbias, workspace)


def _run(x, weight, bias, criterion, kept, scale, lse_scale, loss, lse, stats, dx, dweight, dbias, workspace):
    library, classes = x.library, len(weight)
    n = len(x) if kept is None else len(kept)
    rows = _chunks.rows_a_chunk(n, _chunks.pitch(classes, x.itemsize) * x.itemsize, workspace)
    logits = _chunks.buffer(x, min(rows, n), classes) if n else None
    for total in (dweight, dbias):
        if total is not None and not n:
            library.clear(total)
    for begin, end in _chunks.spans(n, rows):
        part = slice(begin, end)
        at = None if kept is None else kept[part]
        z = logits[: end - begin]
        xs, chosen, factors = _gathered(x, criterion, (scale, lse_scale), part, at)
        results = _results(library, loss, lse, stats, part, at)
        linear.logits(xs, weight, bias, z)
        criterion_rows(z, chosen, *results, *factors, z if scale is not None else None)
        of_dx = None if dx is None else dx[part] if at is None else library.empty(xs.shape, np.float32)
        _chunks.products(z, xs, weight, of_dx, dweight, dbias, begin == 0)
        if at is not None:
            _put_back(results, (loss, lse, stats), at)
            if dx is not None:
                _chunks.put(of_dx, at, dx)


def _gathered(x, criterion, factors, part, at):
    """Return the rows of a chunk, what they are compared with, and their factors."""

    def of_rows(array):
        if array is None:
            return None
        return array[part] if at is None else array.library.take(array, at)

    criterion = criterion._replace(target=of_rows(criterion.target), probabilities=of_rows(criterion.probabilities))
    return of_rows(x), criterion, tuple(of_rows(array) for array in factors)


def _results(library, loss, lse, stats, part, at):
    """Return where the results of a chunk are written: into the whole, or beside it."""
    if at is None:
        return loss[part], lse[part], None if stats is None else type(stats)(*(x[part] for x in stats))
    n = len(at)
    beside = None if stats is None else type(stats)(*(library.empty(n, x.dtype) for x in stats))
    return library.empty(n, np.float32), library.empty(n, np.float32), beside


def _put_back(results, whole, at):
    for source, out in zip((*results[:2], *(results[2] or ())), (*whole[:2], *(whole[2] or ())), strict=True):
        _chunks.put(source, at, out)
