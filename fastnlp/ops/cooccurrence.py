"""`cooccurrence`: how often words stand near each other.

A backend provides ``lay_out``, ``histogram`` and ``locate``, which list where each word stands; ``count``, which counts
blocks of rows of the matrix in exact integers; and ``add``, which adds such rows. What happens in between:

``_cooccurrence_text``      the ids, checked, and read in pieces
``_cooccurrence_weights``   weights as integers, and the division at the end
``_cooccurrence_plan``      how a text is cut so that counting stays within a budget of memory
``_cooccurrence_rows``      rows, batch by batch, counted from a part of the text or added from several
``_cooccurrence_runs``      parts in files, from which an interrupted call goes on
``_cooccurrence_result``    rows in memory
``_cooccurrence_device``    text, plan and rows where the ids are on a GPU
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from fastnlp._arrays import Array, integers, kernel_ready, on_device
from fastnlp._checks import flag, integer
from fastnlp._device import of
from fastnlp._dispatch import kernels_for
from fastnlp.ops._cooccurrence_plan import Plan, bytes_of, plan_of
from fastnlp.ops._cooccurrence_result import gather
from fastnlp.ops._cooccurrence_rows import Batch, Question, add_rows, count_rows
from fastnlp.ops._cooccurrence_runs import folder_of_runs
from fastnlp.ops._cooccurrence_text import Text, text_of
from fastnlp.ops._cooccurrence_weights import Weights, weights_of

_SUM = 1 << 64  # what counts stay below
_FORMATS = ("csr", "coo", "upper", "counts")

PathLike = str | os.PathLike[str]


def cooccurrence(
    corpus_or_ids: Any,
    *,
    vocab_size: int | None = None,
    window: int = 10,
    symmetric: bool = True,
    side: str = "right",
    weighting: Any = "harmonic",
    boundaries: Any = None,
    oov: str | None = None,
    rows: Any = None,
    format: str = "csr",
    memory: int | str | None = None,
    out: PathLike | None = None,
    spill: PathLike | None = None,
    progress: Callable[[int, int], object] | None = None,
    backend: str | None = None,
) -> Any:
    """Weighted co-occurrence counts: ``X_ij = sum of w(q - p)`` over the pairs of positions of words i and j.

    The pairs are the positions ``p < q <= p + window`` of one document with word i at p and word j at q; with
    ``symmetric=True`` also those with word j at p and word i at q, so that a pair of equal words counts twice.
    ``w(d)`` is 1/d ("harmonic", the weight of GloVe), 1 ("uniform"), or what an array says.

    Parameters
    ----------
    corpus_or_ids
        A `Corpus` (anything with ``ids``, ``offsets`` and ``vocab``), or the word ids ``(T,)`` of a text, integers in
        [0, vocab_size). They may be mapped from a file. Ids on a GPU (a CuPy array or a CUDA tensor) are counted there;
        the result is the same, on the host: the counts are copied as they come.
    vocab_size
        V, the number of words. Needed for ids alone; a corpus knows its own.
    window
        How far apart two words may stand, 1 or more.
    symmetric
        Count both sides of a word, or (False) only one.
    side
        The side that ``symmetric=False`` counts. "right": row i holds what follows word i, as with ``-symmetric 0`` of
        Stanford's GloVe; "left": what comes before it, the transposed matrix.
    weighting
        "harmonic", "uniform", or the weights of the distances 1 to `window`, ``(window,)``, finite and 0 or more.
    boundaries
        Where documents begin and end, ``(documents + 1,)``: document k is ``ids[boundaries[k]:boundaries[k + 1]]``. No
        pair crosses a boundary. "sentences": those of the corpus. False: there are none. Default: the documents of the
        corpus; none for plain ids.
    oov
        What an id of -1 means, a word that is not in the vocabulary. "close": it is dropped, and the words around it
        move together, as in Stanford's GloVe. "gap": it keeps its place. Default: "gap" in a corpus, an error in plain
        ids.
    rows
        Distinct ids: only their rows are counted, ``(len(rows), V)``, row k that of word ``rows[k]``.
    format
        "csr", "coo", or "upper": the upper triangle of symmetric counts with its diagonal, as CSR. "counts": exact
        integers that can be added, `CooccurrenceCounts`.
    memory
        A budget for the memory of this process beyond what Python, NumPy and Numba take, in bytes or as "256MB" or
        "1.5GiB": for the ids (unless they are mapped from a file for reading), loaded kernels and SciPy, and all the
        work. A result in memory comes on top of it. What does not fit is counted in parts, which go to files and are
        added at the end. Default: all at once. For ids on a GPU: a budget for the memory there beside the ids, by
        default 8 bytes an id and 1 GiB.
    out
        A file or folder to write the counts to, never half: a name that ends in .bin is the file of records that
        Stanford's GloVe trains from (int32 row, int32 column, float64 count, ids from 1), one that ends in .csr or in
        nothing a folder with the arrays of a CSR matrix. For formats "csr" and "upper" (a folder only).
    spill
        A folder for the counts of parts. They stay there: a call that was interrupted, repeated with the same text,
        options and folder, goes on from the parts that were finished. Default: a temporary folder, beside `out` if that
        is given.
    progress
        Called as ``progress(done, total)`` now and then, with how much is done of how much.
    backend
        "reference", "cpu" or "cuda"; default: "cuda" for ids on a GPU, otherwise "cpu" where its packages are
        installed.

    Returns
    -------
    scipy.sparse.csr_array or coo_array, CooccurrenceCounts, or str
        The matrix ``(V, V)`` or ``(len(rows), V)`` of float64, without stored zeros, column indices ascending (int32,
        or int64 for 2^31 entries and more). With `out`: the matrix mapped from the folder, or the name of the file.

    Raises
    ------
    OSError
        `out` or `spill` cannot be written to, or `out` is there and holds something else.
    TypeError
        Ids, boundaries, rows, `vocab_size` or `window` are not integers, or `symmetric` is not a bool.
    ValueError
        An id outside [0, vocab_size), boundaries that do not cut the ids into documents, a window below 1, weights that
        do not fit, an unknown option or two that exclude each other, `vocab_size` missing for ids or given for a
        corpus, a budget that is too small, counts that could reach 2^64, `spill` with parts of another text.

    Notes
    -----
    Counts are exact. Weights are added as integers, for "harmonic" ``L / d`` with ``L = lcm(1, ..., window)``, and the
    sum is divided by L at the end: an entry is the float64 that is nearest to the true rational number. So the result
    is the same bits for any number of threads, any budget, parts or the whole, and every backend.

    L grows fast. Beyond window 20, and for arrays, weights are first multiplied by the power of two that brings the
    largest into [2^31, 2^32) and rounded to integers (1/d by at most a part of ``d 2^-32``); sums of those are exact
    again. Arrays of integers, or of multiples of a power of two, lose nothing if they are within 32 bits.

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
    budget = bytes_of(memory)
    window = integer("window", window, least=1)
    ids = getattr(corpus_or_ids, "ids", corpus_or_ids)
    there = on_device(ids)
    kernels = kernels_for("cooccurrence", backend, of(ids) if there else None)
    text = text_of(corpus_or_ids, vocab_size, boundaries, oov, sparing=budget is not None)
    weights = weights_of(window, weighting, min(window, max(1, text.longest - 1)))  # nothing is farther apart
    question = _question(text, window, weights, symmetric, side, rows, format)
    _check_output(format, out)
    _check_sums(text, weights)
    if there:
        from fastnlp.ops import _cooccurrence_device as device

        plan, count = device.plan_of(text, question, budget), partial(device.count_rows, kernels)
    else:
        plan, count = plan_of(text, question, budget), partial(count_rows, kernels)
    with ExitStack() as stack:
        batches = _batches(stack, kernels, count, text, question, plan, spill, out, progress)
        if out is None:
            return gather(batches, question, weights.divisor, format)
        from fastnlp.text import cooccurrence_files as files

        about = {"window": window, "symmetric": bool(symmetric), "side": side, "format": format}
        if rows is not None:
            about["rows"] = question.words.tolist()
        with files.writer(out, question.words, question.width, weights.divisor, about) as writer:
            for batch in batches:
                writer.add(batch)
    return os.fspath(out) if files.is_records(out) else files.load_cooccurrences(out)


def _batches(
    stack: ExitStack,
    kernels: Any,
    count: Callable[..., Iterator[Batch]],
    text: Text,
    question: Question,
    plan: Plan,
    spill: PathLike | None,
    out: PathLike | None,
    progress: Callable[[int, int], object] | None,
) -> Iterator[Batch]:
    """Yield the rows of the whole text."""
    total = text.size * (1 + (plan.parts > 1))

    def seen(done: int) -> None:
        if progress is not None:
            progress(done, total)

    if plan.parts == 1:
        yield from count(text, 0, text.size, question, plan.scratch, seen)
        seen(total)  # gaps, and words without a row, are done as well
        return
    runs = stack.enter_context(folder_of_runs(spill, out))
    places = runs.agree(text, question, plan.places)
    parts = []
    for part, begin in enumerate(range(0, text.size, places)):
        end = min(begin + places, text.size)
        run = runs.find(part)
        if run is None:
            told = lambda done, begin=begin: seen(begin + done)  # noqa: E731
            run = runs.write(part, count(text, begin, end, question, plan.scratch, told))
        parts.append(run)
        seen(end)
    entries = max(1, sum(int(run.starts[-1]) for run in parts))
    yield from add_rows(
        kernels, parts, question.width, plan.add_scratch, lambda done: seen(text.size + text.size * done // entries)
    )


def _question(
    text: Text, window: int, weights: Weights, symmetric: bool, side: str, rows: Any, format: str
) -> Question:
    """Return what is to be counted after checking it."""
    both = flag("symmetric", symmetric)
    if side not in ("right", "left"):
        raise ValueError(f"side must be 'right' or 'left', got {side!r}")
    if format not in _FORMATS:
        raise ValueError(f"format must be one of {', '.join(_FORMATS)}, got {format!r}")
    if format == "upper" and not (both and rows is None):
        raise ValueError("format='upper' is for symmetric counts of all words: leave out rows, or take format='csr'")
    left, right = both or side == "left", both or side == "right"
    words = _rows(rows, text.vocab_size)
    return Question(window, weights.integers, left, right, format == "upper", words, text.vocab_size)


def _rows(rows: Any, vocab_size: int) -> Array:
    if rows is None:
        return np.arange(vocab_size)
    words = integers("rows", rows)
    if words.size and not (words.min() >= 0 and words.max() < vocab_size):
        wrong = words[(words < 0) | (words >= vocab_size)][0]
        raise ValueError(f"rows hold {wrong}, outside [0, vocab_size={vocab_size})")
    if np.unique(words).size < words.size:
        raise ValueError("rows hold an id twice: give each once, np.unique(rows)")
    return kernel_ready(np.asarray(words))


def _check_output(format: str, out: PathLike | None) -> None:
    """Raise where counts cannot be written as they are asked for."""
    if out is None:
        return
    from fastnlp.text import cooccurrence_files as files

    allowed = ("csr",) if files.is_records(out) else ("csr", "upper")
    if format not in allowed:
        raise ValueError(f"out={os.fspath(out)!r} is for format {' or '.join(allowed)}, got {format!r}")
    files.check_place(out)


def _check_sums(text: Text, weights: Weights) -> None:
    """Raise where a sum could be beyond 64 bits."""
    each = 2 * int(weights.integers.sum(dtype=object))
    if text.size * each >= _SUM and (most := int(text.occurrences().max(initial=0))) * each >= _SUM:
        raise ValueError(
            f"counts of a word that occurs {most} times could overflow at this window and weighting: take a smaller "
            "window, or weighting='uniform'"
        )
