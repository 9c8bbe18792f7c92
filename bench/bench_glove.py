"""Training of GloVe vectors on the co-occurrence counts of a text.

Flops: 14 for each feature of the two vectors of a count, four of them divisions and square roots, which no matrix
product has: the share of its rate cannot come near 1.

The peers: glove of Stanford's GloVe at the same settings, rule and number of threads, a process that reads shuffled
counts and writes vectors; the model as torch users write it, embeddings with sparse gradients, Adagrad, shuffled
minibatches. Stanford's loss must be ours within 3 % (it is after two epochs; seeds differ by less); torch's minibatch
takes one step for all of its counts, so an epoch teaches it less, and it must at least halve the loss of zeros.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench import stanford
from bench.harness import Absent, Contestant, prepared
from bench.words import MIN_COUNT, WINDOW

EPOCHS, LR, X_MAX, ALPHA, MINIBATCH = 2, 0.05, 10.0, 0.75, 4_096
_FEW = 300_000  # counts for which torch still has time


@pytest.mark.parametrize("dim", [50, 100, 300])
def bench_glove(contest, text, dim, machine):
    corpus = fastnlp.build_corpus(text.path, min_count=MIN_COUNT)
    counts = fastnlp.cooccurrence(corpus, window=WINDOW)
    model = fastnlp.GloVe(dim, x_max=X_MAX, alpha=ALPHA, lr=LR, bias_lr=1.0, epochs=EPOCHS)

    def ours():
        model.fit(counts)
        return model.loss_

    entries = counts.tocoo()
    contest(
        "glove",
        f"{text.name}, {counts.nnz:,} counts, d {dim}",
        ours=Contestant("fastnlp", ours),
        peers=[
            prepared("Stanford", _stanford, text, corpus, counts, dim, machine.threads),
            prepared("torch", _torch, entries, dim)
            if counts.nnz <= _FEW
            else Absent("torch", f"takes too long for {counts.nnz:,} counts"),
        ],
        expect=partial(_learned, entries, ours()),
        flops=14 * dim * counts.nnz * EPOCHS,
        note=f"{EPOCHS} epochs, the biases' rate 1. Ours with sorting the counts, Stanford's without its shuffle but "
        f"with reading and writing its files; torch trains on minibatches of {MINIBATCH:,} counts with one step each.",
    )


def _stanford(text, corpus, counts, dim, threads):
    stanford.program("glove")
    vocab, records, shuffled, vectors = (
        text.path.with_suffix(f".{name}") for name in ("words", "bin", "mixed", "glove")
    )
    corpus.vocab.save(vocab)
    fastnlp.text.save_cooccurrences(records, counts)
    stanford.shuffle(records, shuffled)
    options = {"vector_size": dim, "iter": EPOCHS, "eta": LR, "x_max": X_MAX, "alpha": ALPHA, "binary": 0, "verbose": 1}
    return partial(stanford.glove, shuffled, vocab, vectors, threads=threads, **options)


def _torch(counts, dim):
    import torch

    words = counts.shape[0]
    i, j, x = (torch.from_numpy(a) for a in (counts.row.astype(np.int64), counts.col.astype(np.int64), counts.data))
    log, weight = x.log().float(), (x / X_MAX).clamp(max=1).pow(ALPHA).float()

    def train():
        torch.manual_seed(0)
        tables = [torch.nn.Embedding(words, size, sparse=True) for size in (dim, dim, 1, 1)]
        for table in tables:
            torch.nn.init.uniform_(table.weight, -0.5 / dim, 0.5 / dim)
        w, v, b, c = tables
        optimizer = torch.optim.Adagrad([table.weight for table in tables], lr=LR, initial_accumulator_value=1.0)
        for _ in range(EPOCHS):
            for batch in torch.randperm(x.numel()).split(MINIBATCH):
                row, column = i[batch], j[batch]
                error = (w(row) * v(column)).sum(1) + (b(row) + c(column))[:, 0] - log[batch]
                optimizer.zero_grad()
                (0.5 * weight[batch] * error**2).sum().backward()
                optimizer.step()
        return [table.weight for table in tables]

    return train


def _learned(counts, loss, result):
    """A list of losses is `loss` within 3 %; parameters have at most half of the loss of vectors and biases of zero."""
    if isinstance(result, list) and isinstance(result[0], float):
        assert abs(result[-1] / loss[-1] - 1) <= 0.03, f"the loss is {result[-1]:.5f}, ours {loss[-1]:.5f}"
        return
    w, v, b, c = (z.detach().numpy() for z in result)
    i, j = counts.row, counts.col
    log, weight = np.log(counts.data), np.minimum(1, counts.data / X_MAX) ** ALPHA
    error = (w[i] * v[j]).sum(axis=1) + b.reshape(-1)[i] + c.reshape(-1)[j] - log
    reached = (weight * error**2).sum() / (weight * log**2).sum()
    assert reached <= 0.5, f"the loss is {reached:.2f} of that of zeros"
