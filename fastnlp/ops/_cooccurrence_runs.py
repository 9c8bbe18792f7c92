"""Counts of parts of a text in files, from which an interrupted call goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import integer
from fastnlp._files import atomic_folder, atomic_write
from fastnlp.ops._cooccurrence_buffers import Buffer
from fastnlp.ops._cooccurrence_rows import Batch, Question
from fastnlp.ops._cooccurrence_text import Text

_KIND, _ABOUT = "fastnlp co-occurrence runs", "runs.json"
_COLUMNS, _COUNTS, _STARTS, _CHECK = "columns.i4", "counts.u8", "starts.npy", "check"
_PIECE = 1 << 20  # bytes that are read at once


class Run:
    """The rows of a part of the text: columns and counts one after the other, and where each row begins."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.starts: Array = np.load(os.path.join(folder, _STARTS))

    def read(self, begin: int, end: int, columns: Array, counts: Array) -> None:
        """Write the entries in [begin, end) to `columns` and `counts`."""
        for name, out in ((_COLUMNS, columns), (_COUNTS, counts)):
            with open(os.path.join(self._folder, name), "rb", buffering=0) as file:
                file.seek(begin * out.itemsize)
                wanted = out.view(np.uint8).data
                while wanted:
                    got = file.readinto(wanted)
                    if not got:
                        raise OSError(f"{self._folder} became shorter while it was read: delete it and count again")
                    wanted = wanted[got:]


class Runs:
    """A folder of runs of one text and question."""

    def __init__(self, folder: str, *, lasting: bool) -> None:
        self._folder = folder
        self._lasting = lasting

    def agree(self, text: Text, question: Question, places: int) -> int:
        """Return how many places a part has: what the runs that are there have, or `places` if that is less.

        Raises
        ------
        ValueError
            The runs that are there are of another text or question, or the folder holds something else.
        """
        if not self._lasting:
            return places
        about: dict[str, Any] = {"kind": _KIND, "version": 1, "text": text.fingerprint(), "asked": _hash(question)}
        path = os.path.join(self._folder, _ABOUT)
        if os.path.exists(path):
            try:
                with open(path, encoding="utf-8") as file:
                    there = json.load(file)
                there_places = integer("places", there.pop("places"), least=1)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"spill: {path} is damaged: delete the folder") from error
            if there != about:
                raise ValueError(
                    f"spill: the runs in {self._folder} are of another text or of other options: delete the folder or "
                    "give another one"
                )
            self._clear(runs=there_places > places)
            if there_places <= places:
                return there_places
        elif not all(map(_is_unfinished, os.listdir(self._folder))):
            raise ValueError(f"spill: {self._folder} is not empty and holds no runs: give another folder")
        else:
            self._clear(runs=False)
        with atomic_write(path) as file:
            file.write(json.dumps({**about, "places": places}).encode())
        return places

    def find(self, part: int) -> Run | None:
        """Return the run of a part if it was finished and holds what was written; another could lead kernels astray."""
        name = self._name(part)
        try:
            with open(os.path.join(name, _CHECK), "rb") as file:
                whole = file.read() == _checksum(name)
        except OSError:
            return None
        return Run(name) if whole else None

    def write(self, part: int, batches: Iterable[Batch]) -> Run:
        """Write the rows of a part; the run is there when it is whole."""
        name = self._name(part)
        columns_buffer, counts_buffer = Buffer(np.int32), Buffer(np.uint64)
        with atomic_folder(name, lasting=self._lasting) as folder:
            sizes = [np.zeros(1, np.int64)]
            with (
                open(os.path.join(folder, _COLUMNS), "wb", buffering=0) as columns_file,
                open(os.path.join(folder, _COUNTS), "wb", buffering=0) as counts_file,
            ):
                for batch in batches:
                    n = int(batch.sizes.sum())
                    columns, counts = columns_buffer.take(n), counts_buffer.take(n)
                    batch.joined(columns, counts)
                    _write(columns_file, columns)
                    _write(counts_file, counts)
                    sizes.append(batch.sizes.copy())
            np.save(os.path.join(folder, _STARTS), np.cumsum(np.concatenate(sizes)))
            if self._lasting:
                with open(os.path.join(folder, _CHECK), "wb") as file:
                    file.write(_checksum(folder))
        return Run(name)

    def _name(self, part: int) -> str:
        return os.path.join(self._folder, f"run-{part:05d}")

    def _clear(self, *, runs: bool) -> None:
        """Remove what calls that were killed have left, and the runs if they are of no use."""
        from shutil import rmtree

        for entry in os.scandir(self._folder):
            if _is_unfinished(entry.name) or (runs and entry.name.startswith("run-")):
                rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)


@contextmanager
def folder_of_runs(spill: str | os.PathLike[str] | None, out: str | os.PathLike[str] | None) -> Iterator[Runs]:
    """Open the folder `spill`, or a temporary one beside `out` that is removed at the end."""
    if spill is not None:
        os.makedirs(spill, exist_ok=True)
        yield Runs(os.fspath(spill), lasting=True)
        return
    from tempfile import TemporaryDirectory

    beside = None if out is None else os.path.dirname(os.path.abspath(os.fspath(out)))
    with TemporaryDirectory(prefix=".fastnlp-", dir=beside) as folder:
        yield Runs(folder, lasting=False)


def _is_unfinished(name: str) -> bool:
    """Tell whether `atomic_write` or `atomic_folder` made a name for what is not yet whole."""
    return name.startswith(".") and name.endswith((".tmp", ".tmp.old"))


def _checksum(folder: str) -> bytes:
    """Return a checksum of the files of a run."""
    from zlib import crc32

    check = 0
    for name in (_STARTS, _COLUMNS, _COUNTS):
        with open(os.path.join(folder, name), "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                check = crc32(piece, check)
    return b"%08x" % check


def _write(file: Any, array: Array) -> None:
    rest = array.view(np.uint8).data
    while rest:
        rest = rest[file.write(rest) :]


def _hash(question: Question) -> str:
    digest = blake2b(digest_size=16)
    digest.update(repr((question.window, question.left, question.right, question.upper, question.width)).encode())
    digest.update(question.weights.data)
    digest.update(question.words.data)
    return digest.hexdigest()
