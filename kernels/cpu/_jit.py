"""Compilation of CPU kernels: `jit`, the list of its kernels, and the disk cache that the second process starts from.

A kernel names the signatures it is meant for, so that they can be compiled ahead of time (`warm_up`) and a test can
see that calls make no others. ``{f}`` stands for float32 and float64, ``{i}`` for int32 and int64.

Numba keys its cache by the file of the kernel alone: a change in `scalar.py`, which is inlined, would go unnoticed.
And it numbers the compiled files of a function through an index, so that two processes that compile different
signatures at once can leave an index that points to the other's code. Here the folder is named by a hash of all kernel
sources and versions, and each file by a hash of its whole key, replaced atomically: no index. Each file begins with a
hash of its contents, because damaged machine code would not raise an error, it would end the process.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.sigutils import normalize_signature

# Sums may be reordered and multiply-adds fused; NaN and inf keep their meaning. Division by zero is inf or NaN.
_OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy"}
_EXPANSIONS = {"{f}": ("float32", "float64"), "{i}": ("int32", "int64")}

_HASH_BYTES = 32

KERNELS: list[tuple[Any, tuple[str, ...]]] = []
"""Every compiled kernel of the process with the signatures it declares."""


# A child forked while another thread compiles would find the compiler's lock taken for good: no fork before it is free.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def jit(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a kernel on first use, without the GIL, cached on disk.

    Parameters
    ----------
    signatures
        Argument lists such as ``"(int64, int64, {f}[:, ::1], {f}[:, ::1])"``.
    """

    def compile_lazily(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, no_cfunc_wrapper=True, **_OPTIONS)(function)  # nobody calls it from C
        folder = cache_folder()
        if folder is not None:
            dispatcher._cache = _cache(function, folder)
        KERNELS.append((dispatcher, tuple(s for given in signatures for s in _expand(given))))
        return dispatcher

    return compile_lazily


kernel_part = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)
"""Decorates a function that kernels call: compiled into them, in their arithmetic, without a way in from Python."""


def _expand(signature: str) -> Iterator[str]:
    for letter, types in _EXPANSIONS.items():
        if letter in signature:
            for name in types:
                yield from _expand(signature.replace(letter, name))
            return
    yield signature


def warm_up() -> Iterator[str]:
    """Compile every signature of every kernel that is imported, yielding a label before each."""
    for dispatcher, signatures in KERNELS:
        for signature in signatures:
            yield f"{dispatcher.py_func.__module__.rpartition('.')[2]}.{dispatcher.__name__}{signature}"
            types, _ = normalize_signature(signature)  # as calls give them: the cache's key is made of what is given
            dispatcher.compile(types)


@functools.cache
def cache_folder() -> Path | None:
    """Return the folder that compiled kernels are kept in, or None where no folder can be written to.

    Tried in turn: ``FASTNLP_CACHE_DIR``, the user's cache folder, a folder of the user's own among temporary files.
    """
    for candidate in _candidates():
        with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: this user has no home
            folder = candidate.expanduser().absolute()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Cached code is unpickled and run: only a folder that is this user's own will do.
            if hasattr(os, "getuid") and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
                continue
            with tempfile.TemporaryFile(dir=folder):
                return folder
    return None


def _candidates() -> Iterator[Path]:
    version = _fingerprint()
    asked = os.environ.get("FASTNLP_CACHE_DIR")
    if asked:
        yield Path(asked, version)
    if sys.platform == "win32":
        user = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        user = "~/Library/Caches"
    else:
        user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    yield Path(user, "fastnlp", version)
    who = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    # No folder in between: who owned that could put another in the place of this one.
    with contextlib.suppress(OSError):  # there is no temporary folder either
        yield Path(tempfile.gettempdir(), f"fastnlp-{who}-{version}")


@functools.cache
def _fingerprint() -> str:
    """Hash all kernel sources and the versions that compile them: a change in any of them starts a new cache."""
    digest = hashlib.sha256()
    for version in (sys.version, numba.__version__, llvmlite.__version__, np.__version__):
        digest.update(version.encode())
    root = Path(__file__).parent.parent
    for path in sorted([root / "scalar.py", *(root / "cpu").glob("*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class _Files:
    """Compiled functions in files of their own, named by a hash of the key; stands in for Numba's indexed store."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    def _path(self, key: object) -> Path:
        return self._folder / f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.nbc"

    def load(self, key: object) -> Any:
        try:
            contents = self._path(key).read_bytes()
            if contents[:_HASH_BYTES] != _hash(contents[_HASH_BYTES:]):
                return None
            stored, data = pickle.loads(contents[_HASH_BYTES:])
        except Exception:  # not there, or of another build: compile it and replace it
            return None
        return data if stored == repr(key) else None

    def save(self, key: object, data: object) -> None:
        written = None
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                written = file.name
                contents = pickle.dumps((repr(key), data))
                file.write(_hash(contents) + contents)
            os.replace(written, self._path(key))
        except OSError:  # the disk is full or became read-only: this process has its code, the next compiles again
            if written is not None:
                with contextlib.suppress(OSError):
                    os.unlink(written)

    def flush(self) -> None:
        pass


def _hash(contents: bytes) -> bytes:
    return hashlib.sha256(contents).digest()


def _cache(function: Callable[..., Any], folder: Path) -> FunctionCache:
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)  # only around this: left set, it would move the user's own caches
    try:
        cache = FunctionCache(function)
    finally:
        config.CACHE_DIR = before
    cache._cache_file = _Files(folder, f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}")
    return cache
