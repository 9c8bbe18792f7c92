"""What the machine is, what it can do at most, and how many threads everybody gets.

The limits are measured in the run that they judge, on the threads that the contestants get: the rate of a copy (bytes
read and written a second) that moves as much as the case does, so that a case in cache is held against the cache, and
the rate of a float32 matrix product (floating-point operations a second) by NumPy's BLAS. Each is the best of three.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

import fastnlp
from fastnlp._threads import available_cpus

PACKAGES = ("fastnlp-kernels", "numpy", "scipy", "numba", "llvmlite", "torch", "scikit-learn", "transformers", "trl")
ENVIRONMENT = ("FASTNLP_BACKEND", "FASTNLP_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "THP_MEM_ALLOC_ENABLE")
CACHE, MEMORY = 1 << 20, 1 << 28
"""Bytes that a copy moves inside a cache, and beyond all caches."""
GEMM_SIZE = 1536
REPEATS = 3


class Machine:
    """One run's machine: its description, its threads, and its limits each time somebody asked.

    Parameters
    ----------
    threads
        Threads for every contestant and for the limits; default: the CPUs this process may use.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or available_cpus()
        self.samples: dict[str, list[float]] = {"copy, cache": [], "copy, memory": [], "gemm, float32": []}

    def describe(self) -> dict[str, Any]:
        """Return the machine in words and the limits measured so far, ready for JSON."""
        return {
            "cpu": _cpu_model(),
            "cpus_available": available_cpus(),
            "threads": self.threads,
            "simd": _simd(),
            "caches": _caches(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            if hasattr(os, "sysconf")
            else None,
            "os": platform.platform(),
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in PACKAGES},
            "blas": [
                {
                    key: lib[key]
                    for key in ("user_api", "internal_api", "version", "architecture", "num_threads")
                    if key in lib
                }
                for lib in threadpool_info()
            ],
            "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            "limits": self.samples,
        }

    @contextlib.contextmanager
    def same_threads(self) -> Iterator[None]:
        """Give everybody `threads` threads: fastnlp, torch, and every BLAS and OpenMP library loaded by now."""
        torch = sys.modules.get("torch")
        ours, theirs = fastnlp.get_num_threads(), torch.get_num_threads() if torch else None
        try:
            fastnlp.set_num_threads(self.threads)
            if torch:
                torch.set_num_threads(self.threads)
            with threadpool_limits(self.threads):
                yield
        finally:
            fastnlp.set_num_threads(ours)
            if torch:
                torch.set_num_threads(theirs)

    def measure(self) -> None:
        """Measure the three standard limits and add them to `samples`."""
        with self.same_threads():
            self.samples["copy, cache"].append(self.copy_rate(CACHE))
            self.samples["copy, memory"].append(self.copy_rate(MEMORY))
            self.samples["gemm, float32"].append(self.gemm_rate())

    def limits(self, nbytes: float | None, flops: float | None) -> dict[str, float]:
        """Return the limits that a case of `nbytes` and `flops` is held against, measured now."""
        rates = {}
        if nbytes:
            rates["copy"] = self.copy_rate(nbytes)
        if flops:
            rates["gemm"] = self.gemm_rate()
        return rates

    def copy_rate(self, nbytes: float) -> float:
        """Return the bytes a second, read and written, of copies that move `nbytes` in all, on all threads at once.

        Every thread copies its share over and over, so the rate holds no thread's start. `nbytes` is taken between
        ``CACHE`` and ``MEMORY``: below, the call would be measured, and above, nothing changes.
        """
        half = int(min(max(nbytes, CACHE), MEMORY)) // 2
        share = half // self.threads
        repeats = max(1, MEMORY // 8 // half)
        source, target = (array[:half] for array in self._copied)
        slices = [slice(i * share, (i + 1) * share) for i in range(self.threads)]

        def work(part: slice, start: threading.Barrier) -> None:
            one, other = source[part], target[part]
            start.wait()
            for _ in range(repeats):
                np.copyto(other, one)

        def seconds() -> float:
            start = threading.Barrier(self.threads + 1)
            workers = [threading.Thread(target=work, args=(part, start)) for part in slices]
            for worker in workers:
                worker.start()
            start.wait()
            begin = time.perf_counter()
            for worker in workers:
                worker.join()
            return time.perf_counter() - begin

        return 2 * share * self.threads * repeats / min(seconds() for _ in range(REPEATS))

    def gemm_rate(self) -> float:
        """Return the floating-point operations a second of a float32 product of square matrices, ``2 n^3`` each."""
        a, b, c = self._multiplied
        seconds = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            np.matmul(a, b, out=c)
            seconds.append(time.perf_counter() - begin)
        return 2 * GEMM_SIZE**3 / min(seconds)

    @cached_property
    def _copied(self) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(MEMORY // 2, np.uint8), np.ones(MEMORY // 2, np.uint8)

    @cached_property
    def _multiplied(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, b = np.random.default_rng(0).random((2, GEMM_SIZE, GEMM_SIZE), dtype=np.float32)
        return a, b, a @ b


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpuinfo(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # macOS, Windows
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _simd() -> str:
    flags = _cpuinfo("flags").split()
    return next((name for name in ("avx512f", "avx2", "avx") if name in flags), platform.machine())


def _caches() -> dict[str, str]:
    """Return size by level of the first CPU's data caches; empty where the system does not say."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            if kind != "Instruction":
                found[f"L{level}"] = size
    return found
