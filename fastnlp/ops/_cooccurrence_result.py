"""Co-occurrence counts in memory: as exact integers that can be added, and as matrices of SciPy."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnlp._arrays import Array
from fastnlp._dispatch import kernels_for
from fastnlp._files import atomic_write
from fastnlp.ops._cooccurrence_rows import Batch, Question, add_rows
from fastnlp.ops._cooccurrence_weights import divide

if TYPE_CHECKING:
    from scipy import sparse

_SCRATCH = 1 << 22  # entries that are added at once
_PART = 1 << 18  # entries that are divided at once
_FORMATS = ("csr", "coo", "upper")


class CooccurrenceCounts:
    """Exact co-occurrence counts, which can be added: ``cooccurrence(..., format="counts")`` makes them.

    A count is an integer, the sum of integer weights; divided by `divisor` it is an entry of the matrix. Counts of
    parts of a text, from as many machines, add up to the same bits as those of the whole, if no document is cut.

    Parameters
    ----------
    indptr, indices, counts
        The rows in the layout of a CSR matrix: int64, int32 and uint64.
    question
        What was counted: weights, sides, rows.
    divisor
        What a count is divided by, an integer or a power of two.
    """

    def __init__(self, indptr: Array, indices: Array, counts: Array, question: Question, divisor: float) -> None:
        self.indptr = indptr
        self.indices = indices
        self.counts = counts
        self.divisor = divisor
        self.shape = (question.rows, question.width)
        self._question = question

    shape: tuple[int, int]
    """The number of rows, and of words of the vocabulary."""

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return self.indices.size

    @property
    def options(self) -> dict[str, Any]:
        """What was counted: the window, the sides of a word, and the word of each row."""
        asked = self._question
        return {"window": asked.window, "left": asked.left, "right": asked.right, "words": asked.words}

    def matrix(self, format: str = "csr") -> Any:
        """Return the counts as float64, each the nearest to the exact quotient.

        Parameters
        ----------
        format
            "csr" or "coo"; "upper" for the upper triangle of symmetric counts with its diagonal, as CSR.

        Raises
        ------
        ValueError
            Another format, or "upper" of counts that are not symmetric.
        """
        if format not in _FORMATS:
            raise ValueError(f"format must be one of {', '.join(_FORMATS)}, got {format!r}")
        asked = self._question
        indptr, indices, counts = self.indptr, self.indices, self.counts
        if format == "upper":
            if not (asked.left and asked.right and np.array_equal(asked.words, np.arange(asked.width))):
                raise ValueError("format='upper' needs symmetric counts of all words, these are not")
            rows = np.repeat(asked.words, np.diff(indptr))
            kept = indices >= rows
            indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=asked.rows))])
            indices, counts = indices[kept], counts[kept]
        data = np.empty(counts.size)
        for begin in range(0, counts.size, _PART):
            part = slice(begin, begin + _PART)
            divide(counts[part], self.divisor, data[part])
        matrix = csr(indptr, indices.copy() if indices is self.indices else indices, data, self.shape)
        return matrix.tocoo(copy=False) if format == "coo" else matrix

    def __add__(self, other: object) -> CooccurrenceCounts:
        """Return the sum, exactly.

        Raises
        ------
        OverflowError
            A sum is 2^64 or more.
        ValueError
            They were counted with different options.
        """
        if not isinstance(other, CooccurrenceCounts):
            return NotImplemented
        asked, also = self._question, other._question
        reach = min(asked.reach, also.reach)  # less than the window where all documents are short
        pairs: dict[str, Any] = {"vocab_size": (asked.width, also.width)}
        pairs |= {name: (mine, other.options[name]) for name, mine in self.options.items()}
        pairs["weighting"] = ((self.divisor, *asked.weights[: reach + 1]), (other.divisor, *also.weights[: reach + 1]))
        for name, (mine, theirs) in pairs.items():
            if not np.array_equal(mine, theirs):
                raise ValueError(f"counts of different options cannot be added: their {name} is not the same")
        kernels = kernels_for("cooccurrence", None, self.counts, other.counts)
        parts = [_InMemory(self), _InMemory(other)]
        batches = add_rows(kernels, parts, asked.width, _SCRATCH, lambda done: None)
        sums = Gathered(np.uint64)
        for batch in batches:
            sums.add(batch)
        farther = max(asked, also, key=lambda question: question.reach)
        return CooccurrenceCounts(*sums.arrays(), farther, self.divisor)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the counts to one file, whole or not at all.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        asked = self._question
        with atomic_write(path) as file:
            np.savez(
                file,
                indptr=self.indptr,
                indices=self.indices,
                counts=self.counts,
                window=np.array(asked.window),
                weights=asked.weights,
                words=asked.words,
                sides=np.array([asked.left, asked.right]),
                width=np.array(asked.width),
                divisor=np.array(self.divisor),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CooccurrenceCounts:
        """Read counts that `save` wrote.

        Raises
        ------
        OSError
            The file is missing or cannot be read.
        ValueError
            It holds no counts, or is damaged.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                fields = {name: stored[name] for name in stored.files}
            left, right = fields["sides"].tolist()
            window, width = int(fields["window"]), int(fields["width"])
            question = Question(window, fields["weights"], left, right, False, fields["words"], width)
            arrays = [fields[name] for name in ("indptr", "indices", "counts")]
            divisor = float(fields["divisor"])
        except OSError:
            raise
        except Exception as error:  # NumPy, zipfile and zlib have errors of their own
            raise ValueError(f"{os.fspath(path)} holds no co-occurrence counts, or is damaged: {error}") from error
        indptr, indices, counts = arrays
        if (
            [x.dtype for x in (*arrays, question.words, question.weights)]
            != [np.int64, np.int32, np.uint64, np.int64, np.uint64]
            or any(x.ndim != 1 for x in (*arrays, question.words, question.weights))
            or not divisor > 0
            or indptr.size != question.rows + 1
            or indptr[0] != 0
            or not indices.size == counts.size == indptr[-1]
            or (np.diff(indptr) < 0).any()
            or any(x.size and not (x.min() >= 0 and x.max() < question.width) for x in (indices, question.words))
        ):
            raise ValueError(f"{os.fspath(path)} holds counts that do not fit together: make it anew")
        return cls(indptr, indices, counts, question, divisor)

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"CooccurrenceCounts({rows} x {columns}, {self.nnz} entries, divisor {self.divisor:g})"


class Gathered:
    """The rows of a matrix in memory, as they come: counts in uint64, or divided in float64."""

    def __init__(self, dtype: type[np.generic], divisor: float = 1.0) -> None:
        self._indices, self._data = np.empty(0, np.int32), np.empty(0, dtype)
        self._divisor = divisor
        self._sizes: list[Array] = []
        self._n = 0

    def add(self, batch: Batch) -> None:
        """Take the rows of a batch."""
        n = self._n + int(batch.sizes.sum())
        if n > self._indices.size:
            try:
                self._take(batch.room)  # memory that is not written to is not taken
            except MemoryError:  # the system promises no more than it has
                self._take(n + n // 2)
        indices, data = self._indices[self._n : n], self._data[self._n : n]

        def put(rows: slice, entries: slice, columns: Array, counts: Array) -> None:
            indices[entries] = columns
            if data.dtype == np.uint64:
                data[entries] = counts
            else:
                divide(counts, self._divisor, data[entries])

        batch.each(put)
        self._sizes.append(batch.sizes.copy())
        self._n = n

    def arrays(self) -> tuple[Array, Array, Array]:
        """Return the row starts, the columns and the counts."""
        for array in (self._indices, self._data):
            array.resize(self._n, refcheck=False)  # gives the rest back
        starts = np.concatenate([np.zeros(1, np.int64), *self._sizes])
        return np.cumsum(starts), self._indices, self._data

    def _take(self, n: int) -> None:
        indices, data = np.empty(n, np.int32), np.empty(n, self._data.dtype)
        indices[: self._n], data[: self._n] = self._indices[: self._n], self._data[: self._n]
        self._indices, self._data = indices, data


def csr(indptr: Array, indices: Array, data: Array, shape: tuple[int, int]) -> sparse.csr_array:
    """Return the matrix of rows with ascending columns; SciPy wants one dtype for both index arrays."""
    from scipy import sparse

    kind = np.int32 if indices.size < 2**31 else np.int64
    starts, columns = indptr.astype(kind, copy=False), indices.astype(kind, copy=False)
    matrix = sparse.csr_array((data, columns, starts), shape=shape)
    matrix.has_canonical_format = True
    return matrix


class _InMemory:
    """Counts as rows that are read."""

    def __init__(self, counts: CooccurrenceCounts) -> None:
        self.starts = counts.indptr
        self._counts = counts

    def read(self, begin: int, end: int, columns: Array, counts: Array) -> None:
        columns[:], counts[:] = self._counts.indices[begin:end], self._counts.counts[begin:end]


def gather(
    batches: Iterable[Batch],
    question: Question,
    divisor: float,
    format: str,
) -> Any:
    """Return what the rows of `batches` are in one of the formats of `cooccurrence`."""
    sums = Gathered(np.uint64) if format == "counts" else Gathered(np.float64, divisor)
    for batch in batches:
        sums.add(batch)
    if format == "counts":
        return CooccurrenceCounts(*sums.arrays(), question, divisor)
    matrix = csr(*sums.arrays(), (question.rows, question.width))
    return matrix.tocoo(copy=False) if format == "coo" else matrix
