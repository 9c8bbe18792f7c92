"""Where the pieces of a packing go: in one flat array, or in rows of the capacity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._groups import pointer
from fastnlp.ops._packing import Packing
from fastnlp.ops._ragged import Ragged

LAYOUTS = ("flat", "rows")


@dataclass(frozen=True, eq=False)
class Layout:
    """Places for P pieces. Arrays are int64.

    Attributes
    ----------
    shape
        Of the arrays that the pieces go to, which have ``places`` places in all.
    place, lengths
        Where each piece begins, and its tokens, ``(P,)``.
    starts
        The first token of each piece in its sequence; None: 0.
    limit
        Where the packing cut sequences, the most tokens that a piece may have; None: all are whole.
    segments
        Where each piece and each run of padding begins, and `places`.
    number
        Of each segment: that of the piece, from 1; 0 for padding.
    """

    shape: tuple[int, ...]
    places: int
    place: Array
    lengths: Array
    starts: Array | None
    limit: int | None
    segments: Array
    number: Array

    @property
    def padded(self) -> bool:
        return self.number.size > self.place.size

    def cut(self, name: str, sequences: Ragged) -> Ragged:
        """Return the pieces of the packed sequences.

        Raises
        ------
        ValueError
            A sequence does not have the length that was packed.
        """
        starts = np.int64(0) if self.starts is None else self.starts
        rest = sequences.lengths - starts
        wrong = (rest if self.limit is None else np.minimum(rest, self.limit)) != self.lengths
        if wrong.any():
            k = int(wrong.argmax())
            raise ValueError(
                f"{name} do not have the lengths that were packed: piece {k} of the packing has {int(self.lengths[k])} "
                f"tokens, its sequence {int(sequences.lengths[k])}: pass what the packing was made of"
            )
        return Ragged(sequences.chunks, sequences.chunk, sequences.begin + starts, self.lengths)


def flat_layout(lengths: Array) -> Layout:
    """Return the layout of sequences one after another, without padding."""
    segments = pointer(lengths)
    places = int(segments[-1])
    number = np.arange(1, lengths.size + 1)
    return Layout((places,), places, segments[:-1], lengths, None, None, segments, number)


def packed_layout(packing: Packing, layout: str) -> Layout:
    """Return the layout of a packing's rows: one after another ("flat"), or of `capacity` places each ("rows")."""
    multiple, capacity = packing.item_multiple, packing.capacity
    lengths = packing.lengths.astype(np.int64)
    sizes = lengths if multiple == 1 else -(-lengths // multiple) * multiple
    ends = pointer(sizes)
    place = ends[:-1]
    number = np.arange(1, lengths.size + 1)
    if layout == "flat":
        places = int(ends[-1])
        shape: tuple[int, ...] = (places,)
    else:
        rows, counts = len(packing), np.diff(packing.row_ptr)
        place = place + np.repeat(np.arange(rows) * capacity - ends[packing.row_ptr[:-1]], counts)
        number -= np.repeat(packing.row_ptr[:-1], counts)
        places, shape = rows * capacity, (rows, capacity)
    segments, number = _segments(place, lengths, places, number)
    starts = None if packing.starts is None else packing.starts.astype(np.int64)
    limit = capacity // multiple * multiple if packing.n_truncated or packing.n_split else None
    return Layout(shape, places, place, lengths, starts, limit, segments, number)


def _segments(place: Array, lengths: Array, places: int, number: Array) -> tuple[Array, Array]:
    """Return where each piece and each run of padding begins, and the end, and the numbers of these segments."""
    n = place.size
    begin = np.empty(2 * n + 2, np.int64)  # a run of padding before each piece and after the last, then the end
    begin[0] = 0
    begin[1:-1:2] = place
    begin[2:-1:2] = place + lengths
    begin[-1] = places
    numbers = np.zeros(2 * n + 1, np.int64)
    numbers[1::2] = number
    kept = (numbers > 0) | (begin[1:] > begin[:-1])
    return np.append(begin[:-1][kept], places), numbers[kept]
