"""Which kernel computes the rows of a cross-entropy.

`label_rows` those of class indices alone, `smoothed_rows` class indices with further options, `distribution_rows`
distributions. The equations of each are in its file; ``_below.py`` and ``_walk.py`` are what the last two share.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cuda._distributions import distribution_rows
from fastnlp.kernels.cuda._labels import label_rows
from fastnlp.kernels.cuda._schedule import grid, whole
from fastnlp.kernels.cuda._smoothed import smoothed_rows

_LARGEST = float(np.finfo(np.float32).max)


def rows(x, criterion, loss, lse, stats, scale, lse_scale, dx):
    # (n, V), Criterion, (n,), (n,), Stats or None, (n,) or None, (n,) or None, (n, V) or None
    """Loss and lse of each row; stats where they are wanted; with dx, which may be x, the gradient by scales.

    The criterion's target has -1 where a row does not count and -2 where it is no class: then NaN comes out. Beside
    probabilities it may be None: all rows count.
    """
    library, (n, classes) = x.library, x.shape
    if not classes:
        _clear(library, loss, lse, stats)
        return
    label, p = criterion.target, criterion.probabilities
    temperature, cap = criterion.temperature, criterion.softcap or 0.0
    inverse_t = 1 / temperature
    dx_pitch = 0 if dx is None else dx.pitch
    blocks, threads = grid(library, n, classes, 1024)
    if p is None and stats is None and not cap and not criterion.label_smoothing:
        sizes = (classes, whole(x, dx), n)
        inputs = (x, x.pitch, label, criterion.class_weight, scale, lse_scale, *sizes, inverse_t)
        library.launch(label_rows, blocks, threads, *inputs, loss, lse, dx, dx_pitch)
        return
    weight, smoothing = criterion.class_weight, criterion.label_smoothing
    factor = min(1 / (temperature * cap), _LARGEST) if cap else inverse_t
    if dx is not None and lse_scale is None:
        lse_scale = library.zeros(n, np.float32)
    if label is None:
        label = library.zeros(n, np.int64)
    wide = whole(x, p, dx, None if weight is None else weight.reshape(1, classes))
    settings = (weight, scale, lse_scale, classes, wide, n)
    settings += (inverse_t, factor, cap, 1 - smoothing, smoothing / classes)
    results = (loss, lse, *(_unread(library, n) if stats is None else stats), dx, dx_pitch)
    if p is None:
        library.launch(smoothed_rows, blocks, threads, x, x.pitch, label, *settings, *results)
    else:
        library.launch(distribution_rows, blocks, threads, x, x.pitch, p, p.pitch, label, *settings, *results)


def _unread(library, n):
    """Return where statistics go that nobody asked for."""
    unread = library.empty(n, np.float32)
    return unread, unread, library.empty(n, np.int64)


def _clear(library, loss, lse, stats):
    """Write what is told of rows that do not count: of no class, nothing is known."""
    for told in (loss, lse) if stats is None else (loss, lse, stats.nll, stats.entropy):
        library.clear(told)
    if stats is not None:
        library.copy(library.full(stats.argmax.shape, -1, np.int64), stats.argmax)
