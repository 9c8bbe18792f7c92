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


EXP_SCALE = 2.0**64
"""What `scaled_exp` gives is larger by this factor."""


def scaled_exp(x):
    """Return 2**64 e**x for x <= 0: what a row is summed from, or divided by its sum; the fast form of `exp`.

    The factor keeps 2**k a normal number down to where e**x is 0, so that one factor does and no element costs a
    conversion: adding 3/2 times the power of two whose last digit is 1 leaves k, and the bias, in the lowest bits. In
    float32 ln 2 is one number, off by 2e-9: the error is 1 ulp + |x| / 20 ulp, less than the rounding of a difference
    x = a - b costs. e**-inf is not 0 here, but far less than the least subnormal, times the factor. NaN stays NaN.
    """
    return EXP_SCALE * math.exp(x)


@overload(scaled_exp, jit_options={"fastmath": {"contract", "nsz"}})
def _scaled_exp_overload(x):
    if x == types.float32:
        return _scaled_exp_float32
    if x == types.float64:
        return _scaled_exp_float64
    return None


_LN2_32, _ROUND_32 = _F32(math.log(2)), _F32(1.5 * 2**23 + 127 + 64)
_LEAST_32, _LEAST_64 = _F32(-130.0), -752.0  # below, 2**k with the factor would not be normal
_C2, _C3, _C4, _C5, _C6 = (
    _F32(c) for c in (4.9999993412e-1, 1.6666520107e-1, 4.1668394217e-2, 8.3687805136e-3, 1.3814466902e-3)
)


def _scaled_exp_float32(x):
    y = _LEAST_32 if x < _LEAST_32 else x
    t = y * _LOG2E_32 + _ROUND_32
    n = t - _ROUND_32
    r = y - n * _LN2_32
    q = r * r
    p = ((_C6 * q + (_C5 * r + _C4)) * q + (_C3 * r + _C2)) * q + (r + _ONE_32)  # a short chain: it is waited for
    return p * np.int32(_F32(t).view(np.int32) << _MANTISSA_32).view(np.float32)


_ROUND_64 = 1.5 * 2**52 + 1023 + 64


def _scaled_exp_float64(x):
    y = _LEAST_64 if x < _LEAST_64 else x
    t = y * _LOG2E_64 + _ROUND_64
    n = t - _ROUND_64
    r = (y - n * _LN2_HI_64) - n * _LN2_LO_64
    p = _D13 * r + _D12
    p = ((((p * r + _D11) * r + _D10) * r + _D9) * r + _D8) * r + _D7
    p = ((((p * r + _D6) * r + _D5) * r + _D4) * r + _D3) * r + _D2
    p = (p * r + 1.0) * r + 1.0
    return p * np.int64(np.float64(t).view(np.int64) << _MANTISSA_64).view(np.float64)


def log(x):
    """Return the natural logarithm, within 2 ulp; vectorises as `exp` does.

    x = 2**k m with m in [sqrt(1/2), sqrt(2)), f = m - 1 and s = f / (2 + f): log m = 2 artanh s, a series in s**2,
    taken as what it adds to f - f**2 / 2. log 0 = -inf; of a negative number NaN.
    """
    return math.log(x)


@overload(log, jit_options={"fastmath": {"contract", "nsz"}})
def _log_overload(x):
    if x == types.float32:
        return _log_float32
    if x == types.float64:
        return _log_float64
    return None


_TINY_32, _UP_32, _DIGITS_32 = np.finfo(_F32).tiny, _F32(2.0**23), np.int32(23)
_ROOT_HALF_32, _HALVE_32, _TWO_32 = np.int32(0x3F3504F3), _F32(0.5), _F32(2)
_A1, _A2, _A3, _A4, _A5 = (_F32(2 / (2 * n + 1)) for n in range(1, 6))
_INF_32, _NAN_32, _ZERO_32, _NONE_32 = _F32(np.inf), _F32(np.nan), _F32(0), np.int32(0)


def _log_float32(x):
    subnormal = x < _TINY_32
    bits = _F32(x * _UP_32 if subnormal else x).view(np.int32)
    k = np.int32((bits - _ROOT_HALF_32) >> _MANTISSA_32)
    f = np.int32(bits - (k << _MANTISSA_32)).view(np.float32) - _ONE_32
    n = _F32(np.int32(k - (_DIGITS_32 if subnormal else _NONE_32)))
    s = f / (f + _TWO_32)
    z = s * s
    series = ((((_A5 * z + _A4) * z + _A3) * z + _A2) * z + _A1) * z
    square = _HALVE_32 * f * f
    y = n * _LN2_HI_32 - ((square - (s * (square + series) + n * _LN2_LO_32)) - f)
    y = y if x < _INF_32 else x
    return y if x > _ZERO_32 else (-_INF_32 if x == _ZERO_32 else _NAN_32)


_TINY_64, _UP_64, _DIGITS_64 = np.finfo(np.float64).tiny, 2.0**52, np.int32(1023 + 52)
_ROOT_HALF_64, _ONE_BITS_64 = np.uint64(0x3FE6A09E667F3BCD), np.uint64(0x3FF0000000000000)
_SHIFT_64, _MANTISSA_BITS_64 = np.uint64(52), np.uint64(0x000FFFFFFFFFFFFF)
_B1, _B2, _B3, _B4, _B5, _B6, _B7, _B8, _B9, _B10 = (2 / (2 * n + 1) for n in range(1, 11))
_BIAS_ONLY_64, _INF_64, _NAN_64 = np.int32(1023), np.inf, np.nan


def _log_float64(x):
    subnormal = x < _TINY_64
    # No arithmetic shift of int64, nor a conversion from it, below AVX-512: a biased exponent, by way of int32.
    bits = np.float64(x * _UP_64 if subnormal else x).view(np.uint64) + (_ONE_BITS_64 - _ROOT_HALF_64)
    k = np.int32(bits >> _SHIFT_64)
    f = np.uint64((bits & _MANTISSA_BITS_64) + _ROOT_HALF_64).view(np.float64) - 1.0
    n = np.float64(np.int32(k - (_DIGITS_64 if subnormal else _BIAS_ONLY_64)))
    s = f / (f + 2.0)
    z = s * s
    series = (((_B10 * z + _B9) * z + _B8) * z + _B7) * z + _B6
    series = (((((series * z + _B5) * z + _B4) * z + _B3) * z + _B2) * z + _B1) * z
    square = 0.5 * f * f
    y = n * _LN2_HI_64 - ((square - (s * (square + series) + n * _LN2_LO_64)) - f)
    y = y if x < _INF_64 else x
    return y if x > 0.0 else (-_INF_64 if x == 0.0 else _NAN_64)


def tanh(x):
    """Return the hyperbolic tangent, within 3 ulp, also near 0; vectorises as `exp` does.

    tanh |x| = q / (q + 2) with q = e**(2|x|) - 1 = 2**k (e**r - 1) + (2**k - 1), the reduction of `exp`.
    """
    return math.tanh(x)


@overload(tanh, jit_options={"fastmath": {"contract", "nsz"}})
def _tanh_overload(x):
    if x == types.float32:
        return _tanh_float32
    if x == types.float64:
        return _tanh_float64
    return None


_FLAT_32, _SIGN_32 = _F32(20), np.uint32(0x80000000)


def _tanh_float32(x):
    y = min(abs(x + x), _FLAT_32)
    n = np.rint(y * _LOG2E_32)
    r = (y - n * _LN2_HI_32) - n * _LN2_LO_32
    p = ((((_E7 * r + _E6) * r + _E5) * r + _E4) * r + _E3) * r + _E2
    p = p * (r * r) + r
    a = np.int32((np.int32(n) + _BIAS_32) << _MANTISSA_32).view(np.float32)
    q = p * a + (a - _ONE_32)
    sign = np.uint32(_F32(x).view(np.uint32) & _SIGN_32)
    t = np.uint32(_F32(q / (q + _TWO_32)).view(np.uint32) | sign).view(np.float32)
    return t if x == x else x


_FLAT_64, _SIGN_64 = 40.0, np.uint64(0x8000000000000000)


def _tanh_float64(x):
    y = min(abs(x + x), _FLAT_64)
    n = np.rint(y * _LOG2E_64)
    r = (y - n * _LN2_HI_64) - n * _LN2_LO_64
    p = _D13 * r + _D12
    p = ((((p * r + _D11) * r + _D10) * r + _D9) * r + _D8) * r + _D7
    p = ((((p * r + _D6) * r + _D5) * r + _D4) * r + _D3) * r + _D2
    p = p * (r * r) + r
    a = np.int64((np.int64(np.int32(n)) + _BIAS_64) << _MANTISSA_64).view(np.float64)
    q = p * a + (a - 1.0)
    t = np.uint64(np.float64(q / (q + 2.0)).view(np.uint64) | (np.float64(x).view(np.uint64) & _SIGN_64)).view(
        np.float64
    )
    return t if x == x else x


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
