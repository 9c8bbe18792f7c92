"""Word vectors as bytes: word2vec's binary records, and NumPy's .npz and .npy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastnlp._arrays import kernel_ready
from fastnlp._checks import LARGEST
from fastnlp._dispatch import kernels_for
from fastnlp.text._vector_text import Rows, check_size

Vectors = NDArray[np.float32]

_BLOCK = 1 << 24  # bytes of records that are held at a time
_HEADER = re.compile(rb"(\d+) (\d+)[ \r]*\n")


def write_records(file: BinaryIO, words: Sequence[bytes], vectors: Vectors) -> None:
    """Write a header ``V D``, then for each word a record: the word, a space, its float32 and a line feed."""
    file.write(b"%d %d\n" % vectors.shape)
    for word, row in zip(words, vectors.astype("<f4", copy=False), strict=True):
        file.write(b"%b %b\n" % (word, row.data))


def read_records(name: str, file: BinaryIO, file_bytes: int | None) -> tuple[list[bytes], Vectors]:
    """Return the words and vectors of word2vec's binary records, in a file of `file_bytes` if that is known.

    Raises
    ------
    ValueError
        There is no header, a word is empty, or the file ends before the last record that the header speaks of.
    """
    header = _HEADER.fullmatch(file.readline(64))
    if not header or not 0 < int(header[2]) <= LARGEST:
        raise ValueError(f'{name}, line 1: a header "V D" is wanted, is this a word2vec binary file?')
    size, dim = int(header[1]), int(header[2])
    kernels = kernels_for("vector_files", None)
    words: list[bytes] = []
    rows = Rows(min(size, (file_bytes or 0) // (4 * dim + 2)), dim)
    used = np.empty(2, np.int64)
    rest = b""
    while len(words) < size and (chunk := file.read(_BLOCK)):
        rest += chunk
        data, text = kernel_ready(np.frombuffer(rest, np.uint8)), np.empty(len(rest), np.uint8)
        vectors = rows.more(min(size - len(words), len(rest) // (4 * dim + 1)))
        ends = np.empty(len(vectors), np.int64)
        kernels.parse_records(data, vectors.view(np.uint8), text, ends, used)
        n, at = used.tolist()
        rows.less(len(vectors) - n)
        found = _split(text[: ends[n - 1] if n else 0].tobytes(), ends[:n])
        if b"" in found:
            raise ValueError(f"{name}, word {len(words) + found.index(b'') + 1}: it is empty, the file is malformed")
        words += found
        rest = rest[at:]
    check_size(name, size, len(words))
    vectors = rows.all()
    return words, vectors if sys.byteorder == "little" else vectors.byteswap()


def write_npz(file: BinaryIO, words: Sequence[bytes], vectors: Vectors) -> None:
    """Write the vectors, the words as UTF-8 and where each ends (an array of str takes four bytes a character)."""
    data, ends = _joined_words(words)
    np.savez(file, words=data, word_ends=ends, vectors=vectors)


def read_npz(name: str) -> tuple[list[bytes], Vectors]:
    """Return the words and vectors that `write_npz` wrote.

    Raises
    ------
    ValueError
        The file holds something else, or is damaged.
    """
    try:
        with open(name, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            data, ends, vectors = arrays["words"], arrays["word_ends"], arrays["vectors"]
    except Exception as error:  # NumPy, zipfile and each unpacker have errors of their own
        raise ValueError(f"{name} is not an npz file of word vectors, or is damaged: {error}") from None
    return _checked(name, data, ends, vectors)


def write_npy(file: BinaryIO, words: Sequence[bytes], vectors: Vectors) -> None:
    """Write the arrays of `write_npz` one after the other, the vectors first: ``numpy.load`` and its mapping take them.

    One file, so that the words cannot be those of other vectors.
    """
    for array in (vectors, *_joined_words(words)):
        np.lib.format.write_array(file, array, allow_pickle=False)


def read_npy(name: str, mmap: bool) -> tuple[list[bytes], Vectors]:
    """Return the words and vectors that `write_npy` wrote; the vectors mapped into memory, not read, if `mmap`.

    Raises
    ------
    ValueError
        The file holds something else, or is damaged.
    """
    read = np.lib.format.read_array
    vectors: NDArray[Any]
    try:
        with open(name, "rb") as file:
            if mmap:
                vectors = mapped = np.lib.format.open_memmap(name, mode="r")
                file.seek(mapped.offset + mapped.nbytes)
            else:
                vectors = read(file)
            if file.tell() == os.fstat(file.fileno()).st_size:
                raise ValueError("it has an array and no words, KeyedVectors(words, array) puts them together")
            data, ends = read(file), read(file)
    except Exception as error:
        raise ValueError(f"{name} is not an npy file of word vectors, or is damaged: {error}") from None
    return _checked(name, data, ends, vectors)


def _joined_words(words: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bytes of all words, and where each ends."""
    return np.frombuffer(b"".join(words), np.uint8), np.cumsum([len(word) for word in words], dtype=np.int64)


def _split(data: bytes, ends: NDArray[Any]) -> list[bytes]:
    """Return the words of which `_joined_words` made one."""
    stops = ends.tolist()
    return [data[begin:end] for begin, end in zip([0, *stops], stops, strict=False)]


def _checked(name: str, data: Any, ends: Any, vectors: Any) -> tuple[list[bytes], Vectors]:
    """Return the words and vectors of three arrays from a file, if that is what they are."""
    if not (vectors.ndim == 2 and ends.shape == vectors.shape[:1] and vectors.dtype.kind == "f"):
        raise ValueError(
            f"{name} is malformed: {ends.size} words, and vectors of {vectors.dtype.name} of shape {vectors.shape}"
        )
    steps = np.diff(ends, prepend=0)
    if data.dtype != np.uint8 or ends.dtype.kind not in "iu" or (steps < 0).any() or steps.sum() != data.size:
        raise ValueError(f"{name} is malformed: the ends of its words do not fit its {data.size} bytes of words")
    return _split(data.tobytes(), ends), vectors
