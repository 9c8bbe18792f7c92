"""Kullback-Leibler divergence element by element, and its gradients (the equations: ``reference/kl_div.py``).

Schedule: the arrays are flat, whatever their rows. Sums run in the dtype over pieces and in float64 over their totals.
Bytes: one read of both arrays for the loss; for the gradient one read of what it takes and one write.
Flops: about 25 an element, nearly all of them exp or log.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._rows import BLOCK
from fastnlp.kernels.scalar import exp, log

_ELEMENTS_A_TASK = 1 << 15


def elements(x, target, log_target, out):  # (S,) each
    """out = l."""
    run(_log_elements if log_target else _elements, x.size, x, target, out, grain=_ELEMENTS_A_TASK)


def total(x, target, log_target, block, sums):  # (S,), (S,), float64 (S / block,)
    """Sums of l over blocks of `block` elements."""
    run(_log_total if log_target else _total, sums.size, x, target, block, sums, grain=1)


def gradient(x, target, log_target, scale, dx, dtarget):  # (S,), (S,), (S,) or None each
    """dx = scale dl/dx and dtarget = scale dl/dt; those that are None are left out."""
    scale = x.dtype.type(scale)
    if dx is not None:
        kernel = _log_input_gradient if log_target else _input_gradient
        run(kernel, x.size, target, scale, dx, grain=_ELEMENTS_A_TASK)
    if dtarget is not None:
        kernel = _log_target_gradient if log_target else _target_gradient
        run(kernel, x.size, x, target, scale, dtarget, grain=_ELEMENTS_A_TASK)


@kernel_part
def _loss(x, t):
    """Return t (log t - x), 0 where t is 0."""
    return t * (log(t) - x) if t != type(t)(0) else t


@kernel_part
def _log_loss(x, t):
    """Return e**t (t - x), 0 where e**t is 0."""
    mass = exp(t)
    return mass * (t - x) if mass != type(t)(0) else mass


@jit("(int64, int64, {f}[::1], {f}[::1], {f}[::1])")
def _elements(begin, end, x, target, out):
    a, t, written = x[begin:end], target[begin:end], out[begin:end]
    for i in range(a.size):
        written[i] = _loss(a[i], t[i])


@jit("(int64, int64, {f}[::1], {f}[::1], {f}[::1])")
def _log_elements(begin, end, x, target, out):
    a, t, written = x[begin:end], target[begin:end], out[begin:end]
    for i in range(a.size):
        written[i] = _log_loss(a[i], t[i])


@jit("(int64, int64, {f}[::1], {f}[::1], int64, float64[::1])")
def _total(begin, end, x, target, block, sums):
    for b in range(begin, end):
        a, t = x[b * block : (b + 1) * block], target[b * block : (b + 1) * block]
        sums[b] = 0
        for first in range(0, a.size, BLOCK):
            p, q = a[first : first + BLOCK], t[first : first + BLOCK]
            partial = a.dtype.type(0)
            for i in range(p.size):
                partial += _loss(p[i], q[i])
            sums[b] += np.float64(partial)


@jit("(int64, int64, {f}[::1], {f}[::1], int64, float64[::1])")
def _log_total(begin, end, x, target, block, sums):
    for b in range(begin, end):
        a, t = x[b * block : (b + 1) * block], target[b * block : (b + 1) * block]
        sums[b] = 0
        for first in range(0, a.size, BLOCK):
            p, q = a[first : first + BLOCK], t[first : first + BLOCK]
            partial = a.dtype.type(0)
            for i in range(p.size):
                partial += _log_loss(p[i], q[i])
            sums[b] += np.float64(partial)


@jit("(int64, int64, {f}[::1], {f}, {f}[::1])")
def _input_gradient(begin, end, target, scale, dx):
    t, written = target[begin:end], dx[begin:end]
    for i in range(t.size):
        written[i] = -scale * t[i]


@jit("(int64, int64, {f}[::1], {f}, {f}[::1])")
def _log_input_gradient(begin, end, target, scale, dx):
    t, written = target[begin:end], dx[begin:end]
    for i in range(t.size):
        written[i] = -scale * exp(t[i])


@jit("(int64, int64, {f}[::1], {f}[::1], {f}, {f}[::1])")
def _target_gradient(begin, end, x, target, scale, dtarget):
    a, t, written = x[begin:end], target[begin:end], dtarget[begin:end]
    for i in range(t.size):
        written[i] = scale * (log(t[i]) - a[i] + t.dtype.type(1))


@jit("(int64, int64, {f}[::1], {f}[::1], {f}, {f}[::1])")
def _log_target_gradient(begin, end, x, target, scale, dtarget):
    a, t, written = x[begin:end], target[begin:end], dtarget[begin:end]
    for i in range(t.size):
        mass = exp(t[i])
        slope = mass * (t[i] - a[i] + t.dtype.type(1))
        written[i] = scale * (slope if mass != t.dtype.type(0) else mass)
