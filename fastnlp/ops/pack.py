"""`pack`.

A backend provides the plans ``first_fit_decreasing(sizes, counts, capacity, ...)`` and ``best_fit_decreasing`` for a
histogram of lengths, ``count_keys`` and ``sort_by_key`` to sort the items, ``deal(order, ...)`` to deal the sorted
ones to a plan's rows, and ``next_fit(sizes, capacity, ...)``.
"""

from __future__ import annotations

from typing import Any

from fastnlp._checks import integer, positive
from fastnlp._dispatch import backend_for_items, implementation
from fastnlp.ops._groups import sums
from fastnlp.ops._lengths import checked_lengths
from fastnlp.ops._overlong import OVERLONG, fitted
from fastnlp.ops._pack_plan import lower_bound
from fastnlp.ops._pack_rows import histogram, planned, rows_in_order, rows_of_plan
from fastnlp.ops._packing import Packing as Packing
from fastnlp.ops._packing import squares
from fastnlp.ops._shuffle import Shuffle

ALGORITHMS = ("first_fit_decreasing", "best_fit_decreasing", "next_fit", "optimal")


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
    time_limit: float = 3.0,
    backend: str | None = None,
) -> Packing:
    """Pack items into as few rows of `capacity` tokens as the algorithm finds.

    First-fit-decreasing takes the items from the longest to the shortest and puts each into the first row that has
    room. Here it is planned on the histogram of lengths: one row is filled with the longest items that fit, and
    repeated as long as the counts of its lengths last. The rows are those of the item-by-item algorithm, items of one
    length in the order of their indices; the plan's time does not grow with the number of items. So it is with
    best-fit-decreasing, which puts each item into the row that it fills most.

    Parameters
    ----------
    lengths
        Tokens of each item, ``(N,)`` integers: an array, a list, a CPU tensor, an Arrow array or a column of a data
        set. An item of length 0 takes a place and no tokens. No items give no rows.
    capacity
        Tokens that a row can hold.
    algorithm
        "first_fit_decreasing"; "best_fit_decreasing", which seldom has fewer rows; "next_fit", which keeps the order of
        the items and ends a row before the first one that does not fit; or "optimal", which looks for fewer rows by
        column generation, from the rows of first-fit-decreasing down to a proven lower bound.
    max_per_bin
        The most items that a row may have; None: any number.
    item_multiple
        Each item takes places up to the next multiple of this, 8 or twice the size of a context-parallel group. An item
        may then have at most ``capacity // item_multiple * item_multiple`` tokens, the limit. The figures of the result
        count the tokens themselves.
    overlong
        What becomes of items above the limit: "error"; "truncate" keeps the first tokens up to the limit, "split" makes
        pieces of so many tokens and a rest of them, both for the caller to cut; "drop" puts them in no row. The result
        has their number.
    seed, epoch
        A seed, 0 or more, shuffles the items of equal length before they are dealt, and the rows; with "next_fit" it
        shuffles the items before they are packed (pieces of one stay together). Another epoch shuffles otherwise. None:
        no shuffle, and rows from the longest items to the shortest. The order depends on nothing else.
    time_limit
        Seconds after which "optimal" gives the best rows it has, a positive number. Below the limit, and with every
        other algorithm, equal arguments give equal rows.
    backend
        "reference" or "cpu"; both give the same rows. Default: cpu, but the reference for the first half million
        items of a process, which NumPy has packed before a compiler is loaded.

    Returns
    -------
    Packing
        The rows with their efficiency and a lower bound on the number of rows: the larger of
        ``ceil(sum(lengths) / capacity)``, Martello and Toth's L2 and ``ceil(N / max_per_bin)``, and for "optimal" that
        of the relaxed problem.

    Raises
    ------
    TypeError
        `lengths` are not integers, or a numeric argument is none.
    ValueError
        A length is negative or beyond int32, or above the limit with ``overlong="error"``; `lengths` has not one axis;
        a numeric argument is out of range; `item_multiple` is above the capacity; `algorithm` or `overlong` is unknown.

    References
    ----------
    D. S. Johnson, "Near-optimal bin packing algorithms", PhD thesis, MIT, 1973. S. Martello and P. Toth, "Lower bounds
    and reduction procedures for the bin packing problem", Discrete Applied Mathematics 28, 1990. M. M. Krell et al.,
    "Efficient sequence packing without cross-contamination", arXiv:2107.02027 (packing the histogram). P. C. Gilmore
    and R. E. Gomory, "A linear programming approach to the cutting-stock problem", Operations Research 9, 1961.

    Examples
    --------
    >>> import fastnlp
    >>> packing = fastnlp.pack([5, 3, 8, 2], capacity=10)
    >>> [row.tolist() for row in packing], packing.efficiency
    ([[2, 3], [0, 1]], 0.9)
    """
    lengths = checked_lengths(lengths, copy=False)
    backend = backend_for_items("pack", backend, lengths.size, lengths)
    capacity = integer("capacity", capacity, least=1)
    most = None if max_per_bin is None else integer("max_per_bin", max_per_bin, least=1)
    multiple = integer("item_multiple", item_multiple, least=1)
    seed = None if seed is None else integer("seed", seed, least=0, most=None)
    epoch = integer("epoch", epoch, least=0, most=None)
    seconds = positive("time_limit", time_limit)
    for name, value, known in (("algorithm", algorithm, ALGORITHMS), ("overlong", overlong, OVERLONG)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    room = capacity // multiple
    if not room:
        raise ValueError(f"item_multiple must be at most the capacity of {capacity}, got {multiple}: no item would fit")

    kernels = implementation("pack", backend)
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
        rows, bound = rows_in_order(kernels, sizes, room, most), lower_bound(counted.sizes, counted.counts, room, most)
    else:
        plan, bound = planned(kernels, algorithm, counted, room, most, seconds)
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
        lower_bound=bound,
        n_truncated=pieces.n_truncated,
        n_split=pieces.n_split,
        n_dropped=pieces.n_dropped,
        seed=seed,
        epoch=epoch,
    )
