"""One contestant's samples, whose turn it is, and what is told of the samples in the end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.contestant import Contestant

MIN_SAMPLE = 1e-3  # seconds
SHORT = 30e-3  # seconds: a call that lasts less is warmed up


@dataclass
class Lane:
    """One contestant's samples: seconds a call."""

    contestant: Contestant
    clock: Callable[[], float]
    loops: int = 1
    warm_up: bool = False
    seconds: list[float] = field(default_factory=list)

    def calibrate(self) -> float:
        """Choose how often a sample repeats the call; return the seconds that a sample takes."""
        while True:
            lasts = self._fastest()
            if lasts >= MIN_SAMPLE or self.contestant.reset:
                self.warm_up = lasts < SHORT and not self.contestant.reset
                return lasts
            self.loops = min(10 * self.loops, math.ceil(1.2 * self.loops * MIN_SAMPLE / lasts))

    def prepare(self) -> None:
        """Do what comes before a sample, off the clock: a short call is warmed up, one with a reset is reset."""
        if self.warm_up:
            self.contestant.call()
        if self.contestant.reset:
            self.contestant.reset()

    def sample(self) -> None:
        """Time one sample."""
        self.seconds.append(self._elapsed() / self.loops)

    def _fastest(self) -> float:
        """Return the seconds of a sample; of a short one the fastest of three, lest a lost time slice deceive."""
        tries = []
        while len(tries) < 3 and not (tries and tries[0] >= SHORT):
            self.prepare()
            tries.append(max(self._elapsed(), 1e-9))
        return min(tries)

    def _elapsed(self) -> float:
        call, clock = self.contestant.call, self.clock
        begin = clock()
        for _ in range(self.loops):
            call()
        return clock() - begin


def rotation(contestants: int, rounds: int) -> Iterator[int]:
    """Yield whose turn it is: each round starts with the next contestant, every second turn runs backwards."""
    for r in range(rounds):
        turn, shift = divmod(r, contestants)
        order = [(shift + i) % contestants for i in range(contestants)]
        yield from reversed(order) if turn % 2 else order


def figures(
    lanes: Sequence[Lane], nbytes: float | None, flops: float | None, limits: dict[str, float]
) -> list[dict[str, Any]]:
    """Return each contestant's figures: seconds a call, ratio to the first contestant, share of each limit.

    ``ratio`` is the ratio of medians; ``ratio_q1`` and ``ratio_q3`` are quartiles of the ratio round by round, which
    tell how steady it is. ``share`` is of the limit that binds, ``bound``: the one with the largest share.
    ``over_floor`` is the median over that of the contestant's floor.
    """
    ours = lanes[0].seconds
    medians = {lane.contestant.name: statistics.median(lane.seconds) for lane in lanes}
    work = {"copy": nbytes, "gemm": flops}
    found = []
    for lane in lanes:
        q1, median, q3 = np.quantile(lane.seconds, [0.25, 0.5, 0.75]).tolist()
        by_round = [theirs / mine for theirs, mine in zip(lane.seconds, ours, strict=True)]
        ratio_q1, ratio_q3 = np.quantile(by_round, [0.25, 0.75]).tolist()
        shares = {kind: (work[kind] or 0) / median / rate for kind, rate in limits.items()}
        bound = max(shares, key=lambda kind: shares[kind], default=None)
        found.append(
            {
                "name": lane.contestant.name,
                "median": median,
                "min": min(lane.seconds),
                "q1": q1,
                "q3": q3,
                "rounds": len(lane.seconds),
                "loops": lane.loops,
                "ratio": median / statistics.median(ours),
                "ratio_q1": ratio_q1,
                "ratio_q3": ratio_q3,
                "floor": lane.contestant.floor,
                "over_floor": median / medians[lane.contestant.floor] if lane.contestant.floor in medians else None,
                "bytes_per_second": nbytes and nbytes / median,
                "flops_per_second": flops and flops / median,
                "shares": shares,
                "bound": bound,
                "share": shares[bound] if bound else None,
            }
        )
    return found
