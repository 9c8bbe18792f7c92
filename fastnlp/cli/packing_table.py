"""A line of the table of packings, for the terminal and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fastnlp import Packing


class Packed(NamedTuple):
    """One line of the table."""

    capacity: int
    algorithm: str
    packing: Packing
    seconds: float


def cells(line: Packed) -> tuple[str, ...]:
    """Return the cells of a line of the table; "fewest possible" is the proven lower bound."""
    packing = line.packing
    overlong = [
        f"{n:,} {verb}"
        for n, verb in (
            (packing.n_truncated, "truncated"),
            (packing.n_split, "split"),
            (packing.n_dropped, "dropped"),
        )
        if n
    ]
    return (
        f"{line.capacity:,}",
        line.algorithm,
        f"{len(packing):,}",
        f"{packing.lower_bound:,}",
        f"{packing.efficiency:.3%}",
        ", ".join(overlong) or "none",
        f"{1e3 * line.seconds:,.1f} ms",
    )
