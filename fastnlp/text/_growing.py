"""Arrays whose length is known only at the end of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastnlp._files import temporary_file


class Ids:
    """Parts of an int32 array: in memory, and in a file from the start or beyond a limit.

    Parameters
    ----------
    stack
        Closes the temporary file.
    limit
        Bytes in memory; more go to a temporary file.
    file
        Where all parts are written, instead.
    """

    def __init__(self, stack: ExitStack, limit: int, file: BinaryIO | None = None) -> None:
        self.size = 0
        self._stack = stack
        self._limit = limit
        self._file: Any = file
        self._held: list[NDArray[np.int32]] = []
        self._sizes: list[int] = []  # of the parts that are in the file

    def append(self, part: NDArray[np.int32]) -> None:
        """Put a part at the end."""
        self.size += part.size
        self._held.append(part)
        if self._file is None and self.size * part.itemsize > self._limit:
            self._file = self._stack.enter_context(temporary_file())
        if self._file is not None:
            for held in self._held:
                self._file.write(held.data)
                self._sizes.append(held.size)
            self._held.clear()

    def drain(self) -> Iterator[NDArray[np.int32]]:
        """Yield the parts again, in order, and let go of them."""
        if self._file is not None:
            self._file.seek(0)
            for size in self._sizes:
                part = np.empty(size, np.int32)
                self._file.readinto(part.data)
                yield part
        self._held.reverse()
        while self._held:
            yield self._held.pop()

    def array(self) -> NDArray[np.int32]:
        """Return the parts as one array, a map of the file if they are in one."""
        if self._file is not None:
            self._file.flush()
            return mapped(self._file, self.size)
        ids = np.empty(self.size, np.int32)
        place = 0
        for part in self.drain():  # the parts' memory goes as the array's comes: pages are taken when they are written
            ids[place : place + part.size] = part
            place += part.size
        return ids


class Ends:
    """Where the lines and the documents of a stream end.

    Parameters
    ----------
    documents
        What a document is: a "line", the lines to the next "blank line", or a "file".
    """

    def __init__(self, documents: str) -> None:
        self._documents = documents
        self._ends: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        self._blank: list[NDArray[np.bool_]] = []
        self._begun = 0  # tokens of the line that goes on
        self._lines = 0
        self._files: list[int] = [0]  # lines up to the end of each

    def append(
        self, ends: NDArray[np.int64], before: int, tokens: NDArray[np.int64], n_tokens: int, last: bool
    ) -> None:
        """Add a piece: where lines end among its ids, the ids before, its tokens at these ends and in all.

        With `last` the piece ends a file.
        """
        self._ends.append(ends + before)
        if self._documents == "blank line":
            self._blank.append(np.diff(tokens, prepend=-self._begun) == 0)
            self._begun = n_tokens - int(tokens[-1]) if tokens.size else self._begun + n_tokens
        self._lines += ends.size
        if last:
            self._files.append(self._lines)

    def offsets(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the offsets of the documents and those of the lines; one array where they are the same."""
        lines = np.concatenate(self._ends)
        if self._documents == "line":
            return lines, lines
        files = np.unique([*self._files, self._lines])
        if self._documents == "file":
            return lines[files], lines
        blank = np.concatenate([*self._blank, [True]])
        blank_next = blank[1:].copy()
        blank_next[files[1:] - 1] = True  # a file's end is one, too
        return np.append(lines[:1], lines[1:][~blank[:-1] & blank_next]), lines


def mapped(file: Any, size: int) -> NDArray[np.int32]:
    """Return the ids in a file, mapped."""
    return np.memmap(file, np.int32, "r", shape=(size,)) if size else np.empty(0, np.int32)  # none is no map
