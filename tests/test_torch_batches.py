"""Assembly of tensors, and the collators, against those of transformers."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastnlp  # noqa: E402
import fastnlp.torch as ft  # noqa: E402

FUNCTIONS = ["assemble_pairs", "block_diagonal_mask", "pack_arrays", "pad_arrays", "unpack_arrays", "unpad_arrays"]


@pytest.fixture
def sequences(rng):
    return [rng.integers(1, 100, n).tolist() for n in rng.integers(0, 12, 20)]


def same(tensors, arrays):
    """Tell that tensors are the arrays, also in a tuple of the same names."""
    assert type(tensors) is type(arrays) or isinstance(tensors, torch.Tensor)
    for tensor, array in zip(
        tensors if isinstance(tensors, tuple) else [tensors],
        arrays if isinstance(arrays, tuple) else [arrays],
        strict=True,
    ):
        if isinstance(array, np.ndarray):
            assert tensor.numpy().dtype == array.dtype
            np.testing.assert_array_equal(tensor.numpy(), array)
        else:
            assert tensor == array


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_parameters_of_those_of_arrays(name):
    assert inspect.signature(getattr(ft, name)) == inspect.signature(getattr(fastnlp, name))
    assert f"fastnlp.{name}" in getattr(ft, name).__doc__


@pytest.mark.parametrize("as_tensors", [False, True])
def test_results_are_those_of_arrays(sequences, as_tensors):
    given = [torch.tensor(x, dtype=torch.int64) for x in sequences] if as_tensors else sequences
    packing = fastnlp.pack(fastnlp.sequence_lengths(sequences), 24)
    for dtype, torch_dtype in ((np.int64, torch.int64), (np.int32, torch.int32)):
        padded = fastnlp.pad_arrays(sequences, dtype=dtype)
        same(ft.pad_arrays(given, dtype=torch_dtype), padded)
        same(ft.assemble_pairs(given, given, cls=1, sep=2, dtype=torch_dtype),
             fastnlp.assemble_pairs(sequences, sequences, cls=1, sep=2, dtype=dtype))  # fmt: skip
        packed = fastnlp.pack_arrays(sequences, packing, layout="rows", dtype=dtype)
        tensors = ft.pack_arrays(given, packing, layout="rows", dtype=torch_dtype)
        same(tensors, packed)
        same(ft.unpack_arrays(tensors.input_ids, tensors), fastnlp.unpack_arrays(packed.input_ids, packed))
        same(ft.unpad_arrays(torch.from_numpy(padded.input_ids), torch.from_numpy(padded.lengths)),
             fastnlp.unpad_arrays(padded.input_ids, padded.lengths))  # fmt: skip
        same(ft.block_diagonal_mask(tensors.cu_seqlens), fastnlp.block_diagonal_mask(packed.cu_seqlens))
    starts = fastnlp.pack([50, 3], 24, overlong="split")
    same(
        ft.pack_arrays([list(range(50)), [1, 2, 3]], starts), fastnlp.pack_arrays([list(range(50)), [1, 2, 3]], starts)
    )


def test_tensors_are_filled_in_place():
    out = torch.full((40,), -1), torch.full((40,), -1)
    batch = ft.pad_arrays([[5, 6], [7]], out=out)
    assert batch.input_ids.data_ptr() == out[0].data_ptr()
    assert out[0].tolist() == [5, 6, 7, 0] + [-1] * 36
    again = ft.pad_arrays([[8]], out=ft.pad_arrays([[5, 6], [7]]))
    assert again.input_ids.tolist() == [[8]]
    mask = torch.empty(3, 3, dtype=torch.bool)
    assert ft.block_diagonal_mask(lengths=[2, 1], out=mask).data_ptr() == mask.data_ptr()
    with pytest.raises(TypeError, match="out"):
        ft.pad_arrays([[5]], out=(torch.zeros(1), torch.zeros(1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_hidden_states_lose_their_padding_with_gradients(dtype):
    hidden = torch.randn(3, 4, 2, dtype=dtype, requires_grad=True)
    for arguments in ([torch.tensor([2, 0, 4])], [None]):
        mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]) if arguments[0] is None else None
        flat, offsets = ft.unpad_arrays(hidden, *arguments, mask=mask)
        assert offsets.tolist() == [0, 2, 2, 6]
        assert torch.equal(flat, torch.cat([hidden[0, :2], hidden[2]]))
        (gradient,) = torch.autograd.grad(flat.sum(), hidden)
        assert gradient.sum(dim=2).tolist() == [[2, 2, 0, 0], [0] * 4, [2] * 4]
    packed = ft.pack_arrays([[1, 2], [3]], fastnlp.pack([2, 1], 4), layout="rows")
    values = torch.randn(1, 4, 2, dtype=dtype, requires_grad=True)
    flat, offsets = ft.unpack_arrays(values, packed)
    assert torch.equal(flat, values[0, :3])
    assert offsets.tolist() == [0, 2, 3]
    assert flat.requires_grad


def test_tensors_on_other_devices_are_refused():
    elsewhere = torch.zeros(2, 2, dtype=torch.int64, device="meta")
    with pytest.raises(TypeError, match=r"pad_arrays: sequences is on meta, batches are made on the CPU"):
        ft.pad_arrays(elsewhere)
    with pytest.raises(TypeError, match=r"pack_arrays: sequences is on meta"):
        ft.pack_arrays((elsewhere[0], torch.tensor([0, 2])))
    with pytest.raises(TypeError, match="out is on meta"):
        ft.pad_arrays([[1]], out=(elsewhere, elsewhere))


def examples(sequences, kind, **more):
    make = {"list": list, "array": np.array, "tensor": torch.tensor}[kind]
    return [{"input_ids": make(x), **{k: v[i] for k, v in more.items()}} for i, x in enumerate(sequences)]


@pytest.mark.parametrize("kind", ["list", "array", "tensor"])
@pytest.mark.parametrize("labelled", [False, True])
def test_flattening_gives_what_transformers_gives(rng, kind, labelled):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sequences = [rng.integers(1, 100, n).tolist() for n in (3, 1, 7, 1, 1, 2)]
    more = {"labels": [rng.integers(0, 9, len(x)).tolist() for x in sequences]} if labelled else {}
    for options in (
        {},
        {"return_flash_attn_kwargs": True, "return_seq_idx": True},
        {"position_ids_start": 2, "separator_id": -1},
        {"return_position_ids": False},
    ):
        ours = ft.FlatteningCollator(**options)(examples(sequences, kind, **more))
        theirs = transformers.DataCollatorWithFlattening(**options)(examples(sequences, kind, **more))
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            assert type(ours[name]) is type(value)
            if isinstance(value, torch.Tensor):
                assert ours[name].dtype == value.dtype
                assert torch.equal(ours[name], value)
            else:
                assert ours[name] == value


def test_flattening_keeps_apart_what_is_packed(sequences):
    packing = fastnlp.pack(fastnlp.sequence_lengths(sequences), 24)
    dataset = ft.PackedDataset(sequences, packing, layout="flat")
    collate = ft.FlatteningCollator(return_flash_attn_kwargs=True, return_seq_idx=True)
    batch = collate([dataset[i] for i in range(len(dataset))])
    order = [sequences[i] for i in packing.items if sequences[i]]
    expected = collate([{"input_ids": x} for x in order])
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(batch[name]), torch.as_tensor(value)), name
    given = [{"input_ids": [5, 6, 7], "position_ids": [0, 1, 0], "labels": [1, 2, 3]}]
    assert collate(given)["labels"].tolist() == [[-100, 2, -100]]


def test_flattening_with_a_mask():
    examples = [{"input_ids": [5, 6]}, {"input_ids": [7]}]
    mask = ft.FlatteningCollator(return_attention_mask=True)(examples)["attention_mask"]
    assert (mask[0, 0] == 0).int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert mask.min() == torch.finfo(torch.float32).min
    mask = ft.FlatteningCollator(return_attention_mask=True, causal=False)(examples)["attention_mask"]
    assert (mask[0, 0] == 0).int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("kind", ["list", "array", "tensor"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_gives_what_transformers_gives(rng, tmp_path, kind, side):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    words = tmp_path / "vocab.txt"
    words.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    tokenizer = transformers.BertTokenizerFast(str(words), padding_side=side)
    tokenizer.pad_token_id = 0
    sequences = [rng.integers(1, 100, n).tolist() for n in (3, 1, 7)]
    features = [
        {"input_ids": x, "token_type_ids": [1] * len(x), "attention_mask": [1] * len(x), "label": n}
        for n, x in enumerate(sequences)
    ]
    theirs = transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=4)(features)
    make = {"list": list, "array": np.array, "tensor": torch.tensor}[kind]
    features = [{k: v if k == "label" else make(v) for k, v in x.items()} for x in features]
    ours = ft.PaddingCollator(pad_to_multiple=4, side=side)(features)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert torch.equal(ours[name], value), name


def test_padding_of_labels_for_tokens():
    batch = ft.PaddingCollator(pad=9)(
        [{"input_ids": [5, 6, 7], "labels": [1, 2, 3], "score": 0.5}, {"input_ids": [8], "labels": [4], "score": 1.5}]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3], [4, -100, -100]]
    assert batch["score"].dtype == torch.float32
    cut = ft.PaddingCollator(length=2, overlong="truncate")([{"input_ids": [5, 6, 7], "labels": [1, 2, 3]}])
    assert (cut["input_ids"].tolist(), cut["labels"].tolist()) == ([[5, 6]], [[1, 2]])


def test_pairs():
    collate = ft.PairCollator(cls=1, sep=2, max_length=6)
    batch = collate(
        [{"input_ids": [5, 6, 7], "pair_ids": [8, 9], "label": 0}, {"input_ids": [3], "pair_ids": [], "label": 1}]
    )
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2, 8, 2], [1, 3, 2, 2, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]]
    assert batch["labels"].tolist() == [0, 1]
    assert ft.PairCollator(cls=1, sep=2, first="a")([{"a": [4]}])["input_ids"].tolist() == [[1, 4, 2]]


@pytest.mark.parametrize(
    "collate",
    [ft.PaddingCollator(), ft.FlatteningCollator(), ft.PairCollator(cls=1, sep=2)],
    ids=lambda x: type(x).__name__,
)
def test_collators_can_be_pickled_and_say_what_is_wrong(collate):
    assert pickle.loads(pickle.dumps(collate)) == collate
    with pytest.raises(ValueError, match=r"example 1 has the fields ids"):
        collate([{"input_ids": [1]}, {"ids": [1]}])
    with pytest.raises(ValueError, match=r"example 0 has the fields text.*'input_ids'"):
        collate([{"text": "a"}])
    with pytest.raises(TypeError):
        collate([{"input_ids": [1.5]}])
    with pytest.raises(TypeError, match="example 0 is of type list: a mapping with 'input_ids'"):
        collate([[1, 2]])
    with pytest.raises(TypeError, match="a list of examples is wanted"):
        collate({"input_ids": [[1, 2]]})


def test_fields_that_do_not_fit():
    with pytest.raises(ValueError, match="labels must have an entry for each token"):
        ft.PaddingCollator()([{"input_ids": [1, 2], "labels": [1]}])
    with pytest.raises(TypeError, match="text must be a number for each example"):
        ft.PaddingCollator()([{"input_ids": [1, 2], "text": "ab"}])
    with pytest.raises(TypeError, match="labels must be a number for each example"):
        ft.PairCollator(cls=1, sep=2)([{"input_ids": [1, 2], "labels": [1, 2]}])
    with pytest.raises(ValueError, match="labels"):
        ft.FlatteningCollator()([{"input_ids": [1, 2], "labels": [1]}])
    with pytest.raises(TypeError, match=r"weights\[0\] holds 0.5"):
        ft.PaddingCollator()([{"input_ids": [1, 2], "weights": [0.5, 1.0]}])
    for positions in ([[0], [0, 1]], [[0], [0]], [[0, 1], [0, 1]]):
        examples = [{"input_ids": x, "position_ids": p} for x, p in zip([[5, 6], [7]], positions, strict=True)]
        with pytest.raises(ValueError, match="position_ids must have an entry for each token"):
            ft.FlatteningCollator()(examples)
    with pytest.raises(TypeError, match="packed must be what pack_arrays returned"):
        ft.unpack_arrays(torch.zeros(3), 3)
