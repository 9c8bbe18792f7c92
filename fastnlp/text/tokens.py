"""From a stream of tokens to numbers of words.

A backend provides ``number(text, slots, arena, starts, counts, ids, ends, state, grow)``, which numbers the words of a
piece of text by a table, and ``renumber(ids, ends, numbers, gaps, state)``, which puts other numbers in their place.

Pieces are numbered on all threads. A table belongs to one thread at a time, so which numbers the words get is left to
chance; `Numbering.merged` puts the tables together, and what is made from that by the words themselves is the same
for any number of threads.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnlp import _threads
from fastnlp._arrays import kernel_ready
from fastnlp._dispatch import implementation, kernels_for, why_missing
from fastnlp.kernels.reference.tokens import DONE, FULL
from fastnlp.text.sources import Source
from fastnlp.text.stream import Piece

Ids = NDArray[np.int32]
Ends = NDArray[np.int64]

AT_ONCE = 4  # pieces a thread
_ROOM = 1 << 14  # words for which a table has room at first
_SMALL = 1 << 18  # bytes of text that are numbered before a compiler would have started
_END = b" " * 8  # what text for a kernel ends with


class Numbered(NamedTuple):
    """A piece of the stream as numbers of words."""

    ids: Ids
    ends: Ends  # how many of the ids stand before the end of each line; one that goes on in the next piece has none
    table: int  # whose numbers they are
    last: bool  # a file ends here


class Numbering:
    """Numbers the words of a stream, in tables that grow, or by the places of given words.

    Parameters
    ----------
    words
        Different words. Others of the stream all get one number more. None: each word gets a number when it is seen.
    """

    def __init__(self, words: Sequence[str] | None = None) -> None:
        self.kernels = implementation("tokens", "reference")
        self.places: Ids = np.empty(0, np.int32)
        """The place of each number among the given words, -1 for that of others; once there are batches."""
        self._words = words
        self._tables: dict[int, Any] = {}
        self._made = count()  # next() on it is atomic, as pop of a list is
        self._free: list[int] = []

    def batches(self, pieces: Iterable[Piece], source: Source) -> Iterator[list[Numbered]]:
        """Yield the pieces of a stream as numbers, several at a time; what is not UTF-8 is counted in the source."""
        pieces = iter(pieces)
        step = AT_ONCE * _threads.get_num_threads()
        batch = list(islice(pieces, step))
        text = bool(batch) and isinstance(batch[0].content, bytes)
        if text:
            self.kernels = _kernels(sum(len(piece.content) for piece in batch) if len(batch) < step else None)
        new: Any = partial(_Bytes, self.kernels) if text else _Tokens
        if self._words is not None:
            self._tables[0], self.places = _Bytes.of(self._words, self.kernels) if text else _Tokens.of(self._words)
        while batch:
            numbered: list[Any] = [None] * len(batch)

            def number(begin: int, end: int, batch: list[Piece] = batch, numbered: list[Any] = numbered) -> None:
                for i in range(begin, end):
                    table = self._take(new)
                    numbered[i] = table, *self._tables[table].number(batch[i])
                    self._free.append(table)

            _threads.run(number, len(batch), grain=1 if text else len(batch))
            for piece, (_, _, _, replaced) in zip(batch, numbered, strict=True):
                source.replaced(piece.name, replaced)
            yield [
                Numbered(ids, ends, table, piece.last)
                for piece, (table, ids, ends, _) in zip(batch, numbered, strict=True)
            ]
            batch = list(islice(pieces, step))

    def merged(self) -> tuple[list[bytes], NDArray[np.int64], list[Ids]]:
        """Return all words as UTF-8, how often each occurs, and the places of each table's words among them."""
        if not self._tables:
            return [], np.zeros(0, np.int64), []
        first, *others = (self._tables[i] for i in range(len(self._tables)))
        places = [first.absorb(table) for table in others]
        return first.words(), first.counts, [np.arange(first.size, dtype=np.int32), *places]

    def _take(self, new: Callable[[], Any]) -> int:
        """Return a table that no other thread has, or the one that does not change."""
        if self._words is not None:
            return 0
        try:
            return self._free.pop()
        except IndexError:
            table = next(self._made)
            self._tables[table] = new()
            return table


def renumbered(
    batch: list[Numbered], numbers: Sequence[Ids], gaps: bool, kernels: ModuleType
) -> list[tuple[Ids, Ends, int]]:
    """Return the ids and ends of pieces by other numbers, ``numbers[table][id]``, and how many of these are words.

    Negative numbers are those of no word; they stay only with `gaps`. The ids of `batch` are lost.
    """
    renumbered: list[Any] = [None] * len(batch)

    def renumber(begin: int, end: int) -> None:
        for i in range(begin, end):
            ids, ends, table, _ = batch[i]
            ends, sizes = ends.copy(), np.zeros(2, np.int64)
            kernels.renumber(ids, ends, numbers[table], gaps, sizes)
            left, known = sizes.tolist()
            renumbered[i] = ids[:left], ends, known

    _threads.run(renumber, len(batch), grain=1)
    return renumbered


class _Bytes:
    """A table of words that stand between white space in UTF-8 text."""

    def __init__(self, kernels: ModuleType, words: int = 0) -> None:
        self._kernels = kernels
        self._grows = True
        self._size = 0
        self._arena = np.empty(0, np.uint8)  # the words, each with a space at its end
        self._slots, self._starts, self._counts = _table(max(_ROOM, 1 << words.bit_length()))

    @classmethod
    def of(cls, words: Sequence[str], kernels: ModuleType) -> tuple[_Bytes, Ids]:
        """Return a table that grows no more, and the places of its words among `words`, -1 at the end.

        Words that hold white space, as those of lists of tokens may, are left out: they do not occur in text.
        """
        places = np.arange(len(words) + 1, dtype=np.int32)
        text = " ".join(words)
        if not _is_utf8(text) or text.split() != list(words):
            occur = [i for i, word in enumerate(words) if _is_utf8(word) and word.split() == [word]]
            places = np.array([*occur, -1], np.int32)
            text = " ".join(words[i] for i in occur)
        places[-1] = -1
        table = cls(kernels, len(words))
        table._number(text.encode())
        table._grows = False
        return table, places

    @property
    def size(self) -> int:
        """The number of words."""
        return self._size

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each word was seen."""
        return self._counts[: self._size]

    def words(self) -> list[bytes]:
        """Return the words in the order of their numbers."""
        return self._text().split(b" ")[:-1]

    def number(self, piece: Any) -> tuple[Ids, Ends, int]:
        """Return the numbers of the words, the ends of lines, and how many sequences were not UTF-8."""
        return self._number(piece.content)

    def absorb(self, other: Any) -> Ids:
        """Add the words of another table, with their counts; return their numbers here."""
        numbers, _, _ = self._number(other._text())
        self.counts[numbers] += other.counts - 1
        return numbers

    def _text(self) -> bytes:
        return self._arena[: self._starts[self._size]].tobytes()

    def _number(self, data: bytes) -> tuple[Ids, Ends, int]:
        ids, ends = np.empty(len(data) // 2 + 1, np.int32), np.empty(len(data), np.int64)  # memory is what is written
        state = np.array([0, self._size, 0, 0, DONE])
        replaced = 0
        while True:
            text = kernel_ready(np.frombuffer(data + _END, np.uint8))
            if self._grows:
                self._make_arena(text.size)
            table = (self._slots, self._arena, self._starts, self._counts)
            self._kernels.number(text, *table, ids, ends, state, self._grows)
            at, size, n_ids, n_ends, status = state.tolist()
            if self._grows:
                self._size = size
            if status == DONE:
                return ids[:n_ids].copy(), ends[:n_ends].copy(), replaced
            if status == FULL:
                self._grow()
            else:
                wrong = data[at:]
                mended = wrong.decode(errors="replace")
                replaced += mended.count("\ufffd") - wrong.count("\ufffd".encode())
                data = mended.encode()
                state[0] = 0

    def _make_arena(self, more: int) -> None:
        used = int(self._starts[self._size])
        if used + more > self._arena.size:
            arena = np.empty(2 * (used + more), np.uint8)
            arena[:used] = self._arena[:used]
            self._arena = arena

    def _grow(self) -> None:
        text, counts = self._text(), self.counts
        self._size = 0
        self._slots, self._starts, self._counts = _table(2 * self._counts.size)
        self._number(text)
        self.counts[:] = counts


class _Tokens(dict[str, int]):
    """A table of words that come one by one."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        super().__init__(zip(words, range(len(words)), strict=True))
        self._grows = True
        self._counted = np.zeros(0, np.int64)

    @classmethod
    def of(cls, words: Sequence[str]) -> tuple[_Tokens, Ids]:
        """Return a table that grows no more, and the places of its words among `words`, -1 at the end."""
        table = cls(words)
        table._grows = False
        return table, np.append(np.arange(len(words), dtype=np.int32), np.int32(-1))

    def __missing__(self, token: object) -> int:
        number = len(self)
        if not isinstance(token, str):
            raise TypeError(f"tokens must be str, got {token!r:.60}")
        if self._grows:
            if "\0" in token:
                raise ValueError(f"the token {token!r:.60} holds a NUL character: remove it")
            if not _is_utf8(token):
                raise ValueError(
                    f"the token {token!r:.60} holds half of a surrogate pair, which UTF-8 has no bytes for: read the "
                    "text with errors='replace'"
                )
            self[token] = number
        return number

    @property
    def size(self) -> int:
        """The number of words."""
        return len(self)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each word was seen."""
        return np.concatenate([self._counted, np.zeros(len(self) - self._counted.size, np.int64)])

    def words(self) -> list[bytes]:
        """Return the words in the order of their numbers."""
        return [word.encode() for word in self]

    def number(self, piece: Any) -> tuple[Ids, Ends, int]:
        """Return the numbers of the words and the ends of lines."""
        found, line_ends = array("i"), array("q")
        number = self.__getitem__
        for tokens in piece.content:
            try:
                found.extend(map(number, tokens))
            except TypeError as error:
                if "unhashable" in str(error):
                    raise TypeError(f"tokens must be str, one is not: {error}") from None
                raise
            line_ends.append(len(found))
        ids, ends = np.array(found, np.int32), np.array(line_ends, np.int64)
        if self._grows:
            self._counted = self.counts + np.bincount(ids, minlength=len(self))
        return ids, ends[:-1] if piece.open else ends, 0


def _table(room: int) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the slots, starts and counts of a table that has room for so many words, a power of two."""
    return np.zeros((2 * room, 2), np.uint64), np.zeros(room + 1, np.int64), np.zeros(room, np.int64)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kernels(size: int | None) -> ModuleType:
    """Return the kernels for text of so many bytes; None: many."""
    if os.environ.get("FASTNLP_BACKEND") in ("reference", "cpu"):  # text is never on a GPU
        return kernels_for("tokens", None)
    small = size is not None and size <= _SMALL
    return implementation("tokens", "reference" if small or why_missing("cpu") is not None else "cpu")
