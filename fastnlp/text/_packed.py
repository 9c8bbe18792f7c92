"""The bytes of files that may be packed, or that are open already."""

from __future__ import annotations

import io
import os
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_ZSTD_PART = 1 << 13  # packed bytes that are unpacked at once: they can become a thousand times as many


class Unpacked(io.RawIOBase):
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
        if self._stream is self._file:
            read = self._file.readinto(buffer)
            self._done += read
            return read
        view = memoryview(buffer)
        try:
            data = self._stream.read(len(view))
        except Exception as error:  # each unpacker has errors of its own
            raise ValueError(f"{self._name} is truncated or corrupt ({error}): make or download it again") from error
        view[: len(data)] = data
        self._done += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class Lent(io.RawIOBase):
    """The bytes of somebody else's open file, which is not closed with this one; text as UTF-8."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        if not self._rest:
            read = self._file.read(len(view)) or b""
            self._rest = memoryview(read.encode("utf-8", "surrogatepass") if isinstance(read, str) else read)
        data, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(data)] = data
        return len(data)


def _unpacker(name: str, file: io.BufferedReader[Any]) -> IO[bytes]:
    """Return a reader of what is in `file`, which its first bytes tell. The modules are imported only when needed."""
    head = file.peek(10)[:10]
    suffix = os.path.splitext(name)[1].lower()
    if head.startswith(_GZIP):
        import gzip

        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        import bz2

        return bz2.BZ2File(file)
    if head.startswith(_XZ):
        import lzma

        return lzma.LZMAFile(file)
    if head.startswith(_ZSTD):
        return _zstd(name, file)
    if head and suffix in _SUFFIXES:
        raise ValueError(f"{name} is named {suffix} but is not packed that way: make it again, or rename it")
    return file


def _zstd(name: str, file: io.BufferedReader[Any]) -> IO[bytes]:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.ZstdFile(file)
    try:
        import zstandard
    except ImportError:
        raise ImportError(
            f"{name} is packed with zstd, which this Python cannot unpack: pip install zstandard, or use Python 3.14"
        ) from None
    return _Zstd(file, zstandard.ZstdDecompressor(max_window_size=2**31))  # type: ignore[return-value]


class _Zstd:
    """What is in a file of zstd frames."""

    def __init__(self, file: io.BufferedReader[Any], unpacker: Any) -> None:
        self._file = file
        self._unpacker = unpacker
        self._frame: Any = None
        self._unpacked = b""

    def read(self, size: int) -> bytes:
        while not self._unpacked:
            packed = self._file.read(_ZSTD_PART)
            if not packed:
                if self._frame is not None:
                    raise EOFError("it ends within a frame")
                return b""
            parts = []
            while packed:  # may hold the end of one frame and the beginning of the next
                if self._frame is None:
                    self._frame = self._unpacker.decompressobj()
                parts.append(self._frame.decompress(packed))
                packed = self._frame.unused_data
                if self._frame.eof:
                    self._frame = None
            self._unpacked = b"".join(parts)
        data, self._unpacked = self._unpacked[:size], self._unpacked[size:]
        return data
