"""What of CUDA is on this machine and what is missing, in a sentence each, for ``fastnlp info`` and failed launches.

An array on a GPU proves that there is one, so no call comes here before something has gone wrong. Nothing here imports
numba, CuPy or torch; only `driver` starts the driver, and a process that forks later cannot use CUDA in its children.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

_OLDEST = (8, 0)  # has the instructions that round two numbers to 16 bits
INSTALL = "pip install 'fastnlp-kernels[cuda]'"
Version = tuple[int, ...]


class Gpu(NamedTuple):
    """A GPU that the driver shows."""

    name: str
    capability: Version
    memory: int  # bytes


class Driver(NamedTuple):
    """What the NVIDIA driver says: the newest CUDA it runs, and its GPUs or why there are none."""

    cuda: Version | None
    gpus: tuple[Gpu, ...]
    reason: str | None


class Part(NamedTuple):
    """A library of the CUDA toolkit, where it was found, and its version where it tells."""

    path: str
    version: Version | None


@functools.cache
def driver() -> Driver:
    """Ask the driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = _load(name)
    except OSError:
        return Driver(None, (), f"no NVIDIA driver is installed ({name} is not found): install the one for your GPU")
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    cuda = number.value // 1000, number.value % 1000 // 10
    gpus: tuple[Gpu, ...] = ()
    code = library.cuInit(0)
    if code == 0:
        library.cuDeviceGetCount(ctypes.byref(number))
        gpus = tuple(_gpu(library, k) for k in range(number.value))
    return Driver(cuda, gpus, None if gpus else _why_no_gpu(code))


def _load(name: str) -> Any:
    return ctypes.CDLL(name)


def _gpu(library: Any, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(100), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    library.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value), memory.value)


def _why_no_gpu(code: int) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if code in (0, 100) and visible is not None:  # 100: CUDA_ERROR_NO_DEVICE
        if visible.strip() in ("", "-1"):
            return "CUDA_VISIBLE_DEVICES is empty, which hides every GPU: unset it, or name one as in 0"
        return f"CUDA_VISIBLE_DEVICES={visible} names no GPU of this machine: unset it, or name one as in 0"
    if code in (0, 100):
        return "the NVIDIA driver is installed, but sees no GPU: look at nvidia-smi"
    if code == 803:  # CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
        return "the NVIDIA driver was updated under the running system: restart the machine"
    return f"the NVIDIA driver does not start (cuInit returned {code}): look at nvidia-smi"


# the toolkit's libraries: what they are called, and the wheel that tells a version where the library does not
_LIBRARIES = {
    "nvvm": ("libNVVM", "nvidia-nvvm"),
    "nvrtc": ("NVRTC", None),
    "nvJitLink": ("nvJitLink", None),
    "cublas": ("cuBLAS", "nvidia-cublas"),
}


LIBRARIES = tuple(name for name, _ in _LIBRARIES.values())
"""What of the toolkit is looked for: cuBLAS is needed for CuPy arrays alone, torch has its own."""


@functools.cache
def toolkit() -> dict[str, Part]:
    """Find the libraries of the toolkit as numba-cuda and CuPy find them; by name, without those that are missing."""
    if importlib.util.find_spec("numba_cuda") is None:
        return {}
    from cuda import pathfinder

    found = {}
    for key, (name, wheel) in _LIBRARIES.items():
        try:
            loaded = pathfinder.load_nvidia_dynamic_lib(key)
        except (RuntimeError, OSError):
            continue
        found[name] = Part(loaded.abs_path, _version(key, loaded.abs_path, wheel))
    return found


def _version(key: str, path: str, wheel: str | None) -> Version | None:
    if wheel is not None:
        try:
            told = tuple(int(n) for n in version(wheel).split(".")[:3])
        except (PackageNotFoundError, ValueError):
            return None
        return told if f"cu{told[0]}" in Path(path).parts else None  # or another library than the wheel's was found
    major, minor = ctypes.c_int(), ctypes.c_int()
    try:
        failed = getattr(_load(path), f"{key}Version")(ctypes.byref(major), ctypes.byref(minor))
    except (OSError, AttributeError):
        return None
    return None if failed else (major.value, minor.value)


def why_not_compiled() -> str | None:
    """Return why kernels cannot be compiled here, or compiled but not run; None if nothing stands against it."""
    parts, newest = toolkit(), driver().cuda
    for name in ("libNVVM", "NVRTC"):
        if name not in parts:
            return f"{name}, a compiler of the CUDA toolkit, is not found: {INSTALL}"
    compiler, linker = parts["libNVVM"].version, parts["nvJitLink"].version if "nvJitLink" in parts else None
    if compiler and linker and compiler[:2] > linker[:2]:
        return (
            f"libNVVM {dotted(compiler)} is newer than nvJitLink {dotted(linker)}, which cannot link what it makes: "
            f"pip install 'nvidia-nvjitlink>={dotted(compiler[:2])},<{compiler[0] + 1}'"
        )
    made_by = compiler or parts["NVRTC"].version
    if newest and made_by:
        if made_by[0] > newest[0]:
            return (
                f"the NVIDIA driver runs CUDA up to {dotted(newest)}, and the toolkit is {dotted(made_by)}: "
                f"update the driver to one for CUDA {made_by[0]}, or install the toolkit for CUDA {newest[0]}"
            )
        if "nvJitLink" not in parts and made_by[:2] > newest:
            return (
                f"the toolkit ({dotted(made_by)}) is newer than the driver (CUDA {dotted(newest)}), which must link "
                f"in the place of nvJitLink, which is not found: {INSTALL}"
            )
    return None


def why_not_running() -> str | None:
    """Return why no kernel can run on this machine, the first thing first, or None if nothing stands against it."""
    from fastnlp._dispatch import why_missing

    return why_missing("cuda") or driver().reason or _why_too_old() or why_not_compiled()


def _why_too_old() -> str | None:
    best = max(driver().gpus, key=lambda gpu: gpu.capability, default=None)
    if best is None or best.capability >= _OLDEST:
        return None
    return f"{best.name} has compute capability {dotted(best.capability)}, and kernels need {dotted(_OLDEST)} or more"


def explained(error: BaseException) -> RuntimeError:
    """Return an error that says in one sentence why a kernel was not compiled, or not launched."""
    reason = why_not_running()
    if reason is None:
        said = " ".join(str(error).split())[:300]
        reason = f"{type(error).__name__}: {said} (fastnlp info shows the driver and the toolkit)"
    return RuntimeError(f"no kernel runs on the GPU: {reason}")


def torch_build() -> str | None:
    """Return the CUDA version that torch was built for, "" for a build without CUDA, None without torch; no import."""
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None
    try:
        text = Path(found.submodule_search_locations[0], "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    told = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return told[1] if told else ""


def dotted(numbers: Version) -> str:
    """Write a version."""
    return ".".join(map(str, numbers))
