"""`KeyedVectors`: words and their vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnlp._checks import flag, integer
from fastnlp.text import vector_files
from fastnlp.text._neighbours import Found, Neighbours
from fastnlp.text._words import UnknownWordError, index_of

METHODS = ("3CosAdd", "3CosMul")


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

    def get(self, word: str, default: Any = None) -> Any:
        """Return the vector of a word, or `default` if it has none.

        Files of GloVe end with the word ``<unk>``, the mean of rare words: ``get(word, vectors["<unk>"])``.
        """
        return self.vectors[self.index[word]] if word in self.index else default

    def similarity(self, a: Any, b: Any) -> float:
        """Return the cosine of two words or vectors; 0 if one is all zeros.

        Raises
        ------
        KeyError
            A word has no vector.
        ValueError
            A vector has another length, or is not finite.
        """
        return float(self.similarities([a], [b])[0])

    def similarities(self, a: Sequence[Any], b: Sequence[Any]) -> NDArray[np.float64]:
        """Return the cosines of N pairs, each of a word or vector of `a` and that of `b` in the same place, ``(N,)``.

        Raises
        ------
        KeyError
            A word has no vector.
        ValueError
            There are not as many in `a` as in `b`, a vector has another length, or is not finite.
        """
        if isinstance(a, str) or isinstance(b, str) or len(a) != len(b):
            raise ValueError("a and b must be lists of the same length, use similarity for one pair")
        return np.clip((self._directions(a) * self._directions(b)).sum(axis=1), -1, 1)

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
        return self.most_similar_batch([positive], negative=[negative], topn=topn)[0]

    def most_similar_batch(
        self, positive: Sequence[Any], *, negative: Sequence[Any] | None = None, topn: int = 10
    ) -> list[list[tuple[str, float]]]:
        """Return what `most_similar` returns for each of B queries, from one matrix product in blocks.

        Parameters
        ----------
        positive
            B queries, each a word, a vector or several; an array ``(B, D)`` is B vectors.
        negative
            As many; None: none.
        topn
            How many words a query.

        Raises
        ------
        KeyError, TypeError, ValueError
            As `most_similar`; or `negative` has not as many entries as `positive`.
        """
        wanted = integer("topn", topn, least=1, most=None)
        if isinstance(positive, str):
            raise TypeError(f"positive must be a list of queries, got {positive!r:.60}: use most_similar for one")
        plus = [_items(query) for query in positive]
        minus = [_items(query) for query in negative] if negative is not None else [()] * len(plus)
        if len(minus) != len(plus):
            raise ValueError(f"negative must have an entry for each of the {len(plus)} queries, got {len(minus)}")
        queries = np.empty((len(plus), self.vectors.shape[1]))
        for row, (more, less) in enumerate(zip(plus, minus, strict=True)):
            _check_query(more, less)
            queries[row] = _unit(self._directions(more).sum(axis=0) - self._directions(less).sum(axis=0))
        excluded = [self._rows([*more, *less]) for more, less in zip(plus, minus, strict=True)]
        return [self._named(found) for found in self._neighbours.by_sums(queries, excluded, wanted)]

    def most_similar_cosmul(self, positive: Any, *, negative: Any = (), topn: int = 10) -> list[tuple[str, float]]:
        """Return the words that are near to all `positive` and to no `negative` ones, by 3CosMul, and their scores.

        ``score(w) = prod_p (1 + cos(w, p)) / 2 / (prod_n (1 + cos(w, n)) / 2 + 0.001)``: no term can outweigh the
        others, as in a sum. Words are left out and ordered as in `most_similar`.

        Parameters
        ----------
        positive, negative, topn
            As in `most_similar`.

        Raises
        ------
        KeyError, TypeError, ValueError
            As `most_similar`.

        References
        ----------
        O. Levy and Y. Goldberg, Linguistic Regularities in Sparse and Explicit Word Representations, CoNLL 2014.
        """
        wanted = integer("topn", topn, least=1, most=None)
        plus, minus = _items(positive), _items(negative)
        _check_query(plus, minus)
        terms = self._directions(plus), self._directions(minus)
        return self._named(self._neighbours.by_products(*terms, self._rows([*plus, *minus]), wanted))

    def analogy(self, a: Any, b: Any, c: Any, *, topn: int = 10, method: str = "3CosAdd") -> list[tuple[str, float]]:
        """Return answers to "`a` is to `b` as `c` is to ...", the best first, and their scores.

        Parameters
        ----------
        a, b, c
            Words or vectors. Words are no answers.
        topn
            How many answers.
        method
            "3CosAdd": `most_similar` to b - a + c. "3CosMul": `most_similar_cosmul`.

        Raises
        ------
        KeyError, TypeError, ValueError
            As `most_similar`; or the method is not known.

        Examples
        --------
        >>> vectors = KeyedVectors(["man", "king", "woman", "queen"], [[1, 0], [1, 1], [-1, 0], [-1, 1]])
        >>> vectors.analogy("man", "king", "woman")[0][0]
        'queen'
        """
        check_method(method)
        answer = self.most_similar if method == "3CosAdd" else self.most_similar_cosmul
        return answer([b, c], negative=[a], topn=topn)

    def doesnt_match(self, words: Iterable[Any]) -> Any:
        """Return the one of several words (or vectors) that has the smallest cosine with the mean of their directions.

        Raises
        ------
        KeyError
            A word has no vector.
        ValueError
            There are none, or a vector has another length or is not finite.
        """
        items = _items(words)
        if not items:
            raise ValueError("words hold nothing: give two words or more")
        directions = self._directions(items)
        return items[int((directions @ directions.mean(axis=0)).argmin())]

    def save(self, path: str | os.PathLike[str], *, format: str | None = None, digits: int = 9) -> None:
        """Write the words and vectors to a file.

        Parameters
        ----------
        path
            The file. It is replaced only when all is written.
        format
            "glove" (text, a line ``word x1 ... xD`` a word), "word2vec" (the same after a line ``V D``),
            "word2vec-binary", "npz", or "npy" (the vectors, then the words' bytes and where each ends: three arrays in
            the one file, of which ``numpy.load`` takes the first). Default: by the suffix, .txt, .vec or .w2v, .bin,
            .npz, .npy.
        digits
            Significant digits of numbers in text. From nine every float32 comes back exactly; the files that GloVe's
            authors publish have five.

        Raises
        ------
        OSError
            The file cannot be written. What stood there before is unchanged.
        ValueError
            The format is not known, or a word is empty or holds ASCII white space (only "npz" and "npy" take that).
        """
        digits = integer("digits", digits, least=1, most=9)
        vector_files.write(path, vector_files.format_to_write(path, format), self.words, self.vectors, digits=digits)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, format: str | None = None, mmap: bool = False) -> KeyedVectors:
        """Read what `save`, GloVe, word2vec or fastText wrote; text and word2vec's binary files may be packed.

        In "glove" a header line is recognised where there is one. Words in text may hold spaces: the last D fields of a
        line are the vector. A number becomes the float32 that ``numpy.float32`` makes of it, bit for bit; NaN and
        infinities are taken as they are.

        Parameters
        ----------
        path
            The file; text may be packed as .gz, .bz2, .xz or .zst.
        format
            As in `save`.
        mmap
            Map the vectors of a .npy file into memory: only those that are used are read.

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
    def _neighbours(self) -> Neighbours:
        return Neighbours(self.vectors)

    def _named(self, found: Found) -> list[tuple[str, float]]:
        return [(self.words[row], score) for row, score in zip(*(x.tolist() for x in found), strict=True)]

    def _rows(self, items: Iterable[Any]) -> list[int]:
        """Return the rows of those items that are words."""
        return [self.index[item] for item in items if isinstance(item, str)]

    def _directions(self, items: Sequence[Any]) -> NDArray[np.float64]:
        """Return words' or given vectors ``(N, D)``, each divided by its length."""
        rows = np.empty((len(items), self.vectors.shape[1]))
        for row, item in zip(rows, items, strict=True):
            vector = np.asarray(self[item] if isinstance(item, str) else item)
            if vector.dtype.kind not in "fiu" or vector.shape != row.shape:
                raise ValueError(
                    f"a query must be a word or a vector of shape {row.shape}, got {vector.dtype.name} of "
                    f"shape {vector.shape}"
                )
            row[:] = vector
            if not np.isfinite(row).all():
                raise ValueError(f"the vector of {item!r:.60} is not finite")
            row[:] = _unit(row)
        return rows


def check_method(method: str) -> None:
    """Raise if there is no such way to answer analogies.

    Raises
    ------
    ValueError
        There is none.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")


def _check_query(positive: Sequence[Any], negative: Sequence[Any]) -> None:
    if not positive and not negative:
        raise ValueError("positive and negative hold nothing: give a word or a vector")


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
