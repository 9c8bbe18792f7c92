"""The only place that chooses a backend.

A call decides once: the keyword ``backend=``, then the environment variable ``FASTNLP_BACKEND``, then the arrays.
An explicit choice that cannot be honoured raises; nothing falls back behind the caller's back.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType
from typing import Any

from fastnlp import _arrays

BACKENDS = ("reference", "cpu", "cuda")


@functools.cache
def why_missing(backend: str) -> str | None:
    """Return why `backend` cannot run on this machine, with the remedy, or None if its packages are installed."""
    needs = {"reference": (), "cpu": ("numba",), "cuda": ("numba", "numba_cuda", "ml_dtypes")}[backend]
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    remedy = "pip install numba" if backend == "cpu" else "pip install 'fastnlp-kernels[cuda]'"
    return f"{', '.join(missing)} not installed: {remedy}"


def backend_of(backend: str | None, *arrays: Any) -> str:
    """Name the backend for one call on `arrays`.

    Raises
    ------
    ValueError
        `backend` or ``FASTNLP_BACKEND`` is not one of ``BACKENDS``.
    TypeError
        The arrays live on different devices, are torch tensors, or do not live where the chosen backend runs.
    ImportError
        The chosen backend's packages are not installed.
    """
    on_device = _arrays.common_library(*arrays) in ("cupy", "device")
    wanted = backend
    if not wanted and "FASTNLP_BACKEND" in os.environ:  # get() takes thrice as long where it is not there
        wanted = os.environ["FASTNLP_BACKEND"]
    if not wanted:
        if on_device:
            wanted = "cuda"
        else:
            return "cpu" if why_missing("cpu") is None else "reference"
    if wanted not in BACKENDS:
        source = "backend" if backend else "FASTNLP_BACKEND"
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}, got {wanted!r}")
    if on_device != (wanted == "cuda"):
        place, remedy = ("the GPU", "cupy.asnumpy(x) or tensor.cpu()") if on_device else ("the CPU", "cupy.asarray(x)")
        raise TypeError(f"backend {wanted!r} does not run on arrays on {place}: move them with {remedy} first")
    reason = why_missing(wanted)
    if reason is not None:
        raise ImportError(f"backend {wanted!r} cannot run: {reason}")
    return wanted


_FREE = 1 << 19  # items that NumPy has done before Numba is imported, and far before it has compiled
_A_CALL = 1 << 14  # as many items take the time of a call's fixed parts in NumPy
_seen: dict[str, int] = {}


def backend_for_items(op: str, backend: str | None, n: int, *arrays: Any) -> str:
    """Name the backend for one call on n items, for an operation that gives the same bits on "reference" and "cpu".

    A choice is honoured, as by `backend_of`. Without one, the first half million items of a process take the reference,
    for nobody should wait for a compiler to group a few lengths; a call counts as 16,384 items at least.
    """
    chosen = backend_of(backend, *arrays)
    if backend or chosen != "cpu" or os.environ.get("FASTNLP_BACKEND"):
        return chosen
    _seen[op] = _seen.get(op, 0) + max(n, _A_CALL)
    return "cpu" if _seen[op] > _FREE else "reference"


@functools.cache
def implementation(op: str, backend: str) -> ModuleType:
    """Import ``fastnlp.kernels.<backend>.<op>``: the path is the registration.

    Raises
    ------
    NotImplementedError
        There is no such file; the message lists the backends that have one.
    """
    path = f"fastnlp.kernels.{backend}.{op}"
    if importlib.util.find_spec(path) is None:
        there = [b for b in BACKENDS if importlib.util.find_spec(f"fastnlp.kernels.{b}.{op}") is not None]
        raise NotImplementedError(f"{op} has no {backend} kernel yet; it runs on: {', '.join(there)}")
    return importlib.import_module(path)


def kernels_for(op: str, backend: str | None, *arrays: Any) -> ModuleType:
    """Return the kernel module of `op` for one call: `backend_of`, then `implementation`."""
    return implementation(op, backend_of(backend, *arrays))
