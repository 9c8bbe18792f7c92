"""Weighted co-occurrence counts on the GPU (the equation: ``reference/cooccurrence.py``).

The stream, the positions, and what is written of rows lie on the device; the rest (offsets, edges, where words begin,
the rows, slots and sizes) is on the host. `count` makes the host wait, for it must know how many entries there are.

Schedule: the places of all rows of a batch at once, a thread a place. A row with many pairs for its width is filled
densely, by atomic additions of integers; the pairs of the others are sorted and summed by runs (``_cooccurrence_dense``
and ``_cooccurrence_pairs``). Bytes: about 40 for each cell of a dense row and 64 for each pair that is sorted, which
passes through memory eight times.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fastnlp.kernels.cuda._cooccurrence_dense import add_pairs, move_dense
from fastnlp.kernels.cuda._cooccurrence_pairs import list_pairs, mark_runs, move_runs
from fastnlp.kernels.cuda._cooccurrence_text import check_ids, count_words, lay_out_ids, list_places
from fastnlp.kernels.cuda._schedule import spread
from fastnlp.kernels.cuda._search import lower_bounds

SEPARATOR = -1
KEYS = 1 << 62
"""What ``rows * width << shift`` of the rows of a call of `count` stays below, shift the bits of the reach."""
DENSE = 2
"""A row is dense if it has a pair for every `DENSE` columns."""
_CELL, _PAIR, _ENTRY = 28, 52, 12  # bytes
_THREADS = 256


def row_bytes(pairs, width):
    """Return the bytes that rows of so many pairs ``(R,)`` take while they are counted, with their entries."""
    return np.where(pairs * DENSE >= width, _CELL * width, _PAIR * pairs) + _ENTRY * np.minimum(pairs, width)


def lay_out(ids, offsets, gap, stream):  # (T,), (D + 1,), int, (T + D + 1,)
    """Write the documents to the stream with a separator before, between and after them, and `gap` for ids of -1."""
    library, n = ids.library, len(ids)
    blocks = spread(library, max(n, offsets.size), _THREADS)
    given = (ids, n, library.upload(offsets), offsets.size, gap, stream)
    library.launch(lay_out_ids, blocks, _THREADS, *given)


def histogram(stream, edges, counts):  # (L,), (P + 1,), (P, V)
    """Count each word in every piece ``stream[edges[p]:edges[p + 1]]``."""
    library = stream.library
    library.clear(counts)
    for piece, (begin, end) in enumerate(_pieces(edges)):
        blocks = spread(library, end - begin, _THREADS)
        library.launch(count_words, blocks, _THREADS, stream, begin, end, counts.shape[1], counts[piece])


def locate(stream, edges, cursors, positions):  # (L,), (P + 1,), (P, V), (T,)
    """Write where the words stand: those of piece p that are word v from ``positions[cursors[p, v]]`` on.

    The cursors are moved to behind what is written.
    """
    library = stream.library
    for piece, (begin, end) in enumerate(_pieces(edges)):
        blocks = spread(library, end - begin, _THREADS)
        given = (stream, begin, end, cursors.shape[1], cursors[piece], positions)
        library.launch(list_places, blocks, _THREADS, *given)


def count(stream, starts, positions, words, weights, left, right, upper, rows, slots, sizes, indices, counts):
    # (L,), (V + 1,), (T,), (R,), (window + 1,), bool, bool, bool, (B + 1,), (B + 1,), (R,), (C,), (C,)
    """Count the rows ``[rows[b], rows[b + 1])`` of every block b.

    Row r is of word ``words[r]``; word v stands at ``stream[positions[starts[v]:starts[v + 1]]]``. The words to its
    `left` and to its `right` are counted, with `upper` only columns from the word itself on. Block b writes its columns
    and counts, row after row, from ``slots[b]`` on; row r has ``sizes[r]`` of them, in ascending order.
    """
    first, last = int(rows[0]), int(rows[-1])
    mine, width = words[first:last], starts.size - 1
    occurrences = starts[mine + 1] - starts[mine]
    pairs = occurrences * ((weights.size - 1) * (bool(left) + bool(right)))
    dense = pairs * DENSE >= width
    told, made = sizes[first:last], []
    told[...] = 0
    text = (stream, positions, starts, weights.view(np.int64), bool(left), bool(right), bool(upper))
    for kind, sums in ((dense, _dense), (~dense, _sorted)):
        some = np.flatnonzero(kind & (pairs > 0))
        if some.size:
            ends, move = sums(text, mine[some], width)
            told[some] = np.diff(ends)
            made.append((some, ends, move))
    places = np.cumsum(told) - told
    begins = rows[:-1] - first
    block = np.repeat(np.arange(begins.size), np.diff(rows))
    places += (slots[:-1] - np.append(places, 0)[begins])[block]
    for some, ends, move in made:
        move(places[some] - ends[:-1], indices, counts)


def add(begins, columns, values, width, rows, slots, sizes, indices, counts, overflows):
    # (K, R + 1), (E,), (E,), int, (B + 1,), (B + 1,), (R,), (C,), (C,), (B,)
    """Add K matrices row by row on the CPU: what was counted in parts lies in files."""
    from fastnlp.kernels.cpu import cooccurrence

    cooccurrence.add(begins, columns, values, width, rows, slots, sizes, indices, counts, overflows)


def check(ids, least, size, wrong, known=None):  # (T,), int, int, (1,), (T,)
    """Write the most that is left of ids from one on that is outside [least, size) to `wrong`, if it is more.

    `known` gets whether an id is 0 or more.
    """
    blocks = spread(ids.library, len(ids), _THREADS)
    ids.library.launch(check_ids, blocks, _THREADS, ids, len(ids), least, size, wrong, known)


def rank(ascending, wanted, found):  # (n,), (m,), (m,)
    """Write how many elements of an ascending vector are below each that is wanted."""
    blocks = spread(wanted.library, len(wanted), _THREADS)
    wanted.library.launch(lower_bounds, blocks, _THREADS, ascending, len(ascending), wanted, 0, len(wanted), found)


def _pieces(edges):
    return pairwise(int(edge) for edge in edges)


def _places(text, words):
    """Return what kernels are given to find the places of the words of some rows, and how many there are."""
    stream, positions, starts, weights, left, right, upper = text
    occurrences = starts[words + 1] - starts[words]
    ends = np.cumsum(occurrences)
    upload = stream.library.upload
    rows = (
        upload(ends),
        upload(starts[words] - (ends - occurrences)),
        upload(words if upper else np.zeros_like(words)),
    )
    sides = (upload(weights), weights.size - 1, int(left), int(right))
    return (stream, positions, *rows, words.size, *sides), int(ends[-1])


def _dense(text, words, width):
    """Count rows densely; return where each ends among the cells that are not zero, and what moves them."""
    given, n = _places(text, words)
    library, rows = text[0].library, words.size
    totals = library.zeros(rows * width, np.int64)
    library.launch(add_pairs, spread(library, n, _THREADS), _THREADS, *given, width, n, totals)
    filled = library.nonzero(totals)
    m, blocks = len(filled), spread(library, len(filled), _THREADS)

    def move(moves, indices, counts):
        upload = library.upload(moves)
        library.launch(move_dense, blocks, _THREADS, filled, m, totals, width, upload, indices, counts)

    return _ends(filled, width, rows), move


def _sorted(text, words, width):
    """Count rows by sorting their pairs; return where each ends among the runs, and what moves them."""
    given, n = _places(text, words)
    library, reach = text[0].library, text[3].size - 1
    shift, n_pairs = reach.bit_length(), n * reach * (text[4] + text[5])
    pairs = library.empty(n_pairs, np.int64)
    library.launch(list_pairs, spread(library, n, _THREADS), _THREADS, *given, width, shift, n, pairs)
    pairs = library.sort(pairs)
    heads, amounts = library.empty(n_pairs, np.uint8), library.empty(n_pairs, np.int64)
    blocks = spread(library, n_pairs, _THREADS)
    library.launch(mark_runs, blocks, _THREADS, pairs, n_pairs, shift, library.upload(text[3]), heads, amounts)
    sums, begins = library.cumsum(amounts), library.nonzero(heads)
    runs = library.take(pairs, begins)

    def move(moves, indices, counts):
        blocks = spread(library, len(runs), _THREADS)
        given = (runs, begins, len(runs), sums, n_pairs, shift, width, library.upload(moves), indices, counts)
        library.launch(move_runs, blocks, _THREADS, *given)

    return _ends(runs, width << shift, words.size), move


def _ends(ascending, step, rows):
    """Return how many elements of an ascending vector are below each multiple of `step`, 0 to `rows` times."""
    library = ascending.library
    found = library.empty(rows + 1, np.int64)
    blocks = spread(library, rows + 1, _THREADS)
    library.launch(lower_bounds, blocks, _THREADS, ascending, len(ascending), None, step, rows + 1, found)
    return library.read(found)
