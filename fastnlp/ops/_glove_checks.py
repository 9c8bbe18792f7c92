"""What `GloVe.fit` is given: counts, words, and the vectors to begin with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnlp._arrays import Array, kernel_ready

if TYPE_CHECKING:
    from scipy import sparse


def checked_counts(counts: Any) -> sparse.csr_array:
    """Return `counts` as a CSR matrix of int64, int32 and float64 without duplicates, after checking it."""
    from scipy import sparse

    from fastnlp.ops._cooccurrence_result import CooccurrenceCounts

    if isinstance(counts, CooccurrenceCounts):
        counts = counts.matrix()
    if not sparse.issparse(counts):
        raise TypeError(
            f"counts must be a SciPy sparse matrix, as cooccurrence returns, got {type(counts).__name__}: "
            "scipy.sparse.csr_array(counts) makes one of a dense array"
        )
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"counts must be square, words by words, got shape {counts.shape}")
    if counts.dtype.kind not in "fiu":
        raise TypeError(f"counts must be real numbers, got {counts.dtype.name}")
    matrix = sparse.csr_array(counts.astype(np.float64, copy=False))  # small integers would overflow in sums
    try:
        matrix.check_format()  # kernels go where the indices point
    except ValueError as error:
        raise ValueError(f"counts is no valid sparse matrix: {error}") from error
    if not matrix.nnz:
        raise ValueError("counts holds no entry: the text is too short, or no word of it is in the vocabulary")
    if not (matrix.data.min() > 0 and matrix.data.max() < np.inf):
        wrong = matrix.data[~(np.isfinite(matrix.data) & (matrix.data > 0))][0]
        remedy = ": call counts.eliminate_zeros() first" if wrong == 0 else ""
        raise ValueError(f"counts must store positive finite numbers, found {wrong}{remedy}")
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def csr_arrays(matrix: sparse.csr_array) -> tuple[Array, Array, Array]:
    """Return ``(indptr, indices, data)`` as kernels take them; a matrix in mapped files is not read into memory."""
    dtypes = {"indptr": np.int64, "indices": np.int32, "data": np.float64}
    ready = (kernel_ready(np.asarray(getattr(matrix, name)).astype(t, copy=False)) for name, t in dtypes.items())
    return tuple(ready)  # type: ignore[return-value]


def checked_words(vocab: Any, expected: int) -> list[str] | None:
    """Return the words of `vocab`, which must be as many as the counts have rows."""
    if vocab is None:
        return None
    from fastnlp.text._words import index_of

    words = list(index_of(vocab, "vocab"))
    if len(words) != expected:
        raise ValueError(
            f"vocab has {len(words)} words, counts has {expected} rows: they must come from one vocabulary"
        )
    return words


class Given(NamedTuple):
    """Vectors to begin with, of some of the words."""

    rows: Array  # (G,)
    word_vectors: Array  # (G, D)
    context_vectors: Array  # (G, D)
    word_bias: Array | None  # (G,)
    context_bias: Array | None  # (G,)

    @property
    def sums(self) -> Array:
        return self.word_vectors + self.context_vectors


def checked_initial(initial: Any, words: list[str] | None, expected: int, dim: int) -> Given | None:
    """Return what `initial` gives for the words: a fitted `GloVe`, or a mapping from words to vectors.

    A vector that is not known to be of a word or a context is halved: half is for either.
    """
    if initial is None:
        return None
    if hasattr(initial, "context_vectors"):
        if words is not None and initial.words is not None:
            index = {word: i for i, word in enumerate(initial.words)}
            rows = _common(words, index)
            theirs = np.array([index[words[row]] for row in rows.tolist()])
        elif len(initial.word_vectors) == expected:
            rows = theirs = np.arange(expected)
        else:
            raise ValueError(
                f"initial has {len(initial.word_vectors)} words, counts has {expected} rows: "
                "fit both with a vocabulary, so that they can be matched"
            )
        names = ("word_vectors", "context_vectors", "word_bias", "context_bias")
        given = Given(rows, *(getattr(initial, name)[theirs] for name in names))
    elif isinstance(initial, Mapping) or hasattr(initial, "index"):
        if words is None:
            raise ValueError("initial maps words to vectors: give the words of the counts with vocab")
        rows = _common(words, initial)
        try:
            halves = np.stack([np.asarray(initial[words[row]], np.float32) for row in rows.tolist()]) / np.float32(2)
        except ValueError as error:
            raise ValueError(f"initial must map words to vectors of one length: {error}") from error
        given = Given(rows, halves, halves, None, None)
    else:
        raise TypeError(
            "initial must be KeyedVectors, a dict from words to vectors or a fitted GloVe, "
            f"got {type(initial).__name__}"
        )
    if given.word_vectors.ndim != 2 or given.word_vectors.shape[1] != dim:
        raise ValueError(f"initial has vectors of shape {given.word_vectors.shape[1:]}, wanted are ({dim},), as dim")
    if not np.isfinite(given.sums).all():
        row = rows[~np.isfinite(given.sums).all(axis=1)][0]
        raise ValueError(f"initial must hold finite numbers: the vector of {words[row] if words else row!r} does not")
    return given


def _common(words: list[str], theirs: Any) -> Array:
    """Return the rows of the words that are among `theirs`."""
    rows = [i for i, word in enumerate(words) if word in theirs]
    if not rows:
        raise ValueError("initial has no word of vocab: check the language and the case of both")
    return np.array(rows)


def checked_frozen(frozen: Any, words: list[str] | None, given: Given | None, expected: int) -> Array | None:
    """Return the rows that must not move: True stands for those of `initial`."""
    if frozen is None or frozen is False:
        return None
    if frozen is True:
        if given is None:
            raise ValueError("frozen=True keeps the vectors of initial: give initial")
        return given.rows
    if isinstance(frozen, np.ndarray) and frozen.dtype == np.bool_:
        if frozen.shape != (expected,):
            raise ValueError(f"frozen must have shape ({expected},), one bool a word, got {frozen.shape}")
        return np.flatnonzero(frozen)
    if isinstance(frozen, str) or not isinstance(frozen, Iterable):
        raise TypeError(f"frozen must be True, words or an array of bool, got {frozen!r:.60}")
    if words is None:
        raise ValueError("frozen names words: give the words of the counts with vocab, or an array of bool")
    index = {word: i for i, word in enumerate(words)}
    rows = []
    for word in frozen:
        if word not in index:
            raise ValueError(f"frozen names {word!r}, which is not in vocab")
        rows.append(index[word])
    return np.array(sorted(set(rows)), np.int64)
