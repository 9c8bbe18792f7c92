"""All parts of a run, the important ones first: what does not fit into the time is what stands last."""

from __future__ import annotations

from bench.gpu import batches, launches, losses, rows, words
from bench.gpu.part import Part


def parts() -> list[Part]:
    """Return the parts in their order."""
    return [
        *losses.main(),
        *rows.main(),
        *words.main(),
        *launches.parts(),
        *losses.sweep(),
        *losses.dtypes(),
        *rows.more(),
        *batches.parts(),
        *losses.grid(),
        *words.more(),
    ]
