"""Files that commands read and write, checked before any work."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import click

STANDARD_INPUT = "-"


def text_files(names: Sequence[str]) -> list[Path] | str:
    """Return the files of text that arguments of a command name, or "-" for standard input.

    A name with a wildcard that is no file stands for the files that match it, in the order of their names.

    Raises
    ------
    click.ClickException, OSError, ValueError
        A file is missing, is not text, or is a pipe; or there are others beside standard input.
    """
    if STANDARD_INPUT in names:
        if len(names) > 1:
            raise click.ClickException("standard input (-) stands alone: put all text into it, or name files")
        return STANDARD_INPUT
    files: list[Path] = []
    for name in names:
        found = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        files += map(Path, found or [name])
    check_files(files)
    return files


def check_files(files: Sequence[str | Path]) -> None:
    """Raise for files that are missing or not text, and for pipes."""
    from fastnlp.text import reading

    for file in files:
        if not os.path.exists(file):
            raise click.ClickException(f"{file} does not exist")
        if not os.path.isfile(file) and not os.path.isdir(file):
            raise click.ClickException(f"{file} is a pipe or a device: save its text to a file, or give it to -")
        reading.check(file)


def check_writable(path: str, read: Sequence[str | Path] | str = (), *, folder: bool = False) -> None:
    """Raise, before any work, if a file cannot be written at `path`, or is one of those that are `read`.

    A `folder` that is there may be replaced, if that is to be written.
    """
    if read != STANDARD_INPUT and any(os.path.exists(path) and os.path.samefile(path, file) for file in read):
        raise click.ClickException(f"{path} would be overwritten, and it is what is read: name another output")
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        raise click.ClickException(f"{path} cannot be written: the folder {parent} does not exist, make it first")
    if not os.path.basename(path) or (os.path.isdir(path) and not folder):
        raise click.ClickException(f"{path!r} cannot be written: it is a folder or has no name, name a file")
    if not os.access(parent, os.W_OK):
        raise click.ClickException(f"{path} cannot be written: the folder {parent} is closed to this user")


def check_distinct(output: str, report: str) -> None:
    """Raise if both are to be written to one file."""
    if os.path.realpath(output) == os.path.realpath(report):
        raise click.ClickException(f"{output} is to hold the result, not the report: name another file for --report")
