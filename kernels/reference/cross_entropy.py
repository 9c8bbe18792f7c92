"""Cross-entropy of logits against class indices or distributions, and its gradient (the equations: ``_criterion.py``).

    z = softcap tanh(x / temperature / softcap)      lse = log sum_v exp(z_v)      l = sum_v q_v (lse - z_v)

A row with a negative target counts for nothing: all that is told of it is zero. Blocks of rows pass through the cache
one after another, so that temporaries do not grow with the number of rows.
"""

from __future__ import annotations

from fastnlp.kernels.reference import _criterion


def forward(x, criterion, loss, lse, stats):  # (N, V), Criterion, (N,), (N,), Stats or None
    """Loss and lse of each row, and stats where they are wanted."""
    _clear(loss, lse, stats)
    for rows in _criterion.blocks(x, criterion):
        _criterion.losses(x[rows], criterion, rows, loss, lse, stats)


def gradient(x, criterion, scale, lse_scale, loss, lse, stats, dx):
    # (N, V), Criterion, (N,), (N,) or None, (N,), (N,), Stats or None, (N, V)
    """As forward, and dx = the gradient of sum_n scale_n loss_n + lse_scale_n lse_n^2, in one pass."""
    _clear(loss, lse, stats)
    blocks = _criterion.blocks(x, criterion)
    if not blocks or not isinstance(blocks[0], slice):
        dx[...] = 0
    for rows in blocks:
        part = x[rows]
        out = dx[rows] if isinstance(rows, slice) else part  # indices make a copy
        _criterion.gradients(part, criterion, rows, scale, lse_scale, loss, lse, stats, out)
        if out is part:
            dx[rows] = out


def _clear(loss, lse, stats):
    loss[...] = lse[...] = 0
    if stats is not None:
        stats.nll[...] = stats.entropy[...] = 0
        stats.argmax[...] = -1
