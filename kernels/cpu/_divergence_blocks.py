"""Divergence of rows whose classes come a block at a time (the equations: ``reference/_divergence.py``).

Of each block a row keeps maxima and sums of exponentials relative to them, and later its part of the divergence. These
few numbers are joined by NumPy, in float64, in an order that shapes alone decide.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cpu._divergence import pair
from fastnlp.kernels.cpu._jit import kernel_part
from fastnlp.kernels.cpu._rows import row_exp_sum
from fastnlp.kernels.scalar import exp, log

# What a row keeps of a block of logits, in float64: maximum, and sum of exponentials (or of given probabilities).
TOP, TOTAL = range(2)
# What it keeps of its divergence: the sums of p h(log p/m) and q h(log q/m).
OF_P, OF_Q = range(2)
# What is known of a row when its blocks are joined: those of teacher and student, the sum of given probabilities, and
# what the gradient subtracts from log q/m.
TOP_P, TOTAL_P, TOP_Q, TOTAL_Q, MASS, MEAN, KNOWN = range(7)


@kernel_part
def row_log(row, temperature):  # (n,)
    """Turn probabilities into logits at the temperature, whose sum of exponentials is one; return the sum."""
    total = 0.0
    for v in range(row.size):
        total += np.float64(row[v])
    for v in range(row.size):
        row[v] = temperature * log(row[v])
    return total


@kernel_part
def row_others(z, label, top):  # (n,)
    """Return the sum of exponentials without that of the label, which may be in another block."""
    logit = z.dtype.type(0)
    if 0 <= label < z.size:
        logit = z[label]
        z[label] = -np.inf
    others = row_exp_sum(z, top, z.dtype.type(1)) if top > -np.inf else 0.0
    if 0 <= label < z.size:
        z[label] = logit
    return others


@kernel_part
def row_add_hard_slope(z, label, top, others, total, factor, dz):  # (n,), (n,)
    """dz += factor (softmax(z) - onehot(label)); that of the label is made of the others, its digits are kept."""
    share = z.dtype.type(factor / total)
    of_label = z.dtype.type(0)
    if 0 <= label < z.size:
        of_label = dz[label] - z.dtype.type(factor * (others / total))
    for v in range(z.size):
        dz[v] += share * exp(z[v] - top)
    if 0 <= label < z.size:
        dz[label] = of_label


@kernel_part
def pair_of(known, scale):  # (KNOWN,)
    """Return the `Pair` of a row, of the dtype of scale."""
    kind = type(scale)
    return pair(scale, kind(known[TOP_P]), known[TOTAL_P], kind(known[TOP_Q]), known[TOTAL_Q])


def join(student, teacher, scale, probabilities):  # (B, R, 2), (B, R, 2)
    """Return what is known of each row from the maxima and sums of its blocks, but for the mean: (R, KNOWN)."""
    known = np.empty((student.shape[1], KNOWN))
    known[:, TOP_Q], known[:, TOTAL_Q] = join_sums(student[:, :, TOP], student[:, :, TOTAL], scale)
    if probabilities:
        known[:, TOP_P], known[:, TOTAL_P], known[:, MASS] = 0, 1, teacher[:, :, TOTAL].sum(axis=0)
    else:
        known[:, TOP_P], known[:, TOTAL_P] = join_sums(teacher[:, :, TOP], teacher[:, :, TOTAL], scale)
        known[:, MASS] = 1
    return known


@np.errstate(invalid="ignore", over="ignore")
def join_sums(top, total, scale):  # (B, R), (B, R)
    """Return the maximum of each row, and its sum of exponentials relative to that."""
    highest = top.max(axis=0, initial=-np.inf)
    return highest, (np.exp(scale * (top - highest)) * total).sum(axis=0)


@np.errstate(invalid="ignore")
def divergence(sums, known, beta):  # (B, R, 2), (R, KNOWN)
    """Return D of each row, and fill its mean: (R,)."""
    of_p, of_q, more = sums[:, :, OF_P].sum(axis=0), sums[:, :, OF_Q].sum(axis=0), known[:, MASS] - 1
    known[:, MEAN] = of_q - beta * more
    if beta == 0:
        return of_p + more
    return known[:, MEAN].copy() if beta == 1 else beta * of_p + (1 - beta) * of_q


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def hard_loss(others, apart):  # (R,), (R,) of the label's logit and the maximum
    """Return cross-entropy and sum of exponentials of each row; a small loss keeps its digits."""
    of_label = np.exp(apart)
    total = of_label + others
    return np.where(others < of_label, np.log1p(others / of_label), np.log(total) - apart), total
