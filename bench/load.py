"""Who keeps the CPUs busy: other programs while contestants are timed, threads of the contestant before a sample."""

from __future__ import annotations

import os
import time
from pathlib import Path

STEP, LIMIT = 2e-3, 0.3  # seconds
IDLE = 0.2
"""CPUs in use below which a process counts as idle: its main thread wakes once a step to look."""


def settle() -> None:
    """Wait until this process has used next to no CPU time for two steps on end, at most LIMIT seconds.

    The threads of a library go on spinning after a call, ready for the next, and take a core from whoever follows:
    OpenBLAS's (NumPy, SciPy) were seen to do so for 0.11 s, OpenMP's (torch) for 0.01 s.
    """
    end, quiet = time.perf_counter() + LIMIT, 0
    while quiet < 2 and time.perf_counter() < end:
        begin, used = time.perf_counter(), time.process_time()
        time.sleep(STEP)
        busy = (time.process_time() - used) / (time.perf_counter() - begin)
        quiet = quiet + 1 if busy < IDLE else 0


class Crowding:
    """How many CPUs' worth of work of other processes the contestants had to share their CPUs with, since it was made.

    Threads that wait for each other lose most by it: an OpenMP loop whose second thread is not running takes a whole
    time slice. Figures from a crowded machine say nothing about either contestant.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._before = self._now()

    def measure(self) -> float | None:
        """Return the CPUs shared, 0 on a machine to ourselves; None where the system does not tell."""
        if self._before is None:
            return None
        (busy, own, at), (busy_now, own_now, now) = self._before, self._now()
        others = ((busy_now - busy) - (own_now - own)) / max(now - at, 1e-9)
        return max(0.0, others + self._threads - (os.cpu_count() or 1)) if others > 0 else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """Return seconds: CPUs busy with anything, CPUs busy with this process and its children, and the clock."""
        try:
            ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        except OSError:  # macOS, Windows
            return None
        user, nice, system, _idle, _waiting, *interrupts = map(int, ticks)
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
        return busy, sum(os.times()[:4]), time.perf_counter()
