"""Checkpoints of GloVe: a file from which training goes on to the same bits as if it had not been broken off."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import integer, positive
from fastnlp._files import atomic_write
from fastnlp.ops._glove_state import NAMES

_FORMAT = "fastnlp GloVe checkpoint 1"
_SQUARES = "{}_squares"


@dataclass
class Position:
    """Where training is in an epoch."""

    visits: int = 0  # that are done
    total: float = 0.0  # of the losses so far


class Saved(NamedTuple):
    """What a checkpoint holds."""

    settings: dict[str, Any]  # of the model
    source: str  # fingerprint of the counts and of what training began from
    words: list[str] | None
    losses: list[float]  # of the epochs that are done
    position: Position  # in the next epoch
    values: dict[str, Array]
    squares: dict[str, Array]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Saved:
        """Read a checkpoint.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It is no checkpoint, or not a whole one.
        """
        with open(path, "rb") as file:
            try:
                archive = np.load(file, allow_pickle=False)
                header = json.loads(archive["header"].tobytes())
                if header.pop("format") != _FORMAT:
                    raise ValueError("of another version")
                values = {name: archive[name] for name in NAMES}
                squares = {name: archive[_SQUARES.format(name)] for name in NAMES}
                _check_arrays(values, squares)
                header["settings"], header["losses"] = dict(header["settings"]), list(header["losses"])
                position = Position(**header.pop("position"))
                return cls(**header, position=position, values=values, squares=squares)
            except (ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
                raise ValueError(
                    f"{os.fspath(path)} is no whole GloVe checkpoint ({error}): train from the beginning"
                ) from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint; what stood there before stays until all is written."""
        header = {"format": _FORMAT, "position": asdict(self.position)}
        header |= {name: getattr(self, name) for name in ("settings", "source", "words", "losses")}
        arrays: dict[str, Any] = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)} | self.values
        arrays |= {_SQUARES.format(name): self.squares[name] for name in NAMES}
        with atomic_write(path) as file:
            np.savez(file, **arrays)

    def check(
        self,
        path: str | os.PathLike[str],
        settings: dict[str, Any],
        source: str,
        words: list[str] | None,
        epochs: int,
    ) -> None:
        """Raise if the checkpoint is of other settings, counts or words, or of more epochs."""
        for name, wanted in settings.items():
            if self.settings.get(name) != wanted:
                raise ValueError(
                    f"{os.fspath(path)} was trained with {name}={self.settings.get(name)}, this model has {wanted}: "
                    "use the same settings, or train from the beginning"
                )
        if self.source != source:
            raise ValueError(
                f"{os.fspath(path)} was trained on other counts, or with another initial, pull or frozen: "
                "give the same, or train from the beginning"
            )
        if words is not None and self.words is not None and words != self.words:
            raise ValueError(f"{os.fspath(path)} was trained for another vocab: give the same")
        if len(self.losses) > epochs:
            raise ValueError(f"{os.fspath(path)} has {len(self.losses)} epochs: epochs must not be fewer, got {epochs}")


def _check_arrays(*groups: dict[str, Array]) -> None:
    words, dim = groups[0]["word_vectors"].shape
    for group in groups:
        for name, array in group.items():
            shape = (words, dim) if name.endswith("vectors") else (words,)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype.name}")


class Checkpoints:
    """When and where checkpoints are written."""

    def __init__(self, path: Any, every: int | None, seconds: float | None) -> None:
        if path is None and (every is not None or seconds is not None):
            raise ValueError("checkpoint_every and checkpoint_seconds need checkpoint, the file to write")
        if path is not None:
            _check_place(os.fspath(path))
        self.path = path
        self._every = None if every is None else integer("checkpoint_every", every, least=1)
        self._seconds = None if seconds is None else positive("checkpoint_seconds", seconds)
        if every is None and seconds is None:
            self._every = 1
        self._last = time.monotonic()

    def after_visit(self, saved: Callable[[], Saved]) -> None:
        """Write what `saved` returns if it is time."""
        if self._is_time():
            self._write(saved())

    def after_epoch(self, done: int, last: bool, saved: Callable[[], Saved]) -> None:
        """Write what `saved` returns after the last epoch, if it is the turn of this one, or if it is time."""
        if self.path is not None and (last or (self._every and done % self._every == 0) or self._is_time()):
            self._write(saved())

    def at_break(self, saved: Callable[[], Saved]) -> None:
        """Write what `saved` returns because training breaks off here."""
        if self.path is not None:
            self._write(saved())

    def _is_time(self) -> bool:
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds

    def _write(self, saved: Saved) -> None:
        saved.write(self.path)
        self._last = time.monotonic()


def _check_place(path: str) -> None:
    """Raise, before any work, if no file can be written at `path`."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "is a folder, checkpoint must be the name of a file", path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, f"the folder {folder} does not exist, make it first", path)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, f"the folder {folder} is closed to this user, name another", path)


def fingerprint(*arrays: Array | None) -> str:
    """Return a hash of the dtypes, lengths and elements of arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()
