"""`PackedDataset`: the rows of a packing, for a DataLoader."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from fastnlp.ops._packing import Packing
from fastnlp.ops._ragged import sequence_lengths
from fastnlp.ops.pack import pack
from fastnlp.torch._rows import Row, RowFormat, on_cpu


class PackedDataset(Dataset[Row]):
    """Rows of packed sequences, each a dictionary of tensors; ``len(dataset)`` is the number of rows.

    A row is assembled when it is asked for, those of a batch by one call. What a worker gets is the sequences as they
    are and the packing.

    Parameters
    ----------
    sequences
        Sequences of integer tokens, in any form that `fastnlp.pack_arrays` takes; or a function without arguments that
        returns them, called once in each process: for data that should be opened in a worker, not sent there (a
        `Corpus` or an array that is mapped from a file: ``functools.partial(Corpus.load, path)``).
    packing
        Their packing, or rows of it, such as ``packing.shard(rank, world_size)``; or a capacity, for
        ``pack(sequence_lengths(sequences), capacity)``.
    labels
        Sequences of labels, of the same lengths, or a function that returns them. None: the tokens themselves.
    layout
        "rows": each row has `capacity` places, the last ones padded, so that rows can be stacked to batches. "flat":
        without that padding, for `FlatteningCollator` or ``batch_size=None``.
    fields
        What a row has: of "input_ids", "position_ids", "labels", "sequence_ids" (1, 2, ... for the sequences of the
        row, 0 where there is padding), int64; "cu_seqlens" (int32, where each sequence and each run of padding begins,
        and the end; sequences without tokens are not told) and "max_seqlen" (an int).
    pad, ignore_index, position_start
        As for `fastnlp.pack_arrays`.

    Raises
    ------
    TypeError
        `packing` is no `Packing` and no integer; a tensor that is not on the CPU.
    ValueError
        An unknown layout or field; when a row is made, all that `fastnlp.pack_arrays` finds.

    Notes
    -----
    A row has several sequences, and a model must not attend from one to another. FlashAttention is told by
    `FlatteningCollator`. Other attentions of transformers see it from the `position_ids`, but only where nothing is
    cached: in a `Trainer`, or with ``model(**batch, use_cache=False)``.

    Examples
    --------
    >>> from fastnlp.torch import PackedDataset
    >>> dataset = PackedDataset([[5, 6, 7], [8, 9, 4, 3], [2]], 4)
    >>> len(dataset), dataset[1]["input_ids"].tolist(), dataset[1]["position_ids"].tolist()
    (2, [5, 6, 7, 2], [0, 1, 2, 0])
    """

    def __init__(
        self,
        sequences: Any,
        packing: Packing | int,
        *,
        labels: Any = None,
        layout: str = "rows",
        fields: Sequence[str] = ("input_ids", "position_ids", "labels"),
        pad: int = 0,
        ignore_index: int = -100,
        position_start: int = 0,
    ) -> None:
        self._given = {"sequences": sequences, "labels": labels}
        for name, x in self._given.items():
            on_cpu(name, x)
        self._opened: dict[str, Any] = {}
        self._format = RowFormat.checked(layout, fields, pad, ignore_index, position_start)
        if not isinstance(packing, Packing):
            packing = pack(sequence_lengths(self._open("sequences")), packing)
        self.packing = packing

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.packing)

    def __getitem__(self, row: int) -> Row:
        """Return one row."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Row]:
        """Return several rows, assembled by one call: what a DataLoader asks for."""
        chosen = self.packing[[operator.index(row) for row in rows]]
        return self._format.rows(self._open("sequences"), chosen, self._open("labels"))

    def _open(self, name: str) -> Any:
        given = self._given[name]
        if not callable(given):
            return given
        if name not in self._opened:
            self._opened[name] = given()
        return self._opened[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}
