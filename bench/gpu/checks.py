"""What comes before any timing: the tests against float64, and compute-sanitizer on the main kernels, side by side."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from bench.gpu.machine import ROOT
from bench.gpu.schedule import environment

TESTS = ("tests/test_cuda_device.py", "tests/test_cuda_device_use.py", "tests/test_cuda_device_words.py")
SANITIZER_FOUND = 99
"""The exit status by which the sanitizer says that it found something."""


class Check(NamedTuple):
    """A command, what it is called, and why it cannot run here, if it cannot."""

    name: str
    command: Sequence[str]
    absent: str | None = None
    environment: Mapping[str, str] = {}


def checks() -> list[Check]:
    """Return the tests, memcheck and racecheck."""
    # Not the options of pyproject.toml: they are of plugins that a machine with a GPU need not have.
    pytest = ["-c", os.devnull, "--rootdir", str(ROOT), "--import-mode=importlib", "-p", "no:cacheprovider"]
    if _installed("xdist"):  # each process compiles what its tests need
        pytest += ["-n", "4"]
    tests = [sys.executable, "-m", "pytest", *pytest, "-q", "-ra", "--tb=short", *(str(ROOT / path) for path in TESTS)]
    found = [Check("tests against float64", tests, None if _installed("pytest") else "pytest is not installed")]
    sanitizer = shutil.which("compute-sanitizer") or _beside_nvcc()
    for tool in ("memcheck", "racecheck"):
        command = [sanitizer or "", "--tool", tool, "--error-exitcode", str(SANITIZER_FOUND), sys.executable]
        absent = None if sanitizer else "compute-sanitizer is not on the PATH"
        # Each tensor in memory of its own: inside a pool's block nothing is out of bounds.
        alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        found.append(Check(f"compute-sanitizer {tool}", [*command, "-m", "bench.gpu.sanitize"], absent, alone))
    return found


def run(wanted: Sequence[Check], seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Run the checks side by side, none longer than `seconds`; keep their logs in `folder` and return what came out."""
    until = time.monotonic() + seconds
    running = [(check, *_start(check)) for check in wanted]
    return [_finish(check, process, log, until, folder) for check, process, log in running]


def _start(check: Check) -> tuple[subprocess.Popen[str] | None, IO[str]]:
    log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed in _finish)
    if check.absent:
        return None, log
    variables = environment() | check.environment
    return subprocess.Popen(check.command, stdout=log, stderr=subprocess.STDOUT, env=variables, cwd=ROOT), log


def _finish(
    check: Check, process: subprocess.Popen[str] | None, log: IO[str], until: float, folder: Path
) -> dict[str, Any]:
    with log:
        if process is None:
            return {"check": check.name, "absent": check.absent}
        begin = time.monotonic()
        try:
            status: int | None = process.wait(timeout=max(0.1, until - begin))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        log.seek(0)
        text = log.read()
    name = re.sub(r"\W+", "-", check.name) + ".txt"
    (folder / name).write_text(text, encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {
        "check": check.name,
        "passed": status == 0,
        "status": status,
        "summary": lines[-1] if lines else "no word",
        "found": [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED", "========= E"))][:40],
        "log": name,
    }


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _beside_nvcc() -> str | None:
    for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        program = Path(home or "", "bin", "compute-sanitizer")
        if home and program.exists():
            return str(program)
    return None
