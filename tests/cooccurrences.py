"""What the tests of co-occurrence counts share: the definition, pair by pair in fractions, and texts to count."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.testing import assert_array_equal


def harmonic(window):
    return [Fraction(1, d) for d in range(1, window + 1)]


def pair_by_pair(documents, size, weights, sides=("left", "right")):
    """The definition: each entry a fraction, rounded once at the end. Words below 0 are gaps."""
    total = {}
    for words in documents:
        for p, word in enumerate(words):
            for distance, weight in enumerate(weights, 1):
                near = []
                if "right" in sides and p + distance < len(words):
                    near.append(words[p + distance])
                if "left" in sides and p - distance >= 0:
                    near.append(words[p - distance])
                for other in near:
                    if word >= 0 and other >= 0:
                        total[word, other] = total.get((word, other), 0) + weight
    dense = np.zeros((size, size))
    for pair, value in total.items():
        dense[pair] = float(value)
    return dense


def flat(documents):
    ids = np.array([word for words in documents for word in words], np.int32)
    return ids, np.cumsum([0, *map(len, documents)])


def ragged(rng, size=150, gaps=False):
    """Empty documents at both ends and in a row, of one word, of less than a window, and of many windows."""
    lengths = [0, 1, 2, 0, 0, 5, 8, 1, 19, 21, 400, 0]
    documents = [(rng.zipf(1.5, n) % size).tolist() for n in lengths]
    if gaps:
        documents = [[word if rng.random() < 0.7 else -1 for word in words] for words in documents]
    return documents


def zipf_text(rng, tokens, size):
    """Ids and boundaries of a text with frequent and rare words, in no order of frequency."""
    ids = rng.permutation(size)[np.minimum(rng.zipf(1.2, tokens), size) - 1].astype(np.int32)
    return ids, np.concatenate([[0], np.sort(rng.integers(0, tokens, tokens // 80)), [tokens]])


def assert_canonical(matrix, shape):
    assert matrix.shape == shape
    assert matrix.dtype == np.float64
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert (matrix.data > 0).all()
    rows = np.repeat(np.arange(shape[0], dtype=np.int64), np.diff(matrix.indptr))
    assert (np.diff(rows * shape[1] + matrix.indices) > 0).all()


def assert_same_bits(a, b):
    assert a.shape == b.shape
    for name in ("indptr", "indices", "data"):
        assert_array_equal(getattr(a, name), getattr(b, name))
