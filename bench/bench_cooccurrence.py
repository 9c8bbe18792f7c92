"""Co-occurrence counts with weights 1/distance of a text of Zipf's distribution, window 10, symmetric.

Bytes: each id read once, and each entry of the matrix written once (a float64 and an int32); counting itself moves many
times as much, in cache.

The peers: SciPy's sum of one sparse matrix a distance; NumPy's sort of all pairs; and the dictionary of tutorials.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Absent, Contestant, prepared

WINDOW, WORDS = 10, 10_000


@pytest.mark.parametrize("tokens", [20_000, 300_000])
def bench_cooccurrence(contest, tokens):
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, WORDS + 1)
    ids = rng.choice(WORDS, tokens, p=chance / chance.sum()).astype(np.int32)
    count = partial(fastnlp.cooccurrence, ids, vocab_size=WORDS, window=WINDOW)
    expect = _scipy(ids)()
    few = tokens <= 20_000
    contest(
        "cooccurrence",
        f"{tokens:,} tokens, {WORDS:,} words",
        ours=Contestant("fastnlp", count),
        peers=[
            prepared("SciPy", _scipy, ids),
            prepared("NumPy", _numpy, ids),
            prepared("Python", _python, ids)
            if few
            else Absent("Python", f"takes seconds a call for {tokens:,} tokens"),
        ],
        expect=expect,
        rtol=1e-10,
        bytes=ids.nbytes + 12 * expect.nnz,
    )


def _scipy(ids):
    from scipy import sparse

    def count():
        total = sparse.csr_array((WORDS, WORDS))
        for d in range(1, WINDOW + 1):
            weights = np.full(ids.size - d, 1 / d)
            total += sparse.coo_array((weights, (ids[:-d], ids[d:])), shape=(WORDS, WORDS)).tocsr()
        return total + total.T

    return count


def _numpy(ids):
    from scipy import sparse

    def count():
        wide = ids.astype(np.int64)
        keys = np.concatenate([wide[:-d] * WORDS + wide[d:] for d in range(1, WINDOW + 1)])
        weights = np.concatenate([np.full(ids.size - d, 1 / d) for d in range(1, WINDOW + 1)])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        rows, columns = np.divmod(keys[starts], WORDS)
        sums = np.add.reduceat(weights[order], starts)
        half = sparse.coo_array((sums, (rows, columns)), shape=(WORDS, WORDS)).tocsr()
        return half + half.T

    return count


def _python(ids):
    from scipy import sparse

    words = ids.tolist()

    def count():
        counts = defaultdict(float)
        for q, word in enumerate(words):
            for d, other in enumerate(reversed(words[max(0, q - WINDOW) : q]), 1):
                counts[other, word] += 1 / d
                counts[word, other] += 1 / d
        return counts

    def matrix(counts):
        rows, columns = zip(*counts, strict=True)
        return sparse.coo_array((list(counts.values()), (rows, columns)), shape=(WORDS, WORDS))

    return Contestant("Python", count, result=matrix)
