"""Co-occurrence counts of ids on a GPU: the text there, how it is cut, and its rows, which come to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastnlp._arrays import Array, kernel_ready
from fastnlp._device import DeviceArray
from fastnlp._dispatch import implementation
from fastnlp.ops._cooccurrence_plan import Plan
from fastnlp.ops._cooccurrence_rows import Batch, Question
from fastnlp.ops._cooccurrence_text import around, outside

_PIECE = 1 << 24  # ids that are looked at at once
_MOST = 1 << 30  # places of a part
_WORK = 1 << 30  # bytes that counting takes beside the text, where no budget is given
_PLACE = 8  # bytes: a place in the stream and its position
_SCRATCH = 1 << 21  # entries that are added at once, when there are several parts
_BLOCK = 1 << 16  # entries that one thread of the host moves to the result


class DeviceText:
    """Documents of ids on a GPU, as `Text` has them on the host; the host waits for the checks."""

    mapped = False

    def __init__(self, ids: DeviceArray, offsets: Array, vocab_size: int, oov: str | None) -> None:
        self.library, self._kernels = ids.library, implementation("cooccurrence", "cuda")
        self.ids, self.offsets, self.vocab_size = ids, offsets, vocab_size
        self._check(oov)
        self.size = int(self.offsets[-1])
        self.longest = int(np.diff(self.offsets).max(initial=0))

    def read(self, begin: int, end: int) -> DeviceArray:
        """Return the ids in [begin, end), as int32."""
        return self.library.ready(self.ids[begin:end].astype(np.int32, copy=False))

    def fingerprint(self) -> str:
        """Return the hash that `Text` has; the ids are copied to the host for it."""
        from hashlib import blake2b

        digest = blake2b(digest_size=16)
        for begin in range(0, self.size, _PIECE):
            digest.update(self.library.read(self.read(begin, min(begin + _PIECE, self.size))).data)
        digest.update(kernel_ready(self.offsets).data)
        return digest.hexdigest()

    def occurrences(self) -> Array:
        """Return how often each word occurs."""
        counts = self.library.empty((1, self.vocab_size), np.int64)
        total = np.zeros(self.vocab_size, np.int64)
        for begin in range(0, self.size, _MOST):
            piece = self.read(begin, min(begin + _MOST, self.size))
            self._kernels.histogram(piece, [0, len(piece)], counts)
            total += self.library.read(counts)[0]
        return total

    def _check(self, oov: str | None) -> None:
        """Check all ids, and drop those of -1 if they are to be closed up."""
        library, n = self.library, len(self.ids)
        closing = oov == "close"
        offsets, closed, filled = self.offsets.copy(), None, 0
        for at in range(0, n, _PIECE):
            piece = library.ready(self.ids[at : min(at + _PIECE, n)].astype(np.int64, copy=False))
            wrong, known = library.zeros(1, np.int64), library.empty(len(piece), np.uint8) if closing else None
            self._kernels.check(piece, 0 if oov is None else -1, self.vocab_size, wrong, known)
            left = int(library.read(wrong)[0])
            if left:
                first = len(piece) - left
                value = int(library.read(piece[first : first + 1])[0])
                raise outside(value, at + first, self.vocab_size)
            if known is not None:
                closed = library.empty(n, np.int32) if closed is None else closed
                kept = library.nonzero(known)
                inside = slice(*np.searchsorted(self.offsets, [at, at + len(piece)]).tolist())
                if inside.start < inside.stop:
                    found = library.empty(inside.stop - inside.start, np.int64)
                    self._kernels.rank(kept, library.upload(self.offsets[inside] - at), found)
                    offsets[inside] = filled + library.read(found)
                if len(kept):
                    library.copy(library.take(piece, kept).astype(np.int32), closed[filled : filled + len(kept)])
                filled += len(kept)
        if closed is not None:
            offsets[self.offsets == n] = filled
            self.ids, self.offsets = closed[:filled], offsets


def plan_of(text: DeviceText, question: Question, memory: int | None) -> Plan:
    """Return the plan with the fewest parts that keeps to a budget for the memory of the GPU, beside the ids.

    Raises
    ------
    ValueError
        The budget is too small.
    """
    text_bytes = _PLACE * (text.size + 2 * question.reach) + 4 * text.offsets.size + 8 * text.offsets.size
    always = 16 * question.width + 24 * question.rows
    least = 40 * max(1, question.width)  # one row
    if memory is None:
        places, work = _MOST, max(_WORK, least)
    else:
        work = max(least, min(_WORK, (memory - always) // 4))
        places = (memory - always - work - (text_bytes - _PLACE * text.size)) // _PLACE
        if places < min(text.size, 1 << 16):
            enough = always + 4 * least // 3 + text_bytes - _PLACE * max(0, text.size - (1 << 16))
            raise ValueError(
                f"memory must be at least {-(-enough // 10**6)} MB for this text and vocabulary, "
                f"got {memory / 1e6:g} MB"
            )
    parts = max(1, -(-text.size // min(places, _MOST)))
    return Plan(max(1, -(-text.size // parts)), parts, work, _SCRATCH)


def count_rows(
    kernels: Any, text: DeviceText, begin: int, end: int, question: Question, work: int, seen: Callable[[int], None]
) -> Iterator[Batch]:
    """Count as `_cooccurrence_rows.count_rows` does; `work` is how many bytes of the GPU counting takes at a time."""
    with text.library.memory_errors("a budget takes less, such as memory='500MB'"):
        yield from _count_rows(kernels, text, begin, end, question, work, seen)


def _count_rows(
    kernels: Any, text: DeviceText, begin: int, end: int, question: Question, work: int, seen: Callable[[int], None]
) -> Iterator[Batch]:
    library, width = text.library, question.width
    stream, edges = _stream(kernels, text, begin, end, question.reach)
    starts, positions = _locations(kernels, stream, edges, width)
    occurrences = np.diff(starts)[question.words]
    pairs = occurrences * (question.reach * (question.left + question.right))
    room = np.minimum(pairs, width)
    sizes = np.empty(question.rows, np.int64)
    done = np.concatenate([[0], np.cumsum(occurrences)])
    options = (question.words, question.weights, question.left, question.right, question.upper)
    most = max(1, kernels.KEYS // (max(1, width) << question.reach.bit_length()))
    for first, last in _schedule(kernels.row_bytes(pairs, width), work, most):
        rows, slots = np.array([first, last]), np.array([0, int(room[first:last].sum())])
        columns, counts = library.empty(int(slots[1]), np.int32), library.empty(int(slots[1]), np.int64)
        if slots[1]:
            kernels.count(stream, starts, positions, *options, rows, slots, sizes, columns, counts)
        else:
            sizes[first:last] = 0
        yield _batch(first, last, sizes[first:last], library, columns, counts, int(room.sum()))
        seen(int(done[last]))


def _batch(first: int, last: int, sizes: Array, library: Any, columns: Any, counts: Any, room: int) -> Batch:
    """Bring rows to the host, cut into pieces."""
    ends = np.concatenate([[0], np.cumsum(sizes)])
    n = int(ends[-1])
    cuts = np.searchsorted(ends, np.arange(0, n, _BLOCK), side="left")
    rows = np.unique(np.concatenate([[0], cuts, [last - first]]))
    on_host = library.read(columns[:n]), library.read(counts[:n]).view(np.uint64)
    return Batch(first, last, sizes, rows + first, ends[rows], *on_host, room)


def _schedule(row_bytes: Array, work: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut rows into batches that take about `work` bytes, a row at least, and `most` rows."""
    ends = np.concatenate([[0], np.cumsum(row_bytes + 24)])
    first = 0
    while first < row_bytes.size:
        last = int(np.searchsorted(ends, ends[first] + work, side="right")) - 1
        last = min(max(last, first + 1), first + most, row_bytes.size)
        yield first, last
        first = last


def _stream(kernels: Any, text: DeviceText, begin: int, end: int, window: int) -> tuple[DeviceArray, Array]:
    """Return a part of the text with separators and with its neighbours, and where the part begins and ends in it."""
    first, last, offsets = around(text, begin, end, window)
    stream = text.library.empty(last - first + offsets.size, np.int32)
    kernels.lay_out(text.read(first, last), offsets, text.vocab_size, stream)
    places = np.array([begin, end]) - first
    return stream, places + np.searchsorted(offsets, places, side="right")


def _locations(kernels: Any, stream: DeviceArray, edges: Array, width: int) -> tuple[Array, DeviceArray]:
    """Return where each word stands: word v at ``stream[positions[starts[v]:starts[v + 1]]]``."""
    library = stream.library
    counts = library.empty((1, width), np.int64)
    kernels.histogram(stream, edges, counts)
    starts = np.concatenate([[0], np.cumsum(library.read(counts)[0])])
    positions = library.empty(int(starts[-1]), np.int32)
    kernels.locate(stream, edges, library.upload(starts[None, :-1]), positions)
    return starts, positions
