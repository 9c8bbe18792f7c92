"""The one thread pool that CPU kernels run on.

Kernels are compiled with ``nogil=True`` and called over ranges of rows. The ranges are cut by the data, never by the
number of threads, so results are the same bits for any number of threads. Numba's own threading layers are not used:
from wheels alone they kill a forked child or a process in which two Python threads call kernels at once.

The pool lives in this process only: a forked child makes its own on first use. It uses no lock of Python's that an
interruption from the keyboard could leave taken: that of `concurrent.futures` can be, and then every later call hangs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

_threads: int | None = None


def available_cpus() -> int:
    """Return the number of CPUs this process may use: its affinity mask, cut by a container's CPU quota."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cpus = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            cpus = min(cpus, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        pass
    return cpus


def set_num_threads(n: int) -> None:
    """Set the number of threads that kernels of this process run on.

    Results do not depend on it. BLAS threads are not touched: they belong to NumPy and torch.

    Raises
    ------
    ValueError
        `n` is not a positive integer.
    """
    global _threads
    _threads = _checked(n, "n")


def get_num_threads() -> int:
    """Return the number of threads kernels run on: set_num_threads, FASTNLP_NUM_THREADS, or the CPUs available."""
    global _threads
    if _threads is None:
        asked = os.environ.get("FASTNLP_NUM_THREADS")
        _threads = _checked(asked, "FASTNLP_NUM_THREADS") if asked else available_cpus()
    return _threads


def _checked(n: int | str, name: str) -> int:
    try:
        value = int(n)
    except (TypeError, ValueError, OverflowError):
        value = 0
    if value < 1 or (not isinstance(n, str) and value != n):
        raise ValueError(f"{name} must be a positive integer, got {n!r}")
    return value


def run(kernel: Callable[..., Any], n: int, *args: Any, grain: int) -> None:
    """Call ``kernel(begin, end, *args)`` over [0, n) in ranges of `grain`, on the calling thread and the pool.

    A range is a task; tasks are taken in order by whichever thread is free. With one range (or one thread) the kernel
    runs on the calling thread. The first exception stops the handing out of ranges and is raised here after all
    threads have left the arrays alone. Calls may come from many threads at once, and from within a kernel's task.
    """
    if n <= grain:
        kernel(0, n, *args)
        return
    tasks = -(-n // grain)
    workers = min(get_num_threads(), tasks)
    if workers <= 1:
        for begin in range(0, n, grain):
            kernel(begin, min(begin + grain, n), *args)
        return

    job = _Job(kernel, n, args, grain, workers - 1)
    try:
        _pool.help(job, workers - 1)
        job.drain()
    except BaseException:
        job.failed = True
        raise
    finally:
        job.close()  # nobody writes after we return
    for error in job.errors:
        raise error


class _Job:
    """One call of `run`: ranges to be taken by the caller and by helpers from the pool."""

    def __init__(self, kernel: Callable[..., Any], n: int, args: tuple[Any, ...], grain: int, helpers: int) -> None:
        self.failed = False
        self.errors: list[BaseException] = []
        self._kernel, self._n, self._args, self._grain = kernel, n, args, grain
        self._tickets = count()  # next() on it is atomic, and so are pop and append of lists
        self._places: list[int | None] = [None, *range(helpers)]  # whoever takes one may help
        self._helpers = helpers
        self._left: list[object] = []
        self._awake: SimpleQueue[None] = SimpleQueue()

    def drain(self) -> None:
        """Take ranges until there are none."""
        while not self.failed:
            begin = next(self._tickets) * self._grain
            if begin >= self._n:
                return
            self._kernel(begin, min(begin + self._grain, self._n), *self._args)

    def help(self) -> None:
        """Drain, on a thread of the pool, unless the caller no longer waits for help."""
        try:
            place = self._places.pop()
        except IndexError:
            place = None
        if place is None:
            return
        try:
            self.drain()
        except BaseException as error:
            self.failed = True
            self.errors.append(error)
        self._left.append(place)
        self._awake.put(None)

    def close(self) -> None:
        """Take the places that nobody took, and wait until those who took one have left; then raise interruptions."""
        interruption = None
        free: list[int | None] = []
        while True:
            try:
                if self._places:
                    free.extend(iter(self._places.pop, None))  # one step: no interruption can come between
                while len(free) + len(self._left) < self._helpers:
                    self._awake.get(timeout=1)
                break
            except (Empty, IndexError):  # a helper came between the question and the step
                continue
            except BaseException as error:
                self.failed = True
                interruption = error
        self._args = ()  # a helper may find this job late: it keeps no arrays alive
        if interruption is not None:
            raise interruption


class _Pool:
    """Threads that wait for jobs. They are made when they are first needed, and end with the process."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job] = SimpleQueue()

    def help(self, job: _Job, helpers: int) -> None:
        """Let so many threads help with a job, or fewer where the system has no more."""
        try:
            while len(self.threads) < helpers:
                thread = threading.Thread(target=self._work, name="fastnlp", daemon=True)
                thread.start()
                self.threads.append(thread)
        except RuntimeError:  # no more threads, or the interpreter is on its way out
            pass
        for _ in range(min(helpers, len(self.threads))):
            self._jobs.put(job)

    def _work(self) -> None:
        jobs = self._jobs
        while True:
            jobs.get().help()


_pool = _Pool()


def _forget_pool() -> None:
    """In a forked child: the parent's threads do not exist here."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
