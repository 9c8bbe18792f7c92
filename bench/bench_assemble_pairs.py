"""Rows ``[CLS] A [SEP] B [SEP]`` of 512 places with token types and mask, from 64 pairs of 50 to 400 tokens each.

Bytes: an int64 id read for each token, and an id, a type and a mask entry written for each place.

The peers: Python lists, the lengths cut in closed form; and `tokenizers`, whose truncation, post-processor and padding
start from encodings that are there already. Both then make arrays of the lists.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fastnlp
from bench.harness import Contestant, prepared

N, MAX_LENGTH, WORDS = 64, 512, 1_000
CLS, SEP, PAD = WORDS, WORDS + 1, WORDS + 2


@pytest.mark.parametrize("form", ["lists", "tokens and offsets"])
def bench_assemble_pairs(contest, form):
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 401, (2, N))
    flat = [(rng.integers(0, WORDS, sizes.sum()), np.append(0, np.cumsum(sizes))) for sizes in lengths]
    lists = [[x.tolist() for x in np.split(tokens, offsets[1:-1])] for tokens, offsets in flat]
    options = {"cls": CLS, "sep": SEP, "pad": PAD, "max_length": MAX_LENGTH, "padding": "max_length"}
    want = _python(*lists)
    contest(
        "assemble_pairs",
        f"{N} pairs to {MAX_LENGTH} places, from {form}",
        ours=Contestant(
            "fastnlp",
            partial(fastnlp.assemble_pairs, *(lists if form == "lists" else flat), **options),
            result=lambda pairs: list(pairs[:3]),
        ),
        peers=[Contestant("Python", partial(_python, *lists)), prepared("tokenizers", _tokenizers, *lists)],
        expect=want,
        bytes=8 * (3 * N * MAX_LENGTH + int(want[2].sum()) - 3 * N),
    )


def _python(a, b):
    rows, types, masks = [], [], []
    room = MAX_LENGTH - 3
    for first, second in zip(a, b, strict=True):
        if len(first) + len(second) > room:
            shorter = min(len(first), len(second), room // 2)
            kept = shorter if len(first) <= len(second) else room - shorter
            first, second = first[:kept], second[: room - kept]
        row = [CLS, *first, SEP, *second, SEP]
        padding = MAX_LENGTH - len(row)
        rows.append(row + [PAD] * padding)
        types.append([0] * (len(first) + 2) + [1] * (len(second) + 1) + [0] * padding)
        masks.append([1] * len(row) + [0] * padding)
    return [np.array(x) for x in (rows, types, masks)]


def _tokenizers(a, b):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.processors import BertProcessing

    made = Tokenizer(WordLevel({str(i): i for i in range(WORDS)} | {"[CLS]": CLS, "[SEP]": SEP}, unk_token="[CLS]"))
    encodings = [[made.encode(list(map(str, x)), is_pretokenized=True) for x in rows] for rows in (a, b)]
    made.post_processor = BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    made.enable_truncation(MAX_LENGTH)
    made.enable_padding(pad_id=PAD, length=MAX_LENGTH)

    def call():
        rows = [made.post_process(first, second) for first, second in zip(*encodings, strict=True)]
        return [np.array([getattr(row, field) for row in rows]) for field in ("ids", "type_ids", "attention_mask")]

    return call
