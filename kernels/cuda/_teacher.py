"""Rows of logits beside those of a teacher: which kernel runs for which divergence."""

from __future__ import annotations

from fastnlp.kernels.cuda._js import js_rows
from fastnlp.kernels.cuda._kl import kl_rows
from fastnlp.kernels.cuda._reverse_kl import reverse_kl_rows
from fastnlp.kernels.cuda._schedule import grid, whole

_LEAST = 1e-37  # that float32 holds


def rows(x, y, given_p, label, beta, gamma, scale, soft, hard, upstream, loss, dx):
    # (n, V), (n, V), (n,), numbers, (n,) or None, (n,), (n, V) or None
    """loss = soft D_beta + hard cross-entropy of each row, and dx, which may be x; gamma = 1 - beta."""
    (n, classes), library = x.shape, x.library
    inputs = (x, x.pitch, y, y.pitch, label, upstream, classes, whole(*(a for a in (x, y, dx) if a is not None)), n)
    outputs = (scale, soft, hard, int(given_p), loss, dx, 0 if dx is None else dx.pitch)
    kernel, weights = js_rows, (max(beta, _LEAST), max(gamma, _LEAST))
    if beta == 0 or gamma == 0:
        kernel, weights = kl_rows if beta == 0 else reverse_kl_rows, ()
    library.launch(kernel, *grid(library, n, classes, kernel.threads), *inputs, *weights, *outputs)
