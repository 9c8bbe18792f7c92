"""One GPU as the races see it: a clock, a cache to empty, memory to measure."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any


class Device:
    """The GPU that torch calls "cuda", timed by its events.

    Attributes
    ----------
    where
        What tensors are made on.
    """

    where = "cuda"

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def seconds(self, call: Callable[[], Any], loops: int = 1) -> float:
        """Return the seconds that the GPU is busy with, or waits for, one of `loops` calls."""
        self._begin.record()
        for _ in range(loops):
            call()
        self._end.record()
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end)) / 1000 / loops

    def flush(self) -> None:
        """Fill the second-level cache with something else."""
        self._filler.zero_()

    def peak(self, call: Callable[[], Any]) -> int:
        """Return the bytes by which torch's memory grows in ``call()``, at its peak, what is returned included."""
        self.synchronize()
        self._cuda.reset_peak_memory_stats()
        before = self._cuda.memory_allocated()
        kept = call()
        self.synchronize()
        peak = self._cuda.max_memory_allocated()
        del kept
        return int(peak - before)

    def synchronize(self) -> None:
        """Wait until the GPU has nothing to do; errors of kernels come up here."""
        self._cuda.synchronize()

    def release(self) -> None:
        """Give back what nobody holds."""
        gc.collect()
        self._cuda.empty_cache()
        cupy = sys.modules.get("cupy")
        if cupy is not None:
            cupy.get_default_memory_pool().free_all_blocks()

    def free(self) -> int:
        """Return the bytes that are free on the GPU."""
        return int(self._cuda.mem_get_info()[0])

    @cached_property
    def _filler(self) -> Any:
        import torch

        cache = getattr(self._cuda.get_device_properties(0), "L2_cache_size", 64 << 20)
        return torch.empty(4 * cache, dtype=torch.uint8, device=self.where)


class HostClock:
    """The GPU timed from outside: what a caller waits who calls many times and then once for the GPU."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def seconds(self, call: Callable[[], Any], loops: int = 1) -> float:
        """Return the seconds of one of `loops` calls."""
        self._device.synchronize()
        begin = time.perf_counter()
        for _ in range(loops):
            call()
        self._device.synchronize()
        return (time.perf_counter() - begin) / loops


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function as torch.compile makes it, for the shapes that it is called with."""
    import torch

    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)
