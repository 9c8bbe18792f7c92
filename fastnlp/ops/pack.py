"""`pack`.

A backend provides the plans ``first_fit_decreasing(sizes, counts, capacity, ...)`` and ``best_fit_decreasing`` for a
histogram of lengths, ``count_keys`` and ``sort_by_key`` to sort the items, ``deal(order, ...)`` to deal the sorted
ones to a plan's rows, and ``next_fit(sizes, capacity, ...)``.
"""

from __future__ import annotations

from typing import Any

from fastnlp._checks import integer
from fastnlp._dispatch import kernels_for
from fastnlp.ops._groups import sums
from fastnlp.ops._lengths import checked_lengths
from fastnlp.ops._overlong import OVERLONG, fitted
from fastnlp.ops._pack_plan import decreasing
from fastnlp.ops._pack_rows import histogram, rows_in_order, rows_of_plan
from fastnlp.ops._packing import Packing as Packing
from fastnlp.ops._packing import squares
from fastnlp.ops._shuffle import Shuffle

ALGORITHMS = ("first_fit_decreasing", "best_fit_decreasing", "next_fit")


def pack(
    lengths: Any,
    capacity: int,
    *,
    algorithm: str = "first_fit_decreasing",
    max_per_bin: int | None = None,
    item_multiple: int = 1,
    overlong: str = "error",
    seed: int | None = None,
    epoch: int = 0,
    backend: str | None = None,
) -> Packing:
    """Pack items into as few rows of `capacity` tokens as the algorithm finds.

    First-fit-decreasing takes the items from the longest to the shortest and puts each into the first row that has
    room. Here it is planned on the histogram of lengths: one row is filled with the longest items that fit, and
    repeated as long as the counts of its lengths last. The rows are those of the item-by-item algorithm, items of one
    length in the order of their indices; the plan's time does not grow with the number of items.

    Parameters
    ----------
    lengths
        Tokens of each item, ``(N,)`` integers. An item of length 0 goes to the first row that has a place for it and
        takes no tokens there. No items give no rows.
    capacity
        Tokens that a row can hold.
    algorithm
        "first_fit_decreasing".
    max_per_bin
        The most items that a row may have; None: any number.
    overlong
        What becomes of items longer than `capacity`: "error"; "truncate" counts `capacity` tokens for each, the caller
        cuts the item; "drop" puts them in no row. The result has their number.
    backend
        "reference" or "cpu"; default: cpu. Both give the same rows.

    Returns
    -------
    Packing
        The rows, longest items first, with their efficiency and a lower bound on the number of rows: the larger of
        ``ceil(sum(lengths) / capacity)``, Martello and Toth's L2 and ``ceil(N / max_per_bin)``.

    Raises
    ------
    TypeError
        `lengths` are not integers, or `capacity` or `max_per_bin` is none.
    ValueError
        A length is negative or beyond int32, or longer than `capacity` with ``overlong="error"``; `lengths` has not one
        axis; `capacity` or `max_per_bin` is below 1; `algorithm` or `overlong` is unknown.

    References
    ----------
    D. S. Johnson, "Near-optimal bin packing algorithms", PhD thesis, MIT, 1973. S. Martello and P. Toth, "Lower bounds
    and reduction procedures for the bin packing problem", Discrete Applied Mathematics 28, 1990. M. M. Krell et al.,
    "Efficient sequence packing without cross-contamination", arXiv:2107.02027 (packing the histogram).

    Examples
    --------
    >>> import fastnlp
    >>> packing = fastnlp.pack([5, 3, 8, 2], capacity=10)
    >>> [row.tolist() for row in packing], packing.efficiency
    ([[2, 3], [0, 1]], 0.9)
    """
    lengths = checked_lengths(lengths)
    kernels = kernels_for("pack", backend)
    capacity = integer("capacity", capacity, least=1)
    most = None if max_per_bin is None else integer("max_per_bin", max_per_bin, least=1)
    multiple = integer("item_multiple", item_multiple, least=1)
    seed = None if seed is None else integer("seed", seed, least=0, most=None)
    epoch = integer("epoch", epoch, least=0, most=None)
    for name, value, known in (("algorithm", algorithm, ALGORITHMS), ("overlong", overlong, OVERLONG)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    room = capacity // multiple
    if not room:
        raise ValueError(f"item_multiple must be at most the capacity of {capacity}, got {multiple}: no item would fit")

    shuffle = None if seed is None else Shuffle(seed, epoch, backend)
    in_order = algorithm == "next_fit"
    first = shuffle.permutation(lengths.size) if in_order and shuffle is not None else None
    row = f"the capacity of {capacity}" + (f" in multiples of {multiple}" if capacity % multiple else "")
    pieces = fitted(lengths if first is None else lengths[first], room * multiple, overlong, row=row)
    n = pieces.lengths.size
    most = min(most or n, n)
    sizes = pieces.lengths if multiple == 1 else -(-pieces.lengths // multiple)
    counted = histogram(kernels, sizes)
    if in_order:
        rows = rows_in_order(kernels, sizes, room, most)
    else:
        plan = decreasing(kernels, algorithm, counted.sizes, counted.counts, room, most)
        rows = rows_of_plan(kernels, plan, counted, shuffle)

    placed, tokens, squared = rows.sizes, rows.row_tokens, rows.row_squares
    if multiple > 1:
        placed = pieces.lengths[rows.pieces]
        tokens, squared = sums(placed, rows.row_ptr), squares(placed, rows.row_ptr)
    items = rows.pieces if pieces.items is None else pieces.items[rows.pieces]
    return Packing(
        rows.row_ptr,
        items if first is None else first[items],
        placed,
        None if pieces.starts is None else pieces.starts[rows.pieces],
        tokens,
        squared,
        capacity,
        multiple,
        lower_bound=counted.lower_bound(room, most),
        n_truncated=pieces.n_truncated,
        n_split=pieces.n_split,
        n_dropped=pieces.n_dropped,
        seed=seed,
        epoch=epoch,
    )
