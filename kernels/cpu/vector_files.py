"""Lines of word vectors, read and written (what a line is: ``reference/vector_files.py``).

Schedule: a segment of whole lines is a task, or some rows to be written. Each byte of text is looked at once; a number
takes one misguessed branch, at its end. Every line ends in a line feed, so no loop looks for the end of the text. What
`_decimals.py` does not take makes a line odd, as do words with spaces, NaN and infinity. Records are short and are
found one after the other, on one thread.
"""

from __future__ import annotations

import numpy as np

from fastnlp._threads import run
from fastnlp.kernels.cpu._decimals import byte_at, inlined, read_number, write_number
from fastnlp.kernels.cpu._jit import jit

_ROWS_A_TASK = 64

# Unsigned indices: signed ones would bring a test for a negative index to every access.
_U = np.uint64
_ONE = _U(1)
_LINE_FEED, _RETURN, _SPACE = _U(10), _U(13), _U(32)


def count_lines(text, cuts, lines):  # (B,), (S + 1,), (S,)
    """Count the line feeds of every segment s, ``text[cuts[s]:cuts[s + 1]]``."""
    run(_count_lines, lines.size, text, cuts, lines, grain=1)


def parse(text, cuts, lines, vectors, words, word_bytes, odd):
    # (B,), (S + 1,), (S + 1,), (N, D); (B,), (S,), (N,)
    """Read the lines of every segment s, ``text[cuts[s]:cuts[s + 1]]``, into rows ``lines[s]`` to ``lines[s + 1]``.

    Their words go to `words` from ``cuts[s]`` on, each with a line feed, ``word_bytes[s]`` bytes together.
    """
    run(_parse, cuts.size - 1, text, cuts, lines, vectors, words, word_bytes, odd, grain=1)


def parse_records(data, vectors, words, word_ends, used):  # (B,), (N, 4 D); (B,), (N,), (2,)
    """Read records of a word, a space and D float32, which a line feed may precede; used = (records, bytes)."""
    _parse_records(data, vectors, words, word_ends, used)


def format(vectors, digits, text, text_bytes, odd):  # (N, D); (N, 16 D), (N,), (N,)
    """Write each number as a space and ``%.9g``, or so many `digits` instead of 9; ``text_bytes[r]`` for row r."""
    run(_format, len(vectors), vectors, digits, text, text_bytes, odd, grain=_ROWS_A_TASK)


@jit("(int64, int64, uint8[::1], int64[::1], int64[::1])")
def _count_lines(begin, end, text, cuts, lines):
    for s in range(begin, end):
        n = 0
        for byte in text[cuts[s] : cuts[s + 1]]:
            n += byte == _LINE_FEED
        lines[s] = n


@jit("(int64, int64, uint8[::1], int64[::1], int64[::1], float32[:, ::1], uint8[::1], int64[::1], boolean[::1])")
def _parse(begin, end, text, cuts, lines, vectors, words, word_bytes, odd):
    first_byte = _U(text.ctypes.data)
    last = first_byte + _U(text.size)
    for s in range(begin, end):
        at, to = first_byte + _U(cuts[s]), _U(cuts[s])
        for line in range(lines[s], lines[s + 1]):
            first = to
            byte = byte_at(at)
            while byte != _SPACE and byte != _LINE_FEED:
                words[to] = byte
                at += _ONE
                to += _ONE
                byte = byte_at(at)
            plain = to > first
            if plain:
                at, plain = _read_row(at, last, vectors[line])
            if not plain:
                to = first
                while byte_at(at) != _LINE_FEED:
                    at += _ONE
            odd[line] = not plain
            at += _ONE
            words[to] = _LINE_FEED
            to += _ONE
        word_bytes[s] = np.int64(to) - cuts[s]


@inlined
def _read_row(at, end, row):
    """Read numbers, each after a space, and the end of the line; return where, and whether that is what stood there."""
    for j in range(row.size):
        if byte_at(at) != _SPACE:
            return at, False
        at, value, plain = read_number(at + _ONE, end)
        if not plain:
            return at, False
        row[j] = value
    while byte_at(at) == _SPACE or byte_at(at) == _RETURN:
        at += _ONE
    return at, byte_at(at) == _LINE_FEED


@jit("(uint8[::1], uint8[:, ::1], uint8[::1], int64[::1], int64[::1])")
def _parse_records(data, vectors, words, word_ends, used):
    n_rows, width = vectors.shape
    at = end = r = 0
    while r < n_rows:
        space = at
        while space < data.size and data[space] != _SPACE:
            space += 1
        if space + 1 + width > data.size:
            break
        if data[at] == _LINE_FEED:
            at += 1
        for i in range(at, space):
            words[end] = data[i]
            end += 1
        word_ends[r] = end
        vectors[r] = data[space + 1 : space + 1 + width]
        at = space + 1 + width
        r += 1
    used[0] = r
    used[1] = at


@jit("(int64, int64, float32[:, ::1], int64, uint8[:, ::1], int64[::1], boolean[::1])")
def _format(begin, end, vectors, digits, text, text_bytes, odd):
    for r in range(begin, end):
        line = text[r]
        at = _U(0)
        all_sure = True
        for x in vectors[r]:
            line[at] = _SPACE
            at, sure = write_number(x, digits, line, at + _ONE)
            all_sure &= sure
        text_bytes[r] = np.int64(at)
        odd[r] = not all_sure
