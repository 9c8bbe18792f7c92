"""Divergence of rows whose classes come a block at a time (the equations: ``reference/_divergence.py``).

Of each block a row keeps maxima and sums of exponentials relative to them, and later its part of the divergence. These
few numbers are joined by NumPy, in float64 and in the order of the blocks.
"""

from __future__ import annotations

import numpy as np

from fastnlp.kernels.cpu._divergence import pair
from fastnlp.kernels.cpu._jit import kernel_part
from fastnlp.kernels.cpu._rows import row_exp_sum, row_max_and_exp_sum
from fastnlp.kernels.scalar import exp, log

# What a row keeps of a block, in float64: maximum and sum of teacher and student, the sum of the student's exponentials
# at temperature 1 without the label's, the sum of given probabilities, the sums of p h(log p/m) and q h(log q/m).
TOP_P, TOTAL_P, TOP_Q, TOTAL_Q, OTHERS, MASS, OF_P, OF_Q, SUMS = range(9)
# What is known of a row when its blocks are joined: the first six, and what the gradient subtracts from log q/m.
MEAN, KNOWN = 6, 7


@kernel_part
def row_given(given, probabilities, temperature, row, sums):  # (n,), (n,), (SUMS,)
    """Copy a teacher's logits; turn probabilities into logits at the temperature, whose sum of exponentials is one."""
    sums[MASS] = 0
    if probabilities:
        for v in range(row.size):
            sums[MASS] += np.float64(given[v])
        for v in range(row.size):
            row[v] = temperature * log(given[v])
    else:
        for v in range(row.size):
            row[v] = given[v]


@kernel_part
def row_sums(z, y, probabilities, scale, sums):  # (n,), (n,), (SUMS,)
    """Fill the maxima and sums of student and teacher."""
    sums[TOP_Q], sums[TOTAL_Q] = row_max_and_exp_sum(z, scale)
    if not probabilities:
        sums[TOP_P], sums[TOTAL_P] = row_max_and_exp_sum(y, scale)


@kernel_part
def row_others(z, label, sums):  # (n,), (SUMS,)
    """Fill the sum of exponentials without that of the label; return its logit, or NaN where it is in another block."""
    logit = z.dtype.type(np.nan)
    if 0 <= label < z.size:
        logit = z[label]
        z[label] = -np.inf
    top = z.dtype.type(sums[TOP_Q])
    sums[OTHERS] = row_exp_sum(z, top, z.dtype.type(1)) if top > -np.inf else 0.0
    if 0 <= label < z.size:
        z[label] = logit
    return logit


@kernel_part
def row_add_hard_slope(z, label, known, total, factor, dz):  # (n,), (KNOWN,), (n,)
    """dz += factor (softmax(z) - onehot(label)); that of the label is made of the others, its digits are kept."""
    top, share = z.dtype.type(known[TOP_Q]), z.dtype.type(factor / total)
    of_label = z.dtype.type(0)
    if 0 <= label < z.size:
        of_label = dz[label] - z.dtype.type(factor * (known[OTHERS] / total))
    for v in range(z.size):
        dz[v] += share * exp(z[v] - top)
    if 0 <= label < z.size:
        dz[label] = of_label


@kernel_part
def pair_of(known, scale):  # (KNOWN,)
    """Return the `Pair` of a row, of the dtype of scale."""
    kind = type(scale)
    return pair(scale, kind(known[TOP_P]), known[TOTAL_P], kind(known[TOP_Q]), known[TOTAL_Q])


def join(sums, scale, probabilities):  # (B, R, SUMS)
    """Return what is known of each row from the maxima and sums of its blocks, but for the mean: (R, KNOWN)."""
    known = np.empty((sums.shape[1], KNOWN))
    known[:, TOP_Q], known[:, TOTAL_Q] = _total(sums, TOP_Q, TOTAL_Q, scale)
    known[:, OTHERS] = _total(sums, TOP_Q, OTHERS, 1.0)[1]
    if probabilities:
        known[:, TOP_P], known[:, TOTAL_P], known[:, MASS] = 0, 1, sums[:, :, MASS].sum(axis=0)
    else:
        known[:, TOP_P], known[:, TOTAL_P] = _total(sums, TOP_P, TOTAL_P, scale)
        known[:, MASS] = 1
    return known


@np.errstate(invalid="ignore", over="ignore")
def _total(sums, top, total, scale):
    highest = sums[:, :, top].max(axis=0, initial=-np.inf)
    apart = np.exp(scale * (sums[:, :, top] - highest))
    apart *= sums[:, :, total]
    return highest, apart.sum(axis=0)


@np.errstate(invalid="ignore")
def divergence(sums, known, beta):  # (B, R, SUMS), (R, KNOWN)
    """Return D of each row, and fill its mean: (R,)."""
    of_p, of_q, more = sums[:, :, OF_P].sum(axis=0), sums[:, :, OF_Q].sum(axis=0), known[:, MASS] - 1
    known[:, MEAN] = of_q - beta * more
    if beta == 0:
        return of_p + more
    return known[:, MEAN].copy() if beta == 1 else beta * of_p + (1 - beta) * of_q


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def hard_loss(known, logit):  # (R, KNOWN), (R,)
    """Return cross-entropy and sum of exponentials of each row; a small loss keeps its digits."""
    apart = logit.astype(np.float64) - known[:, TOP_Q]
    of_label, others = np.exp(apart), known[:, OTHERS]
    total = of_label + others
    return np.where(others < of_label, np.log1p(others / of_label), np.log(total) - apart), total
