"""Sequences one after another, with positions, labels and `cu_seqlens`: 64 of up to 512 tokens, and as many times more.

Bytes: each token read twice, each place of ids, positions, numbers and labels written as int64.

The peers: transformers' flattening collator, which gets lists and makes no numbers, beside fastnlp on the same lists.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Absent, Contestant, prepared

FIELDS = ("input_ids", "position_ids", "labels", "cu_seqlens")


@pytest.mark.parametrize("batch", [64, 4_096])
def bench_pack_arrays(contest, batch):
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 50_000, n).astype(np.int32) for n in rng.integers(1, 513, batch)]
    tokens, offsets = np.concatenate(rows), np.cumsum([0, *(row.size for row in rows)])
    few = batch <= 64
    lists = [row.tolist() for row in rows] if few else []
    absent = partial(Absent, reason=f"takes a large part of a second a call for {batch:,} sequences")
    contest(
        "pack_arrays",
        f"{batch:,} sequences, {tokens.size:,} tokens",
        ours=Contestant("fastnlp", partial(fastnlp.pack_arrays, (tokens, offsets)), result=_fields),
        peers=[
            Contestant("NumPy", partial(_numpy, tokens, offsets)),
            prepared("transformers", _transformers, lists) if few else absent("transformers"),
            Contestant("fastnlp on lists", partial(fastnlp.pack_arrays, lists), result=_fields)
            if few
            else absent("fastnlp on lists"),
        ],
        expect=partial(_expected, rows),
        bytes=8 * tokens.size + 32 * tokens.size,
    )


def _fields(packed):
    return [getattr(packed, name) for name in FIELDS]


def _numpy(tokens, offsets):
    ids = tokens.astype(np.int64)
    labels = ids.copy()
    labels[offsets[:-1]] = -100
    positions = np.arange(ids.size) - np.repeat(offsets[:-1], np.diff(offsets))
    return ids, positions, labels, offsets.astype(np.int32)


def _transformers(lists):
    from transformers import DataCollatorWithFlattening

    features = [{"input_ids": row} for row in lists]
    collate = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    names = (*FIELDS[:3], "cu_seq_lens_q")
    return Contestant(
        "transformers",
        partial(collate, features),
        result=lambda batch: [batch[name].numpy().reshape(-1) for name in names],
    )


def _expected(rows, got):
    ids, positions, labels, cu_seqlens = got
    assert np.array_equal(ids, np.concatenate(rows)), "tokens"
    assert np.array_equal(positions, np.concatenate([np.arange(row.size) for row in rows])), "positions"
    assert np.array_equal(np.diff(cu_seqlens), [row.size for row in rows]), "cu_seqlens"
    want = np.concatenate(rows).astype(np.int64)
    want[cu_seqlens[:-1]] = -100
    assert np.array_equal(labels, want), "labels"
