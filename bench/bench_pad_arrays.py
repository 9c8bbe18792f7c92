"""Batches padded to one width, with their mask: 64 sequences of up to 512 tokens, and as many times more.

Bytes: each token read, each place of ids and mask written as int64.

The peers: transformers' padding collator, which gets lists, beside fastnlp on the same lists; torch's `pad_sequence` on
a list of tensors, which makes no mask, beside fastnlp on the same tensors.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Absent, Contestant, prepared


@pytest.mark.parametrize("batch", [64, 4_096])
def bench_pad_arrays(contest, batch):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 513, batch)
    lengths[0] = 512
    rows = [rng.integers(1, 50_000, n).astype(np.int32) for n in lengths]
    tokens, offsets = np.concatenate(rows), np.cumsum([0, *lengths])
    few = batch <= 64
    lists = [row.tolist() for row in rows] if few else []
    absent = partial(Absent, reason=f"takes more than a second a call for {batch:,} sequences")
    contest(
        "pad_arrays",
        f"{batch:,} sequences, width 512",
        ours=Contestant("fastnlp", partial(fastnlp.pad_arrays, (tokens, offsets)), result=_both),
        peers=[
            Contestant("NumPy", partial(_numpy, tokens, lengths)),
            prepared("pad_sequence", _pad_sequence, rows),
            prepared("fastnlp on tensors", _ours_on_tensors, rows),
            prepared("transformers", _transformers, lists) if few else absent("transformers"),
            Contestant("fastnlp on lists", partial(fastnlp.pad_arrays, lists), result=_both)
            if few
            else absent("fastnlp on lists"),
        ],
        expect=partial(_expected, rows),
        bytes=4 * tokens.size + 16 * 512 * batch,
    )


def _both(padded):
    return np.asarray(padded.input_ids), np.asarray(padded.attention_mask)


def _numpy(tokens, lengths):
    mask = np.arange(512) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = tokens
    return ids, mask.astype(np.int64)


def _tensors(rows):
    import torch

    return [torch.from_numpy(row.astype(np.int64)) for row in rows]


def _pad_sequence(rows):
    from torch.nn.utils.rnn import pad_sequence

    return Contestant(
        "pad_sequence",
        partial(pad_sequence, _tensors(rows), batch_first=True),
        result=lambda ids: (ids.numpy(), (ids.numpy() != 0).astype(np.int64)),
    )


def _ours_on_tensors(rows):
    return Contestant("fastnlp on tensors", partial(fastnlp.pad_arrays, _tensors(rows)), result=_both)


def _transformers(lists):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"[PAD]": 0}, unk_token="[PAD]"))
    collate = DataCollatorWithPadding(PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]"))
    features = [{"input_ids": row} for row in lists]
    return Contestant(
        "transformers",
        partial(collate, features),
        result=lambda batch: (batch["input_ids"].numpy(), batch["attention_mask"].numpy()),
    )


def _expected(rows, got):
    ids, mask = got
    for row, real, line in zip(rows, mask, ids, strict=True):
        assert np.array_equal(line[: row.size], row), "a sequence is not in its row"
        assert not line[row.size :].any(), "padding is not 0"
        assert np.array_equal(real, np.arange(real.size) < row.size), "the mask is wrong"
