"""Words between white space, numbered by a table, and the numbers changed for others (see ``reference/tokens.py``).

Schedule: one pass over the bytes, eight at a time. A test of all eight finds the first byte that could end a word: a
control character or a space, or one beyond ASCII, of which the whole character is looked at. A word of up to eight
bytes, and most are, is its own key: one masked load, one multiplication, one cache line of the table. Longer ones have
a hash for a key, and their bytes are compared. Bytes: the text, 4 an occurrence, and the table, which stays in the
caches as far as words are frequent.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnlp.kernels.cpu._jit import jit, kernel_part
from fastnlp.kernels.reference.tokens import DONE, FULL, NOT_UTF8

_0, _1, _3, _8, _32, _64 = (np.uint64(x) for x in (0, 1, 3, 8, 32, 64))
_HIGH = np.uint64(0x8080808080808080)
_OVER_SPACE = np.uint64(0x2121212121212121)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_LINE_FEED, _BEYOND_ASCII = np.uint64(10), np.uint64(128)
_SPACES = (0x2028, 0x2029, 0x202F, 0x205F)
_ODD, _OTHER_ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # they spread bits


def number(text, slots, arena, starts, counts, ids, ends, state, grow):
    # (N,), (S, 2), (A,), (W + 1,), (W,), (T,), (L,), (5,), bool
    """Number the words of `text` (see the reference). S is a power of two and at least 2 W; empty slots are 0."""
    _number(text, slots, arena, starts, counts, ids, ends, state, grow)


def renumber(ids, ends, numbers, gaps, sizes):  # (T,), (L,), (W,), bool, (2,)
    """Put other numbers in the place of `ids` (see the reference)."""
    _renumber(ids, ends, numbers, gaps, sizes)


@jit("(uint8[::1], uint64[:, ::1], uint8[::1], int64[::1], int64[::1], int32[::1], int64[::1], int64[::1], boolean)")
def _number(text, slots, arena, starts, counts, ids, ends, state, grow):
    first, words = np.uint64(text.ctypes.data), np.uint64(arena.ctypes.data)  # addresses: no array is passed on
    at, last = first + np.uint64(state[0]), first + np.uint64(text.size - 8)
    n_words, n_ids, n_ends = np.uint64(state[1]), np.uint64(state[2]), np.uint64(state[3])
    mask = np.uint64(slots.shape[0] - 1)
    status = DONE
    while at < last:
        end, space = _word(at)
        if space == _0:
            status = NOT_UTF8
            break
        if end != at:
            length = end - at
            key = _key(at, length)
            slot = _spread(key + length) & mask
            while True:
                held = slots[slot, _1]
                word = (held & _LOW_HALF) - _1
                if held == _0:
                    break
                alike = slots[slot, _0] == key and held >> _32 == length
                if alike and (length <= _8 or _same(words + np.uint64(starts[word]), at, length)):
                    break
                slot = (slot + _1) & mask
            if held == _0:
                word = n_words  # of no word, where none may be added
                if grow:
                    if n_words == np.uint64(counts.size):
                        status = FULL
                        break
                    start = np.uint64(starts[word])
                    for j in range(length):
                        arena[start + np.uint64(j)] = _byte(at + np.uint64(j))
                    arena[start + length] = 32
                    starts[word + _1] = np.int64(start + length + _1)
                    counts[word] = 0
                    slots[slot, _0], slots[slot, _1] = key, length << _32 | (word + _1)
                    n_words += _1
            if grow:
                counts[word] += 1
            ids[n_ids] = np.int32(word)
            n_ids += _1
        if _byte(end) == _LINE_FEED:
            ends[n_ends] = np.int64(n_ids)
            n_ends += _1
        at = end + space
    state[0], state[1], state[2] = np.int64(at - first), np.int64(n_words), np.int64(n_ids)
    state[3], state[4] = np.int64(n_ends), status


@kernel_part
def _word(at):
    """Return where the word ends that begins at `at`, and the bytes of the white space there: 0 if it is not UTF-8."""
    end = at
    while True:
        eight = _load(end)
        stops = (((eight - _OVER_SPACE) & ~eight) | eight) & _HIGH  # exact up to the lowest that is set
        if stops == _0:
            end += _8
            continue
        end += _lowest_bit(stops) >> _3
        byte = _byte(end)
        if byte < _BEYOND_ASCII:
            if byte >= 28 or 9 <= byte <= 13:
                return end, _1
            end += _1
        else:
            width, white = _character(end)
            if white or width == _0:
                return end, width
            end += width


@kernel_part
def _character(at):
    """Return the bytes of a character beyond ASCII, 0 if it is not UTF-8, and whether it is white space."""
    first, second = _byte(at), _byte(at + _1)
    if second & 0xC0 != 0x80 or first < 0xC2 or first > 0xF4:
        return _0, False
    if first < 0xE0:
        return np.uint64(2), first == 0xC2 and (second == 0x85 or second == 0xA0)
    third = _byte(at + np.uint64(2))
    if third & 0xC0 != 0x80:
        return _0, False
    if first < 0xF0:
        code = (first & 0x0F) << 12 | (second & 0x3F) << 6 | (third & 0x3F)
        if code < 0x800 or 0xD800 <= code < 0xE000:  # longer than need be, or half of a pair
            return _0, False
        rare = 0x1680 <= code <= 0x205F and (code == 0x1680 or 0x2000 <= code <= 0x200A or code in _SPACES)
        return _3, rare or code == 0x3000
    wrong = (first == 0xF0 and second < 0x90) or (first == 0xF4 and second >= 0x90)
    if wrong or _byte(at + _3) & 0xC0 != 0x80:
        return _0, False
    return np.uint64(4), False


@kernel_part
def _key(at, length):
    if length <= _8:
        return _load(at) & (_ALL >> (_64 - (length << _3)))
    key = _0
    last = at + length - _8
    while at < last:
        key = _spread(key ^ _load(at))
        at += _8
    return _spread(key ^ _load(last))


@kernel_part
def _spread(key):
    key = key * _ODD
    key = (key ^ (key >> _32)) * _OTHER_ODD
    return key ^ (key >> _32)


@kernel_part
def _same(at, other, length):
    """Tell whether two words of more than eight bytes are equal."""
    last = at + length - _8
    while at < last:
        if _load(at) != _load(other):
            return False
        at += _8
        other += _8
    return _load(last) == _load(other - at + last)


@jit("(int32[::1], int64[::1], int32[::1], boolean, int64[::1])")
def _renumber(ids, ends, numbers, gaps, sizes):
    left = known = begin = _0
    for line in range(ends.size + 1):
        end = np.uint64(ends[line]) if line < ends.size else np.uint64(ids.size)
        for j in range(begin, end):
            number = numbers[np.uint64(ids[np.uint64(j)])]
            ids[left] = number
            left += np.uint64(gaps or number >= 0)
            known += np.uint64(number >= 0)
        if line < ends.size:
            ends[line] = np.int64(left)
        begin = end
    sizes[0], sizes[1] = np.int64(left), np.int64(known)


@intrinsic
def _load(typing_context, address):
    """Return the eight bytes at an address, the first one the lowest."""
    return types.uint64(address), _loads(64)


@intrinsic
def _byte(typing_context, address):
    """Return the byte at an address."""
    return types.uint64(address), _loads(8)


def _loads(bits):
    def generate(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
        return builder.zext(builder.load(pointer, align=1), ir.IntType(64))

    return generate


@intrinsic
def _lowest_bit(typing_context, word):
    """Return how many zero bits are below the lowest set bit of a word that is not 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], context.get_constant(types.boolean, True))

    return word(word), generate
