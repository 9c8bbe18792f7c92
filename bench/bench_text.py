"""From a file of text to a vocabulary, and to the ids of its words.

Bytes: the text read once, and for ids an int32 written for each token.

The peers: a Counter and a dictionary, as in tutorials; scikit-learn's CountVectorizer, which also makes a matrix of
counts a line; vocab_count of Stanford's GloVe, a process that reads the file and writes another.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np

import fastnlp
from bench import stanford
from bench.harness import Contestant, prepared
from bench.words import MIN_COUNT


def bench_build_vocab(contest, text):
    contest(
        "build_vocab",
        text.name,
        ours=Contestant("fastnlp", partial(fastnlp.build_vocab, text.path, min_count=MIN_COUNT), result=_counts),
        peers=[
            prepared("Stanford", _stanford, text),
            Contestant("Python", partial(_count, text.path)),
            prepared("scikit-learn", _vectorizer, text.path),
        ],
        expect=_count(text.path),
        bytes=text.path.stat().st_size,
    )


def bench_encode(contest, text):
    vocab = fastnlp.build_vocab(text.path, min_count=MIN_COUNT)
    index = {word: i for i, word in enumerate(vocab.words)}
    contest(
        "encode",
        text.name,
        ours=Contestant("fastnlp", partial(fastnlp.encode, text.path, vocab), result=lambda corpus: corpus.ids),
        peers=[Contestant("Python", partial(_lookup, text.path, index))],
        expect=_lookup(text.path, index),
        bytes=text.path.stat().st_size + 4 * vocab.n_tokens,
    )


def bench_build_corpus(contest, text):
    """Vocabulary and ids in one pass."""
    vocab = fastnlp.build_vocab(text.path, min_count=MIN_COUNT)

    def python():
        counts = _count(text.path)
        return _lookup(text.path, {word: i for i, word in enumerate(sorted(counts, key=vocab.id))})

    contest(
        "build_corpus",
        text.name,
        ours=Contestant(
            "fastnlp", partial(fastnlp.build_corpus, text.path, min_count=MIN_COUNT), result=lambda corpus: corpus.ids
        ),
        peers=[Contestant("Python", python)],
        expect=fastnlp.encode(text.path, vocab).ids,
        bytes=text.path.stat().st_size + 4 * vocab.n_tokens,
    )


def _counts(vocab):
    return dict(zip(vocab.words, vocab.counts.tolist(), strict=True))


def _stanford(text):
    stanford.program("vocab_count")
    written = text.path.with_suffix(".peer-vocab")

    def read(_):
        lines = written.read_text(encoding="utf-8").splitlines()
        return {word: int(count) for word, count in (line.rsplit(" ", 1) for line in lines)}

    return Contestant("Stanford", partial(stanford.vocab_count, text.path, written, MIN_COUNT), result=read)


def _count(path):
    counter = Counter()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            counter.update(line.split())
    return {word: n for word, n in counter.most_common() if n >= MIN_COUNT}


def _vectorizer(path):
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(tokenizer=str.split, token_pattern=None, lowercase=False)

    def fit():
        with path.open(encoding="utf-8") as lines:
            return vectorizer.fit_transform(lines)

    def counts(matrix):
        totals = zip(vectorizer.get_feature_names_out(), np.asarray(matrix.sum(axis=0)).ravel().tolist(), strict=True)
        return {word: n for word, n in totals if n >= MIN_COUNT}

    return Contestant("scikit-learn", fit, result=counts)


def _lookup(path, index):
    with path.open(encoding="utf-8") as lines:
        return np.array([index[word] for line in lines for word in line.split() if word in index], np.int32)
