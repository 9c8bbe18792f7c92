"""Batches of sequences of like length, shuffled, on log-normal lengths (median 40 tokens, sigma 0.7).

Bytes: an int64 length read and an int64 index written for each item.

The peers do the same plainly (shuffle, sort by length, cut, shuffle the batches), in NumPy and in Python; and
transformers' length-grouped sampler, which sorts within 50 batches and so pads more. For a budget of padded tokens they
grow batches item by item, as fairseq's `batch_by_size` does. The bounds that pad least are held against the same
recurrence in NumPy, without divide and conquer.
"""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

BATCH = 32
BUDGET = 4096


@pytest.mark.parametrize("n", [10_000, 200_000])
def bench_bucket_batches(contest, n):
    lengths = np.random.default_rng(0).lognormal(np.log(40), 0.7, n).clip(1, 512).astype(np.int64)
    contest(
        "bucket_batches",
        f"{n:,} lengths, {BATCH} a batch",
        ours=Contestant("fastnlp", partial(fastnlp.bucket_batches, lengths, batch_size=BATCH), result=list),
        peers=[
            Contestant("NumPy", partial(_numpy, lengths)),
            Contestant("Python", partial(_python, lengths.tolist())),
            prepared("transformers", _transformers, lengths),
        ],
        expect=partial(_sound, lengths),
        bytes=16 * n,
    )


@pytest.mark.parametrize("n", [10_000, 200_000])
def bench_token_budget(contest, n):
    lengths = np.random.default_rng(0).lognormal(np.log(40), 0.7, n).clip(1, 512).astype(np.int64)
    contest(
        "bucket_batches, max_tokens",
        f"{n:,} lengths, {BUDGET:,} tokens a batch",
        ours=Contestant("fastnlp", partial(fastnlp.bucket_batches, lengths, max_tokens=BUDGET), result=list),
        peers=[Contestant("Python", partial(_python_budget, lengths))],
        expect=partial(_within_budget, lengths),
        bytes=16 * n,
    )


@pytest.mark.parametrize("longest", [512, 2048])
def bench_optimal_boundaries(contest, longest):
    lengths = np.random.default_rng(0).lognormal(np.log(longest / 8), 0.7, 20_000).clip(1, longest).astype(np.int64)
    ours = partial(fastnlp.bucket_batches, lengths, batch_size=BATCH, boundaries=8)
    contest(
        "bucket_batches, boundaries=8",
        f"20,000 lengths up to {longest:,}",
        ours=Contestant("fastnlp, with the batches", ours, result=lambda batches: batches.boundaries),
        peers=[Contestant("NumPy, the bounds alone", partial(_numpy_boundaries, lengths, 8))],
        expect=partial(_pads_least, lengths, _numpy_boundaries(lengths, 8)),
    )


def _python_budget(lengths):
    rng = np.random.default_rng(0)
    visit = rng.permutation(lengths.size)
    batches, batch, longest = [], [], 0
    order = visit[np.argsort(lengths[visit], kind="stable")]
    for item, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        longest = max(longest, length)
        if longest * (len(batch) + 1) > BUDGET:
            batches.append(batch)
            batch, longest = [], length
        batch.append(item)
    batches.append(batch)
    return [batches[i] for i in rng.permutation(len(batches))]


def _numpy_boundaries(lengths, number):
    sizes, counts = np.unique(lengths, return_counts=True)
    items = np.cumsum(counts)
    cost, choices = items * sizes, []
    for _ in range(1, number):
        best = np.zeros(sizes.size, np.int64)
        fewer = cost.copy()
        for j in range(1, sizes.size):
            padded = fewer[:j] + (items[j] - items[:j]) * sizes[j]
            best[j] = padded.argmin()
            cost[j] = padded[best[j]]
        choices.append(best)
    at, bounds = sizes.size - 1, []
    for best in reversed(choices):
        bounds.append(sizes[at])
        at = best[at]
    return np.array([sizes[at], *bounds[::-1]])


def _within_budget(lengths, batches):
    """Every item is in one batch, no batch is above the budget, and at most a fiftieth of the tokens is padding."""
    items, padded = _padded(lengths, batches)
    assert np.array_equal(np.sort(items), np.arange(lengths.size)), "not every item is in one batch"
    assert padded.max() <= BUDGET, f"a batch has {padded.max()} tokens"
    assert lengths.sum() / padded.sum() >= 0.98, f"{1 - lengths.sum() / padded.sum():.1%} of the tokens are padding"


def _pads_least(lengths, best, bounds):
    """The bounds pad as little as the best ones."""

    def padded(bounds):
        return int(np.asarray(bounds)[np.searchsorted(bounds, lengths)].sum())

    assert padded(bounds) == padded(best), f"{padded(bounds)} tokens with padding, {padded(best)} are possible"


def _padded(lengths, batches):
    items = np.concatenate([np.asarray(batch) for batch in batches])
    sizes = np.array([len(batch) for batch in batches])
    return items, np.maximum.reduceat(lengths[items], np.cumsum(sizes) - sizes) * sizes


def _numpy(lengths):
    rng = np.random.default_rng(0)
    visit = rng.permutation(lengths.size)
    items = visit[np.argsort(lengths[visit], kind="stable")]
    batches = np.split(items, range(BATCH, items.size, BATCH))
    return [batches[i] for i in rng.permutation(len(batches))]


def _python(lengths):
    rng = random.Random(0)
    items = list(range(len(lengths)))
    rng.shuffle(items)
    items.sort(key=lengths.__getitem__)
    batches = [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
    rng.shuffle(batches)
    return batches


def _transformers(lengths):
    from transformers.trainer_pt_utils import get_length_grouped_indices

    def cut(items):
        return [items[i : i + BATCH] for i in range(0, len(items), BATCH)]

    return Contestant("transformers", partial(get_length_grouped_indices, lengths.tolist(), BATCH), result=cut)


def _sound(lengths, batches):
    """Every item is in one batch, no batch is too large, and at most an eighth of the tokens is padding."""
    items, padded = _padded(lengths, batches)
    assert np.array_equal(np.sort(items), np.arange(lengths.size)), "not every item is in one batch"
    assert max(map(len, batches)) <= BATCH, f"a batch has {max(map(len, batches))} items"
    real = lengths.sum() / padded.sum()
    assert real >= 7 / 8, f"{1 - real:.1%} of the tokens are padding"
