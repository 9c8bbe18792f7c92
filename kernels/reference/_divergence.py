"""What the divergences of softmaxes share: rows of two log-probabilities, their divergence and its gradient.

    p = softmax(scale * y)      q = softmax(scale * x)      x the input's logits, y the target's

    beta = 0           D = KL(p || q)           = sum_v p_v log(p_v / q_v)
    beta = 1           D = KL(q || p)
    between            D = beta KL(p || m) + (1 - beta) KL(q || m),      m = beta p + (1 - beta) q

    KL(a || m) = sum_v a_v h(log a_v / m_v),      h(r) = e**-r - 1 + r >= 0      (for a and m that both sum to one)

A sum of terms that are not negative, in which first-order errors of the log-probabilities cancel: distributions that
are nearly equal keep their digits. The mixture is taken in logarithms, so that it does not underflow. 0 log 0 = 0.

    dD/dx_v = scale (q_v - p_v)                              beta = 0
            = scale (1 - beta) q_v (r_v - KL(q || m)),       r = log q / m        (beta = 1: factor 1, m = p)

and dD/dy the same with the roles of p and q, beta and 1 - beta exchanged. Computed in float64.

Where p is given and sums to S, not to one, S - 1 is added at beta = 0 and taken away at beta = 1 (between it cancels),
q_v in the first gradient becomes S q_v, and KL(q || m) in the second is sum_v q_v r_v.
"""

from __future__ import annotations

import numpy as np


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def log_softmax(x, scale):  # (N, V)
    """Return log softmax(scale * x) in float64."""
    d = x - np.max(x, axis=1, initial=-np.inf, keepdims=True).astype(np.float64)
    d *= scale
    d -= np.log(np.exp(d).sum(axis=1, keepdims=True))
    return d


def divergence(log_p, log_q, beta, mass=1):  # (N, V), (N, V), (N,)
    """Return D of each row: (N,); `mass` is the sum of p."""
    if beta == 0:
        return _kl(log_p, log_q) + (mass - 1)
    if beta == 1:
        return _kl(log_q, log_p) - (mass - 1)
    log_m = _log_mixture(log_p, log_q, beta)
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


@np.errstate(invalid="ignore", over="ignore")
def slope(log_p, log_q, beta):  # (N, V), (N, V)
    """Return dD / d(scale x), x the logits of q; p need not sum to one."""
    q = np.exp(log_q)
    if beta == 0:
        p = np.exp(log_p)
        return q * p.sum(axis=1, keepdims=True) - p
    r = log_q - (log_p if beta == 1 else _log_mixture(log_p, log_q, beta))
    r[q == 0] = 0
    r -= (q * r).sum(axis=1, keepdims=True)
    r *= q * (1 if beta == 1 else 1 - beta)
    return r


@np.errstate(invalid="ignore")
def _log_mixture(log_p, log_q, beta):
    return np.logaddexp(log_p + np.log(beta), log_q + np.log1p(-beta))


@np.errstate(invalid="ignore", over="ignore")
def _kl(log_a, log_m):
    """Return sum_v a_v log(a_v / m_v) - a_v + m_v of each row."""
    a, m, r = np.exp(log_a), np.exp(log_m), log_a - log_m
    near = np.abs(r) < 1
    terms = np.where(near, a * (np.expm1(-r) + r), a * r - a + m)
    return np.where(a == 0, m, terms).sum(axis=1)
