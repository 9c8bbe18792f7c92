"""Co-occurrence counts in files: the records of the original GloVe, and a CSR matrix in a folder, mapped from there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import integer
from fastnlp._files import atomic_folder, atomic_write
from fastnlp.ops._cooccurrence_buffers import Buffer
from fastnlp.ops._cooccurrence_result import CooccurrenceCounts, csr
from fastnlp.ops._cooccurrence_rows import Batch
from fastnlp.ops._cooccurrence_weights import divide

if TYPE_CHECKING:
    from scipy import sparse

RECORD = np.dtype([("row", "<i4"), ("column", "<i4"), ("count", "<f8")])
_PIECE = 1 << 20  # records that are read or written at once
_MANY = 10_000_000  # words: more are doubted
_KIND, _ABOUT = "fastnlp co-occurrence counts", "cooccurrence.json"

PathLike = str | os.PathLike[str]


class Writer(Protocol):
    """A file that rows are written to, from the first to the last."""

    def add(self, batch: Batch) -> None:
        """Write the rows of a batch."""
        ...


def is_records(path: PathLike) -> bool:
    """Tell whether `path` names a file of records (or else a folder).

    Raises
    ------
    ValueError
        Neither.
    """
    suffix = os.path.splitext(os.fspath(path))[1]
    if suffix not in (".bin", ".csr", ""):
        raise ValueError(
            f"{os.fspath(path)} must end in .bin (the records of GloVe) or .csr or nothing (a folder), got {suffix!r}"
        )
    return suffix == ".bin"


@contextmanager
def writer(path: PathLike, words: Array, width: int, divisor: float, options: dict[str, Any]) -> Iterator[Writer]:
    """Open `path` for the rows of `words`; it is there when all of it is written, or as it was before."""
    check_place(path)
    if is_records(path):
        with atomic_write(path) as file:
            yield _Records(file, words, divisor)
        return
    with atomic_folder(path) as folder, _Folder(folder, divisor) as rows:
        yield rows
        rows.finish({"shape": [words.size, width], "options": options})


def check_place(path: PathLike) -> None:
    """Raise where something else than counts stands under the name of a folder of counts."""
    name = os.fspath(path)
    if is_records(name) or not os.path.lexists(name) or os.path.isfile(os.path.join(name, _ABOUT)):
        return
    raise FileExistsError(f"{name} is there and holds no counts: delete it or give another name")


class _Records:
    """Records (int32 row, int32 column, float64), ids from 1."""

    def __init__(self, file: BinaryIO, words: Array, divisor: float) -> None:
        self._file, self._words, self._divisor = file, words, divisor
        self._buffer = Buffer(RECORD)

    def add(self, batch: Batch) -> None:
        n = int(batch.sizes.sum())
        records = self._buffer.take(n)
        words = self._words[batch.begin : batch.end] + 1

        def put(rows: slice, entries: slice, columns: Array, counts: Array) -> None:
            mine = records[entries]
            mine["row"] = np.repeat(words[rows], batch.sizes[rows])
            np.add(columns, 1, out=mine["column"])
            divide(counts, self._divisor, mine["count"])

        batch.each(put)
        self._file.write(records.view(np.uint8).data)


class _Folder:
    """The three arrays of a CSR matrix, as .npy files, and what they are."""

    def __init__(self, folder: str, divisor: float) -> None:
        self._folder, self._divisor = folder, divisor
        self._indices = open(os.path.join(folder, "indices.npy"), "wb")  # noqa: SIM115 (closed by finish or __exit__)
        self._data = open(os.path.join(folder, "data.npy"), "wb")  # noqa: SIM115
        self._indices_buffer, self._data_buffer = Buffer(np.int32), Buffer(np.float64)
        self._sizes = [np.zeros(1, np.int64)]
        _head(self._indices, np.int32, 0)
        _head(self._data, np.float64, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._indices.close()
        self._data.close()

    def add(self, batch: Batch) -> None:
        n = int(batch.sizes.sum())
        indices, data = self._indices_buffer.take(n), self._data_buffer.take(n)

        def put(rows: slice, entries: slice, columns: Array, counts: Array) -> None:
            indices[entries] = columns
            divide(counts, self._divisor, data[entries])

        batch.each(put)
        self.put(batch.sizes.copy(), indices, data)

    def put(self, sizes: Array, indices: Array, data: Array) -> None:
        """Write rows of `sizes` entries."""
        self._indices.write(indices.data)
        self._data.write(data.data)
        self._sizes.append(sizes)

    def finish(self, about: dict[str, Any]) -> None:
        """Write what is known at the end."""
        indptr = np.cumsum(np.concatenate(self._sizes))
        n = int(indptr[-1])
        _head(self._indices, np.int32, n)
        _head(self._data, np.float64, n)
        self._indices.close()
        self._data.close()
        kind: type[np.generic] = np.int32
        if n >= 2**31:  # SciPy wants one dtype for both index arrays
            kind = np.int64
            self._widen(n)
        np.save(os.path.join(self._folder, "indptr.npy"), indptr.astype(kind))
        with open(os.path.join(self._folder, _ABOUT), "w", encoding="utf-8") as file:
            json.dump({"kind": _KIND, "version": 1, "nnz": n, **about}, file, indent=1)

    def _widen(self, n: int) -> None:
        name = os.path.join(self._folder, "indices.npy")
        narrow = os.path.join(self._folder, "narrow.npy")
        os.rename(name, narrow)
        with open(name, "wb") as file, open(narrow, "rb") as source:
            _head(file, np.int64, n)
            source.seek(file.tell())
            while (piece := np.fromfile(source, np.int32, _PIECE)).size:
                file.write(piece.astype(np.int64).data)
        os.unlink(narrow)


def _head(file: BinaryIO, dtype: type[np.generic], n: int) -> None:
    """Write the header of an .npy file, which has the same length for any n."""
    file.seek(0)
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (n,)}
    np.lib.format.write_array_header_1_0(file, header)


def load_cooccurrences(
    path: PathLike,
    *,
    vocab_size: int | None = None,
    format: str = "csr",
) -> sparse.csr_array | sparse.coo_array:
    """Read co-occurrence counts: the records of the original GloVe, or a folder that `cooccurrence` wrote.

    Parameters
    ----------
    path
        A file of records (int32 row, int32 column, float64 count, ids from 1), in any order; counts of a pair that
        comes twice are added. Or a folder: its arrays are mapped from there, not read.
    vocab_size
        V, the number of words. Default: the largest id of a file of records; a folder knows its own.
    format
        "csr" or "coo".

    Returns
    -------
    scipy.sparse.csr_array or coo_array
        ``(V, V)`` of float64; a folder of some rows has as many.

    Raises
    ------
    OSError
        It is missing, or cannot be read.
    ValueError
        The file does not consist of whole records, or a record holds an id outside [1, vocab_size] or a count that is
        not positive and finite: the record is named, the first is record 0. The folder is not whole.
    """
    if format not in ("csr", "coo"):
        raise ValueError(f"format must be 'csr' or 'coo', got {format!r}")
    name = os.fspath(path)
    matrix = _mapped(name, vocab_size) if os.path.isdir(name) else _records(name, vocab_size)
    return matrix.tocoo(copy=False) if format == "coo" else matrix


def _records(name: str, vocab_size: int | None) -> sparse.csr_array:
    most = None if vocab_size is None else integer("vocab_size", vocab_size, least=0)
    size = os.stat(name).st_size
    n, rest = divmod(size, RECORD.itemsize)
    if rest:
        raise ValueError(
            f"{name} has {size} bytes, which is no multiple of the {RECORD.itemsize} of a record: record {n} is cut "
            "off, or the file is of another kind"
        )
    rows, columns, data = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n)
    with open(name, "rb") as file:
        for begin in range(0, n, _PIECE):
            piece = np.fromfile(file, RECORD, min(_PIECE, n - begin))
            if piece.size < min(_PIECE, n - begin):
                raise ValueError(f"{name} became shorter while it was read, at record {begin + piece.size}")
            _check(piece, begin, most, name)
            part = slice(begin, begin + piece.size)
            rows[part], columns[part], data[part] = piece["row"] - 1, piece["column"] - 1, piece["count"]
    width = most if most is not None else 1 + int(max(rows.max(initial=-1), columns.max(initial=-1)))
    if most is None and width > max(_MANY, 16 * n):  # a file of another kind asks for gigabytes of empty rows
        raise ValueError(
            f"{name} holds the id {width} in no more than {n} records: the file is of another kind, or give vocab_size"
        )
    if not _ascend(rows, columns):
        keys = rows * np.int64(width) + columns
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        rows, columns, data = rows[order[first]], columns[order[first]], np.add.reduceat(data[order], first)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=width))])
    return csr(indptr, columns, data, (width, width))


def _check(piece: Array, begin: int, most: int | None, name: str) -> None:
    ids = np.minimum(piece["row"], piece["column"])
    wrong = (ids < 1) | ~((piece["count"] > 0) & np.isfinite(piece["count"]))
    if most is not None:
        wrong |= np.maximum(piece["row"], piece["column"]) > most
    if wrong.any():
        at = int(wrong.argmax())
        row, column, count = piece[at].item()
        wanted = "above 0" if most is None else f"in [1, {most}]"
        raise ValueError(
            f"{name}: record {begin + at} holds row {row}, column {column} and count {count}, where ids {wanted} and a "
            "positive finite count are wanted: the file is damaged, of another kind, or of another vocabulary"
        )


def _ascend(rows: Array, columns: Array) -> bool:
    for begin in range(0, rows.size, _PIECE):
        part = slice(begin, begin + _PIECE + 1)
        down, along = np.diff(rows[part]), np.diff(columns[part])
        if ((down < 0) | ((down == 0) & (along <= 0))).any():
            return False
    return True


def _mapped(folder: str, vocab_size: int | None) -> sparse.csr_array:
    try:
        with open(os.path.join(folder, _ABOUT), encoding="utf-8") as file:
            about = json.load(file)
        if about["kind"] != _KIND or about["version"] != 1:
            raise ValueError(f"it is {about['kind']!r} of version {about['version']!r}")
        rows, width = about["shape"]
        indptr = np.load(os.path.join(folder, "indptr.npy"))
        indices, data = (
            np.load(os.path.join(folder, f"{part}.npy"), mmap_mode="r" if about["nnz"] else None)
            for part in ("indices", "data")
        )
        dtypes = indptr.dtype.kind, indices.dtype.kind, data.dtype
        sizes = {indices.size, data.size, int(indptr[-1]), about["nnz"]}
        if dtypes != ("i", "i", np.float64) or indptr.shape != (rows + 1,) or len(sizes) > 1:
            raise ValueError("its arrays do not fit together")
    except (ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise ValueError(f"{folder} is no whole folder of co-occurrence counts: {error}") from error
    if vocab_size is not None and vocab_size != width:
        raise ValueError(f"vocab_size is {vocab_size}, but {folder} holds counts of {width} words")
    return csr(indptr, indices, data, (rows, width))


def save_cooccurrences(path: PathLike, counts: Any) -> None:
    """Write co-occurrence counts, whole or not at all.

    Parameters
    ----------
    path
        A name that ends in .bin: a file of records as the original GloVe reads and writes it (int32 row, int32 column,
        float64 count, ids from 1, rows ascending and columns within a row). Or one that ends in .csr or in nothing: a
        folder with the three arrays of the CSR matrix, which `load_cooccurrences` maps.
    counts
        A square sparse matrix of SciPy, or `CooccurrenceCounts`.

    Raises
    ------
    OSError
        It cannot be written, or the folder is there and holds something else.
    TypeError
        Not counts.
    ValueError
        A count is not positive and finite, the matrix is not square, or the name has another ending.
    """
    matrix = counts.matrix() if isinstance(counts, CooccurrenceCounts) else counts
    if not hasattr(matrix, "tocsr"):
        raise TypeError(
            f"counts must be a SciPy sparse matrix or CooccurrenceCounts, got {type(counts).__name__}: "
            "scipy.sparse.csr_array(x) makes one"
        )
    matrix = matrix.tocsr()
    words = counts.options["words"] if isinstance(counts, CooccurrenceCounts) else np.arange(matrix.shape[0])
    if matrix.ndim != 2 or (matrix is counts and matrix.shape[0] != matrix.shape[1]):
        raise ValueError(f"counts must be a square matrix, got shape {matrix.shape}")
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    if matrix.dtype.kind not in "fiu":
        raise TypeError(f"counts must be real numbers, got {matrix.dtype.name}: convert them with .astype(np.float64)")
    data = np.asarray(matrix.data, np.float64)
    wrong = ~((data > 0) & np.isfinite(data))
    if wrong.any():
        at = int(wrong.argmax())
        row = int(np.searchsorted(matrix.indptr, at, side="right")) - 1
        raise ValueError(
            f"counts must be positive and finite, got {data[at]} in row {row}, column {matrix.indices[at]}: "
            "drop zeros with counts.eliminate_zeros()"
        )
    check_place(path)
    ends = np.asarray(matrix.indptr, np.int64)
    if is_records(path):
        with atomic_write(path) as file:
            for begin in range(0, data.size, _PIECE):
                part = slice(begin, min(begin + _PIECE, data.size))
                records = np.empty(part.stop - begin, RECORD)
                rows = np.searchsorted(ends, np.arange(begin, part.stop), side="right") - 1
                records["row"] = words[rows] + 1
                records["column"] = matrix.indices[part]
                records["column"] += 1
                records["count"] = data[part]
                file.write(records.view(np.uint8).data)
        return
    with atomic_folder(path) as folder, _Folder(folder, 1.0) as arrays:
        arrays.put(np.diff(ends), matrix.indices.astype(np.int32, copy=False), data)
        arrays.finish({"shape": list(matrix.shape)})
