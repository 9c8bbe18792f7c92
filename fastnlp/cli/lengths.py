"""Lengths of sequences, read from what a user has: numbers, arrays, offsets, datasets, or text."""

from __future__ import annotations

import os
import re
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
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_HEAD = 4096  # bytes of a file that tell numbers from text
_NUMBER = re.compile(rb"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
_JSON_LINE = 1 << 26  # bytes that one may have, tokens and all


def read(names: Sequence[str], *, column: str | None, tokenizer: str, progress: Update) -> tuple[Array, str]:
    """Return the lengths of all sequences that the files hold, int64, and what was measured, a few words.

    Raises
    ------
    click.ClickException, OSError, ValueError
        A file is missing, holds no lengths, or another one is needed to read it.
    """
    if names == (paths.STANDARD_INPUT,):
        return _numbers("standard input", sys.stdin.read()), "sequences"
    if paths.STANDARD_INPUT in names:
        raise click.ClickException("standard input (-) stands alone: put all lengths into it, or name files")
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
        if any(os.path.exists(os.path.join(name, file)) for file in ("state.json", "dataset_dict.json")):
            return "dataset"
        raise click.ClickException(f"{name} is a folder, but neither a corpus nor a dataset that was saved to disk")
    if _suffix(name) in (".npy", ".npz"):
        return "arrays"
    if _suffix(name) in _TABLES:
        return "table"
    paths.check_files([name])
    from fastnlp.text import reading

    with reading.open_bytes(name) as file:
        head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    return "numbers" if _NUMBER.fullmatch(head.partition(b"\n")[0].strip()) else "text"


def _suffix(name: str) -> str:
    """Return the suffix that tells what a file holds, in lower case: that before .gz, if it is packed."""
    root, suffix = os.path.splitext(name.lower())
    return os.path.splitext(root)[1] if suffix in _PACKED else suffix


def _file_of_numbers(name: str) -> Array:
    from fastnlp.text import reading

    with reading.open_bytes(name) as file:
        return _numbers(name, file.read().decode("utf-8", "replace"))


def _numbers(name: str, text: str) -> Array:
    words = text.removeprefix("\ufeff").split()
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
    with open(name, "rb") as file:
        try:
            loaded: Any = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                stored = {"lengths": loaded}
            else:
                stored = {key: loaded[key] for key in ("lengths", "offsets") if key in loaded.files}
        except Exception as error:  # NumPy, zipfile and zlib have errors of their own
            raise click.ClickException(f"{name} cannot be read: {error}") from None
    if not stored:
        raise click.ClickException(f"{name} holds {', '.join(loaded.files)}: an array lengths or offsets is wanted")
    key, array = next(iter(stored.items()))
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise click.ClickException(
            f"{key} in {name} must be an array of integers with one axis, got {array.dtype} of shape {array.shape}"
        )
    return _checked(array) if key == "lengths" else np.diff(array.astype(np.int64))


def _checked(lengths: Any) -> Array:
    from fastnlp.ops._lengths import checked_lengths

    return checked_lengths(lengths).astype(np.int64)


def _corpus(name: str) -> Array:
    from fastnlp import Corpus

    return np.diff(Corpus.load(name).offsets)


def _columns(name: str, kind: str, column: str | None) -> Array:
    if kind == "dataset":
        datasets = _needed("datasets", name)
        try:
            data = datasets.load_from_disk(name)
        except (OSError, ValueError) as error:
            raise click.ClickException(f"{name} cannot be read: {error}") from None
        if not hasattr(data, "column_names") or isinstance(data.column_names, dict):
            raise click.ClickException(f"{name} holds several datasets ({', '.join(data)}): name the folder of one")
        schema = data.features.arrow_schema
        chosen = _chosen(name, schema, column)
        return _measured(name, schema.field(chosen), data.with_format(None)[chosen])
    pyarrow = _needed("pyarrow", name)
    try:
        if _suffix(name) == ".parquet":
            return _parquet(name, column)
        table = _json(name) if _suffix(name) in (".jsonl", ".json") else _ipc(pyarrow, name)
    except (pyarrow.ArrowException, OSError) as error:
        raise click.ClickException(f"{name} cannot be read: {error}") from None
    chosen = _chosen(name, table.schema, column)
    return _measured(name, table.schema.field(chosen), table.column(chosen))


def _parquet(name: str, column: str | None) -> Array:
    """Read the column in batches: only its lengths are kept."""
    file = _needed("pyarrow.parquet", name).ParquetFile(name)
    chosen = _chosen(name, file.schema_arrow, column)
    parts, first = [np.empty(0, np.int64)], 0
    for batch in file.iter_batches(columns=[chosen]):
        parts.append(_measured(name, file.schema_arrow.field(chosen), batch.column(0), first))
        first += len(batch)
    return np.concatenate(parts)


def _json(name: str) -> Any:
    json = _needed("pyarrow.json", name)
    from fastnlp.text import reading

    with reading.open_bytes(name) as file:
        return json.read_json(file, json.ReadOptions(block_size=_JSON_LINE))


def _ipc(pyarrow: Any, name: str) -> Any:
    with pyarrow.memory_map(name) as file:
        try:
            return pyarrow.ipc.open_stream(file).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(file).read_all()


def _chosen(name: str, schema: Any, column: str | None) -> str:
    from pyarrow import types

    kinds = types.is_list, types.is_large_list, types.is_fixed_size_list
    lists = [f.name for f in schema if any(is_kind(f.type) for is_kind in kinds)]
    chosen = column or (_DEFAULT_COLUMN if _DEFAULT_COLUMN in schema.names or len(lists) != 1 else lists[0])
    found = schema.names.count(chosen)
    if found == 1:
        return chosen
    names = ", ".join(schema.names)
    if column is None and not found:
        raise click.ClickException(f"{name} has the columns {names}: choose one with --column")
    raise click.ClickException(f"{name} has {'several columns' if found else 'no column'} {chosen!r}, but {names}")


def _measured(name: str, field: Any, values: Any, first: int = 0) -> Array:
    """Return the lengths that a column tells, from its row `first` on."""
    from pyarrow import types

    from fastnlp import sequence_lengths

    try:
        return _checked(values) if types.is_integer(field.type) else sequence_lengths(values)
    except TypeError:
        raise click.ClickException(
            f"column {field.name!r} of {name} holds {field.type}, neither lists of integers nor lengths: "
            "choose one of token ids with --column"
        ) from None
    except ValueError as error:
        where = f", rows from {first:,} on" if first else ""
        raise click.ClickException(f"column {field.name!r} of {name}{where}: {error}") from None


def _needed(module: str, name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise click.ClickException(f"{package} is needed to read {name}: pip install {package}") from None
