"""Cross-entropy of rows whose classes come a block at a time (the equations: ``reference/_criterion.py``).

Of each block a row keeps a few sums relative to the block's own maximum (`TOP`); `join` makes the row's loss of them.
The exponential of a maximum, which is 1, is counted (`ONES`) apart from the float32 sum of the others (`REST`), so that
losses near 0 keep their digits. A block's exponentials stay in its buffer, for the gradient.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.cpu._rows import row_max
from fastnlp.kernels.scalar import EXP_SCALE, scaled_exp, tanh

# What a row keeps of a block, in float64. With class indices and no options, the first three are enough.
TOP, REST, ONES, MASS, BELOW, ENTROPY, PLAIN_MASS, PLAIN_BELOW, ARGMAX = range(9)
PLAIN_SUMS, ALL_SUMS = 3, 9
# What is known of a row when its blocks are joined: TOP, REST, the whole mass, the statistics nll and entropy.
SUM_MASS, NLL, SPREAD, KNOWN = 2, 3, 4, 5


@kernel_part
def row_add(row, bias):  # (n,), (n,) or (0,)
    """Add the bias."""
    for v in range(bias.size):
        row[v] += bias[v]


@kernel_part
def row_transform(row, inverse_temperature, softcap):  # (n,)
    """Turn x into z, in place; softcap 0: none."""
    one = row.dtype.type(1)
    if inverse_temperature != 1:
        factor = row.dtype.type(inverse_temperature)
        for v in range(row.size):
            row[v] *= factor
    if softcap != 0:
        cap = row.dtype.type(softcap)
        inverse = one / cap
        for v in range(row.size):
            row[v] = cap * tanh(row[v] * inverse)


@kernel_part
def row_exponentials(row, sums):  # (n,), (>= PLAIN_SUMS,)
    """Turn logits into EXP_SCALE exp(z - TOP) in place, and fill TOP, REST and ONES."""
    top, shift = _top_and_shift(row)
    one, zero, largest = row.dtype.type(1), row.dtype.type(0), row.dtype.type(EXP_SCALE)
    rest, ones = zero, zero
    for v in range(row.size):
        value = scaled_exp(row[v] - shift)
        row[v] = value
        rest += value if value != largest else zero
        ones += one if value == largest else zero
    sums[TOP], sums[REST], sums[ONES] = top, np.float64(rest) / EXP_SCALE, ones


@kernel_part
def row_below(row, below, sums):  # (n,), (n,), (ALL_SUMS,)
    """Fill how far logits z are below TOP, and ARGMAX: the first of the largest, or the first that is NaN."""
    top, shift = _top_and_shift(row)
    none = np.int32(row.size)
    at, at_nan = none, none
    for v in range(row.size):
        below[v] = shift - row[v]
    for v in range(row.size):
        at = min(at, np.int32(v) if row[v] == top else none)
        at_nan = min(at_nan, np.int32(v) if row[v] != row[v] else none)
    sums[ARGMAX] = at if at_nan == none else at_nan


@kernel_part
def row_exponentials_and_entropy(row, sums):  # (n,), (ALL_SUMS,)
    """As `row_exponentials`, and fill ENTROPY: sum exp(z - TOP) (TOP - z)."""
    top, shift = _top_and_shift(row)
    one, zero, largest = row.dtype.type(1), row.dtype.type(0), row.dtype.type(EXP_SCALE)
    infinite = row.dtype.type(np.inf)
    rest, ones, entropy = zero, zero, zero
    for v in range(row.size):
        below = shift - row[v]
        value = scaled_exp(-below)
        row[v] = value
        rest += value if value != largest else zero
        ones += one if value == largest else zero
        entropy += value * (below if below != infinite else zero)
    sums[TOP], sums[REST], sums[ONES] = top, np.float64(rest) / EXP_SCALE, ones
    sums[ENTROPY] = np.float64(entropy) / EXP_SCALE


@kernel_part
def row_mass_sums(mass, plain, below, sums):  # (n,) or (0,), (n,) or (0,), (n,), (ALL_SUMS,)
    """Fill the sums over the target's mass, and over a distribution as it was given."""
    sums[MASS], sums[BELOW] = _mass_and_below(mass, below)
    sums[PLAIN_MASS], sums[PLAIN_BELOW] = _mass_and_below(plain, below)


@kernel_part
def _top_and_shift(row):
    top = row_max(row)
    return top, top if top > -np.inf else row.dtype.type(0)  # of nothing but -inf, all exponentials are 0


@kernel_part
def _mass_and_below(mass, below):  # (n,), (n,)
    """Return sum(mass) and sum(mass * below) with 0 inf = 0."""
    total, product = 0.0, 0.0
    for v in range(mass.size):
        total += np.float64(mass[v])
        product += np.float64(mass[v]) * np.float64(below[v]) if mass[v] != 0 else 0.0
    return total, product


@kernel_part
def row_mass(probabilities, class_weight, smoothing, classes, out):  # (n,) or (0,), (n,) or (0,), (n,)
    """Fill a block of the target's mass w ((1 - smoothing) P + smoothing / classes); with no P, of its even part."""
    share, keep = out.dtype.type(smoothing / classes), out.dtype.type(1 - smoothing)
    if probabilities.size:
        for v in range(out.size):
            out[v] = keep * probabilities[v] + share
    else:
        for v in range(out.size):
            out[v] = share
    for v in range(class_weight.size):
        out[v] *= class_weight[v]


# In the order written: 1 is taken from the count of maxima before the small rest is added to it.
@njit(fastmath=False, error_model="numpy")
def _join_row(sums, smoothing, weight, target_logit, known):  # (B, S), of the target or NaN, (KNOWN,)
    """Fill what is known of a row from the sums of its blocks; return loss, lse and the class of the largest logit."""
    blocks, everything = sums.shape[0], sums.shape[1] == ALL_SUMS
    top, at = -np.inf, 0
    for b in range(blocks):
        if sums[b, TOP] > top:
            top, at = sums[b, TOP], b
    finite = blocks > 0 and math.isfinite(top)
    rest = sums[at, REST] + (sums[at, ONES] - 1) if finite else np.nan
    mass, below, entropy, plain_mass, plain_below = 0.0, 0.0, 0.0, 0.0, 0.0
    for b in range(blocks):
        own = sums[b, TOP]
        apart = top - (own if own > -np.inf else 0.0)
        exponentials = sums[b, REST] + sums[b, ONES]
        factor = math.exp(min(0.0, -apart)) if exponentials != 0 else 0.0
        if b != at:
            rest += factor * exponentials
        if everything:
            entropy += factor * (sums[b, ENTROPY] + apart * exponentials) if factor > 0 else 0.0
            mass += sums[b, MASS]
            below += sums[b, BELOW] + sums[b, MASS] * apart
            plain_mass += sums[b, PLAIN_MASS]
            plain_below += sums[b, PLAIN_BELOW] + sums[b, PLAIN_MASS] * apart
    log_total = math.log1p(rest)
    if weight >= 0:
        of_target = (1 - smoothing) * weight
        plain_mass, plain_below = 1.0, top - target_logit
        mass += of_target
        below += of_target * plain_below if of_target != 0 else 0.0
    known[TOP], known[REST], known[SUM_MASS] = top, rest, mass
    known[NLL], known[SPREAD] = plain_below + plain_mass * log_total, log_total + entropy / (1 + rest)
    for b in range(blocks):
        if math.isnan(sums[b, REST]) and not math.isnan(sums[at, REST]):
            at = b  # NaN counts as the largest
    return below + mass * log_total, top + log_total, np.int64(sums[at, ARGMAX]) if everything else -1


@jit(
    "(int64, int64, float64[:, :, ::1], int64[::1], {f}[::1], {f}[::1], float64, {f}[::1], {f}[::1], float64[:, ::1],"
    " int64[::1])"
)
def join(begin, end, sums, target, logit, class_weight, smoothing, loss, lse, known, argmax):
    # (B, R, S), (R,) or (0,), (R,), (V,) or (0,), (R,), (R,), (R, KNOWN), (R,)
    """Fill what is known of each row from the sums of its blocks."""
    for r in range(begin, end):
        weight = -1.0  # there is no class index
        if target.size:
            weight = np.float64(class_weight[target[r]]) if class_weight.size else 1.0
        loss[r], lse[r], argmax[r] = _join_row(sums[:, r], smoothing, weight, np.float64(logit[r]), known[r])


@kernel_part
def row_softmax(row, factor, sums, known):  # (n,), (>= PLAIN_SUMS,), (KNOWN,)
    """Turn what `row_exponentials` left into factor * softmax."""
    apart = min(0.0, sums[TOP] - known[TOP])
    scale = row.dtype.type(factor * math.exp(apart) / (EXP_SCALE * (1 + known[REST])))
    for v in range(row.size):
        row[v] *= scale


@kernel_part
def row_subtract(row, mass, factor):  # (n,), (n,)
    """Subtract factor * mass."""
    factor = row.dtype.type(factor)
    for v in range(row.size):
        row[v] -= factor * mass[v]


@njit(fastmath=False, error_model="numpy")
def top_gradient(scale, squared, mass, known):
    """Return the gradient at the class of the largest logit, of the target's `mass`: no near numbers are subtracted."""
    total = 1 + known[REST]
    return scale * ((known[SUM_MASS] - mass) - known[SUM_MASS] * known[REST] / total) + squared / total


@kernel_part
def row_slope(row, softcap, out):  # (n,), (n,)
    """Fill dz/dx of the soft-cap, from z."""
    inverse, one = row.dtype.type(1 / softcap), row.dtype.type(1)
    for v in range(row.size):
        share = row[v] * inverse
        out[v] = one - share * share


@kernel_part
def row_multiply(row, factors):  # (n,), (n,)
    """Multiply by factors."""
    for v in range(row.size):
        row[v] *= factors[v]
