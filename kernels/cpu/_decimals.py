"""Float32 numbers read from decimal text and written to it.

Both ways go through one product with a power of ten in float64, and look how near the product is to where the result
would change. Where it is too near to tell, they say so, and the caller asks Python: about one number in ten million.

Text that is read is given by addresses: an array would be counted as used, and that count shared by all threads, for
every number. Unsigned indices: signed ones would bring a test for a negative index to every access.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

inlined = njit(error_model="numpy", forceinline=True)
"""Decorates a step of reading or writing a number: left to itself, the compiler calls them, at half the speed."""

_U = np.uint64
_ZERO, _ONE, _TEN = _U(0), _U(1), _U(10)
_PLUS, _MINUS, _POINT, _NOUGHT, _E, _LOWER = _U(43), _U(45), _U(46), _U(48), _U(101), _U(32)

_LEAST_POWER, _MOST_POWER = -64, 46  # beyond them, m in uint64 gives no normal number
_POWERS = np.array([float(f"1e{e}") for e in range(_LEAST_POWER, _MOST_POWER + 1)])
_LEAST, _MOST = 1.1754945e-38, 3.4028234e38  # just within the normal numbers of float32

_DIGITS = _U(19)  # digits that uint64 holds
_TENS = np.array([10**n for n in range(10)], np.uint64)
_BELOW = _U((1 << 29) - 1)  # the bits of a float64 that float32 does not have
_MIDDLE, _MARGIN = _U(1 << 28), _U(8)  # units of the last place of a float64

# Eight bytes in one integer
_EIGHT = _U(8)
_NOUGHTS, _PAST_NINE, _HIGH_BITS = _U(0x3030303030303030), _U(0x7676767676767676), _U(0x8080808080808080)
_EACH_FOUR = _U(0x000000FF000000FF)  # of four pairs, the first and the third, or the second and the fourth
_HIGH_PAIRS, _LOW_PAIRS = _U(100 + (1000000 << 32)), _U(1 + (10000 << 32))

_UNSURE = 1e-6  # the product is within half of it
_FRACTION_BITS, _BIAS = _U(52), 1023  # of a float64
_LOG10_OF_2 = 0.30102999566398120


@inlined
def read_number(at, end):
    """Read the number at an address before `end`; return where it ends, its value, and whether that is surely right.

    With an integer m of at most 19 digits it is m 10^e: the product in float64 is less than four units of the last
    place off, and rounded to float32 it is what the nearest float64 rounds to, unless it is near the middle of two.
    """
    negative = byte_at(at) == _MINUS
    at += _U(negative | (byte_at(at) == _PLUS))  # a branch would be guessed wrong half the time
    first = at
    at, m = _read_digits(at, _ZERO)
    digits, exponent = at - first, np.int64(0)
    if byte_at(at) == _POINT:
        point = at + _ONE
        at, m = _read_many_digits(point, end, m)
        digits += at - point
        exponent = -np.int64(at - point)
    plain = digits > _ZERO
    if digits > _DIGITS:
        plain = digits - _leading_zeros(first) <= _DIGITS
    if byte_at(at) | _LOWER == _E:
        at, more, there = _read_exponent(at + _ONE)
        exponent += more
        plain &= there
    if m == _ZERO:
        return at, np.float32(-0.0 if negative else 0.0), plain
    if exponent < _LEAST_POWER or exponent > _MOST_POWER:
        return at, np.float32(0), False
    value = np.float64(m) * _POWERS[_U(exponent - _LEAST_POWER)]
    below = np.float64(value).view(np.uint64) & _BELOW
    plain &= below + _MARGIN - _MIDDLE > _MARGIN + _MARGIN and value >= _LEAST and value <= _MOST
    return at, np.float32(-value if negative else value), plain


@inlined
def _read_digits(at, m):
    digit = byte_at(at) - _NOUGHT
    while digit < _TEN:
        m = m * _TEN + digit
        at += _ONE
        digit = byte_at(at) - _NOUGHT
    return at, m


@inlined
def _read_many_digits(at, end, m):
    """Read digits, eight at once: the same steps for one as for eight, so that their number need not be guessed."""
    while at + _EIGHT <= end:
        bytes = _eight_bytes(at) ^ _NOUGHTS
        others = ((bytes + _PAST_NINE) | bytes) & _HIGH_BITS  # right up to the first byte that is no digit
        if others == _ZERO:
            at, m = at + _EIGHT, m * _TENS[8] + _eight_digits(bytes)
            continue
        n = _lowest_bit(others) >> _U(3)
        if n > _ZERO:
            at, m = at + n, m * _TENS[n] + _eight_digits(bytes << (_U(64) - _EIGHT * n))
        return at, m
    return _read_digits(at, m)


@inlined
def _eight_digits(digits):
    """Return the number of eight digits, of which the lowest byte is the first: joined to pairs, fours and all."""
    pairs = digits * _TEN + (digits >> _EIGHT)
    return ((pairs & _EACH_FOUR) * _HIGH_PAIRS + ((pairs >> _U(16)) & _EACH_FOUR) * _LOW_PAIRS) >> _U(32)


def _loader(bits):
    """Return an intrinsic that reads so many bits at an address, the first byte as the lowest."""

    @intrinsic
    def load(typing_context, address):
        def generate(context, builder, signature, args):
            kind = ir.IntType(bits)
            value = builder.load(builder.inttoptr(args[0], kind.as_pointer()), align=1)
            return builder.zext(value, args[0].type)

        return types.uint64(types.uint64), generate

    return load


byte_at, _eight_bytes = _loader(8), _loader(64)


@intrinsic
def _lowest_bit(typing_context, word):
    """Return how many zero bits are below the lowest set bit of a word that is not 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], context.get_constant(types.boolean, True))

    return word(word), generate


@inlined
def _leading_zeros(at):
    """Return how many zeros a number starts with, before and after the point."""
    zeros = _ZERO
    while byte_at(at) == _NOUGHT or byte_at(at) == _POINT:
        zeros += _U(byte_at(at) == _NOUGHT)
        at += _ONE
    return zeros


@inlined
def _read_exponent(at):
    """Read what follows the letter e; return where it ends, its value, and whether it is a number of a few digits."""
    negative = byte_at(at) == _MINUS
    if negative or byte_at(at) == _PLUS:
        at += _ONE
    start = at
    at, m = _read_digits(at, _ZERO)
    value = np.int64(m)
    return at, -value if negative else value, at > start and at - start < _DIGITS


@inlined
def write_number(x, digits, text, at):
    """Write a number as ``%.9g`` would, or fewer digits, in 15 bytes; return where it ends, and whether it is sure."""
    if np.float32(x).view(np.int32) < 0:
        text[at] = _MINUS
        at += _ONE
    value = np.float64(abs(x))
    if value == 0.0:
        text[at] = _NOUGHT
        return at + _ONE, True
    if not (value >= _LEAST and value <= _MOST):
        return at, False
    power_of_two = np.int64(np.float64(value).view(np.uint64) >> _FRACTION_BITS) - _BIAS
    exponent = np.int64(np.floor(power_of_two * _LOG10_OF_2))  # or one more
    scaled = value * _POWERS[_U(digits - 1 - exponent - _LEAST_POWER)]
    full = np.int64(_TENS[_U(digits)])
    if scaled >= full:
        exponent += 1
        scaled = value * _POWERS[_U(digits - 1 - exponent - _LEAST_POWER)]
    m = np.int64(scaled + 0.5)
    over = scaled + 0.5 - np.float64(m)
    if m == full:
        m, exponent = np.int64(_TENS[_U(digits - 1)]), exponent + 1
    return _write_decimal(m, digits, exponent, text, at), over > _UNSURE and over < 1.0 - _UNSURE


@inlined
def _write_decimal(m, digits, exponent, text, at):
    """Write an integer of so many digits, the first of which stands for 10^exponent."""
    n = digits
    while m % 10 == 0:
        m //= 10
        n -= 1
    scientific = exponent < -4 or exponent >= digits
    whole = 1 if scientific else exponent + 1  # digits before the point
    if whole <= 0:
        text[at] = _NOUGHT
        text[at + _ONE] = _POINT
        at += _U(2)
        for _ in range(whole, 0):
            text[at] = _NOUGHT
            at += _ONE
        whole = n
    for k in range(n, whole):
        text[at + _U(k)] = _NOUGHT
    for k in range(n - 1, -1, -1):
        text[at + _U(k + (k >= whole))] = _NOUGHT + _U(m % 10)
        m //= 10
    if n > whole:
        text[at + _U(whole)] = _POINT
        at += _ONE
    at += _U(max(n, whole))
    if scientific:
        text[at] = _E
        text[at + _ONE] = _MINUS if exponent < 0 else _PLUS
        text[at + _U(2)] = _NOUGHT + _U(abs(exponent) // 10)
        text[at + _U(3)] = _NOUGHT + _U(abs(exponent) % 10)
        at += _U(4)
    return at
