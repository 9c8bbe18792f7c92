"""`KeyedVectors`: words and their vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnlp._checks import flag, integer
from fastnlp.text import vector_files
from fastnlp.text._words import UnknownWordError, index_of

_ROWS = 1 << 14  # rows that are widened to float64 at a time


class KeyedVectors:
    """Words and their vectors. Not to be changed once made.

    Parameters
    ----------
    words
        V different str, the most frequent first by custom. A `Vocabulary` will do.
    vectors
        ``(V, D)``, converted to float32. An array that is float32 and C-contiguous is not copied.

    Attributes
    ----------
    words : tuple of str
    vectors : float32 array ``(V, D)``, read-only
    index : dict from word to row

    Raises
    ------
    TypeError
        A word is not a str, or `vectors` are not numbers.
    ValueError
        There are no words or no features, a word stands there twice, or the shapes do not fit.
    """

    def __init__(self, words: Iterable[str], vectors: Any) -> None:
        self.index = index_of(words)
        self.words = tuple(self.index)
        array = np.asarray(vectors)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"vectors must be numbers, got {array.dtype.name}")
        if array.ndim != 2 or len(array) != len(self.words) or array.size == 0:
            raise ValueError(f"vectors must have shape ({len(self.words)}, D), one row a word, got {array.shape}")
        array = np.ascontiguousarray(array, np.float32).view()
        array.flags.writeable = False
        self.vectors: NDArray[np.float32] = array

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> NDArray[np.float32]:
        try:
            return self.vectors[self.index[word]]
        except KeyError:
            raise UnknownWordError(word, self.words) from None

    def __repr__(self) -> str:
        return f"KeyedVectors({len(self)} words, {self.vectors.shape[1]} features)"

    def similarity(self, a: Any, b: Any) -> float:
        """Return the cosine of two words or vectors; 0 if one is all zeros.

        Raises
        ------
        KeyError
            A word has no vector.
        ValueError
            A vector has another length, or is not finite.
        """
        return _cosine(float(self._direction(a) @ self._direction(b)))

    def most_similar(self, positive: Any, *, negative: Any = (), topn: int = 10) -> list[tuple[str, float]]:
        """Return the words whose vectors have the largest cosine with a query, and the cosines, the largest first.

        The query is the sum of the `positive` directions minus that of the `negative` ones (a direction is a vector
        divided by its length). Its own words are left out. Equal cosines stand in the order of the words. The cosine
        with a vector of zeros is 0; words whose vectors are not finite are left out.

        All cosines are computed in float32, and those that may be among the first again in float64.

        Parameters
        ----------
        positive, negative
            A word, a vector ``(D,)``, or several.
        topn
            How many words; fewer where there are not so many.

        Raises
        ------
        KeyError
            A word has no vector. The message names close ones.
        TypeError
            `topn` is not an integer.
        ValueError
            The query is empty, a vector has another length or is not finite, or `topn` is not positive.
        """
        wanted = integer("topn", topn, least=1, most=None)
        plus, minus = _items(positive), _items(negative)
        if not plus and not minus:
            raise ValueError("positive and negative hold nothing: give a word or a vector")
        zero = np.zeros(self.vectors.shape[1])
        query = _unit(sum(map(self._direction, plus), zero) - sum(map(self._direction, minus), zero))

        with np.errstate(all="ignore"):
            near = _over_lengths(self.vectors @ query.astype(np.float32), self._lengths)
        near[np.isnan(near)] = np.inf  # the sum overflowed: decided in float64
        near[~np.isfinite(self._lengths)] = -np.inf
        near[[self.index[item] for item in plus + minus if isinstance(item, str)]] = -np.inf
        wanted = min(wanted, int((near > -np.inf).sum()))
        if wanted == 0:
            return []
        least = near[np.argpartition(near, len(near) - wanted)[-wanted:]].min()
        rounding = self.vectors.shape[1] * float(np.finfo(np.float32).eps)
        rows = np.flatnonzero((near >= least - rounding) & (near > -np.inf))
        cosines = _over_lengths(_by_rows(lambda x: (x * query).sum(axis=1), self.vectors, rows), self._lengths[rows])
        order = np.lexsort((rows, -cosines))[:wanted]
        return [(self.words[rows[i]], _cosine(float(cosines[i]))) for i in order]

    def save(self, path: str | os.PathLike[str], *, format: str | None = None) -> None:
        """Write the words and vectors to a file.

        Text is written with nine digits, from which every float32 comes back exactly.

        Parameters
        ----------
        path
            The file. It is replaced only when all is written.
        format
            "glove" (text, a line ``word x1 ... xD`` a word), "word2vec" (the same after a line ``V D``),
            "word2vec-binary" or "npz". Default: by the suffix, .txt, .vec or .w2v, .bin, .npz.

        Raises
        ------
        OSError
            The file cannot be written. What stood there before is unchanged.
        ValueError
            The format is not known, or a word is empty or holds ASCII white space (only "npz" takes that).
        """
        vector_files.write(path, vector_files.format_to_write(path, format), self.words, self.vectors)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, format: str | None = None, mmap: bool = False) -> KeyedVectors:
        """Read what `save`, GloVe, word2vec or fastText wrote; the first three may be packed as .gz, .bz2 or .xz.

        In "glove" a header line is recognised where there is one. Words in text may hold spaces: the last D fields of a
        line are the vector.

        Raises
        ------
        OSError
            The file cannot be opened.
        ValueError
            The format is not known, or the file is malformed. The message names the path and the line.

        Warns
        -----
        UserWarning
            Words stand there twice (the first is kept), or are not UTF-8 (replaced); said once, with their number.
        """
        return cls(*vector_files.read(path, vector_files.format_of(path, format), mmap=flag("mmap", mmap)))

    @cached_property
    def _lengths(self) -> NDArray[np.float64]:
        return np.sqrt(_by_rows(lambda x: (x * x).sum(axis=1), self.vectors, None))

    def _direction(self, item: Any) -> NDArray[np.float64]:
        """Return a word's or a given vector divided by its length."""
        vector = np.asarray(self[item] if isinstance(item, str) else item)
        if vector.dtype.kind not in "fiu" or vector.shape != self.vectors.shape[1:]:
            raise ValueError(
                f"a query must be a word or a vector of shape {self.vectors.shape[1:]}, got {vector.dtype.name} of "
                f"shape {vector.shape}"
            )
        if not np.isfinite(vector).all():
            raise ValueError(f"the vector of {item!r:.60} is not finite")
        return _unit(vector.astype(np.float64))


def _items(query: Any) -> list[Any]:
    """Return the words and vectors of a query."""
    if isinstance(query, str) or (isinstance(query, np.ndarray) and query.ndim == 1 and query.dtype.kind in "fiu"):
        return [query]
    items = list(query)
    return [items] if items and all(isinstance(item, Real) for item in items) else items


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.abs(vector).max()
    if largest == 0:
        return vector
    vector = vector / largest  # its squares neither overflow nor vanish
    return vector / np.sqrt((vector * vector).sum())


def _cosine(value: float) -> float:
    return max(-1.0, min(1.0, value))


def _over_lengths(products: NDArray[Any], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(products, lengths, out=np.zeros(len(lengths)), where=lengths != 0)


def _by_rows(function: Any, vectors: NDArray[np.float32], rows: NDArray[np.intp] | None) -> NDArray[np.float64]:
    """Return a function of each row (or of those chosen), computed in float64 some rows at a time."""
    n = len(vectors) if rows is None else len(rows)
    out = np.empty(n)
    with np.errstate(invalid="ignore"):
        for begin in range(0, n, _ROWS):
            part = slice(begin, begin + _ROWS)
            out[part] = function(vectors[part if rows is None else rows[part]].astype(np.float64))
    return out
