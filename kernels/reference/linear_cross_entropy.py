"""Cross-entropy of a linear classifier, logits a chunk of rows at a time (the equations of a row: ``_criterion.py``).

    z = x W' + b      l = cross-entropy(z, target)      dz = the gradient of sum_n scale_n l_n + lse_scale_n lse_n^2
    dx = dz W         dW = dz' x                         db = sum_n dz_n

Chunks of rows that count, over all classes, go through one buffer, in which the logits turn into their gradient.
"""

from __future__ import annotations

import numpy as np

from fastnlp._blas import matmul as product
from fastnlp.kernels.reference import _criterion

_SCRATCH = 4 << 20  # bytes at most for the product that is added to dW


def least_workspace(rows, features, classes, itemsize, gradients):
    """Return the least bytes of temporaries with which a batch can be computed."""
    one_class = features * itemsize if gradients else 0
    return _row_bytes(features, classes, itemsize) + _criterion.bytes_a_row(classes, itemsize) + one_class


def forward(x, weight, bias, criterion, kept, loss, lse, stats, workspace, blas):
    # (N, D), (V, D), (V,) or None, Criterion, (K,) or None, (N,), (N,), Stats or None
    """Loss and lse of the rows `kept`, and stats where they are wanted."""
    rows, block, _ = _schedule(x, weight, kept, workspace, False)
    for where, _, logits in _chunks(x, weight, bias, kept, rows, product(blas)):
        for part, at in _blocks(where, len(logits), block):
            _criterion.losses(logits[part], criterion, at, loss, lse, stats)


def gradient(x, weight, bias, criterion, kept, scale, lse_scale, loss, lse, stats, dx, dweight, dbias, workspace, blas):
    # as forward; (N,), (N,) or None; (N, D) or None, (V, D) or None, (V,) or None
    """As forward, and the gradients of sum_n scale_n l_n + lse_scale_n lse_n^2; those that are None are left out."""
    rows, block, step = _schedule(x, weight, kept, workspace, True)
    matmul = product(blas)
    for total in (dweight, dbias):
        if total is not None:
            total[...] = 0
    for where, xs, logits in _chunks(x, weight, bias, kept, rows, matmul):
        for part, at in _blocks(where, len(logits), block):
            z = logits[part]
            _criterion.gradients(z, criterion, at, scale, lse_scale, loss, lse, stats, z)
        if dx is not None and kept is None:
            matmul(logits, weight, out=dx[where])
        elif dx is not None:
            dx[where] = matmul(logits, weight, out=np.empty_like(xs))
        if dweight is not None:
            _add_product(logits, xs, dweight, step, matmul)
        if dbias is not None:
            dbias += logits.sum(axis=0, dtype=np.float64).astype(dbias.dtype)


def _row_bytes(features, classes, itemsize):
    """The bytes of a row in a chunk: its logits, its gathered features and their gradient."""
    return (classes + 2 * features) * itemsize


def _schedule(x, weight, kept, workspace, gradients):
    """Return the rows of a chunk, the rows of a block in it, and the classes of dW that are added to at a time."""
    classes, features = weight.shape
    item, n = x.itemsize, len(x) if kept is None else len(kept)
    row, temporary = _row_bytes(features, classes, item), _criterion.bytes_a_row(classes, item)
    spare = workspace - least_workspace(n, features, classes, item, gradients)
    if spare < 0:
        raise ValueError(f"workspace: {workspace} bytes are {-spare} too few")
    block = 1 + min(spare // 4 // max(1, temporary), _criterion.rows_in_cache(classes, item) - 1)
    step = 1 + min(spare // 4, _SCRATCH) // max(1, features * item) if gradients else 1
    step = max(1, min(step, classes))
    spare -= (block - 1) * temporary + (step - 1) * features * item * gradients
    chunks = max(1, -(-n // (1 + spare // max(1, row))))
    return max(1, -(-n // chunks)), block, step


def _chunks(x, weight, bias, kept, rows, matmul):
    """Yield where the rows of a chunk stand, the rows, and their logits in a buffer that is used again."""
    n = len(x) if kept is None else len(kept)
    buffer = np.empty((min(rows, n), len(weight)), x.dtype)
    for begin in range(0, n, rows):
        chunk = slice(begin, min(begin + rows, n))
        where = chunk if kept is None else kept[chunk]
        xs, logits = x[where], buffer[: chunk.stop - begin]
        matmul(xs, weight.T, out=logits)
        if bias is not None:
            logits += bias
        yield where, xs, logits


def _blocks(where, n, step):
    """Yield the parts of a chunk, and where their rows stand."""
    for begin in range(0, n, step):
        part = slice(begin, min(begin + step, n))
        if isinstance(where, slice):
            yield part, slice(where.start + part.start, where.start + part.stop)
        else:
            yield part, where[part]


def _add_product(dz, x, total, step, matmul):  # (R, V), (R, D), (V, D)
    """total += dz' x, `step` classes at a time, so that the product stays small."""
    scratch = np.empty((min(step, len(total)), total.shape[1]), total.dtype)
    for begin in range(0, len(total), step):
        part = total[begin : begin + step]
        part += matmul(dz[:, begin : begin + step].T, x, out=scratch[: len(part)])
