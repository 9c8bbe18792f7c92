"""How the rows of a packing become the tensors that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastnlp._arrays import Array
from fastnlp.ops._layout import LAYOUTS
from fastnlp.ops._packing import Packing
from fastnlp.ops.pack_arrays import pack_arrays

Row = dict[str, Any]

_OF_PLACES = ("input_ids", "position_ids", "labels", "sequence_ids")
FIELDS = (*_OF_PLACES, "cu_seqlens", "max_seqlen")


@dataclass(frozen=True)
class RowFormat:
    """The fields of a row, and what goes where there is no token."""

    layout: str
    fields: tuple[str, ...]
    pad: int
    ignore_index: int
    position_start: int

    @classmethod
    def checked(cls, layout: str, fields: Sequence[str], pad: int, ignore_index: int, position_start: int) -> RowFormat:
        """Return a format after checking its names; numbers are checked when rows are made.

        Raises
        ------
        ValueError
            An unknown layout or field.
        """
        for name, values, known in (("layout", (layout,), LAYOUTS), ("fields", fields, FIELDS)):
            unknown = [value for value in values if value not in known]
            if unknown or isinstance(values, str):
                raise ValueError(f"{name} must be of {', '.join(map(repr, known))}, got {unknown or values!r}")
        return cls(layout, tuple(fields), pad, ignore_index, position_start)

    def rows(self, sequences: Any, packing: Packing, labels: Any = None) -> list[Row]:
        """Return the rows of a packing, assembled by one call; they share their memory."""
        packed = pack_arrays(
            sequences,
            packing,
            layout=self.layout,
            pad=self.pad,
            labels=labels,
            ignore_index=self.ignore_index,
            position_start=self.position_start,
        )
        ends = packed.cu_seqlens_padded[packing.row_ptr].tolist() if self.layout == "flat" else []
        rows = []
        for r, first in enumerate(packing.row_ptr[:-1].tolist()):
            place = slice(ends[r], ends[r + 1]) if ends else r
            whole = {name: getattr(packed, name)[place] for name in _OF_PLACES}
            numbers = whole["sequence_ids"]
            if ends and "sequence_ids" in self.fields:
                whole["sequence_ids"] = np.where(numbers, numbers - first, 0)
            row: Row = {name: torch.from_numpy(x) for name, x in whole.items() if name in self.fields}
            if "cu_seqlens" in self.fields:
                row["cu_seqlens"] = torch.from_numpy(_changes(numbers))
            if "max_seqlen" in self.fields:
                row["max_seqlen"] = int(np.diff(_changes(numbers)).max(initial=0))
            rows.append(row)
        return rows


def _changes(numbers: Array) -> Array:
    """Return where each stretch of equal numbers begins, and the end, ``(stretches + 1,)`` int32."""
    edges = np.flatnonzero(np.diff(numbers)) + 1
    return np.concatenate([[0], edges, [numbers.size]]).astype(np.int32)[0 if numbers.size else 1 :]


def on_cpu(name: str, x: Any) -> None:
    """Raise TypeError where `x` is a tensor on another device."""
    if isinstance(x, Tensor) and x.device.type != "cpu":
        raise TypeError(f"{name} is on {x.device}, rows are made on the CPU: pass {name} as a CPU tensor")
