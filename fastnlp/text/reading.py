"""Files and streams of text: opened whatever they are packed with, and read in blocks of whole lines."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from fastnlp.text._packed import Lent, Unpacked

BLOCK = 1 << 20  # bytes of text that are held at a time
_LONGEST = 4  # blocks: a word that is longer is cut
_HEAD = 1 << 13  # bytes that are looked at to tell text from other things
_SPACES = (b" ", b"\t", "\u3000".encode())  # where a line may be cut

Path = str | os.PathLike[str]


class Block(NamedTuple):
    """Lines of one file, their bytes as they stand there. At the end of the file, the line feed may be added."""

    data: bytes
    name: str  # of the file
    last: bool  # the file ends here; otherwise a last line without a line feed goes on in the next block
    position: int  # bytes of the file read so far, packed as it is


def open_bytes(path: Path | IO[Any], buffering: int = BLOCK) -> io.BufferedReader:
    """Open a file that may be packed with gzip, bzip2, xz or zstd, and read what is in it.

    A file that is open already, be it of bytes or of text, is read from where it stands and stays open.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        There is no such file, or it cannot be opened. Each message names the path.
    ImportError
        It is packed with zstd, and nothing here can unpack that.
    ValueError
        Its name says that it is packed and its bytes do not. Later, while reading: it is truncated or corrupt.
    """
    name = name_of(path)
    if not isinstance(path, (str, os.PathLike)):
        return io.BufferedReader(Unpacked(name, io.BufferedReader(Lent(path), buffering)), buffering)
    if stat.S_ISDIR(_status(name).st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, a file is wanted: list the files in it", name)
    try:
        file = io.BufferedReader(io.FileIO(name), buffering)
    except PermissionError:
        raise PermissionError(errno.EACCES, "may not be read by this user: change its permissions", name) from None
    try:
        return io.BufferedReader(Unpacked(name, file), buffering)
    except BaseException:
        file.close()
        raise


def name_of(path: Path | IO[Any]) -> str:
    """Return how errors call a file."""
    if isinstance(path, (str, os.PathLike)):
        return os.fspath(path)
    name = getattr(path, "name", None)
    return name if isinstance(name, str) else f"the {type(path).__name__}"


def check(path: Path | IO[Any]) -> None:
    """Raise what `blocks` would raise at once, without reading more than the head of the file.

    A pipe and a file that is open already are left alone: what is read from them is gone.
    """
    if size(path) is not None:
        with open_bytes(path, _HEAD) as file:
            _check_head(name_of(path), file.read(_HEAD), "give a file that holds text")


def size(path: Path | IO[Any]) -> int | None:
    """Return the number of bytes of a file, packed as it is; None for a pipe or a file that is open already."""
    if not isinstance(path, (str, os.PathLike)):
        return None
    status = _status(os.fspath(path))
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def blocks(path: Path | IO[Any]) -> Iterator[Block]:
    """Yield a file of text in blocks that end where a line ends.

    A line that is longer than a block is cut after a space. Where there is none, it is held up to 4 MiB, then cut
    between two characters. A byte order mark is dropped.

    Raises
    ------
    ValueError
        The file is empty, is not text, or is truncated or corrupt. The message names the path.
    """
    name = name_of(path)
    with open_bytes(path, BLOCK) as file:
        unpacked: Any = file.raw
        text = file.read(BLOCK)
        hint = "give text, and read a stream once (build_corpus makes vocabulary and ids in one pass)"
        _check_head(name, text[:_HEAD], hint if size(path) is None else "give a file that holds text")
        text = text.removeprefix(b"\xef\xbb\xbf")
        lines = 0
        while chunk := file.read(BLOCK):
            if cut := _cut(text):
                data = text[:cut]
                lines += refuse_nul(name, data, lines)
                yield Block(data, name, False, unpacked.position())
            text = text[cut:] + chunk
        refuse_nul(name, text, lines)
        yield Block(text if text.endswith(b"\n") else text + b"\n", name, True, unpacked.position())


def refuse_nul(name: str, data: bytes, lines: int) -> int:
    """Return how many lines end in `data`, after raising if it holds a NUL byte; `lines` stand before it.

    Raises
    ------
    ValueError
        There is one. The message names the file and the line.
    """
    line_feeds = np.frombuffer(data, np.uint8) == 10  # bytes.count takes ten times as long
    found = data.find(b"\0")
    if found >= 0:
        raise ValueError(
            f"{name} is not text, line {lines + np.count_nonzero(line_feeds[:found]) + 1} holds a NUL byte: give UTF-8 "
            "text, plain or packed as .gz, .bz2, .xz or .zst"
        )
    return int(np.count_nonzero(line_feeds))


def _cut(text: bytes) -> int:
    """Return where text that goes on may be cut, 0 if that is not yet known."""
    cut = text.rfind(b"\n") + 1
    if cut or len(text) < BLOCK:
        return cut
    cut = max(text.rfind(space) + len(space) if space in text else 0 for space in _SPACES)
    return cut if cut or len(text) < _LONGEST * BLOCK else _before_last_character(text)


def _before_last_character(text: bytes) -> int:
    """Return where the last UTF-8 character of `text` starts, whole or not; the end if there is none near it."""
    for back in range(1, 5):
        if text[-back] & 0xC0 != 0x80:
            return len(text) - back
    return len(text)


def _check_head(name: str, head: bytes, hint: str) -> None:
    if not head:
        raise ValueError(f"{name} is empty: {hint}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{name} is UTF-16: convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)")
    refuse_nul(name, head, 0)


def _status(name: str) -> os.stat_result:
    try:
        return os.stat(name)
    except FileNotFoundError:
        raise FileNotFoundError(
            errno.ENOENT, "no such file (a str is the name of a file: put text into a list of lines)", name
        ) from None
