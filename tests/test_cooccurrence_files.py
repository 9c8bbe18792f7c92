"""Co-occurrence counts in files: the records of the original program and CSR folders, whole or not at all."""

from __future__ import annotations

import errno
import json
import lzma

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

import fastnlp
from fastnlp.ops._cooccurrence_text import _map_of
from fastnlp.text import cooccurrence_files as files
from fastnlp.text import load_cooccurrences, save_cooccurrences
from tests.cooccurrences import assert_canonical, assert_same_bits, zipf_text

RECORD = np.dtype("i4,i4,f8")


@pytest.fixture
def counted(rng):
    ids, boundaries = zipf_text(rng, 10_000, 300)
    options = {"vocab_size": 300, "boundaries": boundaries}
    return ids, options, fastnlp.cooccurrence(ids, **options)


@pytest.fixture(params=["a.bin", "a.csr", "folder"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_counts_are_written_as_they_are_returned(counted, path, backend):
    ids, options, expected = counted
    returned = fastnlp.cooccurrence(ids, out=path, backend=backend, **options)
    if path.suffix == ".bin":
        assert returned == str(path)
        records = np.fromfile(path, RECORD)
        coo = expected.tocoo()
        assert_array_equal(records["f0"], coo.row + 1)
        assert_array_equal(records["f1"], coo.col + 1)
        assert_array_equal(records["f2"], coo.data)
    else:
        assert_same_bits(returned, expected)
        assert _map_of(returned.data)
        assert not returned.data.flags.writeable
        assert_same_bits(sparse.csr_array(returned), expected)
    loaded = load_cooccurrences(path, vocab_size=300)
    assert_same_bits(loaded, expected)
    assert_canonical(loaded, (300, 300))
    assert load_cooccurrences(path, format="coo").format == "coo"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_round_trip(counted, path, monkeypatch):
    ids, options, expected = counted
    monkeypatch.setattr(files, "_PIECE", 1000)
    save_cooccurrences(path, expected)
    assert_same_bits(load_cooccurrences(path, vocab_size=300), expected)
    save_cooccurrences(path, fastnlp.cooccurrence(ids, format="counts", **options))  # in its place
    assert_same_bits(load_cooccurrences(path, vocab_size=300), expected)
    save_cooccurrences(path, sparse.csc_matrix(expected))
    assert_same_bits(load_cooccurrences(path, vocab_size=300), expected)


def test_some_rows_and_the_upper_triangle(counted, tmp_path):
    ids, options, expected = counted
    some = fastnlp.cooccurrence(ids, rows=[7, 2], out=tmp_path / "some", **options)
    assert_same_bits(some, expected[[7, 2]])
    assert json.loads((tmp_path / "some/cooccurrence.json").read_text())["options"]["rows"] == [7, 2]
    path = fastnlp.cooccurrence(ids, rows=[7, 2], out=tmp_path / "some.bin", **options)
    assert np.unique(np.fromfile(path, RECORD)["f0"]).tolist() == [3, 8]
    upper = fastnlp.cooccurrence(ids, format="upper", out=tmp_path / "upper", **options)
    assert_array_equal(upper.toarray(), np.triu(expected.toarray()))


def test_no_counts_at_all(path):
    returned = fastnlp.cooccurrence([], vocab_size=4, out=path)
    assert path.exists()
    assert load_cooccurrences(path, vocab_size=4).shape == (4, 4)
    assert path.suffix == ".bin" or returned.nnz == 0


def test_records_in_any_order(counted, tmp_path, rng):
    _, _, expected = counted
    path = tmp_path / "a.bin"
    save_cooccurrences(path, expected)
    records = np.fromfile(path, RECORD)
    rng.permutation(records).tofile(path)
    assert_same_bits(load_cooccurrences(path, vocab_size=300), expected)
    np.concatenate([records, records]).tofile(path)
    assert_array_equal(load_cooccurrences(path, vocab_size=300).toarray(), 2 * expected.toarray())
    records[:0].tofile(path)
    assert load_cooccurrences(path).shape == (0, 0)


def test_the_number_of_words_is_found(tmp_path):
    np.array([(2, 5, 1.5)], RECORD).tofile(tmp_path / "a.bin")
    loaded = load_cooccurrences(tmp_path / "a.bin")
    assert loaded.shape == (5, 5)
    assert loaded[1, 4] == 1.5


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ((0, 1, 1.0), "record 1500 holds row 0, column 1"),
        ((1, -4, 1.0), "record 1500 holds row 1, column -4"),
        ((6, 1, 1.0), r"record 1500 holds row 6, .* ids in \[1, 5\]"),
        ((1, 1, 0.0), "count 0.0"),
        ((1, 1, -1.0), "count -1.0"),
        ((1, 1, np.nan), "count nan"),
        ((1, 1, np.inf), "count inf"),
    ],
)
def test_bad_records_are_named(record, message, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PIECE", 1000)
    records = np.array([(1, 2, 1.0)] * 2000, RECORD)
    records[1500] = record
    records.tofile(tmp_path / "a.bin")
    with pytest.raises(ValueError, match=message):
        load_cooccurrences(tmp_path / "a.bin", vocab_size=5)


def test_cut_and_foreign_files_are_refused(counted, tmp_path):
    path = tmp_path / "a.bin"
    np.array([(1, 2, 1.0)] * 10, RECORD).tofile(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"has 157 bytes, .* record 9 is cut off"):
        load_cooccurrences(path)
    path.write_text("the 1061396 \n" * 16)
    with pytest.raises(ValueError, match=r"holds the id \d+ in no more than 13 records"):
        load_cooccurrences(path)
    with pytest.raises(FileNotFoundError):
        load_cooccurrences(tmp_path / "none.bin")
    with pytest.raises(ValueError, match="format must be 'csr' or 'coo'"):
        load_cooccurrences(path, format="upper")


@pytest.mark.parametrize("damage", ["about", "version", "dtype", "empty", "indices", "indptr", "data"])
def test_damaged_folders_are_refused(damage, counted, tmp_path):
    folder = tmp_path / "a"
    save_cooccurrences(folder, counted[2])
    if damage == "about":
        (folder / "cooccurrence.json").write_text("{")
    elif damage == "version":
        about = json.loads((folder / "cooccurrence.json").read_text())
        (folder / "cooccurrence.json").write_text(json.dumps({**about, "version": 2}))
    elif damage == "dtype":
        np.save(folder / "data.npy", np.load(folder / "data.npy").astype(np.int64))
    elif damage == "empty":
        (folder / "indptr.npy").write_bytes(b"")
    elif damage == "indptr":
        np.save(folder / "indptr.npy", np.arange(3))
    else:
        whole = (folder / f"{damage}.npy").read_bytes()
        (folder / f"{damage}.npy").write_bytes(whole[:-40])
    with pytest.raises(ValueError, match="is no whole folder"):
        load_cooccurrences(folder)
    save_cooccurrences(folder, counted[2])
    with pytest.raises(ValueError, match="vocab_size is 7, but"):
        load_cooccurrences(folder, vocab_size=7)


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        (np.ones((2, 2)), TypeError, "must be a SciPy sparse matrix or CooccurrenceCounts, got ndarray"),
        (sparse.csr_array(np.ones((2, 3))), ValueError, "square"),
        (sparse.csr_array([[1.0, -1.0], [0.0, 1.0]]), ValueError, "got -1.0 in row 0, column 1"),
        (sparse.csr_array([[1.0, np.nan], [0.0, 1.0]]), ValueError, "got nan in row 0, column 1"),
    ],
)
def test_what_is_no_count_is_not_written(counts, error, message, tmp_path):
    with pytest.raises(error, match=message):
        save_cooccurrences(tmp_path / "a.bin", counts)
    assert not list(tmp_path.iterdir())


def test_names_that_cannot_be_written(counted, tmp_path):
    ids, options, expected = counted
    with pytest.raises(ValueError, match=r"must end in \.bin"):
        fastnlp.cooccurrence(ids, out=tmp_path / "a.txt", **options)
    for format in ("coo", "counts"):
        with pytest.raises(ValueError, match=f"is for format csr or upper, got '{format}'"):
            fastnlp.cooccurrence(ids, out=tmp_path / "a", format=format, **options)
    with pytest.raises(ValueError, match="is for format csr, got 'upper'"):
        fastnlp.cooccurrence(ids, out=tmp_path / "a.bin", format="upper", **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").write_text("all of it")
    for write in (lambda p: fastnlp.cooccurrence(ids, out=p, **options), lambda p: save_cooccurrences(p, expected)):
        with pytest.raises(FileExistsError, match="holds no counts: delete it"):
            write(tmp_path / "mine")
        for name in ("none/a.bin", "none/a"):
            with pytest.raises(FileNotFoundError, match="make it first"):
                write(tmp_path / name)
    assert (tmp_path / "mine/thesis").read_text() == "all of it"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_what_was_there_stays_when_writing_fails(error, counted, path, monkeypatch):
    ids, _, expected = counted
    save_cooccurrences(path, expected)
    batches = []

    def fail(*args):
        batches.append(1)
        if len(batches) > 3:
            raise error

    monkeypatch.setattr("fastnlp.ops._cooccurrence_plan._SCRATCH", 2000)
    monkeypatch.setattr(files, "divide", fail)
    with pytest.raises(type(error), match=str(path) if isinstance(error, OSError) else None):
        fastnlp.cooccurrence(ids[:5000], vocab_size=300, out=path)
    monkeypatch.undo()
    assert_same_bits(load_cooccurrences(path, vocab_size=300), expected)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_matrices_of_more_than_two_billion_entries_get_wide_indices(counted, tmp_path):
    expected = counted[2]
    save_cooccurrences(tmp_path / "a", expected)
    writer = files._Folder(str(tmp_path / "a"), 1.0)
    writer.put(np.diff(expected.indptr), expected.indices, expected.data)
    writer._indices.close()
    writer._data.close()
    writer._widen(expected.nnz)
    wide = np.load(tmp_path / "a/indices.npy")
    assert wide.dtype == np.int64
    assert_array_equal(wide, expected.indices)


def test_the_original_programs_file(corpus_file, tmp_path):
    whole = lzma.decompress(corpus_file("cooccur/cooc.w10.sym1.dw1.bin.xz").read_bytes())
    (tmp_path / "c.bin").write_bytes(whole)
    loaded = load_cooccurrences(tmp_path / "c.bin")
    assert loaded.nnz == len(whole) // 16
    save_cooccurrences(tmp_path / "a.bin", loaded)
    assert (tmp_path / "a.bin").read_bytes() == whole


def test_complex_counts_are_refused(tmp_path):
    with pytest.raises(TypeError, match="counts must be real numbers, got complex128"):
        save_cooccurrences(tmp_path / "a.bin", sparse.csr_array(np.ones((2, 2)) * 1j))
    assert not list(tmp_path.iterdir())
