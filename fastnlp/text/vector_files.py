"""The files that word vectors are kept in: their formats, and what is common to them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastnlp._files import atomic_write
from fastnlp.text import _vector_arrays, _vector_text, reading
from fastnlp.text._words import check_writable, encoded_words

Path = str | os.PathLike[str]
Vectors = NDArray[np.float32]

_SUFFIXES = {
    ".txt": "glove",
    ".vec": "word2vec",
    ".w2v": "word2vec",
    ".bin": "word2vec-binary",
    ".npz": "npz",
    ".npy": "npy",
}
_FORMATS = tuple(dict.fromkeys(_SUFFIXES.values()))
_PACKED = (".gz", ".bz2", ".xz", ".zst")


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
    name, suffix = os.path.splitext(os.fspath(path).lower())
    if suffix in _PACKED:
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
    if os.fspath(path).lower().endswith(_PACKED):
        raise ValueError(f"{os.fspath(path)} would not be packed: drop the suffix, and pack the file afterwards")
    return format_of(path, format)


def write(path: Path, format: str, words: Sequence[str], vectors: Vectors, *, digits: int) -> None:
    """Write words ``V`` and vectors ``(V, D)``, text with so many significant digits.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        A word cannot stand in this format.
    """
    if format not in ("npz", "npy"):
        check_writable(words, path, 'format="npz" takes any word')
    encoded = encoded_words(words, path)
    with atomic_write(path) as file:
        _write(file, format, encoded, vectors, digits)


def _write(file: BinaryIO, format: str, words: Sequence[bytes], vectors: Vectors, digits: int) -> None:
    if format == "npz":
        _vector_arrays.write_npz(file, words, vectors)
    elif format == "npy":
        _vector_arrays.write_npy(file, words, vectors)
    elif format == "word2vec-binary":
        _vector_arrays.write_records(file, words, vectors)
    else:
        _vector_text.write(file, words, vectors, header=format == "word2vec", digits=digits)


def read(path: Path, format: str, *, mmap: bool = False) -> tuple[list[str], Vectors]:
    """Return the words and the vectors of a file; of words that stand there twice the first.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It is malformed, or cannot be mapped into memory.
    """
    name = os.fspath(path)
    if mmap and format != "npy":
        raise ValueError(f'{name} cannot be mapped into memory as "{format}": save it as .npy first')
    encoded, vectors = _read(name, format, mmap)
    if not encoded:
        raise ValueError(f"{name} holds no words: give a file that holds word vectors")
    words, replaced = _decoded(encoded)
    twice = len(words) - len(set(words))
    if replaced or twice:
        warnings.warn(
            f"{name}: {twice} words stand there twice (the first of each is kept), {replaced} are not UTF-8 (replaced)",
            UserWarning,
            stacklevel=3,
        )
    if twice:
        rows = sorted(dict(zip(reversed(words), range(len(words) - 1, -1, -1), strict=True)).values())
        words, vectors = [words[row] for row in rows], vectors[rows]
    return words, vectors


def _read(name: str, format: str, mmap: bool) -> tuple[list[bytes], Vectors]:
    with reading.open_bytes(name) as file:
        if format in ("npz", "npy"):  # opened for its errors
            return _vector_arrays.read_npz(name) if format == "npz" else _vector_arrays.read_npy(name, mmap)
        if not file.peek(1):
            raise ValueError(f"{name} is empty: give a file that holds word vectors")
        if format == "word2vec-binary":
            return _vector_arrays.read_records(name, file, reading.size(name))
        return _vector_text.read(name, file, reading.size(name), format)


def _decoded(encoded: list[bytes]) -> tuple[list[str], int]:
    """Return the words as str, and the number of those that were not UTF-8."""
    try:
        return [word.decode() for word in encoded], 0
    except UnicodeDecodeError:
        words = [word.decode(errors="replace") for word in encoded]
        return words, sum(
            "\ufffd" in word and b"\xef\xbf\xbd" not in raw for word, raw in zip(words, encoded, strict=True)
        )
