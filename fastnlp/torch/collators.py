"""Collators: from a list of examples, as a DataLoader or a Trainer hands them over, to the tensors that a model takes.

An example is a mapping, as rows of a Hugging Face dataset are: tokens under "input_ids", as a list, an array or a
tensor, and perhaps "labels". Collators can be pickled, for workers that are spawned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastnlp.ops._ragged import ragged
from fastnlp.torch.batches import assemble_pairs, block_diagonal_mask, pack_arrays, pad_arrays

Examples = Sequence[Mapping[str, Any]]
_LABELS = {"label": "labels", "label_ids": "labels"}


@dataclass
class PaddingCollator:
    """Pad examples to one length, in the place of transformers' ``DataCollatorWithPadding`` and its siblings.

    Gives `input_ids` and `attention_mask`, and every other field that the examples have: those with an entry for each
    token are padded as well (`labels` with `label_pad`, others such as `token_type_ids` with 0), single numbers become
    a tensor ``(B,)``. "label" and "label_ids" are renamed to "labels".

    Parameters
    ----------
    pad, label_pad
        What fills up tokens and labels.
    length, pad_to_multiple, side, overlong
        As for `fastnlp.pad_arrays`.
    """

    pad: int = 0
    label_pad: int = -100
    length: int | None = None
    pad_to_multiple: int = 1
    side: str = "right"
    overlong: str = "error"

    def __call__(self, features: Examples) -> dict[str, Tensor]:
        """Return a batch.

        Raises
        ------
        TypeError, ValueError
            As `fastnlp.pad_arrays`; examples without "input_ids", or of different fields; a field that has neither one
            number nor one for each token.
        """
        fields = _fields(features)
        tokens = fields.pop("input_ids")
        ids, mask, lengths, _ = self._padded("input_ids", tokens, self.pad)
        batch = {"input_ids": ids, "attention_mask": mask}
        for name, values in fields.items():
            if np.ndim(values[0]) == 0:
                batch[name] = _numbers(name, values)
                continue
            padded = self._padded(name, values, self.label_pad if name == "labels" else 0)
            if not torch.equal(padded.lengths, lengths):
                raise ValueError(
                    f"{name} must have an entry for each token of input_ids, or one number for each example"
                )
            batch[name] = padded.input_ids
        return batch

    def _padded(self, name: str, sequences: Any, pad: int) -> Any:
        return pad_arrays(
            ragged(name, sequences),
            length=self.length,
            pad=pad,
            pad_to_multiple=self.pad_to_multiple,
            side=self.side,
            overlong=self.overlong,
        )


@dataclass
class FlatteningCollator:
    """Lay examples one after another, without padding, in the place of transformers' ``DataCollatorWithFlattening``.

    Gives `input_ids`, `labels` and `position_ids`, ``(1, T)``. The label of each first token is `separator_id`. Rows of
    a `PackedDataset` may be among the examples: where "position_ids" are given, a sequence begins wherever they do not
    count on.

    What keeps a model from attending across sequences: FlashAttention needs `return_flash_attn_kwargs`. Transformers'
    other attentions see it from the `position_ids`, but only where nothing is cached: in a `Trainer`, or with
    ``model(**batch, use_cache=False)``; with a cache they attend to everything, without a word. The attention mask is
    what always works there.

    Parameters
    ----------
    return_position_ids
        Leave them out with False.
    separator_id
        The label of what is not predicted.
    return_flash_attn_kwargs
        Add `cu_seq_lens_q`, `cu_seq_lens_k` (int32, where each sequence begins, and T), `max_length_q` and
        `max_length_k`.
    return_seq_idx
        Add `seq_idx`, ``(1, T)`` int32: 0, 1, 2, ... for the tokens of each sequence.
    position_ids_start
        The position of each first token. (RoBERTa: 2.)
    return_attention_mask
        Add `attention_mask`, ``(1, 1, T, T)`` float32 to be added to the scores of eager or sdpa attention: 0 where a
        token may attend, the lowest number elsewhere.
    causal
        Whether tokens may attend only to what comes before, in that mask.
    """

    return_position_ids: bool = True
    separator_id: int = -100
    return_flash_attn_kwargs: bool = False
    return_seq_idx: bool = False
    position_ids_start: int = 0
    return_attention_mask: bool = False
    causal: bool = True

    def __call__(self, features: Examples) -> dict[str, Any]:
        """Return a batch.

        Raises
        ------
        TypeError, ValueError
            As `fastnlp.pack_arrays`; examples without "input_ids", or of different fields; "position_ids" that are not
            one for each token.
        """
        fields = _fields(features)
        packed = pack_arrays(
            fields["input_ids"],
            labels=fields.get("labels"),
            ignore_index=self.separator_id,
            position_start=self.position_ids_start,
        )
        ids, positions, numbers, labels, cu_seqlens, longest = packed[:6]
        if "position_ids" in fields:
            given = pack_arrays(ragged("position_ids", fields["position_ids"]))
            if not torch.equal(given.lengths, packed.lengths):
                raise ValueError("position_ids must have an entry for each token of input_ids")
            positions = given.input_ids
            first = torch.ones(positions.shape, dtype=torch.bool)
            first[1:] = positions.diff() != 1
            numbers = first.cumsum(0)
            cu_seqlens = torch.cat([first.nonzero()[:, 0], torch.tensor([ids.numel()])]).int()
            longest = int(cu_seqlens.diff().max()) if ids.numel() else 0
            labels[first] = self.separator_id
        batch = {"input_ids": ids[None], "labels": labels[None]}
        if self.return_position_ids:
            batch["position_ids"] = positions[None]
        if self.return_seq_idx:
            batch["seq_idx"] = (numbers - 1).int()[None]
        if self.return_flash_attn_kwargs:
            batch.update(cu_seq_lens_q=cu_seqlens, cu_seq_lens_k=cu_seqlens, max_length_q=longest, max_length_k=longest)
        if self.return_attention_mask:
            batch["attention_mask"] = additive_mask(block_diagonal_mask(cu_seqlens, causal=self.causal))[None, None]
        return batch


@dataclass(kw_only=True)
class PairCollator:
    """Lay examples out as BERT reads them, ``[CLS] A [SEP] B [SEP]``, by `fastnlp.assemble_pairs`.

    Gives `input_ids`, `token_type_ids` and `attention_mask`, and a tensor ``(B,)`` for every other field, which must be
    single numbers. "label" and "label_ids" are renamed to "labels".

    Parameters
    ----------
    cls, sep, pad, max_length, truncation, truncation_side, padding, pad_to_multiple
        As for `fastnlp.assemble_pairs`.
    first, second
        The fields that hold A and B, without special ids. Without the second, rows are ``[CLS] A [SEP]``.
    """

    cls: int
    sep: int
    pad: int = 0
    max_length: int | None = None
    truncation: str = "longest_first"
    truncation_side: str = "right"
    padding: str = "longest"
    pad_to_multiple: int = 1
    first: str = "input_ids"
    second: str = "pair_ids"

    def __call__(self, features: Examples) -> dict[str, Tensor]:
        """Return a batch.

        Raises
        ------
        TypeError, ValueError
            As `fastnlp.assemble_pairs`; examples without the first field, or of different fields; another field that
            has more than a number.
        """
        fields = _fields(features, self.first)
        options = {name: x for name, x in vars(self).items() if name not in ("first", "second")}
        pairs = assemble_pairs(fields.pop(self.first), fields.pop(self.second, None), **options)
        batch = {"input_ids": pairs.input_ids, "token_type_ids": pairs.token_type_ids}
        batch["attention_mask"] = pairs.attention_mask
        return {**batch, **{name: _numbers(name, values) for name, values in fields.items()}}


def additive_mask(mask: Tensor) -> Tensor:
    """Return a mask of what may attend as float32 to be added to the scores: 0, or the lowest number."""
    return torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.float32).min)


def _fields(features: Examples, needed: str = "input_ids") -> dict[str, list[Any]]:
    """Return the values of each field of the examples, one an example."""
    if isinstance(features, Mapping):
        raise TypeError("features is a mapping: a list of examples is wanted, each of them a mapping")
    names = list(features[0]) if len(features) else [needed]
    for n, example in enumerate(features):
        if not isinstance(example, Mapping):
            raise TypeError(f"example {n} is of type {type(example).__name__}: a mapping with {needed!r} is wanted")
        if needed not in example or example.keys() != features[0].keys():
            raise ValueError(
                f"example {n} has the fields {', '.join(example)}: all must have those of the first "
                f"({', '.join(names)}), and {needed!r}"
            )
    return {_LABELS.get(name, name): [example[name] for example in features] for name in names}


def _numbers(name: str, values: list[Any]) -> Tensor:
    try:
        numbers = torch.tensor([x.item() if isinstance(x, Tensor) and not x.ndim else x for x in values])
    except (ValueError, TypeError, RuntimeError):
        numbers = None
    if numbers is None or numbers.ndim != 1:
        raise TypeError(f"{name} must be a number for each example, got {type(values[0]).__name__}: drop the field")
    return numbers
