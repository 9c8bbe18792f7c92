"""What the public functions take as text: files, lines, or lists of tokens, read as a stream."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain
from typing import Any, Literal, NamedTuple

from fastnlp.text import reading

Progress = Callable[[int, int | None], object]

_NOTHING = object()
_LOOKED_AT = 10  # strings of a list among which names of files are looked for
_TYPES = "the path of a file, or an iterable of paths, of lines (str) or of lists of tokens"


class Batch(NamedTuple):
    """Lines that follow each other. A line ends a document."""

    lines: Iterable[Any]  # str, or for tokens iterables of str
    open: bool  # the last line goes on in the next batch


class Source:
    """Text to be read once from front to back, never held whole.

    `files_or_lines` is told apart by its type and its first item. A str or a path is one file; an iterable of paths,
    and a list or tuple of str that all name files, are files; other str are lines; lists or tuples are tokens.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, ValueError
        A file is missing, a folder, unreadable, empty, or not text: found for all files before any is read.
    TypeError
        `files_or_lines` is something else.
    """

    kind: Literal["files", "lines", "tokens"]
    could_be_names: bool  # lines of a list or tuple, perhaps meant as names of files

    def __init__(self, files_or_lines: Any) -> None:
        self._replaced: dict[str, int] = {}  # file: invalid UTF-8 sequences that were replaced
        self.could_be_names = False
        if isinstance(files_or_lines, (str, os.PathLike)):
            self._set_files([files_or_lines])
            return
        if isinstance(files_or_lines, (bytes, bytearray)) or not isinstance(files_or_lines, Iterable):
            raise TypeError(f"files_or_lines must be {_TYPES}, got {type(files_or_lines).__name__}")

        self._total = len(files_or_lines) if isinstance(files_or_lines, Sized) else None
        items = iter(files_or_lines)
        first = next(items, _NOTHING)
        if first is _NOTHING:
            raise ValueError(
                "files_or_lines holds nothing: a generator or an open file that was read once, by build_vocab say, is "
                "used up (pass a list, or make it anew)"
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

    def _set_files(self, paths: Iterable[Any]) -> None:
        self.kind = "files"
        self._paths = list(paths)
        for path in self._paths:
            if not isinstance(path, (str, os.PathLike)):
                raise TypeError(f"files_or_lines mixes paths and other things: one item is {_describe(path)}")
            reading.check(path)

    def batches(self, progress: Progress | None = None) -> Iterator[Batch]:
        """Yield the lines in batches of about `reading.BLOCK` characters.

        `progress` is called after each batch with the bytes of the files read so far and their total, packed as they
        are, or with the number of lines so far and their total; the total is None where it is not known.
        """
        return self._file_batches(progress) if self.kind == "files" else self._item_batches(progress)

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

    def _file_batches(self, progress: Progress | None) -> Iterator[Batch]:
        sizes = [reading.size(path) for path in self._paths]
        total = None if None in sizes else sum(filter(None, sizes))
        before = 0
        for path, size in zip(self._paths, sizes, strict=True):
            position = 0
            for data, is_open, position in reading.blocks(path):
                text = self._decode(path, data)
                if "\r" in text:
                    text = text.replace("\r\n", "\n")
                yield Batch(text.removesuffix("\n").split("\n"), is_open)
                if progress is not None:
                    progress(before + position, total)
            before += position if size is None else size
            if progress is not None:
                progress(before, total)

    def _decode(self, path: reading.Path, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            text = data.decode(errors="replace")
            name = os.fspath(path)
            count = text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
            self._replaced[name] = self._replaced.get(name, 0) + count
            return text

    def _item_batches(self, progress: Progress | None) -> Iterator[Batch]:
        wanted: Any = str if self.kind == "lines" else (list, tuple)
        lines: list[Any] = []
        held = 0
        done = 0
        for item in self._items:
            if not isinstance(item, wanted):
                raise TypeError(f"files_or_lines must hold items of one type: item {done} is {_describe(item)}")
            done += 1
            held += len(item)
            if self.kind == "tokens":
                lines.append(item)
            else:
                lines.extend(item.replace("\r\n", "\n").removesuffix("\n").split("\n") if "\n" in item else (item,))
            if held >= reading.BLOCK:
                yield Batch(lines, False)
                if progress is not None:
                    progress(done, self._total)
                lines, held = [], 0
        if lines:
            yield Batch(lines, False)
            if progress is not None:
                progress(done, self._total)


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


def _describe(item: object) -> str:
    hint = ": open the file in text mode, or decode it first" if isinstance(item, bytes) else ""
    return f"{type(item).__name__}{hint}"
