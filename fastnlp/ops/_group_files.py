"""Files of arrays and numbers that say what they hold, in NumPy's ``.npz`` format."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from fastnlp._files import atomic_write

_KIND, _ARRAYS = "kind", "arrays"  # beside the values that are no arrays


def write(path: str | os.PathLike[str], kind: str, values: dict[str, Any]) -> None:
    """Write named arrays and numbers to a file, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    arrays = {name: x for name, x in values.items() if isinstance(x, np.ndarray)}
    facts = {name: x for name, x in values.items() if name not in arrays}
    text = json.dumps({_KIND: kind, _ARRAYS: list(arrays), **facts})
    with atomic_write(path) as file:
        np.savez(file, facts=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def read(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Return what `write` wrote.

    Raises
    ------
    OSError
        The file cannot be opened.
    ValueError
        It holds another kind of values, none, or is damaged.
    """
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as stored:
                facts = dict(json.loads(stored["facts"].tobytes()))
                found, names = facts.pop(_KIND), facts.pop(_ARRAYS)
                arrays = {name: stored[name] for name in names}
        except Exception as error:  # NumPy, zipfile and zlib have errors of their own
            raise ValueError(f"{os.fspath(path)} holds no {kind}, or is damaged: {error}") from error
    if found != kind:
        raise ValueError(f"{os.fspath(path)} holds no {kind} but a {found}")
    return {**facts, **arrays}
