"""``fastnlp info``: versions, backends, threads, the cache of compiled kernels, what of CUDA is there."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import click

from fastnlp import __version__, _detect, get_num_threads
from fastnlp._dispatch import BACKENDS, backend_of, why_missing
from fastnlp._threads import available_cpus

_PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "torch", "cupy", "numba-cuda")
_CUPY = ("cupy", "cupy-cuda12x", "cupy-cuda13x")  # the distributions that are CuPy


@click.command(short_help="Show versions, backends, threads and the kernel cache.")
def info() -> None:
    """Show versions, backends, threads, the cache of compiled kernels, and what of CUDA is there or missing."""
    from fastnlp.cli.console import print_table

    print_table(_versions(), title="Versions")
    print_table(_backends(), title="Backends")
    print_table(_machine(), title="This machine")
    print_table(_cuda(), title="CUDA")


def _versions() -> Iterator[tuple[str, str]]:
    yield "fastnlp", __version__
    yield "python", f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    for name in _PACKAGES:
        found = [v for package in (_CUPY if name == "cupy" else (name,)) if (v := _version(package))]
        yield name, found[0] if found else "not installed"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _backends() -> Iterator[tuple[str, str]]:
    for backend in BACKENDS:
        reason = why_missing(backend)
        yield backend, "its packages are installed" if reason is None else reason
    try:
        chosen = backend_of(None)
    except (ValueError, TypeError, ImportError) as error:
        chosen = f"none: {error}"
    asked = os.environ.get("FASTNLP_BACKEND")
    yield "NumPy arrays go to", f"{chosen} (FASTNLP_BACKEND={asked})" if asked else chosen


def _machine() -> Iterator[tuple[str, str]]:
    yield "CPUs", str(available_cpus())
    try:
        yield "threads", f"{get_num_threads()} (FASTNLP_NUM_THREADS or fastnlp.set_num_threads changes it)"
    except ValueError as error:
        yield "threads", str(error)
    yield "compiled kernels", _cache()


def _cache() -> str:
    if why_missing("cpu") is not None:
        return "none, Numba is not installed"
    from fastnlp.kernels.cpu import _jit

    folder = _jit.cache_folder()
    if folder is None:
        return "kept nowhere, each process compiles anew: set FASTNLP_CACHE_DIR to a folder that you can write to"
    sizes = [file.stat().st_size for file in folder.rglob("*.nbc")]
    return f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB in {folder}"


def _cuda() -> Iterator[tuple[str, str]]:
    """Tell the driver, its GPUs, the toolkit, and the first thing that keeps kernels from running."""
    driver, parts = _detect.driver(), _detect.toolkit()
    yield "driver", f"runs CUDA up to {_detect.dotted(driver.cuda)}" if driver.cuda else "none"
    for k, gpu in enumerate(driver.gpus):
        capability = _detect.dotted(gpu.capability)
        yield f"GPU {k}", f"{gpu.name}, compute capability {capability}, {gpu.memory / 2**30:.0f} GiB"
    for name in _detect.LIBRARIES:
        part = parts.get(name)
        if part is None:
            yield name, f"not found: {_detect.INSTALL}"
        else:
            yield name, f"{_detect.dotted(part.version) if part.version else 'there'} in {part.path}"
    built = _detect.torch_build()
    if built is not None:
        without = "without CUDA: for CUDA tensors install a build of torch that has it"
        yield "torch is built", f"for CUDA {built}" if built else without
    yield "kernels", _detect.why_not_running() or "nothing stands against running them"
