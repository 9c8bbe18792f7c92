"""Which words to show, their neighbours, and where they stand in a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastnlp import Corpus, KeyedVectors

_BLOCK = 1000  # tokens
_CANDIDATES = 2000
_LONGEST_WORD = 40  # characters
_IDEOGRAPHS = "\u2e80"  # from here on one character can be a word


def is_word(token: str) -> bool:
    """Tell whether a token is made of letters: at least three, or one ideograph, and no more than people write."""
    return token.isalpha() and len(token) <= _LONGEST_WORD and (len(token) >= 3 or token[0] >= _IDEOGRAPHS)


def content_words(ids: NDArray[Any], words: Sequence[str], n: int) -> list[int]:
    """Return the indices of the `n` most frequent words that carry content, most frequent first.

    Stop words are spread evenly over a text, content words come in bursts: a word counts as content where its residual
    inverse document frequency, ``log(expected blocks / blocks that hold it)`` over blocks of 1,000 tokens, is in the
    upper third (K. Church and W. Gale, "Poisson mixtures", 1995). It needs no list for each language.

    Parameters
    ----------
    ids
        The text as indices of `words` (T,); negative ones are skipped.
    words
        The vocabulary, the most frequent word first.
    n
        How many; fewer come back from a small vocabulary.
    """
    V, blocks = len(words), -(-len(ids) // _BLOCK) or 1
    known = ids >= 0
    pairs = np.unique((np.arange(len(ids)) // _BLOCK * V + ids)[known])
    held = np.bincount(pairs % V, minlength=V)
    count = np.bincount(ids[known], minlength=V)
    expected = -np.expm1(-count / blocks) * blocks
    candidates = np.array(
        [i for i, word in enumerate(words[:_CANDIDATES]) if count[i] and is_word(word)], dtype=np.int64
    )
    if not len(candidates):
        return []
    burst = np.log(expected[candidates] / held[candidates])
    return [int(i) for i in candidates[burst >= np.quantile(burst, 2 / 3)][:n]]


def neighbours(vectors: Any, word: str, n: int) -> list[tuple[str, float]]:
    """Return the `n` words nearest to `word` by cosine, leaving out punctuation and numbers."""
    return [(other, similarity) for other, similarity in vectors.most_similar(word, topn=4 * n) if is_word(other)][:n]


def print_neighbours(corpus: Corpus, vectors: KeyedVectors, words: int, n: int) -> None:
    """Print the `n` neighbours of the most frequent content words, so many `words`."""
    from fastnlp.cli.console import print_table

    chosen = [vectors.words[i] for i in content_words(corpus.ids, vectors.words, words)]
    if chosen:
        near = [neighbours(vectors, word, n) for word in chosen]
        rows = [(word, "  ".join(other for other, _ in found)) for word, found in zip(chosen, near, strict=True)]
        print_table(rows, title="Frequent words and their neighbours")


def plane(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the first two principal components (n, 2) of unit-length rows of `vectors` (n, D)."""
    if not len(vectors):
        return np.zeros((0, 2), vectors.dtype)
    rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(vectors.dtype).tiny)
    rows = rows - rows.mean(axis=0)
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    axes = axes[:2]
    # The sign of an axis is free: fix it, so that the picture is the same on every machine.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    points = rows @ axes.T
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
