"""From lines of text to a vocabulary, and from lines to the ids of their words; words of Zipf's distribution.

Bytes: the text read once, and for `encode` an int32 written for each token. Strings and dictionaries are what takes the
time, so the share of a copy's rate is small.

The peers: a Counter and a dictionary, as in tutorials, and scikit-learn's CountVectorizer, which also makes a matrix of
counts a line.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

TOKENS, WORDS, MIN_COUNT = 500_000, 20_000, 5


@pytest.fixture(scope="module")
def lines():
    chance = 1 / np.arange(1, WORDS + 1)
    ids = np.random.default_rng(0).choice(WORDS, TOKENS, p=chance / chance.sum())
    return [" ".join(f"w{i}" for i in line) for line in np.split(ids, range(20, TOKENS, 20))]


def bench_build_vocab(contest, lines):
    contest(
        "build_vocab",
        f"{TOKENS:,} tokens",
        ours=Contestant("fastnlp", partial(fastnlp.build_vocab, lines, min_count=MIN_COUNT), result=_counts),
        peers=[
            Contestant("Python", partial(_count, lines)),
            prepared("scikit-learn", _vectorizer, lines),
        ],
        expect=_count(lines),
        bytes=sum(map(len, lines)),
    )


def bench_encode(contest, lines):
    vocab = fastnlp.build_vocab(lines, min_count=MIN_COUNT)
    index = {word: i for i, word in enumerate(vocab.words)}
    contest(
        "encode",
        f"{TOKENS:,} tokens",
        ours=Contestant("fastnlp", partial(fastnlp.encode, lines, vocab), result=lambda corpus: corpus.ids),
        peers=[Contestant("Python", partial(_lookup, lines, index))],
        expect=_lookup(lines, index),
        bytes=sum(map(len, lines)) + 4 * TOKENS,
    )


def _counts(vocab):
    return dict(zip(vocab.words, vocab.counts.tolist(), strict=True))


def _count(lines):
    counter = Counter(word for line in lines for word in line.split())
    return {word: n for word, n in counter.most_common() if n >= MIN_COUNT}


def _vectorizer(lines):
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(tokenizer=str.split, token_pattern=None, lowercase=False)

    def counts(matrix):
        totals = zip(vectorizer.get_feature_names_out(), np.asarray(matrix.sum(axis=0)).ravel().tolist(), strict=True)
        return {word: n for word, n in totals if n >= MIN_COUNT}

    return Contestant("scikit-learn", partial(vectorizer.fit_transform, lines), result=counts)


def _lookup(lines, index):
    return np.array([index[word] for line in lines for word in line.split() if word in index], np.int32)
