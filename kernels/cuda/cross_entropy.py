"""Cross-entropy of logits on a GPU, and its gradient (the equations: ``reference/_criterion.py``).

One launch: a block takes a row at a time, keeps it in the second-level cache from one pass to the next, and writes the
gradient once (``_labels.py``, ``_smoothed.py``, ``_distributions.py``).
"""

from __future__ import annotations

from fastnlp.kernels.cuda._criterion import rows


def forward(x, criterion, loss, lse, stats):  # (N, V), Criterion, (N,), (N,), Stats or None
    """Loss and lse of each row, and stats where they are wanted."""
    rows(x, criterion, loss, lse, stats, None, None, None)


def gradient(x, criterion, scale, lse_scale, loss, lse, stats, dx):
    # (N, V), Criterion, (N,), (N,) or None, (N,), (N,), Stats or None, (N, V)
    """As forward, and dx = the gradient of sum_n scale_n loss_n + lse_scale_n lse_n^2, in one launch."""
    rows(x, criterion, loss, lse, stats, scale, lse_scale, dx)
