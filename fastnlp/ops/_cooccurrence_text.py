"""The text whose words are counted: ids, checked, and read in pieces."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnlp._arrays import Array, integers, kernel_ready, on_device, read
from fastnlp._checks import integer
from fastnlp._device import of
from fastnlp.ops._cooccurrence_buffers import large

_PIECE = 1 << 20  # ids that are looked at at once


class Text:
    """Documents of ids; -1 is a gap, and nothing else is outside the vocabulary.

    With `sparing`, what is read of ids that are mapped from a file does not stay in memory.
    """

    def __init__(self, ids: Array, offsets: Array, vocab_size: int, oov: str | None, *, sparing: bool) -> None:
        self.ids = ids
        self._mapped = _map_of(ids) if sparing else None
        self.vocab_size = vocab_size
        self.offsets = offsets
        """``(documents + 1,)``: where documents begin, in what `read` counts."""
        known = self._check(oov)
        self._known: Array | None = None
        """Where ids of -1 are closed up: how many others there are before each piece."""
        if oov == "close" and int(known[-1]) < ids.size:
            self._known = known
            self.offsets = self._closed(offsets)
        self.size = int(self.offsets[-1])
        """The number of words, and of gaps that are kept."""
        self.longest = int(np.diff(self.offsets).max(initial=0))
        """The length of the longest document."""

    @property
    def mapped(self) -> bool:
        """Whether the ids are read from a file when they are needed."""
        return self._mapped is not None

    @property
    def nbytes(self) -> int:
        """The bytes of it that are in memory all the time."""
        return self.offsets.nbytes + (0 if self._mapped is not None else self.ids.nbytes)

    def read(self, begin: int, end: int) -> Array:
        """Return the ids in [begin, end), as int32."""
        if self._known is None:
            if self._mapped is None:
                return kernel_ready(np.asarray(self.ids[begin:end]).astype(np.int32, copy=False))
            found, filled = large(end - begin, np.int32), 0
            for _, piece in self._pieces(begin, end):
                found[filled : filled + piece.size] = piece
                filled += piece.size
            return found
        first = int(np.searchsorted(self._known, begin, side="right")) - 1
        skip, wanted = begin - int(self._known[first]), end - begin
        found, filled = large(wanted, np.int32), 0
        for _, piece in self._pieces(first * _PIECE, self.ids.size):
            words = piece[piece >= 0][skip : skip + wanted - filled]
            found[filled : filled + words.size] = words
            filled, skip = filled + words.size, 0
            if filled == wanted:
                break
        return found

    def fingerprint(self) -> str:
        """Return a hash of the ids and the documents."""
        from hashlib import blake2b

        digest = blake2b(digest_size=16)
        for begin in range(0, self.size, _PIECE):
            digest.update(self.read(begin, min(begin + _PIECE, self.size)).data)
        digest.update(kernel_ready(self.offsets).data)
        return digest.hexdigest()

    def occurrences(self) -> Array:
        """Return how often each word occurs."""
        counts = np.zeros(self.vocab_size, np.int64)
        for begin in range(0, self.size, _PIECE):
            piece = self.read(begin, min(begin + _PIECE, self.size))
            counts += np.bincount(piece[piece >= 0], minlength=self.vocab_size)
        return counts

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[int, Array]]:
        """Yield where each piece of the ids as they were given begins, and the piece."""
        for at in range(begin, end, _PIECE):
            piece = self.ids[at : min(at + _PIECE, end)]
            yield at, piece
            if self._mapped is not None:
                _release(self._mapped, piece)

    def _check(self, oov: str | None) -> Array:
        """Return how many ids that are not -1 stand before each piece, and in all."""
        known = [0]
        for at, piece in self._pieces(0, self.ids.size):
            least, most = int(piece.min()), int(piece.max())
            if most >= self.vocab_size or least < (0 if oov is None else -1):
                wrong = int(((piece >= self.vocab_size) | (piece < (0 if oov is None else -1))).argmax())
                raise outside(int(piece[wrong]), at + wrong, self.vocab_size)
            known.append(known[-1] + (piece.size if least >= 0 else int(np.count_nonzero(piece >= 0))))
        return np.array(known)

    def _closed(self, offsets: Array) -> Array:
        """Return the offsets of the documents without the ids of -1."""
        assert self._known is not None
        closed = np.empty_like(offsets)
        for at, piece in self._pieces(0, self.ids.size):
            inside = slice(*np.searchsorted(offsets, [at, at + piece.size]))
            before = np.concatenate([[0], np.cumsum(piece >= 0)])
            closed[inside] = self._known[at // _PIECE] + before[offsets[inside] - at]
        closed[offsets == self.ids.size] = self._known[-1]
        return closed


def outside(word: int, at: int, vocab_size: int) -> ValueError:
    """Return the error for an id that is outside of the vocabulary."""
    remedy = "drop unknown words first"
    if word == -1:
        remedy = "oov='close' drops words of -1, oov='gap' keeps their places"
    return ValueError(f"the ids hold {word} at {at}, outside [0, vocab_size={vocab_size}): {remedy}")


def around(text: Any, begin: int, end: int, window: int) -> tuple[int, int, Array]:
    """Return the places [begin, end) with their neighbours, and where documents begin and end in them."""
    first, last = max(0, begin - window), min(text.size, end + window)
    if first == 0 and last == text.size:
        return first, last, text.offsets
    inside = slice(*np.searchsorted(text.offsets, [first + 1, last]))
    return first, last, np.concatenate([[first], text.offsets[inside], [last]]) - first


def text_of(source: Any, vocab_size: int | None, boundaries: Any, oov: str | None, *, sparing: bool) -> Any:
    """Return the checked text of a corpus or of ids: a `Text`, or a `DeviceText` if they are on a GPU."""
    if oov not in (None, "close", "gap"):
        raise ValueError(f"oov must be 'close', 'gap' or None, got {oov!r}")
    corpus = source if all(hasattr(source, name) for name in ("ids", "offsets", "vocab")) else None
    if corpus is not None:
        if vocab_size is not None:
            raise ValueError("vocab_size is for plain ids: a corpus brings its own, leave it out")
        source, vocab_size, oov = corpus.ids, len(corpus.vocab), oov or "gap"
    elif vocab_size is None:
        raise ValueError("vocab_size is needed for plain ids: give the number of words, or pass a corpus")
    vocab_size = integer("vocab_size", vocab_size, least=0)
    there = on_device(source)
    ids: Any = of(source) if there else read("the ids", source)
    if ids.size == 0 and not isinstance(source, np.ndarray) and not there:
        ids = ids.astype(np.int32)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"the ids must be integers, got {ids.dtype.name}")
    if ids.ndim != 1:
        raise ValueError(f"the ids must have one axis, got shape {ids.shape}: give documents by boundaries=")
    offsets = _offsets(boundaries, corpus, ids.size)
    if there:
        from fastnlp.ops._cooccurrence_device import DeviceText

        return DeviceText(ids, offsets, vocab_size, oov)
    return Text(ids, offsets, vocab_size, oov, sparing=sparing)


def _offsets(boundaries: Any, corpus: Any, size: int) -> Array:
    if boundaries is None and corpus is not None:
        boundaries = corpus.offsets
    elif isinstance(boundaries, str):
        if boundaries != "sentences":
            raise ValueError(f"boundaries must be 'sentences', an array, False or None, got {boundaries!r}")
        boundaries = getattr(corpus, "sentences", None)
        if boundaries is None:
            raise ValueError("boundaries='sentences' needs a corpus that knows its sentences: give an array instead")
    if boundaries is None or boundaries is False:
        return np.array([0, size])
    if on_device(boundaries):
        boundaries = of(boundaries).library.read(of(boundaries))
    offsets = integers("boundaries", boundaries)
    if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
        raise ValueError(f"boundaries must ascend from 0 to the number of ids, {size}, got {offsets}")
    return kernel_ready(np.asarray(offsets))


def _map_of(array: Array) -> mmap.mmap | None:
    """Return the map that `array` is a view of, if its pages can be let go: it is for reading only."""
    base: Any = array if array.flags.c_contiguous else None
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise"):
        return None
    with memoryview(base) as view:
        return base if view.readonly else None  # what was changed in a private map is nowhere else


def _release(mapped: mmap.mmap, array: Array) -> None:
    """Let the pages go that `array` is in: they are still in the file."""
    start = array.__array_interface__["data"][0] - np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
    begin = start // mmap.PAGESIZE * mmap.PAGESIZE
    mapped.madvise(mmap.MADV_DONTNEED, begin, start + array.nbytes - begin)
