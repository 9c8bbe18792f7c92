"""Lengths of sequences, read from what a user has: numbers, arrays, offsets, datasets, or text."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from fastnlp._arrays import Array
from fastnlp.cli import paths
from fastnlp.cli.console import Update

_TABLES = (".parquet", ".arrow", ".feather", ".jsonl", ".json")
_DEFAULT_COLUMN = "input_ids"


def read(names: Sequence[str], *, column: str | None, tokenizer: str, progress: Update) -> tuple[Array, str]:
    """Return the lengths of all sequences that the files hold, int64, and what was measured, a few words.

    Raises
    ------
    click.ClickException, OSError, ValueError
        A file is missing, holds no lengths, or another one is needed to read it.
    """
    if names == (paths.STANDARD_INPUT,):
        return _numbers("standard input", sys.stdin.read()), "sequences"
    for name in names:
        if not os.path.exists(name):
            raise click.ClickException(f"{name} does not exist")
    kinds = {_kind(name) for name in names}
    if len(kinds) > 1:
        raise click.ClickException(f"the files are of different kinds ({', '.join(sorted(kinds))}): give those of one")
    kind = kinds.pop()
    if column is not None and kind not in ("dataset", "table"):
        raise click.ClickException(f"--column is for datasets, but {names[0]} holds {kind}: leave it out")
    if kind == "text":
        from fastnlp import build_corpus

        corpus = build_corpus(paths.text_files(names), min_count=1, tokenizer=tokenizer, progress=progress)
        return np.diff(corpus.sentences), "lines of text"
    readers = {"numbers": _file_of_numbers, "arrays": _arrays, "corpus": _corpus}
    parts = []
    for done, name in enumerate(names):
        progress(done, len(names))
        parts.append(readers[kind](name) if kind in readers else _columns(name, kind, column))
    return np.concatenate(parts), "documents" if kind == "corpus" else "sequences"


def _kind(name: str) -> str:
    if os.path.isdir(name):
        if os.path.exists(os.path.join(name, "corpus.json")):
            return "corpus"
        if os.path.exists(os.path.join(name, "state.json")):
            return "dataset"
        raise click.ClickException(f"{name} is a folder, but neither a corpus nor a dataset that was saved to disk")
    suffix = os.path.splitext(name)[1].lower()
    if suffix in (".npy", ".npz"):
        return "arrays"
    if suffix in _TABLES:
        return "table"
    paths.check_files([name])
    from fastnlp.text import reading

    with reading.open_bytes(name) as file:
        first = file.readline(4096).strip()
    return "numbers" if first.removeprefix(b"-").isdigit() else "text"


def _file_of_numbers(name: str) -> Array:
    from fastnlp.text import reading

    with reading.open_bytes(name) as file:
        return _numbers(name, file.read().decode("utf-8", "replace"))


def _numbers(name: str, text: str) -> Array:
    words = text.split()
    try:
        return np.array(words, np.int64) if words else np.empty(0, np.int64)
    except (ValueError, OverflowError):
        for word in words:
            if not word.removeprefix("-").isdigit() or abs(int(word)) > np.iinfo(np.int64).max:
                raise click.ClickException(
                    f"{name} holds {word!r} among lengths: one integer a line is wanted"
                ) from None
        raise


def _arrays(name: str) -> Array:
    try:
        loaded: Any = np.load(name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise click.ClickException(f"{name} cannot be read: {error}") from None
    if isinstance(loaded, np.ndarray):
        return _lengths_of(name, loaded)
    with loaded as stored:
        for key in ("lengths", "offsets"):
            if key in stored.files:
                array = _lengths_of(f"{key} in {name}", stored[key])
                return array if key == "lengths" else np.diff(array)
        raise click.ClickException(f"{name} holds {', '.join(stored.files)}: an array lengths or offsets is wanted")


def _lengths_of(name: str, array: Array) -> Array:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise click.ClickException(
            f"{name} must be an array of integers with one axis, got {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64)


def _corpus(name: str) -> Array:
    from fastnlp import Corpus

    return np.diff(Corpus.load(name).offsets)


def _columns(name: str, kind: str, column: str | None) -> Array:
    if kind == "dataset":
        datasets = _needed("datasets", name)
        try:
            data = datasets.load_from_disk(name)
        except (OSError, ValueError, json.JSONDecodeError) as error:
            raise click.ClickException(f"{name} cannot be read: {error}") from None
        if not hasattr(data, "column_names") or isinstance(data.column_names, dict):
            raise click.ClickException(f"{name} holds several datasets ({', '.join(data)}): name the folder of one")
        chosen = _chosen(name, data.features.arrow_schema, column)
        return _measured(name, chosen, data.with_format(None)[chosen])
    pyarrow = _needed("pyarrow", name)
    try:
        if name.lower().endswith(".parquet"):
            return _parquet(name, column)
        if name.lower().endswith((".jsonl", ".json")):
            table = _needed("pyarrow.json", name).read_json(name)
        else:
            table = _ipc(pyarrow, name)
    except pyarrow.ArrowException as error:
        raise click.ClickException(f"{name} cannot be read: {error}") from None
    chosen = _chosen(name, table.schema, column)
    return _measured(name, chosen, table.column(chosen))


def _parquet(name: str, column: str | None) -> Array:
    """Read the column in batches: only its lengths are kept."""
    file = _needed("pyarrow.parquet", name).ParquetFile(name)
    chosen = _chosen(name, file.schema_arrow, column)
    parts = [_measured(name, chosen, batch.column(0)) for batch in file.iter_batches(columns=[chosen])]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _ipc(pyarrow: Any, name: str) -> Any:
    with pyarrow.memory_map(name) as file:
        try:
            return pyarrow.ipc.open_stream(file).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(file).read_all()


def _chosen(name: str, schema: Any, column: str | None) -> str:
    from pyarrow import types

    lists = [f.name for f in schema if types.is_list(f.type) or types.is_large_list(f.type)]
    if column is not None:
        if column not in schema.names:
            raise click.ClickException(f"{name} has no column {column!r}, but {', '.join(schema.names)}")
        return column
    if _DEFAULT_COLUMN in schema.names:
        return _DEFAULT_COLUMN
    if len(lists) == 1:
        return lists[0]
    raise click.ClickException(f"{name} has the columns {', '.join(schema.names)}: choose one with --column")


def _measured(name: str, column: str, values: Any) -> Array:
    from fastnlp import sequence_lengths
    from fastnlp.ops._lengths import checked_lengths

    kind = str(getattr(values, "type", ""))
    if kind.startswith(("int", "uint")):  # lengths already
        return checked_lengths(values).astype(np.int64)
    if kind in ("string", "large_string"):
        raise click.ClickException(f"column {column!r} of {name} holds text: choose one of token ids with --column")
    return sequence_lengths(values)


def _needed(module: str, name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise click.ClickException(f"{package} is needed to read {name}: pip install {package}") from None
