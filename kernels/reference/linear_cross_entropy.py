"""Cross-entropy of a linear classifier, logits a chunk of rows at a time.

    z = x W' + b      nll = cross-entropy(z, target)      dz = s (softmax(z) - onehot(target))
    dx = dz W         dW = dz' x                           db = sum_n dz_n

Chunks of `rows` rows over all classes go through one buffer, in which the logits turn into their gradient.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.reference import cross_entropy


def forward(x, weight, bias, target, nll, rows, matmul):  # (N, D), (V, D), (V,) or None, (N,), (N,)
    """nll = cross-entropy(x weight' + bias, target)."""
    for chunk, logits in _chunks(x, weight, bias, rows, matmul):
        cross_entropy.forward(logits, target[chunk], nll[chunk])


def gradient(x, weight, bias, target, scale, nll, dx, dweight, dbias, rows, block, matmul):
    # (N, D), (V, D), (V,) or None, (N,), (N,), (N,), (N, D) or None, (V, D) or None, (V,) or None
    """Nll as in forward, and the gradients of sum_n scale_n nll_n, in one pass; those that are None are left out.

    dweight is added to `block` classes at a time.
    """
    for total in (dweight, dbias):
        if total is not None:
            total[...] = 0
    for chunk, logits in _chunks(x, weight, bias, rows, matmul):
        cross_entropy.gradient(logits, target[chunk], scale[chunk], nll[chunk], logits)
        if dx is not None:
            matmul(logits, weight, out=dx[chunk])
        if dweight is not None:
            for begin in range(0, len(dweight), block):
                dweight[begin : begin + block] += logits[:, begin : begin + block].T @ x[chunk]
        if dbias is not None:
            dbias += logits.sum(axis=0)


def _chunks(x, weight, bias, rows, matmul):
    buffer = np.empty((min(rows, x.shape[0]), weight.shape[0]), x.dtype)
    for begin in range(0, x.shape[0], rows):
        chunk = slice(begin, min(begin + rows, x.shape[0]))
        logits = buffer[: chunk.stop - begin]
        matmul(x[chunk], weight.T, out=logits)
        if bias is not None:
            logits += bias
        yield chunk, logits
