"""The BLAS that NumPy, SciPy and torch bring: where its GEMM is, and how to keep it to one thread for a while.

A GEMM on several threads ends in other bits on another number of threads, and its threads go on spinning for a tenth
of a second beside the library's own. So CPU kernels call it single-threaded, each thread on its own blocks. MKL can be
told so by the calling thread for itself; OpenBLAS only for the process, so its limit is counted: set by the first that
wants it, set back by the last.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _determinism
from fastnlp._arrays import Array

_LIMITS = ("{}_set_num_threads64_", "{}_set_num_threads")
_PREFIXES = ("scipy_openblas", "openblas")


_ONE_THREAD = ", one thread"


def chosen(blas: str, deterministic: bool | None = None) -> str:
    """Return how an operation is to multiply: by the BLAS of "numpy" or "torch", on one thread if deterministic.

    Raises
    ------
    TypeError
        `deterministic` is neither None, True nor False.
    """
    return blas + _ONE_THREAD if _determinism.resolved(deterministic) else blas


def matmul(blas: str) -> Callable[..., Any]:
    """Return the function ``matmul(a, b, out=out)`` of what `chosen` returned; on one thread it is NumPy's."""
    return _matmul_on_one_thread if blas.endswith(_ONE_THREAD) else _torch_matmul if blas == "torch" else np.matmul


def _torch_matmul(a: Array, b: Array, out: Array) -> Array:
    import torch

    torch.mm(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out))
    return out


def _matmul_on_one_thread(a: Array, b: Array, out: Array) -> Array:
    from numpy._core import _multiarray_umath as linked  # type: ignore[attr-defined]

    with single_threaded(linked.__file__):
        return np.matmul(a, b, out=out)


class Gemm(NamedTuple):
    """Addresses of C functions."""

    product: int  # Fortran's sgemm or dgemm
    limit: int  # int f(int): limits the calling thread to so many threads and returns the limit before; 0: none


@contextlib.contextmanager
def single_threaded_gemm(blas: str, itemsize: int) -> Iterator[Gemm]:
    """Yield a GEMM for kernels that limit their thread by `limit`; of torch's MKL for "torch", else of SciPy's BLAS."""
    if blas.startswith("torch") and (found := _torch_mkl(itemsize)):
        yield found
        return
    import scipy.linalg.cython_blas as cython_blas

    name = "sgemm" if itemsize == 4 else "dgemm"
    product = _capsule_address(cython_blas.__pyx_capi__[name])
    with single_threaded(cython_blas.__file__):
        yield Gemm(product, _symbol(cython_blas.__file__, "MKL_Set_Num_Threads_Local"))


@contextlib.contextmanager
def single_threaded(module_file: str) -> Iterator[None]:
    """Keep the OpenBLAS that an extension module is linked to at one thread; nothing where it is linked to another."""
    limit = _process_limit(module_file)
    if limit is None:
        yield
        return
    taken = False
    try:
        limit.take()
        taken = True
        yield
    finally:
        if taken:
            limit.give_back()


class _ProcessLimit:
    """The number of threads of one OpenBLAS, held at one while anybody wants it so."""

    def __init__(self, get: Any, set_: Any) -> None:
        self._get, self._set = get, set_
        self._lock = threading.Lock()
        self._wanted, self._before = 0, 1

    def take(self) -> None:
        with self._lock:
            self._wanted += 1
            if self._wanted == 1:
                self._before = self._get()
                if self._before != 1:
                    self._set(1)

    def give_back(self) -> None:
        with self._lock:  # set first, counted afterwards: an interrupt in between must not leave it at one
            if self._wanted == 1 and self._before != 1 and self._get() == 1:  # else somebody set it to what it is
                self._set(self._before)
            self._wanted -= 1

    def forget(self) -> None:
        """In a forked child: those who wanted it are not here."""
        self._lock = threading.Lock()
        if self._wanted:
            self._wanted = 0
            if self._before != 1:
                self._set(self._before)


_limits: list[_ProcessLimit] = []


def _forget_limits() -> None:
    for limit in _limits:
        limit.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_limits)


@functools.cache
def _process_limit(module_file: str) -> _ProcessLimit | None:
    library = ctypes.CDLL(module_file)  # loaded already; symbols of what it is linked to are found through it
    for pattern in _LIMITS:
        for prefix in _PREFIXES:
            name = pattern.format(prefix)
            with contextlib.suppress(AttributeError):
                limit = _ProcessLimit(getattr(library, name.replace("_set_", "_get_")), getattr(library, name))
                _limits.append(limit)
                return limit
    return None


@functools.cache
def _torch_mkl(itemsize: int) -> Gemm | None:
    """Return the GEMM in torch's library, if it is MKL's."""
    import torch

    path = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so")
    name = "sgemm" if itemsize == 4 else "dgemm"
    found = (_symbol(path, name), _symbol(path, "MKL_Set_Num_Threads_Local"))
    return Gemm(*found) if all(found) else None


@functools.cache
def _symbol(path: str, name: str) -> int:
    """Return the address of a function in a loaded library or what it is linked to, or 0."""
    try:
        return ctypes.cast(getattr(ctypes.CDLL(path), name), ctypes.c_void_p).value or 0
    except (AttributeError, OSError):
        return 0


@functools.cache
def _capsule_address(capsule: Any) -> int:
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(pointer(capsule, name(capsule)))
