"""The files that word vectors are kept in: GloVe text, word2vec text and binary, NumPy's npz."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastnlp._files import atomic_write
from fastnlp.text import reading
from fastnlp.text._words import check_writable

Path = str | os.PathLike[str]
Vectors = NDArray[np.float32]

_SUFFIXES = {".txt": "glove", ".vec": "word2vec", ".w2v": "word2vec", ".bin": "word2vec-binary", ".npz": "npz"}
_FORMATS = ("glove", "word2vec", "word2vec-binary", "npz")
_ROWS = 1 << 10  # rows that are turned into text at a time
_HEADER = re.compile(rb"(\d+) (\d+)[ \r\n]*")


def format_of(path: Path, format: str | None) -> str:
    """Return `format` after checking it, or the format that the suffix of `path` stands for.

    Raises
    ------
    ValueError
        The format or the suffix is not known.
    """
    if format is not None:
        if format not in _FORMATS:
            raise ValueError(f"format must be one of {', '.join(map(repr, _FORMATS))}, got {format!r}")
        return format
    name = re.sub(r"\.(gz|bz2|xz)$", "", os.fspath(path).lower())
    suffix = os.path.splitext(name)[1]
    if suffix not in _SUFFIXES:
        raise ValueError(
            f"the suffix of {os.fspath(path)} is none of {', '.join(_SUFFIXES)}: "
            f"use one of these, or give the format, one of {', '.join(map(repr, _FORMATS))}"
        )
    return _SUFFIXES[suffix]


def format_to_write(path: Path, format: str | None) -> str:
    """Return what `format_of` returns, for a file that is to be written.

    Raises
    ------
    ValueError
        The format or the suffix is not known, or the name says that the file is packed.
    """
    if os.fspath(path).lower().endswith((".gz", ".bz2", ".xz")):
        raise ValueError(f"{os.fspath(path)} would not be packed: drop the suffix, and pack the file afterwards")
    return format_of(path, format)


def write(path: Path, format: str, words: Sequence[str], vectors: Vectors) -> None:
    """Write words ``V`` and vectors ``(V, D)``.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        A word cannot stand in this format.
    """
    if format != "npz":
        check_writable(words, path, 'format="npz" takes any word')
    with atomic_write(path) as file:
        _WRITERS[format](file, words, vectors)


def read(path: Path, format: str) -> tuple[list[str], Vectors]:
    """Return the words and the vectors of a file; of words that stand there twice the first.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It is malformed.
    """
    name = os.fspath(path)
    if format == "npz":
        encoded, vectors = _read_npz(name)
    else:
        with reading.open_bytes(name) as file:
            if not file.peek(1):
                raise ValueError(f"{name} is empty: give a file that holds word vectors")
            encoded, vectors = (
                _read_binary(name, file) if format == "word2vec-binary" else _read_text(name, file, format)
            )
    if not encoded:
        raise ValueError(f"{name} holds no words: give a file that holds word vectors")
    words = [word.decode(errors="replace") for word in encoded]
    replaced = sum("\ufffd" in word for word in words) - sum(b"\xef\xbf\xbd" in word for word in encoded)
    first = dict(zip(reversed(words), range(len(words) - 1, -1, -1), strict=True))
    twice = len(words) - len(first)
    if replaced or twice:
        warnings.warn(
            f"{name}: {twice} words stand there twice (the first of each is kept), {replaced} are not UTF-8 (replaced)",
            UserWarning,
            stacklevel=3,
        )
    if twice:
        rows = sorted(first.values())
        words, vectors = [words[row] for row in rows], vectors[rows]
    return words, vectors


def _write_glove(file: BinaryIO, words: Sequence[str], vectors: Vectors) -> None:
    line = " ".join(["%s"] + ["%.9g"] * vectors.shape[1]) + "\n"
    for begin in range(0, len(words), _ROWS):
        rows = zip(words[begin : begin + _ROWS], vectors[begin : begin + _ROWS].tolist(), strict=True)
        file.write("".join(line % (word, *row) for word, row in rows).encode())


def _write_word2vec(file: BinaryIO, words: Sequence[str], vectors: Vectors) -> None:
    file.write(b"%d %d\n" % vectors.shape)
    _write_glove(file, words, vectors)


def _write_binary(file: BinaryIO, words: Sequence[str], vectors: Vectors) -> None:
    file.write(b"%d %d\n" % vectors.shape)
    for word, row in zip(words, vectors.astype("<f4", copy=False), strict=True):
        file.write(word.encode() + b" " + row.tobytes() + b"\n")


def _write_npz(file: BinaryIO, words: Sequence[str], vectors: Vectors) -> None:
    """Write the words as UTF-8 and where each ends: in an array of str each takes four times the longest."""
    encoded = [word.encode() for word in words]
    ends = np.cumsum([len(word) for word in encoded], dtype=np.int64)
    np.savez(file, words=np.frombuffer(b"".join(encoded), np.uint8), word_ends=ends, vectors=vectors)


_WRITERS: dict[str, Callable[[BinaryIO, Sequence[str], Vectors], None]] = {
    "glove": _write_glove,
    "word2vec": _write_word2vec,
    "word2vec-binary": _write_binary,
    "npz": _write_npz,
}


def _read_text(name: str, file: io.BufferedReader, format: str) -> tuple[list[bytes], Vectors]:
    head = list(islice(file, 64))
    header = _HEADER.fullmatch(head[0])
    dims = Counter(len(_fields(line, -1)) - 1 for line in head[1 if header else 0 :])
    dim = max(dims, key=lambda count: dims[count]) if dims else 0  # words may hold spaces: what most lines have
    size = 0
    if header and int(header[2]) == dim and (dim > 1 or format == "word2vec"):
        size = int(header[1])
    elif format == "word2vec":
        raise ValueError(
            f'{name}, line 1: a header "V D" that fits the lines is wanted, got {head[0]!r:.80} (format="glove"?)'
        )
    elif header and not (dim == 1 or len(head) == 1):
        raise ValueError(f"{name}, line 1: the header says {int(header[2])} numbers a word, the lines hold {dim}")
    elif header:
        dim = 1  # not a header: a word that is a number, and its one feature
    lines: Iterator[tuple[int, bytes]] = enumerate(chain(head, file), 1)
    if size:
        next(lines)
    words: list[bytes] = []
    numbers = bytearray()
    for i, line in lines:
        word, *fields = _fields(line, dim)
        try:
            row = np.array(fields, np.float32)
        except ValueError:
            row = np.empty(0, np.float32)
        if row.size != dim or dim == 0 or not word or _ends_in_number(word):
            raise ValueError(f"{name}, line {i}: a word and {dim or 'some'} numbers are wanted, got {line!r:.80}")
        words.append(word)
        numbers += row.tobytes()
    _check_size(name, size, len(words))
    return words, np.frombuffer(numbers, np.float32).reshape(-1, dim)


def _fields(line: bytes, numbers: int) -> list[bytes]:
    return line.rstrip(b" \r\n").rsplit(b" ", numbers)


def _ends_in_number(word: bytes) -> bool:
    """Tell whether a word that holds spaces ends in a number: then the line has too many."""
    if b" " in word:
        with suppress(ValueError):
            float(word.rpartition(b" ")[2])
            return True
    return False


def _read_binary(name: str, file: io.BufferedReader) -> tuple[list[bytes], Vectors]:
    header = _HEADER.fullmatch(file.readline(64))
    if not header or int(header[2]) == 0:
        raise ValueError(f'{name}, line 1: a header "V D" is wanted, is this a word2vec binary file?')
    size, width = int(header[1]), 4 * int(header[2])
    words: list[bytes] = []
    numbers = bytearray()
    rest = b""
    while len(words) < size:
        chunk = file.read(reading.BLOCK)
        rest += chunk
        at = 0
        while len(words) < size:
            space = rest.find(b" ", at)
            if space < 0 or space + 1 + width > len(rest):
                break
            words.append(rest[at:space].removeprefix(b"\n"))
            numbers += rest[space + 1 : space + 1 + width]
            at = space + 1 + width
            if not words[-1]:
                raise ValueError(f"{name}, word {len(words)}: it is empty, the file is malformed")
        rest = rest[at:]
        if not chunk:
            break
    _check_size(name, size, len(words))
    vectors = np.frombuffer(numbers, "<f4").astype(np.float32, copy=False)
    return words, vectors.reshape(-1, int(header[2]))


def _check_size(name: str, header: int, found: int) -> None:
    if found < header:
        raise ValueError(f"{name} is truncated: its header says {header} words, it holds {found}")


def _read_npz(name: str) -> tuple[list[bytes], Vectors]:
    reading.open_bytes(name).close()  # for its errors
    try:
        with open(name, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            data, ends, vectors = arrays["words"].tobytes(), arrays["word_ends"].tolist(), arrays["vectors"]
    except Exception as error:  # NumPy, zipfile and each unpacker have errors of their own
        raise ValueError(f"{name} is not an npz file of word vectors, or is damaged: {error}") from None
    words = [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    if vectors.ndim != 2 or len(vectors) != len(words):
        raise ValueError(f"{name} is malformed: {len(words)} words, and vectors of shape {vectors.shape}")
    return words, vectors
