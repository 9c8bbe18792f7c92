"""Lines of word vectors, read and written.

A line is a word, D numbers with a space before each, any spaces and carriage returns, and a line feed. A number is
``[+-] digits [. digits] [e [+-] digits]``; its value is the nearest float64, rounded to float32. A line that is not so,
or that a backend does not take, is odd: its row is undefined and its word empty.
"""

from __future__ import annotations

import re

import numpy as np

_NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def count_lines(text, cuts, lines):  # (B,), (S + 1,), (S,)
    """Count the line feeds of every segment s, ``text[cuts[s]:cuts[s + 1]]``."""
    for s in range(lines.size):
        lines[s] = np.count_nonzero(text[cuts[s] : cuts[s + 1]] == ord("\n"))


def parse(text, cuts, lines, vectors, words, word_bytes, odd):
    # (B,), (S + 1,), (S + 1,), (N, D); (B,), (S,), (N,)
    """Read the lines of every segment s, ``text[cuts[s]:cuts[s + 1]]``, into rows ``lines[s]`` to ``lines[s + 1]``.

    Their words go to `words` from ``cuts[s]`` on, each with a line feed, ``word_bytes[s]`` bytes together.
    """
    for s in range(cuts.size - 1):
        copied = bytearray()
        segment = text[cuts[s] : cuts[s + 1]].tobytes()
        for line, content in enumerate(segment.split(b"\n")[:-1], lines[s]):
            word, *numbers = content.rstrip(b" \r").split(b" ")
            plain = bool(word) and len(numbers) == vectors.shape[1] and all(map(_NUMBER.fullmatch, numbers))
            if plain:
                with np.errstate(over="ignore"):
                    vectors[line] = np.array([float(number) for number in numbers])
                copied += word
            odd[line] = not plain
            copied += b"\n"
        word_bytes[s] = len(copied)
        words[cuts[s] : cuts[s] + len(copied)] = np.frombuffer(copied, np.uint8)


def parse_records(data, vectors, words, word_ends, used):  # (B,), (N, 4 D); (B,), (N,), (2,)
    """Read records of a word, a space and D float32, which a line feed may precede; used = (records, bytes).

    Only whole records are read, and N at most. The bytes of record r end their word in `words` at ``word_ends[r]``.
    """
    content = data.tobytes()
    n_rows, width = vectors.shape
    at = end = r = 0
    while r < n_rows:
        space = content.find(b" ", at)
        if space < 0 or space + 1 + width > len(content):
            break
        word = content[at:space].removeprefix(b"\n")
        words[end : end + len(word)] = np.frombuffer(word, np.uint8)
        end += len(word)
        word_ends[r] = end
        vectors[r] = data[space + 1 : space + 1 + width]
        at = space + 1 + width
        r += 1
    used[:] = r, at


def format(vectors, digits, text, text_bytes, odd):  # (N, D); (N, 16 D), (N,), (N,)
    """Write each number as a space and ``%.9g``, or so many `digits` instead of 9; ``text_bytes[r]`` for row r."""
    pattern = f" %.{digits}g" * vectors.shape[1]
    for r, row in enumerate(vectors.tolist()):
        line = (pattern % tuple(row)).encode()
        text[r, : len(line)] = np.frombuffer(line, np.uint8)
        text_bytes[r] = len(line)
        odd[r] = False
