"""Rows of co-occurrence counts, batch by batch: counted from a part of the text, or added from several such parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastnlp._arrays import Array
from fastnlp._threads import get_num_threads, run
from fastnlp.ops._cooccurrence_buffers import Buffer, large
from fastnlp.ops._cooccurrence_text import Text, around

_BLOCK = 1 << 16  # entries of the matrix that are one task
_PIECES = 8  # parts of a text whose words are counted and located at once
ENTRY = 12  # bytes: a column (int32) and a count (uint64)


class Question(NamedTuple):
    """What is to be counted."""

    window: int
    """What was asked for, however short the documents are."""
    weights: Array
    """``(reach + 1,)`` uint64."""
    left: bool
    right: bool
    upper: bool
    words: Array
    """``(R,)`` int64: the word of each row."""
    width: int
    """V, the number of columns."""

    @property
    def reach(self) -> int:
        """How far apart words may stand in this text."""
        return self.weights.size - 1

    @property
    def rows(self) -> int:
        """R, the number of rows."""
        return self.words.size


class Batch(NamedTuple):
    """The rows [begin, end): each with its columns in ascending order and counts, in pieces of scratch memory."""

    begin: int
    end: int
    sizes: Array
    """``(end - begin,)``: the entries of each row."""
    rows: Array
    """``(pieces + 1,)``: where the rows of each piece begin."""
    slots: Array
    """``(pieces + 1,)``: where the entries of each piece begin."""
    columns: Array
    counts: Array
    room: int
    """How many entries all rows, not only these, can have at most."""

    def each(self, use: Callable[[slice, slice, Array, Array], None]) -> int:
        """Call ``use(rows, entries, columns, counts)`` for the pieces, which are `rows` and `entries` of the batch.

        The calls are in parallel. Returns the number of entries.
        """
        ends = np.concatenate([[0], np.cumsum(self.sizes)])[self.rows - self.begin]

        def some(begin: int, end: int) -> None:
            for piece in range(begin, end):
                rows = slice(self.rows[piece] - self.begin, self.rows[piece + 1] - self.begin)
                entries = slice(ends[piece], ends[piece + 1])
                lie = slice(self.slots[piece], self.slots[piece] + ends[piece + 1] - ends[piece])
                use(rows, entries, self.columns[lie], self.counts[lie])

        run(some, self.rows.size - 1, grain=1)
        return int(ends[-1])

    def joined(self, columns: Array, counts: Array) -> None:
        """Write the columns and the counts of all rows one after the other."""

        def put(rows: slice, entries: slice, some_columns: Array, some_counts: Array) -> None:
            columns[entries] = some_columns
            counts[entries] = some_counts

        self.each(put)


class Rows(Protocol):
    """Counted rows that lie somewhere."""

    @property
    def starts(self) -> Array:
        """``(R + 1,)``: where rows begin among the entries."""
        ...

    def read(self, begin: int, end: int, columns: Array, counts: Array) -> None:
        """Write the entries in [begin, end) to `columns` and `counts`."""
        ...


def count_rows(
    kernels: Any, text: Text, begin: int, end: int, question: Question, scratch: int, seen: Callable[[int], None]
) -> Iterator[Batch]:
    """Count the places [begin, end) of the text with all their neighbours, and yield the rows in order.

    Over parts of the text that together are all of it, every pair is counted once. `scratch` is about how many entries
    are counted at once; `seen` is told after each batch how many places are done. A batch is overwritten by the next.
    """
    stream, edges = _stream(kernels, text, begin, end, question.reach)
    starts, positions = _locations(kernels, stream, edges, question.width)
    occurrences = np.diff(starts)[question.words]
    room = np.minimum(occurrences * (question.reach * (question.left + question.right)), question.width)
    sizes = np.empty(question.rows, np.int64)
    done = np.concatenate([[0], np.cumsum(occurrences)])
    entries = int(room.sum())
    options = (question.words, question.weights, question.left, question.right, question.upper)
    for rows, slots, columns, counts in _schedule(room, scratch):
        kernels.count(stream, starts, positions, *options, rows, slots, sizes, columns, counts)
        seen(int(done[rows[-1]]))
        yield Batch(int(rows[0]), int(rows[-1]), sizes[rows[0] : rows[-1]], rows, slots, columns, counts, entries)


def add_rows(
    kernels: Any, parts: Sequence[Rows], width: int, scratch: int, seen: Callable[[int], None]
) -> Iterator[Batch]:
    """Add counts row by row, and yield the rows in order; as `count_rows`.

    Raises
    ------
    OverflowError
        A sum is 2^64 or more.
    """
    starts = np.stack([part.starts for part in parts])
    total = starts.sum(axis=0)
    sizes = np.empty(total.size - 1, np.int64)
    columns_buffer, counts_buffer = Buffer(np.int32), Buffer(np.uint64)
    for rows, slots, columns, counts in _schedule(np.diff(total), scratch):
        first, last = int(rows[0]), int(rows[-1])
        begins = starts[:, first : last + 1]
        ends = np.cumsum(begins[:, -1] - begins[:, 0])
        all_columns, all_counts = columns_buffer.take(int(ends[-1])), counts_buffer.take(int(ends[-1]))
        moved = np.empty(begins.shape, np.int64)
        for part, begin, here, end in zip(parts, begins, moved, ends.tolist(), strict=True):
            here[:] = begin + (end - begin[-1])
            where = slice(here[0], end)
            part.read(int(begin[0]), int(begin[-1]), all_columns[where], all_counts[where])
        overflows = np.empty(rows.size - 1, np.bool_)
        mine = sizes[first:last]
        inputs = (moved, all_columns, all_counts, width, rows - first)
        kernels.add(*inputs, slots, mine, columns, counts, overflows)
        if overflows.any():
            raise OverflowError("a sum of counts reached 2^64: these are too many counts for exact integers")
        seen(int(total[last]))
        yield Batch(first, last, mine, rows, slots, columns, counts, int(total[-1]))


def scratch_bytes(width: int) -> int:
    """Return the bytes that counting takes for `width` columns whatever the text: rows of sums, of each thread."""
    return get_num_threads() * (width + 1) * 9


def part_bytes(places: int, separators: int, width: int) -> int:
    """Return the bytes that a part of the text takes while it is counted."""
    return 8 * places + 4 * separators + width * (4 * _pieces(places, width) + 40)


def _pieces(places: int, width: int) -> int:
    return max(1, min(_PIECES, places // (4 * max(width, 1))))  # counts of words in pieces stay smaller than the text


def _stream(kernels: Any, text: Text, begin: int, end: int, window: int) -> tuple[Array, Array]:
    """Return a part of the text with separators and with its neighbours, and where the part begins and ends in it."""
    first, last, offsets = around(text, begin, end, window)
    stream = large(last - first + offsets.size, np.int32)
    kernels.lay_out(text.read(first, last), offsets, text.vocab_size, stream)
    places = np.array([begin, end]) - first
    return stream, places + np.searchsorted(offsets, places, side="right")


def _locations(kernels: Any, stream: Array, edges: Array, width: int) -> tuple[Array, Array]:
    """Return where each word stands: word v at ``stream[positions[starts[v]:starts[v + 1]]]``."""
    begin, end = edges.tolist()
    pieces = _pieces(end - begin, width)
    edges = np.array([begin + (end - begin) * piece // pieces for piece in range(pieces + 1)])
    cursors = large(pieces * width, np.uint32).reshape(pieces, width)
    kernels.histogram(stream, edges, cursors)
    starts = np.concatenate([[0], np.cumsum(cursors.sum(axis=0, dtype=np.int64))])
    next_one = starts[:-1].astype(np.uint32)
    for piece in cursors:
        occurrences = piece.copy()
        piece[:] = next_one
        next_one += occurrences
    positions = large(int(starts[-1]), np.uint32)
    kernels.locate(stream, edges, cursors, positions)
    return starts, positions


def _schedule(room: Array, scratch: int) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Cut rows into blocks of about `_BLOCK` entries, and yield them in batches of about `scratch` of them.

    `room` is what each row can have at most. A batch is ``rows``, where its blocks begin and the last one ends,
    ``slots``, the same in their scratch memory with an entry to spare after each, and that memory.
    """
    ends = np.concatenate([[0], np.cumsum(room)])
    cost = ends + np.arange(ends.size)  # an empty row takes time, too
    block = max(min(_BLOCK, scratch // 4), room.size)  # to clear a row of sums must not cost more than to use it
    columns, counts = Buffer(np.int32), Buffer(np.uint64)
    rows = [0]
    while rows[-1] < room.size:
        rows.append(max(rows[-1] + 1, int(np.searchsorted(cost, cost[rows[-1]] + block, side="right")) - 1))
        if rows[-1] == room.size or ends[rows[-1]] - ends[rows[0]] + block > scratch:
            batch = np.array(rows)
            slots = ends[batch] - ends[rows[0]] + np.arange(batch.size)
            yield batch, slots, columns.take(int(slots[-1])), counts.take(int(slots[-1]))
            rows = rows[-1:]
