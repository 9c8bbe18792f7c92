"""`pad_arrays`, `unpad_arrays`: against plain Python and the collator they stand in for; nothing lost or beyond."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import fastnlp


def padded(rows, width, pad, side):
    """Rows and mask as plain lists."""
    ids, mask = [], []
    for row in rows:
        gap = width - len(row)
        ids.append(row + [pad] * gap if side == "right" else [pad] * gap + row)
        mask.append([1] * len(row) + [0] * gap if side == "right" else [0] * gap + [1] * len(row))
    return ids, mask


def some_rows(rng, n, longest, *, shortest=0):
    return [rng.integers(0, 60_000, k).tolist() for k in rng.integers(shortest, longest + 1, n)]


def flat(rows, dtype=np.int64):
    offsets = np.cumsum([0, *map(len, rows)])
    return np.array([t for row in rows for t in row], dtype), offsets


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_rows_and_mask(side, multiple, dtype, backend, rng):
    for n, longest in ((1, 0), (1, 1), (7, 5), (33, 40), (5, 0)):
        rows = some_rows(rng, n, longest)
        width = -(-max(map(len, rows)) // multiple) * multiple
        batch = fastnlp.pad_arrays(rows, pad=-3, pad_to_multiple=multiple, side=side, dtype=dtype, backend=backend)
        ids, mask = padded(rows, width, -3, side)
        assert batch.input_ids.shape == batch.attention_mask.shape == (n, width)
        assert batch.input_ids.dtype == batch.attention_mask.dtype == dtype
        assert batch.input_ids.tolist() == ids
        assert batch.attention_mask.tolist() == mask
        assert batch.lengths.tolist() == [*map(len, rows)]
        assert batch.n_truncated == 0


def test_no_sequences(backend):
    batch = fastnlp.pad_arrays([], backend=backend)
    assert batch.input_ids.shape == batch.attention_mask.shape == (0, 0)
    assert fastnlp.pad_arrays([[1]], [], length=4, backend=backend).input_ids.shape == (0, 4)


@pytest.mark.parametrize("source", ["int64", "int32", "uint16", "uint8", "int16", ">i8"])
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_every_form_gives_the_same_rows(source, dtype, backend, rng):
    rows = [[t % 128 for t in row] for row in some_rows(rng, 20, 9)]
    want = fastnlp.pad_arrays(rows, backend="reference").input_ids
    tokens, offsets = flat(rows, source)
    tokens.flags.writeable = False
    arrays = [np.array(row, source)[::1] for row in rows]
    for x in ((tokens, offsets), arrays, want.astype(source)):
        got = fastnlp.pad_arrays(x, dtype=dtype, backend=backend).input_ids
        assert got.dtype == dtype
        assert np.array_equal(got, want)


def test_items_choose_and_repeat(backend, rng):
    rows = some_rows(rng, 20, 9)
    items = [4, 4, 19, 0]
    for x in (rows, flat(rows)):
        batch = fastnlp.pad_arrays(x, items, backend=backend)
        assert batch.input_ids.tolist() == padded([rows[i] for i in items], batch.input_ids.shape[1], 0, "right")[0]


def test_arrow_chunks(backend, rng):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    rows = some_rows(rng, 30, 9)
    kind = pa.list_(pa.int32())
    column = pa.chunked_array([pa.array(rows[a:b], kind) for a, b in ((0, 7), (7, 7), (7, 8), (8, 30))])
    items = rng.permutation(30)
    want = fastnlp.pad_arrays(rows, items, backend=backend)
    for dtype in (np.int64, np.int32):
        got = fastnlp.pad_arrays(column, items, dtype=dtype, backend=backend)
        assert np.array_equal(got.input_ids, want.input_ids)


@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_keeps_the_first_tokens_and_counts_the_others(side, backend, rng):
    rows = some_rows(rng, 20, 12)
    batch = fastnlp.pad_arrays(rows, length=5, overlong="truncate", side=side, backend=backend)
    assert batch.input_ids.tolist() == padded([row[:5] for row in rows], 5, 0, side)[0]
    assert batch.n_truncated == sum(max(0, len(row) - 5) for row in rows) > 0
    assert int(batch.attention_mask.sum()) + batch.n_truncated == sum(map(len, rows))
    wider = fastnlp.pad_arrays(rows, length=5, pad_to_multiple=4, overlong="truncate", side=side, backend=backend)
    assert wider.input_ids.tolist() == padded([row[:5] for row in rows], 8, 0, side)[0]
    with pytest.raises(ValueError, match=r"has 1[0-2] tokens, more than length=9"):
        fastnlp.pad_arrays(rows, length=9, backend=backend)


def test_a_given_length(backend):
    assert fastnlp.pad_arrays([[1, 2]], length=4, backend=backend).input_ids.tolist() == [[1, 2, 0, 0]]
    empty = fastnlp.pad_arrays([[1, 2]], length=0, overlong="truncate", backend=backend)
    assert empty.input_ids.shape == (1, 0)
    assert empty.n_truncated == 2


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_out_is_filled_and_nothing_beyond(dtype, backend, rng):
    room = fastnlp.PaddedArrays(np.full(400, 77, dtype), np.full((20, 20), 77, dtype), None, None)
    for n, longest in ((9, 12), (3, 5), (33, 12)):
        rows = some_rows(rng, n, longest, shortest=1)
        want = fastnlp.pad_arrays(rows, dtype=dtype, side="left", backend=backend)
        for out in (room, room[:2]):
            for x in room[:2]:
                x[...] = 77
            got = fastnlp.pad_arrays(rows, dtype=dtype, side="left", out=out, backend=backend)
            for x, y, whole in zip(got[:2], want[:2], room[:2], strict=True):
                assert np.shares_memory(x, whole)
                assert np.array_equal(x, y)
                assert (whole.reshape(-1)[x.size :] == 77).all()


def test_bad_out(backend):
    ids, mask = np.empty((2, 2), np.int64), np.empty((2, 2), np.int64)
    frozen = np.empty((2, 2), np.int64)
    frozen.flags.writeable = False
    for out, error, words in (
        ((ids, mask[:1]), ValueError, "out.attention_mask has room for 2 entries, 4 are wanted"),
        ((np.empty(3, np.int64), mask), ValueError, "out.input_ids has room for 3 entries, 4 are wanted"),
        ((ids,), TypeError, "2 arrays"),
        ((ids.astype(np.int32), mask), TypeError, "out.input_ids must be an array of int64"),
        ((ids, mask.tolist()), TypeError, "out.attention_mask"),
        ((ids, mask.T), ValueError, "contiguous"),
        ((ids, frozen), ValueError, "writeable"),
        ((ids, ids), ValueError, "shares memory"),
        (3, TypeError, "out must be a tuple of arrays"),
        (ids, TypeError, "out must be a tuple of arrays"),
    ):
        with pytest.raises(error, match=words):
            fastnlp.pad_arrays([[1, 2], [3]], out=out, backend=backend)
    tokens = np.arange(6)
    for sequences in ((tokens, [0, 2, 3]), tokens.reshape(2, 3)):
        with pytest.raises(ValueError, match=r"out\.input_ids shares memory with what is read"):
            fastnlp.pad_arrays(sequences, out=(tokens, np.empty(6, np.int64)), backend=backend)
    copied = fastnlp.pad_arrays([tokens[:2], tokens[2:3]], out=(tokens, mask), backend=backend)
    assert copied.input_ids.tolist() == [[0, 1], [2, 0]]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"length": -1}, ValueError, "length must be at least 0"),
        ({"length": 2.0}, TypeError, "length must be an integer"),
        ({"pad": 0.5}, TypeError, "pad must be an integer"),
        ({"pad": 2**31, "dtype": np.int32}, ValueError, "pad must be at most"),
        ({"pad_to_multiple": 0}, ValueError, "pad_to_multiple"),
        ({"side": "middle"}, ValueError, "side must be one of 'right', 'left'"),
        ({"overlong": "drop"}, ValueError, "overlong must be one of 'error', 'truncate'"),
        ({"dtype": np.float32}, TypeError, "dtype must be int64 or int32"),
        ({"dtype": np.int16}, TypeError, "dtype must be int64 or int32"),
        ({"dtype": None}, TypeError, "dtype must be int64 or int32, got None"),
        ({"dtype": "bfloat16"}, TypeError, "dtype must be int64 or int32, got bfloat16"),
        ({"items": [3]}, ValueError, "items holds 3"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        fastnlp.pad_arrays([[1, 2], [3]], **options)


def test_a_token_that_int32_cannot_hold_is_refused(backend):
    assert fastnlp.pad_arrays([[1, 2**31]], backend=backend).input_ids.tolist() == [[1, 2**31]]
    with pytest.raises(ValueError, match="beyond int32"):
        fastnlp.pad_arrays([[1, 2**31]], dtype=np.int32, backend=backend)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("dtype", ["int64", "float32", "float16", "bool", "uint8", "complex128", "S3", ">i4"])
@pytest.mark.parametrize("features", [(), (1,), (5,), (2, 3), (0,)])
def test_unpad_inverts(side, dtype, features, backend, rng):
    rows = some_rows(rng, 12, 9)
    batch = fastnlp.pad_arrays(rows, side=side, pad_to_multiple=4, backend=backend)
    values = (rng.integers(0, 2, (*batch.input_ids.shape, *features))).astype(dtype)
    real = batch.attention_mask != 0
    for how in ({"lengths": batch.lengths, "side": side}, {"mask": batch.attention_mask}, {"mask": real.tolist()}):
        got, offsets = fastnlp.unpad_arrays(values, **how, backend=backend)
        assert got.dtype == values.dtype
        assert np.array_equal(got, values[real])
        assert offsets.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
        tokens, _ = fastnlp.unpad_arrays(batch.input_ids, **how, backend=backend)
        assert tokens.tolist() == [t for row in rows for t in row]


def test_unpad_keeps_what_the_mask_keeps(backend, rng):
    values, mask = rng.random((9, 7)), rng.integers(0, 2, (9, 7))
    got, offsets = fastnlp.unpad_arrays(values.T.copy().T, mask=mask, backend=backend)
    assert np.array_equal(got, values[mask == 1])
    assert np.array_equal(np.diff(offsets), mask.sum(axis=1))
    none, offsets = fastnlp.unpad_arrays(np.empty((0, 3)), [], backend=backend)
    assert none.shape == (0,)
    assert offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("values", "how", "error", "words"),
    [
        ([1, 2], {"lengths": [1, 1]}, ValueError, "values must have shape"),
        ([[1, 2]], {}, ValueError, "either lengths or mask"),
        ([[1, 2]], {"lengths": [1], "mask": [[1, 0]]}, ValueError, "either lengths or mask"),
        ([[1, 2]], {"lengths": [3]}, ValueError, r"lengths must be 1 integers in \[0, 2\]"),
        ([[1, 2]], {"lengths": [-1]}, ValueError, "lengths must be"),
        ([[1, 2]], {"lengths": [1, 1]}, ValueError, "lengths must be"),
        ([[1, 2]], {"lengths": [1.0]}, TypeError, "lengths must be integers"),
        ([[1, 2]], {"mask": [["a", ""]]}, TypeError, "mask must be booleans or numbers"),
        ([[1, 2]], {"mask": [[1]]}, ValueError, r"mask must have shape \(1, 2\)"),
        ([[1, 2]], {"lengths": [1], "side": "up"}, ValueError, "side must be"),
        ([[None, 2]], {"lengths": [1]}, TypeError, "values must be numbers"),
    ],
)
def test_bad_unpadding(values, how, error, words):
    with pytest.raises(error, match=words):
        fastnlp.unpad_arrays(values, **how)


def test_threads_do_not_change_a_bit(rng):
    numba = pytest.importorskip("numba", reason="numba is not installed")
    assert numba
    rows = [rng.integers(0, 60_000, k) for k in rng.integers(0, 4_000, 200)]
    want = fastnlp.pad_arrays(rows, side="left", backend="reference")
    hidden = rng.random((*want.input_ids.shape, 2), np.float32)
    flat_hidden = fastnlp.unpad_arrays(hidden, want.lengths, side="left", backend="reference")[0]
    before = fastnlp.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            got = fastnlp.pad_arrays(rows, side="left", backend="cpu")
            assert np.array_equal(got.input_ids, want.input_ids)
            assert np.array_equal(got.attention_mask, want.attention_mask)
            assert np.array_equal(
                fastnlp.unpad_arrays(hidden, want.lengths, side="left", backend="cpu")[0], flat_hidden
            )
    finally:
        fastnlp.set_num_threads(before)


def test_kernels_write_every_entry(backend):
    kernels = importlib.import_module(f"fastnlp.kernels.{backend}.pad_arrays")
    lengths = np.array([2, 0, 4])
    for at_left in (False, True):
        ids, mask = np.full((3, 4), 99), np.full((3, 4), 99)
        kernels.pad_rows(lengths, at_left, -1, ids, mask)
        assert set(np.unique(mask)) == {0, 1}
        assert np.array_equal(ids == 99, mask == 1)  # the tokens' places are left for the tokens
        assert np.array_equal(ids == -1, mask == 0)


def test_equal_to_the_padding_collator(backend, rng):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    pytest.importorskip("torch", reason="torch is not installed")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    rows = some_rows(rng, 9, 30, shortest=1)
    for side in ("right", "left"):
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", padding_side=side)
        collate = transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
        want = collate([{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows])
        got = fastnlp.pad_arrays(rows, side=side, pad_to_multiple=8, backend=backend)
        for name in ("input_ids", "attention_mask"):
            assert np.array_equal(getattr(got, name), want[name].numpy())
            assert getattr(got, name).dtype == want[name].numpy().dtype
