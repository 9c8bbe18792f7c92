"""One part of the run: what it is called, what it will about take, and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A part of the run.

    Parameters
    ----------
    name
        Unique; the worker is told it.
    run
        Takes a `bench.gpu.device.Device` and returns records (`bench.gpu.race.race`).
    seconds
        What it is thought to take on a large GPU, compilation included.
    bytes
        The memory of the GPU that its contestants are thought to need at most; those that need more say so.
    needs
        Packages without which it cannot run.
    """

    name: str
    run: Callable[[Any], list[dict[str, Any]]]
    seconds: float
    bytes: int = 0
    needs: tuple[str, ...] = ("torch",)
