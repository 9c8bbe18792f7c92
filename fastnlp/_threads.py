"""The one thread pool that CPU kernels run on.

Kernels are compiled with ``nogil=True`` and called over ranges of rows. The ranges are cut by the data, never by the
number of threads, so results are the same bits for any number of threads. Numba's own threading layers are not used:
from wheels alone they kill a forked child or a process in which two Python threads call kernels at once.

The pool lives in this process only: a forked child makes its own on first use.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
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

    ticket = count()  # next() on it is atomic
    failed = False

    def drain() -> None:
        nonlocal failed
        while not failed:
            begin = next(ticket) * grain
            if begin >= n:
                return
            try:
                kernel(begin, min(begin + grain, n), *args)
            except BaseException:
                failed = True
                raise

    helpers: list[Future[None]] = []
    try:
        pool = _get_pool()
        for _ in range(workers - 1):
            helpers.append(pool.submit(drain))  # noqa: PERF401 (what was submitted must be known if one fails)
    except RuntimeError:  # the interpreter is on its way out, or the system has no more threads: do without
        pass
    try:
        drain()
    except BaseException:
        failed = True
        raise
    finally:
        started = [helper for helper in helpers if not helper.cancel()]
        errors = [helper.exception() for helper in started]  # waits: nobody writes after we return
    for error in errors:
        if error is not None:
            raise error


def _get_pool() -> ThreadPoolExecutor:
    global _pool, _pool_size
    wanted = get_num_threads() - 1
    with _lock:
        if _pool is None or _pool_size < wanted:
            from concurrent.futures import ThreadPoolExecutor

            # A smaller pool that others still use finishes its tasks and is collected with its last future.
            _pool = ThreadPoolExecutor(wanted, thread_name_prefix="fastnlp")
            _pool_size = wanted
        return _pool


def _forget_pool() -> None:
    """In a forked child: the parent's threads do not exist here, and its lock may be held by one of them."""
    global _lock, _pool, _pool_size
    _lock = threading.Lock()
    _pool, _pool_size = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
