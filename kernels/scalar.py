"""Formulas of one element, inlined into the loops of the CPU and the CUDA kernels.

Each is written once, free of loops, and maps float32 to float32 and float64 to float64: in arithmetic with a float
there is no literal, which would widen it (write ``type(x)(1)``, or a constant of the right dtype).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numba.extending import overload


def exp(x):
    """Return e**x, within 2 ulp; a polynomial, so that loops over it vectorise without a vector math library.

    x = k ln 2 + r with |r| <= ln 2 / 2 (Cody & Waite's two-part ln 2), e**r by a polynomial, 2**k in two factors
    through the exponent bits, so that subnormal results come out. Overflow gives inf, underflow 0, NaN stays NaN.
    """
    return math.exp(x)


# The reduction below is exact only in the order written: a caller's leave to reorder sums must not reach it. So exp is
# a function of its own for Numba, with its own flags; LLVM inlines it all the same.
@overload(exp, jit_options={"fastmath": {"contract", "nsz"}})
def _exp_overload(x):
    if x == types.float32:
        return _exp_float32
    if x == types.float64:
        return _exp_float64
    return None


_F32 = np.float32
_LOG2E_32, _LN2_HI_32, _LN2_LO_32 = _F32(1.4426950408889634), _F32(0.693359375), _F32(-2.12194440e-4)
_LOW_32, _HIGH_32 = _F32(-104.0), _F32(89.0)
_E2, _E3, _E4, _E5, _E6, _E7 = (
    _F32(c)
    for c in (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
)
_ONE_32, _BIAS_32, _MANTISSA_32, _HALF_32 = _F32(1), np.int32(127), np.int32(23), np.int32(1)


def _exp_float32(x):
    y = min(max(x, _LOW_32), _HIGH_32)
    n = np.rint(y * _LOG2E_32)
    r = (y - n * _LN2_HI_32) - n * _LN2_LO_32
    p = ((((_E7 * r + _E6) * r + _E5) * r + _E4) * r + _E3) * r + _E2
    p = p * (r * r) + r + _ONE_32
    k = np.int32(n)
    half = k >> _HALF_32
    a = np.int32((half + _BIAS_32) << _MANTISSA_32).view(np.float32)
    b = np.int32((k - half + _BIAS_32) << _MANTISSA_32).view(np.float32)
    return p * a * b if x == x else x


_LOG2E_64, _LN2_HI_64, _LN2_LO_64 = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10
_LOW_64, _HIGH_64 = -746.0, 710.0
_D = tuple(1.0 / math.factorial(n) for n in range(14))
_D2, _D3, _D4, _D5, _D6, _D7, _D8, _D9, _D10, _D11, _D12, _D13 = _D[2:]
_BIAS_64, _MANTISSA_64, _HALF_64 = np.int64(1023), np.int64(52), np.int64(1)


def _exp_float64(x):
    y = min(max(x, _LOW_64), _HIGH_64)
    n = np.rint(y * _LOG2E_64)
    r = (y - n * _LN2_HI_64) - n * _LN2_LO_64
    p = _D13 * r + _D12
    p = ((((p * r + _D11) * r + _D10) * r + _D9) * r + _D8) * r + _D7
    p = ((((p * r + _D6) * r + _D5) * r + _D4) * r + _D3) * r + _D2
    p = p * (r * r) + r + 1.0
    k = np.int64(np.int32(n))  # a conversion straight to int64 does not vectorise below AVX-512
    half = k >> _HALF_64
    a = np.int64((half + _BIAS_64) << _MANTISSA_64).view(np.float64)
    b = np.int64((k - half + _BIAS_64) << _MANTISSA_64).view(np.float64)
    return p * a * b if x == x else x


@njit(inline="always")
def softmax_gradient(y, dy, dot):
    """Return d/dx of softmax: y (dy - <dy, y>)."""
    return y * (dy - dot)


@njit(inline="always")
def log_softmax_gradient(y, dy, total):
    """Return d/dx of log-softmax from y = log p: dy - p sum(dy)."""
    return dy - exp(y) * total


@njit(inline="always")
def relu(x):
    """Return max(x, 0); NaN stays NaN."""
    return x if not (x <= type(x)(0)) else type(x)(0)


@njit(inline="always")
def relu_gradient(y, dy):
    """Return dy where relu let x through, from its value y."""
    return dy if y > type(y)(0) else type(y)(0)


@njit(inline="always")
def sigmoid(x):
    """Return 1 / (1 + e**-x)."""
    return type(x)(1) / (type(x)(1) + exp(-x))


@njit(inline="always")
def sigmoid_gradient(y, dy):
    """Return dy y (1 - y), from y = sigmoid(x)."""
    return dy * y * (type(y)(1) - y)


@njit(inline="always")
def tanh_gradient(y, dy):
    """Return dy (1 - y**2), from y = tanh(x)."""
    return dy * (type(y)(1) - y * y)
