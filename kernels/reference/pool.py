"""Pooling of the vectors of a sequence to one, and its gradients.

    mean:  out_n = 1 / L_n sum_t x_nt       dx_nt = dout_n / L_n
    max:   out_nd = max_t x_ntd             dx_ntd = dout_nd where t is the first place of the maximum, else 0

Sequence n is the rows ``begin[n] : end[n]`` of x, at least one. The rows ``end[n] : begin[n + 1]`` are padding: nobody
reads them, and their gradient is 0.
"""

from __future__ import annotations

import numpy as np


@np.errstate(invalid="ignore", over="ignore")
def mean(x, begin, end, out):  # (R, D), (N + 1,), (N,), (N, D)
    """out = the mean of each sequence, summed in float64."""
    for n in range(end.size):
        out[n] = x[begin[n] : end[n]].mean(axis=0, dtype=np.float64)


def mean_backward(dout, begin, end, dx):  # (N, D), (N + 1,), (N,), (R, D)
    """dx = the gradient of `mean`."""
    for n in range(end.size):
        dx[begin[n] : end[n]] = dout[n] / np.float64(end[n] - begin[n])
        dx[end[n] : begin[n + 1]] = 0


def max(x, begin, end, out, place):  # (R, D), (N + 1,), (N,), (N, D), (N, D)
    """out = the maximum of each sequence, NaN where it holds one; place = where it stands first, from begin[n]."""
    for n in range(end.size):
        x[begin[n] : end[n]].max(axis=0, out=out[n])
        place[n] = x[begin[n] : end[n]].argmax(axis=0)


def max_backward(dout, begin, end, place, dx):  # (N, D), (N + 1,), (N,), (N, D), (R, D)
    """dx = the gradient of `max`."""
    dx[...] = 0
    for n in range(end.size):
        np.put_along_axis(dx[begin[n] : end[n]], place[n][None].astype(np.int64), dout[n][None], axis=0)
