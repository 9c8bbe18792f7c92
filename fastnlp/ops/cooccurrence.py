"""`cooccurrence`: how often words stand near each other.

A backend provides ``count(stream, starts, positions, weights, both, rows, slots, sizes, indices, counts)``, which
counts blocks of rows of the matrix in exact integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnlp._arrays import Array, integers, read
from fastnlp._checks import flag, integer
from fastnlp._dispatch import kernels_for

if TYPE_CHECKING:
    from scipy import sparse

MAX_WINDOW = 20
_BLOCK = 1 << 17  # entries of the matrix that are one task
_SCRATCH = 1 << 23  # entries that are counted before they are moved to the result


def cooccurrence(
    corpus_or_ids: Any,
    *,
    vocab_size: int | None = None,
    window: int = 10,
    symmetric: bool = True,
    weighting: str = "harmonic",
    boundaries: Any = None,
    backend: str | None = None,
) -> sparse.csr_array:
    """Weighted co-occurrence counts: ``X_ij = sum of w(q - p)`` over the pairs of positions of words i and j.

    The pairs are the positions ``p < q <= p + window`` of one document with word i at p and word j at q; with
    ``symmetric=True`` also those with word j at p and word i at q, so that a pair of equal words counts twice.
    ``w(d)`` is 1/d ("harmonic", the weight of GloVe) or 1 ("uniform").

    Parameters
    ----------
    corpus_or_ids
        A `Corpus` (anything with ``ids``, ``offsets`` and ``vocab``), or the word ids ``(T,)`` of a text, integers in
        [0, vocab_size).
    vocab_size
        V, the number of words. Needed for ids alone; a corpus knows its own.
    window
        How far apart two words may stand: 1 to 20.
    symmetric
        Count both sides of a word, or (False) only what follows it: row i then holds the words to the right of word i,
        as with ``-symmetric 0`` of Stanford's GloVe.
    weighting
        "harmonic" or "uniform".
    boundaries
        Where documents begin and end, ``(documents + 1,)``: document k is ``ids[boundaries[k]:boundaries[k + 1]]``. No
        pair crosses a boundary. Default: one document. A corpus brings its own.
    backend
        "reference" or "cpu"; default: "cpu" where its packages are installed.

    Returns
    -------
    scipy.sparse.csr_array
        ``(V, V)`` of float64, without stored zeros, column indices ascending (int32, or int64 for 2^31 entries and
        more).

    Raises
    ------
    TypeError
        Ids, boundaries, `vocab_size` or `window` are not integers, or `symmetric` is not a bool.
    ValueError
        An id outside [0, vocab_size), boundaries that do not cut the ids into documents, a window outside [1, 20], an
        unknown weighting, `vocab_size` missing for ids or given for a corpus.

    Notes
    -----
    Counts are exact. Weights are added as integers, ``L / d`` with ``L = lcm(1, ..., window)``, and the sum is divided
    by L at the end: an entry is the float64 that is nearest to the true rational number, wherever the sum is at most
    2^53 (for window 10, L is 2520, an entry at most 3.5e12), and within one unit in the last place above. So the result
    is the same bits for any number of threads and every backend. Beyond window 20, L is so large that the integers
    could overflow.

    References
    ----------
    Pennington, Socher, Manning: GloVe: Global Vectors for Word Representation (2014), and the counting program of their
    implementation, whose counts these are up to its rounding.

    Examples
    --------
    >>> import numpy as np, fastnlp
    >>> fastnlp.cooccurrence(np.array([0, 1, 2, 0]), vocab_size=3, window=2).toarray()
    array([[0. , 1.5, 1.5],
           [1.5, 0. , 1. ],
           [1.5, 1. , 0. ]])
    """
    ids, offsets, vocab_size = _documents(corpus_or_ids, vocab_size, boundaries)
    weights, divisor = _weights(window, weighting)
    both = flag("symmetric", symmetric)
    kernels = kernels_for("cooccurrence", backend, ids)

    stream = np.insert(ids.astype(np.int32, copy=False), offsets, np.int32(-1))
    starts, positions = _occurrences(stream, ids, vocab_size)
    occurrences = np.diff(starts)
    most = int(occurrences.max(initial=0))
    if 2 * most * int(weights.sum()) >= 2**64:
        raise ValueError(
            f"counts of a word that occurs {most} times could overflow at window {window}: use a smaller one"
        )

    room = np.minimum(occurrences * (int(window) * (1 + both)), vocab_size)  # what a row can have at most
    batches = list(_batches(room))
    longest = max((int(slots[-1]) for _, slots in batches), default=0)
    columns, counts = np.empty(longest, np.int32), np.empty(longest, np.uint64)
    sizes = np.empty(vocab_size, np.int64)
    indices, data = [np.empty(0, np.int32)], [np.empty(0)]
    for rows, slots in batches:
        kernels.count(stream, starts, positions, weights, both, rows, slots, sizes, columns, counts)
        written = np.add.reduceat(sizes[rows[0] : rows[-1]], rows[:-1] - rows[0])
        for slot, n in zip(slots[:-1].tolist(), written.tolist(), strict=True):
            indices.append(columns[slot : slot + n].copy())
            data.append(counts[slot : slot + n] / divisor)
    return _matrix(sizes, indices, data)


def _documents(source: Any, vocab_size: int | None, boundaries: Any) -> tuple[Array, Array, int]:
    """Return the ids, the documents' offsets and the number of words after checking them."""
    if all(hasattr(source, name) for name in ("ids", "offsets", "vocab")):
        if vocab_size is not None or boundaries is not None:
            raise ValueError("vocab_size and boundaries are for plain ids: a corpus brings its own, leave them out")
        source, vocab_size, boundaries = source.ids, len(source.vocab), source.offsets
    elif vocab_size is None:
        raise ValueError("vocab_size is needed for plain ids: give the number of words, or pass a corpus")
    vocab_size = integer("vocab_size", vocab_size, least=0)
    ids = read("the ids", source)
    if ids.size == 0 and not isinstance(source, np.ndarray):
        ids = ids.astype(np.int32)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"the ids must be integers, got {ids.dtype.name}")
    if ids.ndim != 1:
        raise ValueError(f"the ids must have one axis, got shape {ids.shape}: give documents by boundaries=")
    if ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
        at = int(((ids < 0) | (ids >= vocab_size)).argmax())
        raise ValueError(
            f"the ids hold {ids[at]} at {at}, outside [0, vocab_size={vocab_size}): drop unknown words first"
        )
    if boundaries is None:
        return ids, np.array([0, ids.size]), vocab_size
    offsets = integers("boundaries", boundaries)
    if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != ids.size or (np.diff(offsets) < 0).any():
        raise ValueError(f"boundaries must ascend from 0 to the number of ids, {ids.size}, got {offsets}")
    return ids, offsets, vocab_size


def _weights(window: int, weighting: str) -> tuple[Array, int]:
    """Return the integer weight of each distance 0..window, and what a count is to be divided by."""
    window = integer("window", window, least=1)
    if window > MAX_WINDOW:
        raise ValueError(
            f"window must be at most {MAX_WINDOW}, got {window}: beyond, the exact sums of 1/d could overflow"
        )
    if weighting not in ("harmonic", "uniform"):
        raise ValueError(f"weighting must be 'harmonic' or 'uniform', got {weighting!r}")
    distances = range(1, window + 1)
    divisor = lcm(*distances) if weighting == "harmonic" else 1
    return np.array([0, *(divisor // d if weighting == "harmonic" else 1 for d in distances)], np.uint64), divisor


def _occurrences(stream: Array, ids: Array, vocab_size: int) -> tuple[Array, Array]:
    """Return where each word stands: word v at ``stream[positions[starts[v]:starts[v + 1]]]``.

    To sort positions by word is to bring a matrix of one row from rows to columns, which SciPy does by a counting sort.
    """
    from scipy import sparse

    kind = np.int32 if stream.size < 2**31 else np.int64
    positions = np.flatnonzero(stream >= 0).astype(kind)
    ends = np.array([0, ids.size], kind)
    columns = sparse.csr_array((positions, ids.astype(kind, copy=False), ends), shape=(1, vocab_size)).tocsc()
    return columns.indptr.astype(np.int64, copy=False), columns.data


def _batches(room: Array) -> Iterator[tuple[Array, Array]]:
    """Cut rows into blocks that can have about `_BLOCK` entries, and yield them in batches of about `_SCRATCH`.

    A batch is ``rows``, where its blocks begin and the last one ends, and ``slots``, the same in their scratch memory.
    """
    ends = np.concatenate([[0], np.cumsum(room)])
    cost = ends + np.arange(ends.size)  # an empty row takes time, too
    block = max(_BLOCK, room.size)  # to clear the accumulator of a row must not cost more than to use it
    rows = [0]
    while rows[-1] < room.size:
        rows.append(max(rows[-1] + 1, int(np.searchsorted(cost, cost[rows[-1]] + block, side="right")) - 1))
        if rows[-1] == room.size or ends[rows[-1]] - ends[rows[0]] >= _SCRATCH:
            batch = np.array(rows)
            yield batch, ends[batch] - ends[rows[0]]
            rows = rows[-1:]


def _matrix(sizes: Array, indices: list[Array], data: list[Array]) -> sparse.csr_array:
    """Join the rows' pieces to a matrix, emptying the lists on the way: not everything is there twice at once."""
    from scipy import sparse

    values = np.concatenate(data)
    data.clear()
    kind = np.int32 if values.size < 2**31 else np.int64  # SciPy wants one dtype for both
    columns = np.concatenate(indices, dtype=kind)
    indices.clear()
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(kind)
    matrix = sparse.csr_array((values, columns, starts), shape=(sizes.size, sizes.size))
    matrix.has_canonical_format = True
    return matrix
