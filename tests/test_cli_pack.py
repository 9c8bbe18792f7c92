"""``fastnlp pack``: all that lengths are read from, the tables, the page, the saved packing, and what can go wrong."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pytest

import fastnlp

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from tests import commands

LENGTHS = [5, 3, 8, 2, 7, 7, 1, 10]
FEW = ("--capacity", 10, "--algorithm", "first_fit_decreasing", "--batch-size", 2)


def succeeds(*arguments, **options):
    return commands.succeeds("pack", *arguments, **options)


def fails(*arguments, **options):
    return commands.fails("pack", *arguments, **options)


def rows_shown(result):
    """The number of rows and the efficiency in the one line of the table."""
    line = re.search(r"10\s+first_fit_decreasing\s+(\d+)\s+(\d+)\s+([\d.]+)%", result.stdout)
    return int(line[1]), int(line[2]), float(line[3])


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text("\n".join(map(str, LENGTHS)) + "\n")
    return path


def test_tables_of_every_algorithm(numbers):
    result = succeeds(numbers, "--capacity", 10, "--capacity", 16)
    for algorithm in ("first_fit_decreasing", "best_fit_decreasing", "next_fit", "optimal"):
        assert len(re.findall(rf"(?:10|16)\s+{algorithm}\s", result.stdout)) == 2, algorithm
    assert "8 sequences, 43 tokens; lengths 1 to 10, median 6" in result.stdout
    for name in ("random", "sorted within 50 batches", "sorted"):
        assert name in result.stdout


def test_figures_are_those_of_the_library(numbers):
    packing = fastnlp.pack(LENGTHS, 10)
    rows, bound, efficiency = rows_shown(succeeds(numbers, *FEW))
    assert (rows, bound) == (len(packing), packing.lower_bound)
    assert efficiency == pytest.approx(100 * packing.efficiency, abs=1e-3)


def sequences():
    return [list(range(n)) for n in LENGTHS]


def make_numbers_after_a_mark_and_a_blank_line(folder):
    (folder / "x.txt").write_text("\n" + "\n".join(map(str, LENGTHS)), encoding="utf-8-sig")
    return folder / "x.txt"


def make_packed_numbers(folder):
    with gzip.open(folder / "x.gz", "wt") as file:
        file.write("\n".join(map(str, LENGTHS)))
    return folder / "x.gz"


def make_npy(folder):
    np.save(folder / "x.npy", np.array(LENGTHS, np.uint16))
    return folder / "x.npy"


def make_npz_of_lengths(folder):
    np.savez(folder / "x.npz", lengths=LENGTHS)
    return folder / "x.npz"


def make_npz_of_offsets(folder):
    np.savez(folder / "x.npz", offsets=np.append(0, np.cumsum(LENGTHS)), tokens=np.zeros(43, np.int32))
    return folder / "x.npz"


def make_text(folder):
    (folder / "x.txt").write_text("\n".join(" ".join("a" * n) for n in LENGTHS))
    return folder / "x.txt"


def make_corpus(folder):
    fastnlp.build_corpus(make_text(folder), min_count=1).save(folder / "corpus")
    return folder / "corpus"


def make_jsonl(folder):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (folder / "x.jsonl").write_text("".join(json.dumps({"input_ids": x, "n": 1}) + "\n" for x in sequences()))
    return folder / "x.jsonl"


def make_packed_jsonl(folder):
    path = make_jsonl(folder)
    with gzip.open(folder / "x.jsonl.gz", "wb") as file:
        file.write(path.read_bytes())
    return folder / "x.jsonl.gz"


def make_parquet(folder):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table({"text": ["a"] * 8, "tokens": sequences()}), folder / "x.parquet", row_group_size=3)
    return folder / "x.parquet"


def make_parquet_of_lengths(folder):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table({"input_ids": LENGTHS}), folder / "x.parquet")
    return folder / "x.parquet"


def make_arrow(folder):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pa.table({"input_ids": pa.array(sequences(), pa.large_list(pa.int32()))})
    with pa.OSFile(str(folder / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return folder / "x.arrow"


def make_dataset(folder):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"input_ids": [[1], *sequences()]}).select(range(1, 9)).save_to_disk(folder / "data")
    return folder / "data"


@pytest.mark.parametrize("make", [value for name, value in list(globals().items()) if name.startswith("make_")])
def test_lengths_are_read_from(make, tmp_path):
    piped = succeeds("-", *FEW, input=" ".join(map(str, LENGTHS)))
    assert rows_shown(succeeds(make(tmp_path), *FEW)) == rows_shown(piped)


def test_several_files_and_a_column(tmp_path, numbers):
    assert "16 sequences, 86 tokens" in succeeds(numbers, numbers, *FEW).stdout
    path = make_parquet(tmp_path)
    assert "8 sequences, 43 tokens" in succeeds(path, *FEW, "--column", "tokens").stdout
    assert "no column 'ids', but text, tokens" in fails(path, *FEW, "--column", "ids")
    assert "column 'text' of" in fails(path, *FEW, "--column", "text")
    assert "--column is for datasets" in fails(numbers, *FEW, "--column", "tokens")


def test_columns_that_hold_no_tokens(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    columns = {"text": ["a"], "f": [1.5], "words": [["a"]], "deep": [[[1]]], "vectors": [[0.5]]}
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    for column in columns:
        message = fails(tmp_path / "x.parquet", *FEW, "--column", column)
        assert f"column {column!r} of" in message
        assert "choose one of token ids with --column" in message
    two = pa.table([pa.array([[1]]), pa.array([[2]])], names=["a", "a"])
    parquet.write_table(two, tmp_path / "two.parquet")
    assert "several columns 'a'" in fails(tmp_path / "two.parquet", *FEW, "--column", "a")
    assert "choose one with --column" in fails(tmp_path / "two.parquet", *FEW)
    parquet.write_table(pa.table({"a": [[1]] * 66_000 + [None]}), tmp_path / "null.parquet")
    message = fails(tmp_path / "null.parquet", *FEW)
    assert "column 'a' of" in message
    assert "rows from 65,536 on: sequences is null at row 464" in message


def test_columns_of_arrays_of_one_size_and_long_lines(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    pairs = pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2))
    parquet.write_table(pa.table({"text": ["a", "b"], "ids": pairs}), tmp_path / "x.parquet")
    assert "2 sequences, 4 tokens" in succeeds(tmp_path / "x.parquet", *FEW).stdout
    (tmp_path / "x.jsonl").write_text(json.dumps({"input_ids": [1234567] * 300_000}))
    assert "1 sequences, 300,000 tokens" in succeeds(tmp_path / "x.jsonl", *FEW).stdout


def test_columns_of_a_saved_dataset(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    datasets.disable_progress_bars()
    data = datasets.Dataset.from_dict({"text": ["a"] * 8, "length": LENGTHS})
    data.save_to_disk(tmp_path / "data")
    assert "8 sequences, 43 tokens" in succeeds(tmp_path / "data", *FEW, "--column", "length").stdout
    assert "column 'text' of" in fails(tmp_path / "data", *FEW, "--column", "text")
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "parts")
    assert "several datasets (train, test)" in fails(tmp_path / "parts", *FEW)


def test_output_is_the_packing(numbers, tmp_path):
    path = tmp_path / "packing.npz"
    succeeds(numbers, *FEW, "--output", path, "--seed", 3)
    packing = fastnlp.Packing.load(path)
    wanted = fastnlp.pack(LENGTHS, 10, seed=3)
    assert [row.tolist() for row in packing] == [row.tolist() for row in wanted]
    assert "one --capacity and one --algorithm" in fails(numbers, "--output", path)


def test_overlong_items_are_counted(numbers):
    few = (*FEW, "--capacity", 6)
    assert "4 truncated" in succeeds(numbers, *few).stdout
    assert "4 split" in succeeds(numbers, *few, "--overlong", "split").stdout
    assert "4 dropped" in succeeds(numbers, *few, "--overlong", "drop").stdout
    assert "exceed the capacity of 6" in fails(numbers, *few, "--overlong", "error")


def test_token_budget(numbers):
    assert "random" in succeeds(numbers, "--capacity", 10, "--max-tokens", 20).stdout
    assert "give one" in fails(numbers, "--max-tokens", 20, "--batch-size", 2)
    assert "max_tokens" in fails(numbers, "--capacity", 10, "--max-tokens", 5)
    assert "sorted" in succeeds(numbers, "--capacity", 10, "--max-tokens", 10**15).stdout


@pytest.mark.parametrize("lengths", [LENGTHS, [1], [0, 0], [3] * 500])
def test_report_is_a_page(lengths, tmp_path):
    page = tmp_path / "report.html"
    source = tmp_path / "<lengths>.txt"
    source.write_text("\n".join(map(str, lengths)))
    succeeds(source, "--capacity", 10, "--capacity", 64, "--report", page)
    written = page.read_text(encoding="utf-8")
    checker = commands.PageChecker()
    checker.feed(written)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    shown = " ".join(checker.text)
    for word in ("Lengths", "Rows", "Batches", "<lengths>.txt", "first fit decreasing", "optimal", "Padding, %"):
        assert word in shown, word
    assert written.count("<svg") == 2
    assert not re.search(r"(src|href)=\"http", written.replace('xmlns:xlink="http', ""))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("", "is empty"),
        ("\n \n", "holds no tokens"),
        ("5\nten\n3\n", "holds 'ten' among lengths"),
        ("5\n1.5\n", "holds '1.5' among lengths"),
        ("1.5\n5\n", "holds '1.5' among lengths"),
        ("5\n-2\n", "lengths holds -2 at index 1"),
        (f"5\n{2**31}\n", "lengths holds 2147483648"),
        (f"5\n{2**80}\n", "among lengths"),
    ],
)
def test_bad_lengths(contents, message, tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text(contents)
    assert message in fails(path, *FEW)


def test_bad_files(tmp_path, numbers):
    assert "does not exist" in fails(tmp_path / "nowhere.txt")
    assert "neither a corpus nor a dataset" in fails(tmp_path)
    for name in ("x.npy", "x.npz"):
        (tmp_path / name).write_bytes(b"nothing")
        assert "cannot be read" in fails(tmp_path / name)
    (tmp_path / "x.npz").write_bytes(make_npz_of_lengths(tmp_path).read_bytes()[:-50])
    assert "cannot be read" in fails(tmp_path / "x.npz")
    assert "stands alone" in fails("-", numbers)
    np.save(tmp_path / "two.npy", np.zeros((2, 2), np.int64))
    assert "one axis" in fails(tmp_path / "two.npy")
    np.savez(tmp_path / "other.npz", ids=[1])
    assert "holds ids" in fails(tmp_path / "other.npz")
    assert "different kinds" in fails(numbers, tmp_path / "two.npy")
    assert "would be overwritten" in fails(numbers, *FEW, "--output", numbers)
    assert "folder" in fails(numbers, *FEW, "--report", tmp_path / "none" / "r.html")


def test_damaged_tables(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for name in ("x.parquet", "x.arrow", "x.jsonl"):
        (tmp_path / name).write_bytes(b"{nothing")
        assert "cannot be read" in fails(tmp_path / name), name
