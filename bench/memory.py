"""What a loss of a linear classifier and its gradients cost in memory: each contestant in a process of its own.

The process first computes a tiny case, so that everything is imported and compiled. Then the peak of its resident
memory is set back, the case is computed once, and the peak is read. Buffers of the BLAS and of its threads that the
call makes are in it. Only Linux tells (``/proc/self/clear_refs`` and ``VmHWM``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import heads

N, V, D = 2_048, 50_257, 256
CONTESTANTS: dict[str, Callable[..., Any]] = {
    "fastnlp, NumPy arrays": heads.ours,
    "fastnlp, NumPy arrays, deterministic": partial(heads.ours, deterministic=True),
    "fastnlp, tensors": heads.tensors,
    "fastnlp, tensors, deterministic": partial(heads.tensors, deterministic=True),
    "torch eager": heads.eager,
    "torch.compile": heads.compiled,
    "torch, 256 rows a chunk": partial(heads.chunked, rows=256),
    "torch, automatic chunks": partial(heads.chunked, rows=None),
}


def extra_peak(call: Callable[[], Any]) -> int:
    """Return the bytes by which the resident memory of this process, at its peak, grows in ``call()``.

    Raises
    ------
    OSError
        The system does not tell.
    """
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    kept = call()
    peak = _status("VmHWM")
    del kept
    return peak - before


def measure(name: str, n: int = N, v: int = V, d: int = D) -> int:
    """Return the extra peak of the contestant `name`, with gradients, in a process of its own.

    Raises
    ------
    RuntimeError
        The process failed; the message is the last line that it wrote.
    """
    code = f"from bench.memory import child; child({name!r}, {n}, {v}, {d})"
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def child(name: str, n: int, v: int, d: int) -> None:
    """Measure `name` in this process and print the bytes."""
    peaks = []
    for rows, classes in ((16, 64), (n, v)):
        rng = np.random.default_rng(0)
        x, w = (rng.standard_normal(shape, np.float32) for shape in ((rows, d), (classes, d)))
        contestant = CONTESTANTS[name](x, w, rng.integers(0, classes, rows), True)
        peaks.append(extra_peak(contestant.call))
    print(json.dumps(peaks[-1]))


def main() -> None:
    """Print a line a contestant."""
    gradients = 4 * D * (N + V)
    print(f"N={N:,} V={V:,} D={D} float32; the gradients themselves are {gradients / 2**20:.0f} MiB")
    print(f"{'extra peak memory, MiB':<38} in all   beyond the gradients")
    for name in CONTESTANTS:
        try:
            peak = measure(name)
        except RuntimeError as error:
            print(f"{name:<38} absent ({error})")
        else:
            print(f"{name:<38} {peak / 2**20:6.0f}   {(peak - gradients) / 2**20:20.0f}")


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not found:
        raise OSError(f"/proc/self/status has no {field}")
    return 1024 * int(found[1])
