"""Word vectors as text: a line a word, read by compiled kernels a block at a time, odd lines by Python."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastnlp._arrays import kernel_ready
from fastnlp._dispatch import kernels_for

Vectors = NDArray[np.float32]

_BLOCK = 1 << 24  # bytes of text that are held at a time
_SEGMENT = 1 << 18  # bytes of a block that a task reads, and the rest of their last line
_WRITTEN_BLOCK = 1 << 20  # numbers that are turned into text at a time
_NUMBER_BYTES = 16  # of a number as text, at most, with the space before it
_SPARE = 1.1  # memory that is taken for lines, to those that are expected
_LINE_FEED = ord("\n")
_HEAD = 64  # lines that are looked at to tell how many numbers a line has
_HEADER = re.compile(rb"(\d+) (\d+)[ \r]*")
_NUMBER = re.compile(rb"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf(inity)?)", re.IGNORECASE)


def read(name: str, file: BinaryIO, file_bytes: int | None, format: str) -> tuple[list[bytes], Vectors]:
    """Return the words and vectors of a text in the format "glove" or "word2vec", of `file_bytes` if that is known.

    Raises
    ------
    ValueError
        A line is malformed, or the header says that there are more. The message has `name` and the line.
    """
    kernels = kernels_for("vector_files", None)
    blocks = _blocks(file)
    text, end = next(blocks)
    head = _first_lines(text, end)
    dim, size = _layout(name, head, format)
    begin = len(head[0]) + 1 if size else 0
    words: list[bytes] = []
    rows = Rows(int((file_bytes or 0) / (sum(map(len, head)) + len(head)) * len(head) * _SPARE) + 1, dim)
    number = 2 if size else 1  # of the block's first line
    while begin < end:
        words += _read_block(kernels, name, number + len(words), text, begin, end, rows)
        begin, (text, end) = 0, next(blocks, (text, 0))
    check_size(name, size, len(words))
    return words, rows.all()


def write(file: BinaryIO, words: Sequence[bytes], vectors: Vectors, *, header: bool, digits: int) -> None:
    """Write a line a word, with so many significant digits a number; a header ``V D`` before them if asked for."""
    kernels = kernels_for("vector_files", None)
    if header:
        file.write(b"%d %d\n" % vectors.shape)
    n, dim = vectors.shape
    step = max(1, _WRITTEN_BLOCK // dim)
    text = np.empty((min(n, step), _NUMBER_BYTES * dim), np.uint8)
    text_bytes, odd = np.empty(len(text), np.int64), np.empty(len(text), np.bool_)
    for begin in range(0, n, step):
        rows = kernel_ready(vectors[begin : begin + step])
        kernels.format(rows, digits, text[: len(rows)], text_bytes[: len(rows)], odd[: len(rows)])
        for r, word in enumerate(words[begin : begin + step]):
            line = text[r, : text_bytes[r]].tobytes()
            if odd[r]:
                line = b"".join([b" %.*g" % (digits, x) for x in rows[r].tolist()])
            file.write(b"%b%b\n" % (word, line))


def check_size(name: str, header: int, found: int) -> None:
    """Raise if a file holds fewer words than its header says.

    Raises
    ------
    ValueError
        It does.
    """
    if found < header:
        raise ValueError(f"{name} is truncated: its header says {header} words, it holds {found}")


class Rows:
    """Vectors that become more; memory is taken for as many as are expected, and touched only as they come."""

    def __init__(self, expected: int, dim: int) -> None:
        self._held = np.empty((expected, dim), np.float32)
        self._n = 0

    def more(self, n: int) -> Vectors:
        """Return the next n rows, to be filled before the next call."""
        end = self._n + n
        if end > len(self._held):
            grown = np.empty((end + end // 2, self._held.shape[1]), np.float32)
            grown[: self._n] = self._held[: self._n]
            self._held = grown
        rows = self._held[self._n : end]
        self._n = end
        return rows

    def less(self, n: int) -> None:
        """Forget the last n rows."""
        self._n -= n

    def all(self) -> Vectors:
        return self._held[: self._n]


def _blocks(file: BinaryIO) -> Iterator[tuple[bytearray, int]]:
    """Yield whole lines, the first `_HEAD` of them at once where there are so many: a buffer, and where they end in it.

    The buffer is used again for the next lines.
    """
    text = bytearray(_BLOCK)
    held, missing, more = 0, _HEAD, 1
    while more:
        if held == len(text):  # a long line
            text += bytes(held)
        with memoryview(text) as view:
            more = file.readinto(view[held:])  # type: ignore[attr-defined]
        held, searched = held + more, held
        if not more and held:
            text[held : held + 1] = b"\n"
            yield text, held + (text[held - 1] != _LINE_FEED)
        if missing > 0:
            missing -= text.count(b"\n", searched, held)
        end = text.rfind(b"\n", searched, held) + 1 if more and missing <= 0 else 0
        if end:
            yield text, end
            text[: held - end] = text[end:held]
            held -= end


def _first_lines(text: bytearray, end: int) -> list[bytes]:
    lines: list[bytes] = []
    at = 0
    while at < end and len(lines) < _HEAD:
        stop = text.index(b"\n", at)
        lines.append(bytes(text[at:stop]))
        at = stop + 1
    return lines


def _layout(name: str, head: list[bytes], format: str) -> tuple[int, int]:
    """Return the numbers a line, and the words that there are by the header (0: it is none), from the first lines."""
    header = _HEADER.fullmatch(head[0])
    dims = Counter(line.rstrip(b" \r").count(b" ") for line in head[1 if header else 0 :])
    dim = max(dims, key=lambda count: dims[count]) if dims else 0  # words may hold spaces: what most lines have
    size = 0
    if header and int(header[2]) == dim and (dim > 1 or format == "word2vec"):
        size = int(header[1])
    elif format == "word2vec":
        raise ValueError(
            f'{name}, line 1: a header "V D" that fits the lines is wanted, got {head[0][:80]!r:.80} (format="glove"?)'
        )
    elif header and not (dim == 1 or len(head) == 1):
        raise ValueError(f"{name}, line 1: the header says {int(header[2])} numbers a word, the lines hold {dim}")
    elif header:
        dim = 1  # not a header: a word that is a number, and its one feature
    if dim == 0:
        raise _malformed(name, 2 if size else 1, head[1 if size else 0], dim)
    return dim, size


def _read_block(
    kernels: ModuleType, name: str, number: int, text: bytearray, begin: int, end: int, rows: Rows
) -> list[bytes]:
    """Return the words of the lines ``text[begin:end]``, and add their vectors to `rows`; the first has a `number`."""
    cuts = [begin]
    while cuts[-1] < end:
        cuts.append(text.index(b"\n", min(cuts[-1] + _SEGMENT, end) - 1) + 1)
    data = np.frombuffer(text, np.uint8)
    lines, word_bytes = np.zeros(len(cuts), np.int64), np.empty(len(cuts) - 1, np.int64)
    kernels.count_lines(data, np.array(cuts), lines[1:])
    np.cumsum(lines, out=lines)
    vectors = rows.more(int(lines[-1]))
    words, odd = np.empty(len(data), np.uint8), np.empty(len(vectors), np.bool_)
    kernels.parse(data, np.array(cuts), lines, vectors, words, word_bytes, odd)

    copied = [words[cut : cut + n].tobytes() for cut, n in zip(cuts, word_bytes, strict=False)]
    found = b"".join(copied).split(b"\n")
    del found[-1]
    if odd.any():
        contents = bytes(text[begin:end]).split(b"\n")
        for row in np.flatnonzero(odd).tolist():
            found[row], vectors[row] = _read_odd_line(name, number + row, contents[row], vectors.shape[1])
    return found


def _read_odd_line(name: str, number: int, line: bytes, dim: int) -> tuple[bytes, NDArray[np.float64]]:
    if not _NUMBER.fullmatch(_fields(line, 1)[-1]):  # before a long line that is something else is taken apart
        raise _malformed(name, number, line, dim)
    word, *numbers = _fields(line, dim)
    too_many = b" " in word and _NUMBER.fullmatch(word.rpartition(b" ")[2])
    if not word or too_many or len(numbers) != dim or not all(map(_NUMBER.fullmatch, numbers)):
        raise _malformed(name, number, line, dim)
    values = np.array([float(number) for number in numbers])
    with np.errstate(over="ignore"):
        return word, values.astype(np.float32)


def _fields(line: bytes, numbers: int) -> list[bytes]:
    return line.rstrip(b" \r").rsplit(b" ", numbers)


def _malformed(name: str, number: int, line: bytes, dim: int) -> ValueError:
    hint = ' (it is not text; is it format="word2vec-binary"?)' if b"\0" in line else ""
    return ValueError(
        f"{name}, line {number}: a word and {dim or 'some'} numbers are wanted, got {line[:80]!r:.80}{hint}"
    )
