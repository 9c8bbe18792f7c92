"""Batches of sequences of like length, shuffled, on log-normal lengths (median 40 tokens, sigma 0.7).

Bytes: an int64 length read and an int64 index written for each item.

The peers do the same plainly (shuffle, sort by length, cut, shuffle the batches), in NumPy and in Python; and
transformers' length-grouped sampler, which sorts within 50 batches and so pads more.
"""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

BATCH = 32


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
    items = np.concatenate([np.asarray(batch) for batch in batches])
    sizes = np.array([len(batch) for batch in batches])
    assert np.array_equal(np.sort(items), np.arange(lengths.size)), "not every item is in one batch"
    assert sizes.max() <= BATCH, f"a batch has {sizes.max()} items"
    longest = np.maximum.reduceat(lengths[items], np.cumsum(sizes) - sizes)
    real = lengths.sum() / (longest * sizes).sum()
    assert real >= 7 / 8, f"{1 - real:.1%} of the tokens are padding"
