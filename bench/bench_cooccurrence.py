"""Co-occurrence counts with weights 1/distance, window 10, symmetric: counting alone, the whole job, within a budget.

Bytes: each id read once, and each entry of the matrix written once (a float64 and an int32); counting itself moves many
times as much, in cache.

The peers: cooccur of Stanford's GloVe, a process that reads text and writes a file; SciPy's sum of one sparse matrix a
distance; NumPy's sort of all pairs; glove-python's Corpus; the dictionary of tutorials.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import numpy as np

import fastnlp
from bench import stanford
from bench.harness import Absent, Contestant, prepared
from bench.words import MIN_COUNT, WINDOW

_FEW, _MANY = 50_000, 3_000_000  # tokens for which a dictionary, and a matrix a distance, still have time
_RTOL = 1e-10


def bench_cooccurrence(contest, text):
    """Counting alone: from ids in memory to a CSR matrix in memory. Stanford's has to read the text."""
    corpus = fastnlp.build_corpus(text.path, min_count=MIN_COUNT)
    count = partial(fastnlp.cooccurrence, corpus, window=WINDOW)
    expect = count()
    contest(
        "cooccurrence",
        text.name,
        ours=Contestant("fastnlp", count),
        peers=[
            prepared("Stanford", _cooccur, text, corpus),
            _limited("SciPy", corpus, _MANY, _scipy),
            _limited("NumPy", corpus, _MANY, _numpy),
            _limited("glove-python", corpus, _MANY, _glove_python, expect),
            _limited("Python", corpus, _FEW, _python),
        ],
        expect=expect,
        rtol=_RTOL,
        bytes=corpus.ids.nbytes + 12 * expect.nnz,
    )


def bench_text_to_counts(contest, text):
    """The whole job: from a file of text to a vocabulary, to ids, to the matrix."""

    def ours():
        vocab = fastnlp.build_vocab(text.path, min_count=MIN_COUNT)
        return fastnlp.cooccurrence(fastnlp.encode(text.path, vocab), window=WINDOW)

    def one_pass():
        return fastnlp.cooccurrence(fastnlp.build_corpus(text.path, min_count=MIN_COUNT), window=WINDOW)

    vocab, expect = fastnlp.build_vocab(text.path, min_count=MIN_COUNT), ours()
    contest(
        "text to counts",
        text.name,
        ours=Contestant("fastnlp", one_pass),
        peers=[
            Contestant("build_vocab, encode", ours),
            prepared("Stanford", _text_to_counts, text, expect.shape[0]),
            prepared("scikit-learn, SciPy", _sklearn_scipy, text, expect, vocab.index),
        ],
        expect=expect,
        rtol=_RTOL,
        bytes=text.path.stat().st_size + 12 * expect.nnz,
        note="The second line is fastnlp, too: the text read twice, by build_vocab and by encode.",
    )


def bench_cooccurrence_within_budget(contest, text):
    """Counting with 256 MB, from ids in memory to a file of records; Stanford's with -memory 0.25, from text."""
    corpus = fastnlp.build_corpus(text.path, min_count=MIN_COUNT)
    written = text.path.with_suffix(".bin")
    expect = fastnlp.cooccurrence(corpus, window=WINDOW)

    def read(_):
        return stanford.matrix(written, len(corpus.vocab)).tocsr()

    contest(
        "cooccurrence, 256 MB, to a file",
        text.name,
        ours=Contestant(
            "fastnlp",
            partial(fastnlp.cooccurrence, corpus, window=WINDOW, memory="256MB", out=written),
            result=read,
        ),
        peers=[prepared("Stanford", _cooccur, text, corpus, memory=0.25)],
        expect=expect,
        rtol=_RTOL,
        bytes=corpus.ids.nbytes + 16 * expect.nnz,
    )
    written.unlink()


def _limited(name, corpus, most, prepare, *more):
    if len(corpus) > most:
        return Absent(name, f"takes too long for {len(corpus):,} tokens")
    return prepared(name, prepare, corpus, *more)


def _cooccur(text, corpus, memory=4.0):
    stanford.program("cooccur")
    vocab, counts = text.path.with_suffix(".peer-words"), text.path.with_suffix(".peer-counts")
    corpus.vocab.save(vocab)
    return Contestant(
        "Stanford",
        partial(stanford.cooccur, text.path, vocab, counts, window=WINDOW, memory=memory),
        result=lambda _: stanford.matrix(counts, len(corpus.vocab)).tocsr(),
    )


def _text_to_counts(text, size):
    stanford.program("cooccur")
    vocab, counts = text.path.with_suffix(".peer-vocab"), text.path.with_suffix(".peer-counts")

    def both():
        stanford.vocab_count(text.path, vocab, MIN_COUNT)
        stanford.cooccur(text.path, vocab, counts, window=WINDOW)

    return Contestant("Stanford", both, result=lambda _: stanford.matrix(counts, size).tocsr())


def _separated(corpus):
    """Return the ids with a number of their own between documents, and how many words that makes."""
    between = np.insert(corpus.ids.astype(np.int64), np.repeat(corpus.offsets[1:-1], WINDOW), len(corpus.vocab))
    return between, len(corpus.vocab) + 1


def _scipy(corpus):
    from scipy import sparse

    ids, words = _separated(corpus)
    ids = ids.astype(np.int32)

    def count():
        total = sparse.csr_array((words, words))
        for d in range(1, WINDOW + 1):
            weights = np.full(ids.size - d, 1 / d)
            total += sparse.coo_array((weights, (ids[:-d], ids[d:])), shape=(words, words)).tocsr()
        return total + total.T

    return Contestant("SciPy", count, result=lambda matrix: matrix[:-1, :-1])


def _numpy(corpus):
    from scipy import sparse

    ids, words = _separated(corpus)

    def count():
        keys = np.concatenate([ids[:-d] * words + ids[d:] for d in range(1, WINDOW + 1)])
        weights = np.concatenate([np.full(ids.size - d, 1 / d) for d in range(1, WINDOW + 1)])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        rows, columns = np.divmod(keys[starts], words)
        sums = np.add.reduceat(weights[order], starts)
        half = sparse.coo_array((sums, (rows, columns)), shape=(words, words)).tocsr()
        return half + half.T

    return Contestant("NumPy", count, result=lambda matrix: matrix[:-1, :-1])


def _sklearn_scipy(text, expect, index):
    """CountVectorizer's vocabulary in the order of `index`, its tokens as ids in a list, and SciPy's sums."""
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    if expect.nnz > 5_000_000:
        raise ImportError("takes too long for so many counts")

    def count():
        lines = text.path.read_text(encoding="utf-8").splitlines()
        vectorizer = CountVectorizer(tokenizer=str.split, token_pattern=None, lowercase=False)
        totals = np.asarray(vectorizer.fit_transform(lines).sum(axis=0)).ravel()
        names = vectorizer.get_feature_names_out()
        kept = sorted((name for name, n in zip(names, totals, strict=True) if n >= MIN_COUNT), key=index.get)
        ids, gap = [], [len(kept)] * WINDOW
        for line in lines:
            ids += [index[word] for word in line.split() if word in index] + gap
        array, words = np.array(ids, np.int32), len(kept) + 1
        total = sparse.csr_array((words, words))
        for d in range(1, WINDOW + 1):
            weights = np.full(array.size - d, 1 / d)
            total += sparse.coo_array((weights, (array[:-d], array[d:])), shape=(words, words)).tocsr()
        return (total + total.T)[:-1, :-1]

    return count


def _glove_python(corpus, expect):
    """Return the peer; it counts in float32, and no pairs of equal words, so it is checked more loosely."""
    from glove import Corpus
    from scipy import sparse

    words = corpus.vocab.words
    documents = [[words[i] for i in document] for document in corpus.documents()]
    index = {word: i for i, word in enumerate(words)}

    def count():
        found = Corpus(dictionary=index)
        found.fit(documents, window=WINDOW)
        return found.matrix

    def whole(upper):
        half = sparse.triu(upper, 1)
        found = half + half.T + sparse.diags_array(expect.diagonal())
        return expect if abs(found - expect).max() <= 1e-3 * expect.max() else found

    return Contestant("glove-python", count, result=whole)


def _python(corpus):
    from scipy import sparse

    documents = [document.tolist() for document in corpus.documents()]
    words = len(corpus.vocab)

    def count():
        counts = defaultdict(float)
        for document in documents:
            for q, word in enumerate(document):
                for d, other in enumerate(reversed(document[max(0, q - WINDOW) : q]), 1):
                    counts[other, word] += 1 / d
                    counts[word, other] += 1 / d
        return counts

    def matrix(counts):
        rows, columns = zip(*counts, strict=True)
        return sparse.coo_array((list(counts.values()), (rows, columns)), shape=(words, words))

    return Contestant("Python", count, result=matrix)
