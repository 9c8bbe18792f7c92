"""Runs parts in workers: a part that ends its worker, or takes far too long, is recorded, and a new worker goes on."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from bench.gpu.machine import ROOT
from bench.gpu.part import Part

WORKER = (sys.executable, "-m", "bench.gpu.worker")
PATIENCE = 90.0
"""Seconds that a part may take beyond three times what it was thought to."""
OVERTIME = 25.0
"""Seconds that a part may take beyond the deadline."""
WORKERS = 8


def run(
    parts: Sequence[Part],
    deadline: float,
    tell: Callable[[dict[str, Any]], None],
    *,
    command: Sequence[str] = WORKER,
    patience: float = PATIENCE,
) -> None:
    """Run `parts` until `deadline` (seconds since the epoch), and tell what workers tell, failures added."""
    waiting = list(parts)
    for _ in range(WORKERS):
        if not waiting:
            return
        waiting = _one_worker(waiting, deadline, tell, command, patience)
    for part in waiting:
        tell({"part": part.name, "skipped": f"{WORKERS} workers ended before it"})


def environment() -> dict[str, str]:
    """Return the environment of a process that imports this checkout."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _one_worker(
    waiting: Sequence[Part],
    deadline: float,
    tell: Callable[[dict[str, Any]], None],
    command: Sequence[str],
    patience: float,
) -> list[Part]:
    """Run one worker as far as it gets; return the parts that wait for another."""
    allowed = {part.name: 3 * part.seconds + patience for part in waiting}
    with tempfile.TemporaryFile("w+") as errors:
        worker = subprocess.Popen(
            [*command, "--deadline", str(deadline), *allowed],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
            cwd=ROOT,
        )
        begun, done, why = _listen(worker, allowed, deadline, tell, patience)
        status = worker.wait()
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["no word"])[-1]
    if not status and not why:
        return []
    left = [part for part in waiting if part.name not in done]
    why = why or f"the process ended with status {status}: {last}"
    blamed = [part for part in left if part.name == begun] if done or begun else left
    for part in blamed:  # none where the part that broke it has told so itself; all where it could not even begin
        tell({"part": part.name, "failed": why})
    return [part for part in left if part not in blamed]


def _listen(
    worker: subprocess.Popen[str],
    allowed: dict[str, float],
    deadline: float,
    tell: Callable[[dict[str, Any]], None],
    patience: float,
) -> tuple[str | None, set[str], str | None]:
    """Hand on what a worker tells until it ends, or is stopped.

    Returns the part that it had begun and not ended, those that it was done with, and why it was stopped.
    """
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(worker.stdout, lines), daemon=True).start()
    begun: str | None = None
    done: set[str] = set()
    while True:
        limit = allowed.get(begun or "", patience + 60.0)
        try:
            line = lines.get(timeout=max(1.0, min(limit, deadline + OVERTIME - time.time())))
        except queue.Empty:
            worker.kill()
            return begun, done, f"it was stopped after {limit:.0f} s, or the time was over"
        if line is None:
            return begun, done, None
        said = json.loads(line)
        name = said.get("part")
        if "begun" in said:
            begun = name
        elif name is not None:
            done.add(name)
            begun = None
        tell(said)


def _read(pipe: IO[str], lines: queue.Queue[str | None]) -> None:
    with pipe:
        for line in pipe:
            lines.put(line)
    lines.put(None)
