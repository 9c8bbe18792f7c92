"""`StreamPacker`.

A backend provides ``complete_rows(sizes, positions, n_held, capacity, ...)``, which holds items one after another and
tells which of them make up the rows that are due.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import integer
from fastnlp._dispatch import backend_of, implementation
from fastnlp.ops._groups import figures_text, share
from fastnlp.ops._lengths import checked_lengths
from fastnlp.ops._overlong import OVERLONG, fitted
from fastnlp.ops._stream_pieces import StreamPieces, StreamRow

_FEW = 8192  # items that NumPy has done before Numba has compiled
_COUNTS = ("n_added", "n_rows", "n_tokens", "n_truncated", "n_split", "n_dropped")


class StreamPacker:
    """Pack a stream of items into rows of `capacity` tokens, of which only a buffer is held.

    Each row is made up around the oldest item that is held, with those of the others whose tokens come closest to the
    room that is left, the older ones first (a subset sum). A row is complete when more than `buffer` items are held,
    and they fill one; so rows have neighbours of the stream, in its order, and no length is put off for long. The rows
    depend on the lengths alone: not on how they are cut into calls, nor on the backend.

    Parameters
    ----------
    capacity
        Tokens that a row can hold.
    buffer
        Items that are held to choose from. More are held only while they do not fill a row.
    max_wait
        No item comes out later than in the call that adds the `max_wait`-th item after it, even if its row is not full.
        None: ``10 * buffer + capacity``, a bound that only unusual lengths meet.
    max_per_bin
        The most items that a row may have; None: any number.
    item_multiple
        The tokens of each item are rounded up to a multiple of it in the row.
    overlong
        What becomes of an item longer than ``capacity // item_multiple * item_multiple`` tokens: "error"; "truncate"
        counts so many tokens, the caller cuts the item; "split" makes pieces of so many tokens and a rest; "drop" puts
        it in no row, but it has its position.
    backend
        "reference" or "cpu", which give the same rows. Default: cpu, from the call that adds the 8,192nd item on; the
        reference has done fewer items before the kernels could be compiled.

    Attributes
    ----------
    n_added
        Items added so far, which is the position of the next one.
    n_rows, n_tokens
        Rows that are complete, and the tokens of their items.
    n_truncated, n_split, n_dropped
        Items that were longer than a row.

    Raises
    ------
    TypeError
        A number is no integer.
    ValueError
        A number is below 1 (`max_wait`: below 0), `capacity` is below `item_multiple`, or `overlong` is unknown.

    References
    ----------
    J. N. D. Gupta and J. C. Ho, "A new heuristic algorithm for the one-dimensional bin-packing problem", Production
    Planning & Control 10, 1999 (a bin at a time, filled as well as possible). K. Fleszar and K. S. Hindi, "New
    heuristics for one-dimensional bin-packing", Computers & Operations Research 29, 2002 (around one fixed item).

    Examples
    --------
    >>> import fastnlp
    >>> packer = fastnlp.StreamPacker(capacity=10, buffer=3)
    >>> [row.items.tolist() for row in packer.add([5, 3, 8, 5, 2])]
    [[0, 3]]
    >>> [row.items.tolist() for row in packer.flush()], packer.report().splitlines()[5]
    ([[1, 4], [2]], 'efficiency  76.667%')
    """

    def __init__(
        self,
        capacity: int,
        buffer: int = 1000,
        max_wait: int | None = None,
        *,
        max_per_bin: int | None = None,
        item_multiple: int = 1,
        overlong: str = "error",
        backend: str | None = None,
    ) -> None:
        self.capacity = integer("capacity", capacity, least=1)
        self.buffer = integer("buffer", buffer, least=1)
        most_wait = 10 * self.buffer + self.capacity
        self.max_wait = most_wait if max_wait is None else integer("max_wait", max_wait, least=0)
        self.max_per_bin = None if max_per_bin is None else integer("max_per_bin", max_per_bin, least=1)
        self.item_multiple = integer("item_multiple", item_multiple, least=1)
        if self.capacity < self.item_multiple:
            raise ValueError(f"capacity must be at least item_multiple, got {capacity} and {item_multiple}")
        if overlong not in OVERLONG:
            raise ValueError(f"overlong must be one of {', '.join(map(repr, OVERLONG))}, got {overlong!r}")
        self.overlong = overlong
        self.n_added = self.n_rows = self.n_tokens = self.n_truncated = self.n_split = self.n_dropped = 0
        self._backend = backend
        backend_of(backend)  # a choice that cannot be honoured is told here
        self._held = StreamPieces.none()
        self._latest: list[int] = []  # lengths of whole items, added one by one after those held

    @property
    def limit(self) -> int:
        """The most tokens that an item, or a piece of one, has in a row."""
        return self.capacity // self.item_multiple * self.item_multiple

    @property
    def n_held(self) -> int:
        """Pieces of items that are held."""
        return self._held.positions.size + len(self._latest)

    @property
    def efficiency(self) -> float:
        """Tokens in the complete rows divided by ``n_rows * capacity``; 1.0 where there are none."""
        return share(self.n_tokens, self.n_rows * self.capacity)

    def add(self, lengths: Any) -> list[StreamRow]:
        """Add items and return the rows that are complete.

        Parameters
        ----------
        lengths
            Tokens of each item, ``(N,)`` integers, or of one.

        Raises
        ------
        TypeError
            Not integers.
        ValueError
            A length is negative or beyond int32, or longer than a row with ``overlong="error"``. Nothing is added then.
        """
        if isinstance(lengths, int | np.integer):
            length = integer("lengths", lengths, least=0)
            if length <= self.limit:
                return self._add_one(length)
            if self.overlong == "error":
                raise ValueError(
                    f"item {self.n_added} of the stream has {length} tokens, beyond the {self.limit} tokens of a row: "
                    "raise capacity, or pass overlong='truncate', 'split' or 'drop'"
                )
            lengths = [length]
        held = self._settled()
        return self._complete(held.then(self._pieces(checked_lengths(lengths))), held.positions.size, self.max_wait)

    def flush(self) -> list[StreamRow]:
        """Return what is held as rows, the last ones not full. The stream may go on."""
        return self._complete(self._settled(), self.n_held - 1, 0) if self.n_held else []

    def report(self) -> str:
        """Return the figures as text, one a line."""
        return figures_text(
            {
                "rows": self.n_rows,
                "capacity": self.capacity,
                "items": self.n_added,
                "held": self.n_held,
                "tokens": self.n_tokens,
                "efficiency": self.efficiency,
                "truncated": self.n_truncated,
                "split": self.n_split,
                "dropped": self.n_dropped,
            }
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what is held and counted, and the settings, as plain numbers and lists."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        return {"settings": self._settings(), **counts, "held": self._settled().to_lists()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was called.

        Raises
        ------
        ValueError
            The state is of a packer with other settings, or is none.
        """
        try:
            settings, counts = dict(state["settings"]), {name: int(state[name]) for name in _COUNTS}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"state is not one of a StreamPacker: {error!r}") from error
        other = [f"{name}={settings.get(name)!r}" for name, x in self._settings().items() if settings.get(name) != x]
        if other:
            raise ValueError(f"state is of a packer with {', '.join(other)}: make this one with the same settings")
        self._held = StreamPieces.from_lists(state.get("held", {}), limit=self.limit, end=counts["n_added"])
        self._latest = []
        for name, count in counts.items():
            setattr(self, name, count)

    def _settings(self) -> dict[str, Any]:
        names = ("capacity", "buffer", "max_wait", "max_per_bin", "item_multiple", "overlong")
        return {name: getattr(self, name) for name in names}

    def _add_one(self, length: int) -> list[StreamRow]:
        """Add one item that fits; no array is touched before a row may be due."""
        held = self._held.positions
        oldest = int(held[0]) if held.size else self.n_added - len(self._latest)
        self._latest.append(length)
        self.n_added += 1
        if self.n_held <= self.buffer and self.n_added - 1 - oldest < self.max_wait:
            return []
        return self._complete(self._settled(), self.n_held - 1, self.max_wait)

    def _settled(self) -> StreamPieces:
        """Return all that is held, as arrays."""
        if self._latest:
            lengths = np.array(self._latest, np.int64)
            positions = np.arange(self.n_added - lengths.size, self.n_added)
            self._held, self._latest = self._held.then(StreamPieces(positions, np.zeros_like(lengths), lengths)), []
        return self._held

    def _pieces(self, lengths: Array) -> StreamPieces:
        """Give new items their positions, and cut those longer than a row."""
        fit = fitted(lengths, self.limit, self.overlong, row=f"the {self.limit} tokens of a row")
        pieces = StreamPieces.of(fit, self.n_added, lengths.size)
        self.n_added += lengths.size
        self.n_truncated += fit.n_truncated
        self.n_split += fit.n_split
        self.n_dropped += fit.n_dropped
        return pieces

    def _kernels(self) -> ModuleType:
        chosen = self._backend or os.environ.get("FASTNLP_BACKEND")
        few = self.n_added <= _FEW and not chosen
        return implementation("stream_packer", "reference" if few else backend_of(self._backend))

    def _complete(self, pieces: StreamPieces, n_held: int, max_wait: int) -> list[StreamRow]:
        """Return the rows that are due as the pieces from n_held on come in; hold the rest."""
        n, multiple = pieces.lengths.size, self.item_multiple
        sizes = -(-pieces.lengths // multiple)  # -1 stays below 0
        taken, row_ptr, used = np.empty(n, np.int64), np.empty(n + 1, np.int64), np.empty(3, np.int64)
        self._kernels().complete_rows(
            np.where(pieces.lengths < 0, -1, sizes),
            pieces.positions,
            n_held,
            self.capacity // multiple,
            self.buffer,
            max_wait,
            self.max_per_bin or n + 1,
            taken,
            row_ptr,
            used,
        )
        rows, placed, held = used.tolist()
        done, self._held = pieces.take(taken[:placed]), pieces.take(taken[placed : placed + held])
        self.n_rows += rows
        self.n_tokens += int(done.lengths.sum())
        return done.rows(row_ptr[: rows + 1], with_starts=self.overlong == "split")
