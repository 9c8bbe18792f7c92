"""Training of GloVe vectors of 50 features on the co-occurrence counts of a text of Zipf's distribution.

Flops: 14 for each feature of the two vectors of a count, four of them divisions and square roots, which no matrix
product has: the share of its rate cannot come near 1.

The peer is the model as torch users write it: embeddings with sparse gradients, Adagrad, shuffled minibatches. Its
minibatch takes one step for all of its counts, so an epoch teaches it less; both must at least halve the loss.
"""

from __future__ import annotations

from functools import partial

import numpy as np

import fastnlp
from bench.harness import Contestant, prepared

DIM, EPOCHS, LR, X_MAX, ALPHA = 50, 3, 0.05, 10.0, 0.75
WORDS, TOKENS, MINIBATCH = 500, 15_000, 4_096


def bench_glove(contest):
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, WORDS + 1)
    ids = rng.choice(WORDS, TOKENS, p=chance / chance.sum())
    counts = fastnlp.cooccurrence(ids, vocab_size=WORDS)
    model = fastnlp.GloVe(DIM, x_max=X_MAX, alpha=ALPHA, lr=LR, epochs=EPOCHS)

    def ours():
        model.fit(counts)
        return model.word_vectors, model.context_vectors, model.word_bias, model.context_bias

    contest(
        "glove",
        f"{counts.nnz:,} counts, {EPOCHS} epochs",
        ours=Contestant("fastnlp", ours),
        peers=[prepared("torch", _torch, counts.tocoo())],
        expect=partial(_learned, counts.tocoo()),
        flops=14 * DIM * counts.nnz * EPOCHS,
        note=f"torch trains on minibatches of {MINIBATCH:,} counts with one step each, so an epoch teaches it less.",
    )


def _torch(counts):
    import torch

    i, j, x = (torch.from_numpy(a) for a in (counts.row.astype(np.int64), counts.col.astype(np.int64), counts.data))
    log, weight = x.log().float(), (x / X_MAX).clamp(max=1).pow(ALPHA).float()

    def train():
        torch.manual_seed(0)
        tables = [torch.nn.Embedding(WORDS, size, sparse=True) for size in (DIM, DIM, 1, 1)]
        for table in tables:
            torch.nn.init.uniform_(table.weight, -0.5 / DIM, 0.5 / DIM)
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


def _learned(counts, parameters):
    """The loss is half of what vectors and biases of zero have, or less."""
    w, v, b, c = (np.asarray(z.detach() if hasattr(z, "detach") else z) for z in parameters)
    i, j = counts.row, counts.col
    log, weight = np.log(counts.data), np.minimum(1, counts.data / X_MAX) ** ALPHA
    error = (w[i] * v[j]).sum(axis=1) + b.reshape(-1)[i] + c.reshape(-1)[j] - log
    reached = (weight * error**2).sum() / (weight * log**2).sum()
    assert reached <= 0.5, f"the loss is {reached:.2f} of that of zeros"
