"""The mask of packed sequences: 16 of 128 tokens, causal.

Bytes: each pair of tokens written as a bool.

The peers: the comparison of all pairs of numbers, in NumPy and in torch.
"""

from __future__ import annotations

from functools import partial

import numpy as np

import fastnlp
from bench.harness import Contestant, prepared

LENGTHS = [128] * 16


def bench_block_diagonal_mask(contest):
    ids = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    contest(
        "block_diagonal_mask",
        f"{ids.size:,} tokens, causal",
        ours=Contestant("fastnlp", partial(fastnlp.block_diagonal_mask, lengths=LENGTHS, causal=True)),
        peers=[Contestant("NumPy", partial(_numpy, ids)), prepared("torch", _torch, ids)],
        expect=partial(_expected, ids),
        bytes=ids.size**2,
    )


def _numpy(ids):
    return np.tril(ids[:, None] == ids[None, :])


def _torch(ids):
    import torch

    x = torch.from_numpy(ids)
    return Contestant("torch", lambda: torch.tril(x[:, None] == x[None, :]), result=lambda mask: mask.numpy())


def _expected(ids, mask):
    assert mask.dtype == bool
    assert np.array_equal(mask, _numpy(ids)), "the mask is wrong"
