"""Collators on what a DataLoader hands them: 64 examples of Python lists, 16,000 tokens, to tensors.

Bytes: int64 ids read (as if they were an array) and the int64 tensors written.

The peers are transformers' collators of the same results.
"""

from __future__ import annotations

import numpy as np

from bench.harness import Contestant, prepared

BATCH = 64


def bench_flattening_collator(contest):
    from fastnlp.torch import FlatteningCollator

    examples = _examples()
    tokens = sum(len(x["input_ids"]) for x in examples)
    options = {"return_flash_attn_kwargs": True}
    ours = FlatteningCollator(**options)
    contest(
        "flattening collator",
        f"{BATCH} lists, {tokens:,} tokens",
        ours=Contestant("fastnlp", lambda: ours(examples), result=_arrays),
        peers=[prepared("transformers", _flattening, examples, options)],
        expect=_flat(examples),
        bytes=8 * 4 * tokens,
    )


def bench_padding_collator(contest):
    from fastnlp.torch import PaddingCollator

    examples = _examples()
    ours = PaddingCollator()
    widest = max(len(x["input_ids"]) for x in examples)
    contest(
        "padding collator",
        f"{BATCH} lists, to {BATCH} x {widest}",
        ours=Contestant("fastnlp", lambda: ours(examples), result=_arrays),
        peers=[prepared("transformers", _padding, examples)],
        expect=_padded(examples, widest),
        bytes=8 * (sum(len(x["input_ids"]) for x in examples) + 2 * BATCH * widest),
    )


def _examples():
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(200), 0.7, BATCH).clip(1, 512).astype(int)
    return [{"input_ids": rng.integers(1, 30_000, n).tolist()} for n in lengths]


def _flattening(examples, options):
    from transformers import DataCollatorWithFlattening

    collate = DataCollatorWithFlattening(**options)
    return Contestant("transformers", lambda: collate(examples), result=_arrays)


def _padding(examples):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    collate = DataCollatorWithPadding(tokenizer)
    return Contestant("transformers", lambda: collate(examples), result=_arrays)


def _arrays(batch):
    return [np.asarray(batch[name]) for name in sorted(batch)]


def _flat(examples):
    lists = [x["input_ids"] for x in examples]
    cu_seqlens = np.cumsum([0, *map(len, lists)])
    ids = np.concatenate(lists)[None]
    labels = ids.copy()
    labels[0, cu_seqlens[:-1]] = -100
    positions = np.concatenate([np.arange(len(x)) for x in lists])[None]
    longest = max(map(len, lists))
    fields = {"input_ids": ids, "labels": labels, "position_ids": positions}
    fields |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), cu_seqlens)
    fields |= dict.fromkeys(("max_length_q", "max_length_k"), np.array(longest))
    return _arrays(fields)


def _padded(examples, widest):
    ids = np.zeros((BATCH, widest), np.int64)
    mask = np.zeros_like(ids)
    for row, example in enumerate(examples):
        ids[row, : len(example["input_ids"])] = example["input_ids"]
        mask[row, : len(example["input_ids"])] = 1
    return [mask, ids]
