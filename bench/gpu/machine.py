"""What GPU there is, what it runs with, and what a folder of its results is called."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastnlp._detect import driver, toolkit, why_not_running

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    *("fastnlp-kernels", "numpy", "numba", "numba-cuda", "cuda-bindings", "cuda-core", "cupy-cuda13x", "cupy-cuda12x"),
    *("torch", "triton", "liger-kernel", "cut-cross-entropy", "transformers", "nvidia-cublas", "pytest"),
)
_QUERIES = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "power.limit", "temperature.gpu")


def name() -> str:
    """Return what the driver calls the first GPU."""
    gpus = driver().gpus
    return gpus[0].name if gpus else "unknown"


def version(package: str) -> str:
    """Return the version of a package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe() -> dict[str, Any]:
    """Return the machine in words, ready for JSON."""
    smi = _smi()
    found = {
        "gpu": name(),
        "driver": smi.get("driver_version", "of an unknown version"),
        "driver runs CUDA": ".".join(map(str, driver().cuda or ())),
        "toolkit": _asked(lambda: {one: part.path for one, part in toolkit().items()}),
        "kernels run": _asked(lambda: why_not_running() or "nothing stands against it"),
        "smi": smi,
        "python": platform.python_version(),
        "os": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }
    try:
        import torch

        properties = torch.cuda.get_device_properties(0)
    except (ImportError, RuntimeError, AssertionError) as error:
        return {**found, "torch": f"cannot be asked: {error}"}
    return {
        **found,
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
    }


def slug(gpu: str) -> str:
    """Return the name of the folder for results of a GPU, such as ``nvidia-h100-80gb-hbm3``."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") or "unknown"


def _asked(question: Callable[[], Any]) -> Any:
    """Return an answer, or why there is none: a machine that is hard to describe can still be measured."""
    try:
        return question()
    except Exception as error:
        return f"unknown: {error}"


def _smi() -> dict[str, str]:
    """Return what nvidia-smi tells of the first GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    told = _run(program, f"--query-gpu={','.join(_QUERIES)}", "--format=csv,noheader", "--id=0")
    values = [value.strip() for value in told.split(",")]
    return dict(zip(_QUERIES, values, strict=True)) if len(values) == len(_QUERIES) else {}


def _git(*args: str) -> str:
    return _run("git", *args) if (ROOT / ".git").exists() else ""


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
