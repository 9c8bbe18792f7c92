"""Sequences in all the forms they come in: the same tokens from each, nothing else touched, errors that say where."""

from __future__ import annotations

import numpy as np
import pytest

import fastnlp
from fastnlp.ops._lengths import checked_lengths
from fastnlp.ops._ragged import Ragged, ragged

ROWS = [[3, 1, 4, 1, 5], [], [9, 2], [6], [], [5, 3, 5, 8, 9, 7, 9]]


def tokens_of(x, items=None):
    """What the caller of `ragged` would read, as lists."""
    read = ragged("sequences", x, items)
    assert read.begin.dtype == read.lengths.dtype == np.int64
    for chunk in read.chunks:
        assert chunk.dtype in (np.int64, np.int32, np.uint16)
        assert chunk.flags.carray
    home = np.zeros(len(read), int) if read.chunk is None else read.chunk
    return [read.chunks[c][b : b + n].tolist() for c, b, n in zip(home, read.begin.tolist(), read.lengths, strict=True)]


def flat(rows, dtype=np.int64):
    offsets = np.cumsum([0, *map(len, rows)])
    return np.array([t for row in rows for t in row], dtype), offsets


def arrow_forms():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    lists, large = pa.list_(pa.int32()), pa.large_list(pa.int64())
    return {
        "ListArray": pa.array(ROWS, lists),
        "LargeListArray": pa.array(ROWS, large),
        "sliced": pa.array([[7, 7], *ROWS, [8]], lists).slice(1, len(ROWS)),
        "sliced twice": pa.array([[7, 7], [1], *ROWS, [8]], large)[1:][1:-1],
        "of a sliced table": pa.table({"a": pa.array([[7, 7], *ROWS], lists)}).slice(1)["a"],
        "chunked": pa.chunked_array([ROWS[:2], [], ROWS[2:3], ROWS[3:]], lists),
        "chunked and sliced": pa.chunked_array([[[1, 2], *ROWS[:2]], ROWS[2:], [[5]]], lists).slice(1, len(ROWS)),
        "one chunk": pa.chunked_array([ROWS], lists),
        "uint16": pa.array(ROWS, pa.list_(pa.uint16())),
        "uint8": pa.array(ROWS, pa.list_(pa.uint8())),
        "list view": pa.array(ROWS, pa.list_view(pa.int32())),
    }


@pytest.mark.parametrize(
    "form",
    [
        "ListArray",
        "LargeListArray",
        "sliced",
        "sliced twice",
        "of a sliced table",
        "chunked",
        "chunked and sliced",
        "one chunk",
        "uint16",
        "uint8",
        "list view",
    ],
)
def test_arrow_columns(form):
    column = arrow_forms()[form]
    assert tokens_of(column) == ROWS
    assert tokens_of(column, [5, 0, 0, 1, 3]) == [ROWS[i] for i in (5, 0, 0, 1, 3)]
    assert tokens_of(column, []) == []
    assert fastnlp.sequence_lengths(column).tolist() == [*map(len, ROWS)]


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4", ">u2"]
)
def test_tokens_of_every_integer_dtype(dtype):
    tokens, offsets = flat(ROWS, dtype)
    tokens.flags.writeable = False
    assert tokens_of((tokens, offsets)) == ROWS
    assert tokens_of((tokens, offsets), [5, 2]) == [ROWS[5], ROWS[2]]
    assert tokens_of((tokens, offsets.astype(np.int32)), np.array([0])) == [ROWS[0]]
    assert tokens_of([np.array(row, dtype) for row in ROWS]) == ROWS
    assert tokens_of(tokens[:8].reshape(4, 2), [3, 0]) == tokens[:8].reshape(4, 2)[[3, 0]].tolist()
    strided = np.repeat(tokens, 2)[::2]
    assert tokens_of((strided, offsets), [5, 2]) == [ROWS[5], ROWS[2]]
    assert fastnlp.sequence_lengths((tokens, offsets)).tolist() == [*map(len, ROWS)]


def test_rows_of_different_kinds():
    rows = [
        ROWS[0],
        tuple(ROWS[1]),
        np.array(ROWS[2], np.uint16),
        range(6, 7),
        np.array([]),
        np.array(ROWS[5], np.uint64),
    ]
    assert tokens_of(rows) == ROWS
    assert tokens_of(rows, [5, 3]) == [ROWS[5], [6]]
    assert tokens_of([tuple(row) for row in ROWS]) == ROWS
    assert tokens_of(np.array([*map(np.array, ROWS)], dtype=object), [2]) == [[9, 2]]
    assert tokens_of([[np.int32(4), True, -(2**63)]]) == [[4, 1, -(2**63)]]
    assert fastnlp.sequence_lengths(rows).tolist() == [5, 0, 2, 1, 0, 7]


@pytest.mark.parametrize(
    "none", [[], np.empty((0, 3), np.int64), ([], [0]), (np.empty(0, np.int32), np.array([7]) * 0)]
)
def test_no_sequences(none):
    assert tokens_of(none) == []
    assert tokens_of(none, []) == []
    assert fastnlp.sequence_lengths(none).shape == (0,)


def test_empty_sequences():
    assert tokens_of([[], []]) == [[], []]
    assert tokens_of(([], [0, 0, 0])) == [[], []]
    assert tokens_of(np.empty((2, 0), np.int64)) == [[], []]


def test_offsets_need_not_begin_at_the_first_token():
    tokens, offsets = flat(ROWS)
    assert tokens_of((tokens, offsets[2:5])) == ROWS[2:4]


def test_what_was_read_can_be_read_again():
    read = ragged("sequences", ROWS)
    assert ragged("sequences", read) is read
    assert tokens_of(read, [5, 2]) == [ROWS[5], ROWS[2]]
    assert len(read) == 6


def test_native_memory_is_not_copied(tmp_path):
    tokens, offsets = flat(ROWS, np.uint16)
    assert np.shares_memory(ragged("x", (tokens, offsets)).chunks[0], tokens)
    tokens.tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", np.uint16, "r")
    read = ragged("x", (mapped, offsets))
    assert np.shares_memory(read.chunks[0], mapped)
    assert type(read.chunks[0]) is np.ndarray
    assert np.shares_memory(ragged("x", tokens[:6].reshape(2, 3)).chunks[0], tokens)


def test_arrow_memory_is_not_copied():
    for column in arrow_forms().values():
        for chunk in getattr(column, "chunks", [column]):
            address = chunk.values.buffers()[1].address if len(chunk) else 0
            if address and chunk.values.type != "uint8":
                begin = address + chunk.values.offset * chunk.values.type.byte_width
                assert begin in [x.__array_interface__["data"][0] for x in ragged("x", column).chunks]


def test_only_the_chunks_that_are_asked_for_are_read():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    column = pa.chunked_array([[[1, 2]], [None], [[3, None]], [[4]]], pa.list_(pa.int32()))
    assert tokens_of(column, [3, 0]) == [[4], [1, 2]]
    assert len(ragged("x", column, [3, 0]).chunks) == 2
    with pytest.raises(ValueError, match="x is null at row 1"):
        ragged("x", column)
    with pytest.raises(ValueError, match="x has a null token at row 2"):
        ragged("x", column, [0, 2])
    whole = pa.array([[1], None, [2, None], [3]], pa.list_(pa.int32()))
    assert tokens_of(whole, [3, 0]) == [[3], [1]]
    assert tokens_of(whole[3:]) == [[3]]
    with pytest.raises(ValueError, match="null at row 1"):
        fastnlp.sequence_lengths(whole)


def test_arrow_lists_over_values_that_are_a_slice():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    values = pa.array([7, 7, 1, 2, 3], pa.int32()).slice(2)
    column = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), values)
    assert tokens_of(column) == [[1, 2], [3]]
    assert tokens_of(column[1:]) == [[3]]


def test_of_tokens_that_are_converted_only_those_asked_for_are():
    tokens, offsets = np.arange(10_000).astype(np.int8), np.arange(0, 10_001, 10)
    read = ragged("x", (tokens, offsets), [999, 0, 500])
    assert read.chunks[0].size == 30
    assert tokens_of((tokens, offsets), [999, 0, 500]) == tokens.reshape(-1, 10)[[999, 0, 500]].tolist()
    tokens = np.full(10_000, 2**63, np.uint64)
    tokens[:10] = tokens[9_990:] = 3
    assert tokens_of((tokens, offsets), [999, 0]) == [[3] * 10] * 2
    with pytest.raises(ValueError, match="beyond int64"):
        ragged("x", (tokens, offsets), [1])


def test_arrow_lists_of_a_fixed_size():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    column = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2))
    assert tokens_of(column) == [[1, 2], [3, 4], [5, 6]]
    assert tokens_of(column[1:], [1]) == [[5, 6]]
    assert fastnlp.sequence_lengths(column[1:]).tolist() == [2, 2]


def test_tensors():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rows = [torch.tensor(row, dtype=torch.int64) for row in ROWS]
    assert tokens_of(rows) == ROWS
    tokens, offsets = flat(ROWS)
    assert tokens_of((torch.tensor(tokens), torch.tensor(offsets)), torch.tensor([5])) == [ROWS[5]]
    assert tokens_of(torch.tensor([[1, 2], [3, 4]], dtype=torch.int32)) == [[1, 2], [3, 4]]
    for bad in (
        [rows[0].bool(), rows[1]],
        [rows[0].to("meta")],
        rows[0].to("meta"),
        [rows[0].double()],
        torch.ones(2, 2, dtype=torch.bool),
    ):
        with pytest.raises(TypeError, match="x"):
            ragged("x", bad)


def test_a_column_of_a_data_frame():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame({"ids": ROWS, "n": [*map(len, ROWS)]}, index=[*range(5, -1, -1)])
    assert tokens_of(frame["ids"]) == ROWS
    assert tokens_of(frame["ids"], [5, 2]) == [ROWS[5], ROWS[2]]
    assert fastnlp.sequence_lengths(frame["ids"]).tolist() == checked_lengths(frame["n"]).tolist()


def test_texts_are_no_sequences_of_tokens():
    for x in (["some", "texts"], [b"bytes"], [{"input_ids": [1]}], [np.zeros((2, 2), int)]):
        with pytest.raises((TypeError, ValueError), match=r"sequences\[0\]"):
            fastnlp.sequence_lengths(x)


def test_columns_of_hugging_face_datasets():
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    data = datasets.Dataset.from_dict({"ids": ROWS, "n": [*map(len, ROWS)], "meta": [{"ids": row} for row in ROWS]})
    assert tokens_of(data["ids"]) == ROWS
    assert tokens_of(data["ids"], [5, 2]) == [ROWS[5], ROWS[2]]
    for form in ("numpy", "torch", "arrow"):
        if form != "torch" or datasets.config.TORCH_AVAILABLE:
            assert tokens_of(data.with_format(form)["ids"]) == ROWS
    order = [5, 0, 2, 2, 3]
    for chosen in (data.select(order), data.select(order).flatten_indices()):
        assert tokens_of(chosen["ids"]) == [ROWS[i] for i in order]
        assert tokens_of(chosen["ids"], [4, 0]) == [ROWS[3], ROWS[5]]
        assert fastnlp.sequence_lengths(chosen["ids"]).tolist() == [len(ROWS[i]) for i in order]
        assert checked_lengths(chosen["n"]).tolist() == [len(ROWS[i]) for i in order]
    assert tokens_of(data.select(range(2, 5))["ids"]) == ROWS[2:5]
    assert tokens_of(datasets.concatenate_datasets([data, data])["ids"]) == [*ROWS, *ROWS]
    assert tokens_of(data["meta"]["ids"]) == ROWS
    doubled = data.with_transform(lambda batch: {"ids": [[2 * t for t in row] for row in batch["ids"]]})
    assert tokens_of(doubled["ids"], [2]) == [[18, 4]]
    with pytest.raises(TypeError, match=r"x is a Dataset: pass one of its columns"):
        ragged("x", data)


def test_a_mapped_dataset_is_read_where_it_is(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    datasets.Dataset.from_dict({"ids": ROWS}).save_to_disk(tmp_path / "data")
    data = datasets.load_from_disk(tmp_path / "data").shuffle(seed=0)
    column = data.data.column("ids").chunk(0).values
    read = ragged("x", data["ids"], [1, 3])
    assert read.chunks[0].__array_interface__["data"][0] == column.buffers()[1].address + 8 * column.offset
    assert tokens_of(data["ids"]) == list(data["ids"])


def test_a_corpus_has_its_documents():
    corpus = fastnlp.build_corpus(["a b a", "b", "a b b a"], min_count=1)
    assert tokens_of(corpus) == [x.tolist() for x in corpus.documents()]
    assert fastnlp.sequence_lengths(corpus).tolist() == [3, 1, 4]


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ([[1, 2], [3, None]], TypeError, r"x\[1\] holds None at index 1"),
        ([[1, 2.5]], TypeError, r"x\[0\] holds 2.5 at index 1"),
        ([[1], [2**63]], ValueError, r"x\[1\] holds 9223372036854775808 at index 0, beyond int64"),
        ([np.array([1]), [0.5]], TypeError, r"x\[1\] holds 0.5"),
        ([[1], 5], TypeError, r"x\[1\] is 5: a sequence of integers is wanted"),
        ([1, 2], TypeError, r"x\[0\] is 1"),
        ([["a"]], TypeError, r"x\[0\] holds 'a'"),
        (["abc"], TypeError, r"x\[0\] is 'abc'"),
        ([(1, 2), [[3], [4]]], TypeError, r"x\[1\] holds \[3\]"),
        ([np.array([1.0])], TypeError, r"x\[0\] must hold integers, got float64"),
        ([np.array([True])], TypeError, r"x\[0\] must hold integers, got bool"),
        ([np.zeros((2, 2), int)], ValueError, r"x\[0\] has shape \(2, 2\)"),
        ([np.array([2**63], np.uint64)], ValueError, "beyond int64"),
        (np.arange(5), ValueError, r"x has shape \(5,\)"),
        (np.zeros((2, 2)), TypeError, "x must hold integers, got float64"),
        ((np.arange(5), [0, 6]), ValueError, "offsets must rise"),
        ((np.arange(5), [3, 2]), ValueError, "offsets must rise"),
        ((np.arange(5), [-1, 2]), ValueError, "offsets must rise"),
        ((np.arange(5), []), ValueError, "offsets are empty"),
        ((np.arange(5), [0.5, 2]), TypeError, "got offsets of float64"),
        ((np.arange(5.0), [0, 2]), TypeError, "got tokens of float64"),
        ((np.arange(5), [6]), ValueError, "offsets must rise"),
        (([1], [2], [3]), TypeError, "got 3 entries"),
        ([{1, 2}], TypeError, r"x\[0\] is \{1, 2\}"),
        (np.ma.array([[1, 2]], mask=[[0, 1]]), TypeError, "x is a masked array"),
        (([[1, 2], [3, 4]], [0, 1]), TypeError, r"got tokens of int64 of shape \(2, 2\)"),
        ("abc", TypeError, "x is of type str"),
        ({"input_ids": [[1]]}, TypeError, "x is of type dict"),
        (5, TypeError, "x is of type int"),
        (None, TypeError, "x is of type NoneType"),
    ],
)
def test_bad_sequences(bad, error, words):
    with pytest.raises(error, match=words):
        ragged("x", bad)


@pytest.mark.parametrize(
    ("items", "error"),
    [([6], ValueError), ([-1], ValueError), ([0.0], TypeError), ([[0]], ValueError), ([True], TypeError)],
)
def test_bad_items(items, error):
    for x in (ROWS, flat(ROWS), ragged("x", ROWS)):
        with pytest.raises(error, match="items"):
            ragged("x", x, items)


def test_bad_arrow_columns():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for bad in (pa.array([1, 2]), pa.array([["a"]]), pa.array([[1.5]]), pa.array([[[1]]]), pa.table({"a": [[1]]})):
        with pytest.raises(TypeError, match="x"):
            ragged("x", bad)
    with pytest.raises(TypeError, match="got run_end_encoded"):
        ragged("x", pa.RunEndEncodedArray.from_arrays([2, 3], pa.array([[1], [2]])))


def test_lengths_in_all_forms():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for x in (
        torch.tensor([3, 1, 2]),
        pa.array([3, 1, 2]),
        pa.array([9, 3, 1, 2], pa.uint16())[1:],
        pa.chunked_array([[3], [], [1, 2]], pa.int64()),
    ):
        assert checked_lengths(x).tolist() == [3, 1, 2]
        assert checked_lengths(x).dtype == np.int32
    with pytest.raises(ValueError, match="lengths is null at row 1"):
        checked_lengths(pa.array([3, None]))
    with pytest.raises(TypeError, match="lengths must be integers"):
        checked_lengths(pa.array([3.5]))


def test_frozen():
    assert isinstance(ragged("x", ROWS), Ragged)
    with pytest.raises(AttributeError):
        ragged("x", ROWS).begin = None
