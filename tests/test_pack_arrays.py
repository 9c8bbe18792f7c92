"""`pack_arrays`, `unpack_arrays`: against plain Python and the collator they stand in for, and back again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fastnlp
from fastnlp.ops.pack_arrays import unpack_arrays

FIELDS = ("input_ids", "position_ids", "sequence_ids", "labels")


def some_rows(rng, n, longest, *, shortest=0):
    return [rng.integers(0, 60_000, k).tolist() for k in rng.integers(shortest, longest + 1, n)]


def flat(rows, dtype=np.int64):
    offsets = np.cumsum([0, *map(len, rows)])
    return np.array([t for row in rows for t in row], dtype), offsets


def pieces_of(packing, rows):
    """The rows of a packing as lists of (item, start, tokens)."""
    result = []
    for r in range(len(packing)):
        places = range(packing.row_ptr[r], packing.row_ptr[r + 1])
        starts = [0 if packing.starts is None else int(packing.starts[k]) for k in places]
        ends = [start + int(packing.lengths[k]) for k, start in zip(places, starts, strict=True)]
        items = [int(packing.items[k]) for k in places]
        result.append([(i, s, rows[i][s:e]) for i, s, e in zip(items, starts, ends, strict=True)])
    return result


def laid_out(rows_of_pieces, *, capacity=None, multiple=1, pad=0, position_start=0, ignore=-100):
    """All that `pack_arrays` returns, as lists, token by token."""
    ids, positions, numbers, labels, cu, padded = [], [], [], [], [], []
    number = 0

    def fill(gap):
        if gap:
            cu.append(len(ids))
        for x, value in ((ids, pad), (positions, position_start), (numbers, 0), (labels, ignore)):
            x.extend([value] * gap)

    for row in rows_of_pieces:
        end = len(ids) + capacity if capacity else None
        number = 0 if capacity else number
        for k, (_, _, tokens) in enumerate(row):
            number += 1
            cu.append(len(ids))
            padded.append(len(ids))
            for j, token in enumerate(tokens):
                ids.append(token)
                positions.append(position_start + j)
                numbers.append(number)
                labels.append(ignore if j == 0 else token)
            fill(end - len(ids) if capacity and k == len(row) - 1 else -len(tokens) % multiple)
    return ids, positions, numbers, labels, [*cu, len(ids)], [*padded, len(ids)]


def assert_laid_out(packed, want):
    for name, x in zip(FIELDS, want[:4], strict=True):
        assert getattr(packed, name).reshape(-1).tolist() == x, name
    assert packed.cu_seqlens.tolist() == want[4]
    assert packed.cu_seqlens_padded.tolist() == want[5]
    assert packed.cu_seqlens.dtype == packed.cu_seqlens_padded.dtype == np.int32
    assert packed.max_seqlen == max(np.diff(want[4]), default=0)
    assert type(packed.max_seqlen) is int


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_one_after_another(dtype, backend, rng):
    for n, longest in ((0, 1), (1, 0), (1, 9), (5, 0), (33, 12)):
        rows = some_rows(rng, n, longest)
        want = laid_out([[(i, 0, row) for i, row in enumerate(rows)]], position_start=2, ignore=-1)
        for x in (rows, flat(rows), flat(rows, np.uint16)):
            packed = fastnlp.pack_arrays(x, position_start=2, ignore_index=-1, dtype=dtype, backend=backend)
            assert_laid_out(packed, want)
            assert all(getattr(packed, name).dtype == dtype for name in FIELDS)
            assert packed.lengths.tolist() == [*map(len, rows)]
            assert packed.items.tolist() == list(range(n))


@pytest.mark.parametrize("layout", ["flat", "rows"])
@pytest.mark.parametrize(
    ("capacity", "options"),
    [
        (16, {}),
        (17, {"item_multiple": 4}),
        (16, {"item_multiple": 8}),
        (7, {"overlong": "split"}),
        (9, {"overlong": "split", "item_multiple": 4}),
        (6, {"overlong": "truncate"}),
        (10, {"overlong": "truncate", "item_multiple": 4}),
        (5, {"overlong": "drop"}),
        (16, {"seed": 1}),
        (16, {"max_per_bin": 2}),
    ],
)
def test_rows_of_a_packing(layout, capacity, options, backend, rng):
    for shortest in (0, 1):
        rows = some_rows(rng, 40, 16, shortest=shortest)
        packing = fastnlp.pack([*map(len, rows)], capacity, **options)
        pieces = pieces_of(packing, rows)
        multiple = packing.item_multiple
        want = laid_out(pieces, capacity=capacity if layout == "rows" else None, multiple=multiple, pad=-5)
        packed = fastnlp.pack_arrays(rows, packing, layout=layout, pad=-5, backend=backend)
        assert_laid_out(packed, want)
        assert packed.input_ids.shape == ((len(packing), capacity) if layout == "rows" else (len(want[0]),))
        real = packed.sequence_ids != 0
        assert int(real.sum()) == int(packing.row_tokens.sum()) == int(packed.lengths.sum())
        assert (np.diff(packed.cu_seqlens_padded) >= packed.lengths).all()
        if multiple > 1:
            assert (
                (packed.cu_seqlens_padded[:-1] % (capacity if layout == "rows" else multiple)) % multiple == 0
            ).all()


@pytest.mark.parametrize("layout", ["flat", "rows"])
@pytest.mark.parametrize(
    ("capacity", "options"),
    [
        (16, {}),
        (19, {"item_multiple": 4}),
        (7, {"overlong": "split", "seed": 3}),  # rows in any order: the end of a sequence before its beginning
        (9, {"overlong": "split", "item_multiple": 4}),
    ],
)
@pytest.mark.parametrize("features", [(), (3,), (2, 2)])
def test_unpack_inverts(layout, capacity, options, features, backend, rng):
    rows = some_rows(rng, 50, 16)
    tokens, offsets = flat(rows)
    packing = fastnlp.pack([*map(len, rows)], capacity, **options)
    packed = fastnlp.pack_arrays((tokens, offsets), packing, layout=layout, pad=-1, backend=backend)
    back, at = fastnlp.unpack_arrays(packed.input_ids, packed, backend=backend)
    assert back.tolist() == tokens.tolist()
    assert at.tolist() == offsets.tolist()
    # what a model makes of each token
    hidden = rng.random((*packed.input_ids.shape, *features), np.float32)
    hidden[packed.sequence_ids == 0] = np.nan
    got, _ = fastnlp.unpack_arrays(hidden, packed, backend=backend)
    assert got.shape == (tokens.size, *features)
    assert not np.isnan(got).any()
    where = np.arange(packed.input_ids.size).reshape(packed.input_ids.shape)
    order, _ = fastnlp.unpack_arrays(where, packed, backend="reference")
    assert np.array_equal(packed.input_ids.reshape(-1)[order], tokens)
    assert np.array_equal(got, hidden.reshape(-1, *features)[order])


def test_unpack_some_rows_and_what_was_dropped(backend, rng):
    rows = some_rows(rng, 50, 16)
    packing = fastnlp.pack([*map(len, rows)], 12, overlong="drop")
    for some in (packing, packing[2:5], packing[:0]):
        packed = fastnlp.pack_arrays(rows, some, layout="rows", backend=backend)
        assert packed.input_ids.shape == (len(some), 12)
        back, at = fastnlp.unpack_arrays(packed.input_ids, packed, backend=backend)
        items = sorted(some.items.tolist())
        assert back.tolist() == [t for i in items for t in rows[i]]
        assert np.diff(at).tolist() == [len(rows[i]) for i in items]


def test_unpack_without_a_packing_keeps_the_order_of_items(backend, rng):
    rows, items = some_rows(rng, 9, 6), [5, 2, 2, 8]
    packed = fastnlp.pack_arrays(rows, items=items, backend=backend)
    assert packed.input_ids.tolist() == [t for i in items for t in rows[i]]
    back, at = fastnlp.unpack_arrays(packed.input_ids, packed, backend=backend)
    assert back.tolist() == packed.input_ids.tolist()
    assert np.diff(at).tolist() == [len(rows[i]) for i in items]


def test_a_row_without_items_is_padding(backend):
    packing = fastnlp.pack([2, 3], 4)
    empty = dataclasses.replace(packing, row_ptr=np.array([0, 0, 1, 1, 2]), row_tokens=np.array([0, 3, 0, 2]))
    rows = [[1, 2], [3, 4, 5]]
    packed = fastnlp.pack_arrays(rows, empty, layout="rows", backend=backend)
    assert packed.input_ids.tolist() == [[0, 0, 0, 0], [3, 4, 5, 0], [0, 0, 0, 0], [1, 2, 0, 0]]
    assert packed.sequence_ids.tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    assert packed.cu_seqlens.tolist() == [0, 4, 7, 12, 14, 16]
    assert fastnlp.unpack_arrays(packed.input_ids, packed, backend=backend)[0].tolist() == [1, 2, 3, 4, 5]


def test_labels_of_their_own(backend, rng):
    rows = some_rows(rng, 20, 9)
    labels = [[-t for t in row] for row in rows]
    packing = fastnlp.pack([*map(len, rows)], 5, overlong="split")
    for options in ({"packing": packing, "layout": "rows"}, {"items": [3, 1, 7]}, {}):
        for first in (True, False):
            packed = fastnlp.pack_arrays(rows, labels=labels, ignore_first=first, **options, backend=backend)
            real = packed.sequence_ids != 0
            begins = np.zeros(real.size, bool)
            begins[packed.cu_seqlens_padded[:-1][packed.lengths > 0]] = first
            ignored = begins.reshape(real.shape) | ~real
            assert np.array_equal(packed.labels, np.where(ignored, -100, -packed.input_ids))
    with pytest.raises(ValueError, match="labels must have the lengths"):
        fastnlp.pack_arrays(rows, labels=labels[1:], backend=backend)
    with pytest.raises(ValueError, match="labels do not have the lengths that were packed"):
        fastnlp.pack_arrays(rows, packing, labels=[row[:2] for row in labels], backend=backend)


def test_arrow_columns_that_are_slices(backend, rng):
    """A packer over Arrow once took the tokens of a sliced table from the beginning of the memory behind it."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    rows = some_rows(rng, 60, 9)
    table = pa.table(
        {
            "ids": pa.chunked_array(
                [pa.array(rows[:25], pa.list_(pa.int32())), pa.array(rows[25:], pa.list_(pa.int32()))]
            )
        }
    )
    column = table.slice(10, 40)["ids"]
    packing = fastnlp.pack(fastnlp.sequence_lengths(column), 16)
    want = fastnlp.pack_arrays(rows[10:50], packing, layout="rows", backend="reference")
    got = fastnlp.pack_arrays(column, packing, layout="rows", backend=backend)
    assert np.array_equal(got.input_ids, want.input_ids)
    tokens, _ = fastnlp.unpack_arrays(got.input_ids, got, backend=backend)
    assert tokens.tolist() == [t for row in rows[10:50] for t in row]


def test_out_is_filled_and_nothing_beyond(backend, rng):
    room = [np.full(500, 77) for _ in FIELDS]
    for n in (30, 3, 40):
        rows = some_rows(rng, n, 9)
        packing = fastnlp.pack([*map(len, rows)], 12)
        want = fastnlp.pack_arrays(rows, packing, layout="rows", backend=backend)
        for x in room:
            x[...] = 77
        got = fastnlp.pack_arrays(rows, packing, layout="rows", out=tuple(room), backend=backend)
        for name, whole in zip(FIELDS, room, strict=True):
            x = getattr(got, name)
            assert np.shares_memory(x, whole)
            assert np.array_equal(x, getattr(want, name))
            assert (whole[x.size :] == 77).all()
        again = fastnlp.pack_arrays(rows, packing, layout="rows", out=got, backend=backend)
        assert np.shares_memory(again.labels, room[3])
    with pytest.raises(ValueError, match=r"out\.input_ids has room for 2 entries, 3 are wanted"):
        fastnlp.pack_arrays([[1, 2, 3]], out=tuple(np.empty((4, 2), np.int64)), backend=backend)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"packing": [[0, 1]]}, TypeError, "packing must be a Packing"),
        ({"packing": fastnlp.pack([2, 1], 4), "items": [0]}, ValueError, "either a packing"),
        ({"packing": fastnlp.pack([2, 2], 4)}, ValueError, "do not have the lengths that were packed"),
        ({"packing": fastnlp.pack([1, 1], 1)}, ValueError, "piece 0 of the packing has 1 tokens, its sequence 2"),
        ({"packing": fastnlp.pack([2, 1, 1], 4)}, ValueError, "items holds 2"),
        ({"layout": "rows"}, ValueError, "needs a packing"),
        ({"layout": "columns"}, ValueError, "layout must be one of 'flat', 'rows'"),
        ({"items": [2]}, ValueError, "items holds 2"),
        ({"pad": "0"}, TypeError, "pad must be an integer"),
        ({"ignore_index": 2**31, "dtype": np.int32}, ValueError, "ignore_index must be at most"),
        ({"ignore_first": 1}, TypeError, "ignore_first must be True or False"),
        ({"position_start": -1}, ValueError, "position_start must be at least 0"),
        ({"position_start": 2**31 - 1, "dtype": np.int32}, ValueError, "positions beyond int32"),
        ({"dtype": "float64"}, TypeError, "dtype must be int64 or int32"),
        ({"labels": [[1, 2], [0.5]]}, TypeError, r"labels\[1\] holds 0.5"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        fastnlp.pack_arrays([[1, 2], [3]], **options)


def test_out_is_not_what_is_read(backend):
    tokens, room = np.arange(4), np.empty((3, 4), np.int64)
    for sequences, labels in (((tokens, [0, 4]), None), ([[1, 2, 3, 4]], (tokens, [0, 4]))):
        for place in range(4):
            out = [*room]
            out.insert(place, tokens)
            with pytest.raises(ValueError, match=f"out.{FIELDS[place]} shares memory with what is read"):
                fastnlp.pack_arrays(sequences, labels=labels, out=tuple(out), backend=backend)


def test_positions_up_to_the_last_of_int32(backend):
    packed = fastnlp.pack_arrays([[1, 2]], position_start=2**31 - 2, dtype=np.int32, backend=backend)
    assert packed.position_ids.tolist() == [2**31 - 2, 2**31 - 1]


def test_more_places_than_cu_seqlens_can_count():
    packing = fastnlp.pack([2, 2], 2**31 - 1, max_per_bin=1)
    with pytest.raises(ValueError, match="more than cu_seqlens can count: take fewer rows"):
        fastnlp.pack_arrays([[1, 2], [3, 4]], packing, layout="rows")


def test_bad_values():
    packed = fastnlp.pack_arrays([[1, 2], [3]])
    for values, error, words in (
        (np.zeros(4), ValueError, r"values must have shape \(3, '...'\)"),
        (np.array([None] * 3), TypeError, "values must be numbers"),
    ):
        with pytest.raises(error, match=words):
            fastnlp.unpack_arrays(values, packed)
    with pytest.raises(TypeError, match="packed must be what pack_arrays returned"):
        unpack_arrays(np.zeros(3), [0, 2, 3])


def test_threads_do_not_change_a_bit(rng):
    pytest.importorskip("numba", reason="numba is not installed")
    rows = [rng.integers(0, 60_000, k) for k in rng.integers(0, 3_000, 300)]
    packing = fastnlp.pack([*map(len, rows)], 4_096, item_multiple=8)
    want = fastnlp.pack_arrays(rows, packing, layout="rows", backend="reference")
    before = fastnlp.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            got = fastnlp.pack_arrays(rows, packing, layout="rows", backend="cpu")
            for name in (*FIELDS, "cu_seqlens", "cu_seqlens_padded"):
                assert np.array_equal(getattr(got, name), getattr(want, name))
            assert fastnlp.unpack_arrays(got.input_ids, got)[0].tolist() == np.concatenate(rows).tolist()
    finally:
        fastnlp.set_num_threads(before)


def test_equal_to_the_flattening_collator(backend, rng):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("torch", reason="torch is not installed")
    collate = transformers.DataCollatorWithFlattening(
        return_flash_attn_kwargs=True, return_seq_idx=True, position_ids_start=2
    )
    rows = some_rows(rng, 9, 30, shortest=1)
    labels = [[t + 1 for t in row] for row in rows]
    for given in (None, labels):
        features = [{"input_ids": row} for row in rows]
        if given:
            features = [{**feature, "labels": row} for feature, row in zip(features, labels, strict=True)]
        want = collate(features)
        got = fastnlp.pack_arrays(rows, labels=given, position_start=2, backend=backend)
        for name in ("input_ids", "position_ids", "labels"):
            assert np.array_equal(getattr(got, name)[None], want[name].numpy())
        assert np.array_equal(got.sequence_ids[None] - 1, want["seq_idx"].numpy())
        assert np.array_equal(got.cu_seqlens, want["cu_seq_lens_q"].numpy())
        assert got.cu_seqlens.dtype == want["cu_seq_lens_q"].numpy().dtype
        assert got.max_seqlen == want["max_length_q"]


def test_transformers_finds_the_sequences_in_the_positions(rng):
    """Models that get no cu_seqlens make them of the positions: no two sequences may run into each other there."""
    utils = pytest.importorskip("transformers.modeling_flash_attention_utils", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rows = some_rows(rng, 20, 9, shortest=1)
    packing = fastnlp.pack([*map(len, rows)], 12)
    for position_start in (0, 2):
        packed = fastnlp.pack_arrays(rows, packing, layout="rows", position_start=position_start)
        (found, _), _ = utils.prepare_fa_kwargs_from_position_ids(torch.from_numpy(packed.position_ids))
        assert set(packed.cu_seqlens.tolist()) <= set(found.tolist())
