"""What the public functions take as text: files, lines, or lists of tokens, read as a stream."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain
from typing import Any, Literal, NamedTuple

from fastnlp.text import reading

Progress = Callable[[int, int | None], object]

_NOTHING = object()
_LOOKED_AT = 10  # strings of a list among which names of files are looked for
_TYPES = "the path of a file, an open file, or an iterable of paths, of lines (str) or of lists of tokens"


class Text(NamedTuple):
    """A piece of text, UTF-8 but for sequences that are wrong, cut after a line or at least after a space."""

    data: bytes
    name: str  # of the file
    last: bool  # the file ends here; otherwise a last line without a line feed goes on in the next piece


class Batch(NamedTuple):
    """Lines that follow each other."""

    lines: Iterable[Any]  # str, or for tokens iterables of str
    open: bool  # the last line goes on in the next batch
    last: bool  # a file ends here


class Source:
    """Text to be read once from front to back, never held whole.

    `files_or_lines` is told apart by its type and its first item. A str or a path is one file ("-" is standard input),
    or several where it is a pattern; what can be read is an open file; an iterable of paths, and a list or tuple of str
    that all name files, are files; other str are lines; lists or tuples are tokens.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, ValueError
        A file is missing, a folder, unreadable, empty, or not text: found for all files before any is read.
    ImportError
        A file is packed with zstd, and nothing here can unpack that.
    TypeError
        `files_or_lines` is something else.
    """

    kind: Literal["files", "lines", "tokens"]
    could_be_names: bool  # lines of a list or tuple, perhaps meant as names of files

    def __init__(self, files_or_lines: Any) -> None:
        self._replaced: dict[str, int] = {}  # file: invalid UTF-8 sequences that were replaced
        self.could_be_names = False
        if isinstance(files_or_lines, str) and files_or_lines == "-":
            files_or_lines = getattr(sys.stdin, "buffer", sys.stdin)
        if isinstance(files_or_lines, (str, os.PathLike)) or callable(getattr(files_or_lines, "read", None)):
            self._set_files([files_or_lines])
            return
        if isinstance(files_or_lines, (bytes, bytearray)) or not isinstance(files_or_lines, Iterable):
            raise TypeError(f"files_or_lines must be {_TYPES}, got {type(files_or_lines).__name__}")

        self._total = len(files_or_lines) if isinstance(files_or_lines, Sized) else None
        items = iter(files_or_lines)
        first = next(items, _NOTHING)
        if first is _NOTHING:
            raise ValueError(
                "files_or_lines holds nothing: a generator that was read once, by build_vocab say, is used up (pass a "
                "list, make it anew, or use build_corpus, which needs it once)"
            )
        if isinstance(first, os.PathLike):
            self._set_files([first, *items])
        elif isinstance(first, str):
            self.kind = "lines"
            if isinstance(files_or_lines, (list, tuple)):
                self.could_be_names = True
                if _name_files(files_or_lines):
                    self._set_files(files_or_lines)
        elif isinstance(first, (list, tuple)):
            self.kind = "tokens"
        else:
            raise TypeError(f"files_or_lines must be {_TYPES}, its first item is {_describe(first)}")
        self._items = chain([first], items)

    def _set_files(self, given: Iterable[Any]) -> None:
        self.kind = "files"
        self._files: list[Any] = []
        for item in given:
            if isinstance(item, (str, os.PathLike)):
                self._files.extend(_matching(item))
            elif callable(getattr(item, "read", None)):
                self._files.append(item)
            else:
                raise TypeError(f"files_or_lines mixes paths and other things: one item is {_describe(item)}")
        for file in self._files:
            reading.check(file)

    def texts(self, progress: Progress | None = None) -> Iterator[Text]:
        """Yield the text of files or lines in pieces of about `reading.BLOCK` bytes.

        `progress` is called after each piece with the bytes of the files read so far and their total, packed as they
        are, or with the number of lines so far and their total; the total is None where it is not known.

        Raises
        ------
        ValueError
            A file is empty, is not text (it holds a NUL byte: the line is named), or is truncated or corrupt.
        """
        if self.kind == "lines":
            lines = _Lines(self._items)
            for block in reading.blocks(lines):  # type: ignore[arg-type]
                yield Text(block.data, block.name, block.last)
                if progress is not None:
                    progress(lines.done, self._total)
            return
        sizes = [reading.size(file) for file in self._files]
        total = None if None in sizes else sum(filter(None, sizes))
        before = 0
        for file, size in zip(self._files, sizes, strict=True):
            position = 0
            for data, name, last, position in reading.blocks(file):
                yield Text(data, name, last)
                if progress is not None:
                    progress(before + position, total)
            before += position if size is None else size
            if progress is not None:
                progress(before, total)

    def batches(self, progress: Progress | None = None) -> Iterator[Batch]:
        """Yield the lines, or the lists of tokens, in batches of about `reading.BLOCK` characters; see `texts`."""
        if self.kind == "tokens":
            yield from self._token_batches(progress)
            return
        for data, name, last in self.texts(progress):
            text = self.decode(data, name)
            if "\r" in text:
                text = text.replace("\r\n", "\n")
            yield Batch(text.removesuffix("\n").split("\n"), not text.endswith("\n"), last)

    def decode(self, data: bytes, name: str) -> str:
        """Return the text of UTF-8 bytes; sequences that are wrong become U+FFFD and are counted."""
        try:
            return data.decode()
        except UnicodeDecodeError:
            text = data.decode(errors="replace")
            self.replaced(name, text.count("\ufffd") - data.count(b"\xef\xbf\xbd"))
            return text

    def replaced(self, name: str, count: int) -> None:
        """Count sequences of a file that were replaced, for `warn`."""
        if count:
            self._replaced[name] = self._replaced.get(name, 0) + count

    def warn(self) -> None:
        """Warn once, on behalf of the caller's caller, if bytes that are not UTF-8 were replaced."""
        if self._replaced:
            path, count = next(iter(self._replaced.items()))
            others = len(self._replaced) - 1
            more = f", and {sum(self._replaced.values()) - count} in {others} other files" if others else ""
            warnings.warn(
                f"{path}: {count} byte sequences that are not UTF-8 were replaced by U+FFFD{more} "
                "(convert with iconv if the text is of another encoding)",
                UserWarning,
                stacklevel=3,
            )

    def _token_batches(self, progress: Progress | None) -> Iterator[Batch]:
        lines: list[Any] = []
        held = done = 0
        for done, item in enumerate(self._items, 1):
            if not isinstance(item, (list, tuple)):
                raise _mixed(done - 1, item)
            lines.append(item)
            held += len(item)
            if held >= reading.BLOCK:
                yield Batch(lines, False, False)
                if progress is not None:
                    progress(done, self._total)
                lines, held = [], 0
        if lines:
            yield Batch(lines, False, False)
            if progress is not None:
                progress(done, self._total)


class _Lines:
    """Lines as a file of text, each with a line feed at its end."""

    name = "files_or_lines"

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self.done = 0

    def read(self, size: int) -> str:
        parts: list[str] = []
        for item in self._items:
            if not isinstance(item, str):
                raise _mixed(self.done, item)
            self.done += 1
            parts.append(item if item.endswith("\n") else item + "\n")
            size -= len(item) + 1
            if size <= 0:
                break
        return "".join(parts)


def _matching(path: str | os.PathLike[str]) -> list[Any]:
    """Return the files that a pattern matches, sorted; `path` itself where it is none, or the name of a file."""
    name = os.fspath(path)
    if not any(sign in name for sign in "*?[") or os.path.lexists(name):
        return [path]
    from glob import glob

    found = sorted(file for file in glob(name, recursive=True) if not os.path.isdir(file))
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no file matches this pattern", name)
    return found


def _name_files(strings: list[str] | tuple[str, ...]) -> bool:
    """Tell whether all of `strings` name files, and warn on behalf of the caller's caller if only some seem to."""
    other = next((item for item in strings if not _is_file(item)), None)
    if other is None:
        return True
    name = next(filter(_is_file, strings[:_LOOKED_AT]), None)
    if name is not None:
        warnings.warn(
            f"files_or_lines is taken as lines of text: {name!r} names a file, but {other!r:.60} does not (correct "
            "it if files are meant, pass iter(lines) if lines are)",
            UserWarning,
            stacklevel=4,
        )
    return False


def _is_file(item: object) -> bool:
    return isinstance(item, str) and os.path.isfile(item)


def _mixed(number: int, item: object) -> TypeError:
    return TypeError(f"files_or_lines must hold items of one type: item {number} is {_describe(item)}")


def _describe(item: object) -> str:
    hint = ": open the file in text mode, or decode it first" if isinstance(item, bytes) else ""
    return f"{type(item).__name__}{hint}"
