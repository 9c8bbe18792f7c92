"""The rows of a stream with their tokens, and how they are dealt to ranks in steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp.ops._columns import array
from fastnlp.ops._groups import pointer
from fastnlp.ops._packing import Packing, squares
from fastnlp.ops._stream_pieces import StreamRow
from fastnlp.ops.stream_packer import StreamPacker


class Piece(NamedTuple):
    """Tokens that stand together in a row, and their labels; None: the tokens themselves."""

    tokens: Array
    labels: Array | None

    def cut(self, begin: int, end: int) -> Piece:
        """Return the stretch from `begin` to `end`."""
        return Piece(self.tokens[begin:end], None if self.labels is None else self.labels[begin:end])


class RowStream:
    """The rows that a packer completes from a stream, with their tokens, in the order in which they are complete.

    What has come in and is not in a row that was taken is held. `ready` are the rows that can be taken, as pieces.
    """

    def __init__(self, packer: StreamPacker, limit: int) -> None:
        self._packer, self._limit = packer, limit
        self._held: dict[int, tuple[Piece, int]] = {}  # by position: a sequence, and how many pieces of it are to come
        self.ready: list[list[Piece]] = []

    @property
    def n_read(self) -> int:
        """Sequences that have come in."""
        return self._packer.n_added

    def add(self, example: Any) -> None:
        """Take in a sequence: its tokens, or a mapping with "input_ids" and perhaps "labels"."""
        sequence = _read(example)
        n, position = sequence.tokens.size, self._packer.n_added
        dropped = self._packer.n_dropped
        rows = self._packer.add(n)
        if self._packer.n_dropped == dropped:
            pieces = max(1, -(-n // self._limit)) if self._packer.overlong == "split" else 1
            self._held[position] = sequence, pieces
        self.ready += map(self._pieces, rows)

    def finish(self) -> None:
        """Make rows of all that is held."""
        self.ready += map(self._pieces, self._packer.flush())

    def take(self, n: int) -> list[list[Piece]]:
        """Return the first n rows that are ready; they are no longer held."""
        rows, self.ready = self.ready[:n], self.ready[n:]
        return rows

    def fill_up(self, multiple: int) -> None:
        """Halve rows until the number of those ready divides: those of most pieces first, then the longest pieces.

        Raises
        ------
        ValueError
            There are fewer tokens than that.
        """
        rows = self.ready
        for _ in range(-len(rows) % multiple):
            k = max(range(len(rows)), key=lambda k: (len(rows[k]), sum(piece.tokens.size for piece in rows[k])))
            row = rows[k]
            middle = (len(row) + 1) // 2
            halves = [row[:middle], row[middle:]]
            if len(row) == 1:
                n = row[0].tokens.size
                if n < 2:
                    raise ValueError(f"the stream has too few tokens for {multiple} ranks: pass drop_last=True")
                halves = [[row[0].cut(0, (n + 1) // 2)], [row[0].cut((n + 1) // 2, n)]]
            rows[k : k + 1] = halves

    def _pieces(self, row: StreamRow) -> list[Piece]:
        pieces = []
        starts = np.zeros_like(row.items) if row.starts is None else row.starts
        for item, start in zip(row.items.tolist(), starts.tolist(), strict=True):
            sequence, left = self._held.pop(item)
            if left > 1:
                self._held[item] = sequence, left - 1
            pieces.append(sequence.cut(start, start + self._limit))
        return pieces

    def state_dict(self) -> dict[str, Any]:
        """Return what is held, as plain numbers and lists."""
        held = [[item, *_lists(sequence), left] for item, (sequence, left) in self._held.items()]
        return {"packer": self._packer.state_dict(), "held": held, "ready": [list(map(_lists, r)) for r in self.ready]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was called.

        Raises
        ------
        ValueError
            The state is of a packer with other settings, or is none.
        """
        try:
            held = {int(item): (_piece(tokens, labels), int(left)) for item, tokens, labels, left in state["held"]}
            ready = [[_piece(*lists) for lists in row] for row in state["ready"]]
            packer = state["packer"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"state is not one of a stream of rows: {error!r}") from error
        self._packer.load_state_dict(packer)
        self._held, self.ready = held, ready


def packing_of_one_row(pieces: list[Piece], capacity: int, item_multiple: int) -> Packing:
    """Return the packing that says that pieces 0, 1, 2, ... make up one row."""
    lengths = np.array([piece.tokens.size for piece in pieces], np.int32)
    row_ptr = pointer(np.array([lengths.size]))
    return Packing(
        row_ptr,
        np.arange(lengths.size),
        lengths,
        None,
        lengths.sum(keepdims=True, dtype=np.int64),
        squares(lengths, row_ptr),
        capacity,
        item_multiple,
        lower_bound=1,
        n_truncated=0,
        n_split=0,
        n_dropped=0,
    )


def _read(example: Any) -> Piece:
    labels = None
    if isinstance(example, Mapping):
        if "input_ids" not in example:
            raise ValueError(f"an example of the stream has no 'input_ids', but {', '.join(map(repr, example))}")
        example, labels = example["input_ids"], example.get("labels")
    tokens = _numbers("input_ids", example)
    if labels is None:
        return Piece(tokens, None)
    numbers = _numbers("labels", labels)
    if numbers.size != tokens.size:
        raise ValueError(
            f"an example of the stream has {tokens.size} tokens and {numbers.size} labels: pass one a token"
        )
    return Piece(tokens, numbers)


def _numbers(name: str, x: Any) -> Array:
    numbers = array(name, x)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be integers of one axis, got {numbers.dtype.name} of shape {numbers.shape}")
    return numbers.copy() if numbers.size else np.empty(0, np.int64)  # the source may fill its buffer anew


def _lists(piece: Piece) -> list[Any]:
    return [piece.tokens.tolist(), None if piece.labels is None else piece.labels.tolist()]


def _piece(tokens: list[int], labels: list[int] | None) -> Piece:
    return Piece(np.array(tokens, np.int64), None if labels is None else np.array(labels, np.int64))
