"""Files of text: opened whatever they are packed with, and read in blocks of whole lines."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20  # bytes of text that are held at a time
_HEAD = 1 << 13  # bytes that are looked at to tell text from other things

Path = str | os.PathLike[str]


class Block(NamedTuple):
    """Lines of one file, their bytes as they stand there."""

    data: bytes
    open: bool  # the last line goes on in the next block
    position: int  # bytes of the file read so far, packed as it is


def open_bytes(path: Path, buffering: int = BLOCK) -> io.BufferedReader:
    """Open a file that may be packed with gzip, bzip2 or xz, and read what is in it.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        There is no such file, or it cannot be opened. Each message names the path.
    ValueError
        Its name says that it is packed and its bytes do not. Later, while reading: it is truncated or corrupt.
    """
    name = os.fspath(path)
    if stat.S_ISDIR(_status(name).st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, a file is wanted: list the files in it", name)
    try:
        file = io.BufferedReader(io.FileIO(name), buffering)
    except PermissionError:
        raise PermissionError(errno.EACCES, "may not be read by this user: change its permissions", name) from None
    try:
        return io.BufferedReader(_Unpacked(name, file), buffering)
    except BaseException:
        file.close()
        raise


def check(path: Path) -> None:
    """Raise what `blocks` would raise at once, without reading more than the head of the file.

    A pipe is left alone: what is read from it is gone.
    """
    name = os.fspath(path)
    if stat.S_ISREG(_status(name).st_mode):
        with open_bytes(name, _HEAD) as file:
            _check_head(name, file.read(_HEAD))


def size(path: Path) -> int | None:
    """Return the number of bytes of a file, packed as it is; None for a pipe."""
    status = _status(os.fspath(path))
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def blocks(path: Path) -> Iterator[Block]:
    """Yield a file of text in blocks that end where a line ends.

    A line that is longer than a block is cut at a space, or where there is none between two characters. A byte order
    mark is dropped.

    Raises
    ------
    ValueError
        The file is empty, is not text, or is truncated or corrupt. The message names the path.
    """
    name = os.fspath(path)
    with open_bytes(name, BLOCK) as file:
        unpacked: Any = file.raw
        chunk = file.read(BLOCK)
        _check_head(name, chunk[:_HEAD])
        rest = chunk.removeprefix(b"\xef\xbb\xbf")
        is_open = False
        while chunk:
            cut = rest.rfind(b"\n") + 1
            is_open = cut == 0 and len(rest) >= BLOCK
            if is_open:
                cut = rest.rfind(b" ") + 1 or _before_last_character(rest)
            if cut:
                yield Block(rest[:cut], is_open, unpacked.position())
            chunk = file.read(BLOCK)
            rest = rest[cut:] + chunk
        if rest or is_open:
            yield Block(rest, False, unpacked.position())


def _before_last_character(text: bytes) -> int:
    """Return where the last UTF-8 character of `text` starts, whole or not; the end if there is none near it."""
    for back in range(1, 5):
        if text[-back] & 0xC0 != 0x80:
            return len(text) - back
    return len(text)


def _check_head(name: str, head: bytes) -> None:
    if not head:
        raise ValueError(f"{name} is empty: give a file that holds text")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{name} is UTF-16: convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)")
    if b"\0" in head:
        raise ValueError(
            f"{name} is not text (it holds NUL bytes): give UTF-8 text, plain or packed as .gz, .bz2 or .xz"
        )


def _status(name: str) -> os.stat_result:
    try:
        return os.stat(name)
    except FileNotFoundError:
        raise FileNotFoundError(
            errno.ENOENT, "no such file (a str is the name of a file: put text into a list of lines)", name
        ) from None


def _unpacker(name: str, file: io.BufferedReader[Any]) -> IO[bytes]:
    """Return a reader of what is in `file`, which its first bytes tell. The modules are imported only when needed."""
    head = file.peek(10)[:10]
    suffix = os.path.splitext(name)[1].lower()
    if head.startswith(b"\x1f\x8b"):
        import gzip

        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        import bz2

        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\x00"):
        import lzma

        return lzma.LZMAFile(file)
    if head and suffix in (".gz", ".bz2", ".xz"):
        raise ValueError(f"{name} is named {suffix} but is not packed that way: make it again, or rename it")
    return file


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a file, with one kind of error for all that can be wrong with a packed one."""

    def __init__(self, name: str, file: io.BufferedReader[Any]) -> None:
        self._name = name
        self._file = file
        self._done = 0
        self._stream = _unpacker(name, file)

    def position(self) -> int:
        """Return the bytes of the file read so far; of a pipe, the bytes of text."""
        return self._file.tell() if self._file.seekable() else self._done

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        try:
            data = self._stream.read(len(view))
        except Exception as error:  # each unpacker has errors of its own
            if self._stream is self._file:
                raise
            raise ValueError(f"{self._name} is truncated or corrupt ({error}): make or download it again") from error
        view[: len(data)] = data
        self._done += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
