"""Files that are written whole or not at all, and files without a name."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes, so that it holds either all that is written or what it held before.

    The bytes go to a temporary file in the same folder, reach the disk, and take the place of `path` when the block
    ends without an error; otherwise the temporary file is removed. Symbolic links are followed, permissions are kept.
    A device or a pipe is written to directly.

    Raises
    ------
    OSError
        The file cannot be written (the disk is full, the folder is missing or closed to us). The message names `path`.
    """
    name = os.fspath(path)
    mode = _mode(name)
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, the name of a file is wanted", name)
    if mode is not None and not stat.S_ISREG(mode):
        try:
            with open(name, "wb") as file:
                yield file
        except OSError as error:
            raise _naming(name, error) from error
        return

    target = os.path.realpath(name)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, f"the folder {folder} does not exist, make it first", name)
    temporary = os.path.join(folder, f".{os.urandom(6).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            raise _naming(name, error) from error
        raise


@contextmanager
def temporary_file() -> Iterator[BinaryIO]:
    """Open a file without a name, in the folder that TMPDIR names; it is gone when it is closed and no longer mapped.

    Raises
    ------
    OSError
        It cannot be written. The message names the folder.
    """
    from tempfile import TemporaryFile, gettempdir

    try:
        with TemporaryFile(prefix="fastnlp-") as file:
            yield file
    except OSError as error:
        if error.filename is None:
            message = f"could not be written to ({error.strerror or error}), set TMPDIR to another folder"
            raise OSError(error.errno, message, gettempdir()) from error
        raise


def _mode(name: str) -> int | None:
    try:
        return os.stat(name).st_mode
    except FileNotFoundError:
        return None


def _naming(name: str, error: OSError) -> OSError:
    """Return an error of the same kind as `error` whose message names the file that could not be written."""
    return OSError(error.errno, f"could not be written ({error.strerror or error})", name)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, lasting: bool = True) -> Iterator[str]:
    """Make a folder beside `path` to write files to, and give it that name when the block ends without an error.

    Otherwise it is removed with all that is in it. Files that are to be `lasting` reach the disk before the folder gets
    its name; a folder of that name makes place for it.

    Raises
    ------
    OSError
        The folder cannot be made or written to. The message names `path`.
    """
    from shutil import rmtree

    if not os.fspath(path):  # abspath would make the working directory of it
        raise FileNotFoundError(errno.ENOENT, "the name of a folder is wanted, got none", "")
    name = os.path.abspath(os.fspath(path))
    if not os.path.isdir(os.path.dirname(name)):
        message = f"the folder {os.path.dirname(name)} does not exist, make it first"
        raise FileNotFoundError(errno.ENOENT, message, name)
    temporary = os.path.join(os.path.dirname(name), f".{os.urandom(6).hex()}.tmp")
    try:
        os.mkdir(temporary)
        yield temporary
        for file in os.scandir(temporary) if lasting else ():
            with open(file.path, "rb+") as written:
                os.fsync(written.fileno())
        if os.path.lexists(name):
            os.rename(name, f"{temporary}.old")
        os.rename(temporary, name)
        rmtree(f"{temporary}.old", ignore_errors=True)
    except BaseException as error:
        rmtree(temporary, ignore_errors=True)
        if not os.path.lexists(name) and os.path.lexists(f"{temporary}.old"):
            os.rename(f"{temporary}.old", name)
        rmtree(f"{temporary}.old", ignore_errors=True)
        if isinstance(error, OSError) and (error.filename is None or str(error.filename).startswith(temporary)):
            raise _naming(name, error) from error
        raise
