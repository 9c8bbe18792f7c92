"""One harness for every case: check each contestant, time them in rotating rounds, keep ratios of medians.

A case is one call of the `contest` fixture:

    def bench_softmax(contest):
        contest(
            "softmax", "8 x 32,768 float32",
            ours=Contestant("fastnlp", lambda: fastnlp.softmax(x, out=y)),
            peers=[prepared("torch", _torch_softmax, x), prepared("SciPy", _scipy_softmax, x)],
            expect=truth, rtol=1e-5, bytes=2 * x.nbytes,
        )

Noise on a machine comes in stretches, so contestants are not timed one after the other: a round is one sample of each,
and the order rotates (every second turn backwards), so that over the rounds each stands at every position and follows
more than one other. A sample repeats its call until it lasts a millisecond. Before it comes a pause, in which the
threads of the one before stop spinning, and for a short call one off the clock, which warms its own threads and caches.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.check import assert_matches
from bench.machine import Crowding, Machine

MIN_SAMPLE = 1e-3  # seconds
SETTLE = 5e-3  # seconds; OpenMP's and BLAS's threads spin for about so long before they sleep
SHORT = 30e-3  # seconds: a call that lasts less is warmed up
MAX_ROUNDS = 60


@dataclass(frozen=True)
class Contestant:
    """Something that computes the case's result.

    Parameters
    ----------
    name
        How the report calls it.
    call
        What is timed. Give each contestant its own output arrays: a shared one hides that somebody wrote nothing.
    result
        Turns what `call` returned into what is compared with the expectation; not timed.
    reset
        Called before each call that counts, not timed: for calls that change their arguments. There is then one call
        a sample.
    """

    name: str
    call: Callable[[], Any]
    result: Callable[[Any], Any] = lambda value: value
    reset: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Absent:
    """A contestant that cannot take part, and why."""

    name: str
    reason: str


def prepared(name: str, prepare: Callable[..., Any], *args: Any, **kwargs: Any) -> Contestant | Absent:
    """Return the contestant that ``prepare(*args)`` makes, or an `Absent` with the reason if its package is missing.

    `prepare` imports what it needs and returns the function to time, or a whole `Contestant`.
    """
    try:
        made = prepare(*args, **kwargs)
    except ImportError as error:
        return Absent(name, str(error))
    return made if isinstance(made, Contestant) else Contestant(name, made)


class WrongResultError(AssertionError):
    """A contestant's result is not the expected one: there is nothing to time."""


class Contest:
    """Runs cases with pytest-benchmark's fixture `benchmark` on `machine`.

    Parameters
    ----------
    seconds, min_rounds
        A case takes about so long, and no fewer rounds; the rounds are a multiple of the contestants.
    settle
        The pause before a sample.
    clock
        Returns seconds.
    """

    def __init__(
        self,
        benchmark: Any,
        machine: Machine,
        *,
        seconds: float = 1.0,
        min_rounds: int = 5,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._benchmark, self._machine, self._clock = benchmark, machine, clock
        self._seconds, self._min_rounds, self._settle = seconds, min_rounds, settle

    def __call__(
        self,
        operation: str,
        case: str,
        *,
        ours: Contestant,
        peers: Sequence[Contestant | Absent] = (),
        expect: Any,
        rtol: float = 1e-5,
        atol: float = 0.0,
        bytes: float | None = None,
        flops: float | None = None,
        note: str = "",
    ) -> None:
        """Check all contestants of a case, time them, and keep the figures in ``benchmark.extra_info``.

        Parameters
        ----------
        operation, case
            Headings of the report: what is computed, and on what.
        ours, peers
            The contestants; ratios are a peer's median over ours, so above 1 we are faster.
        expect, rtol, atol
            The result, or a function that judges it (`bench.check.assert_matches`).
        bytes, flops
            What the case must at least read and write, and compute: by these it is held against the machine's limits.
        note
            A sentence for the report.

        Raises
        ------
        WrongResultError
            A contestant, ours or a peer, computed something else. Checked before any timing, and again after it.
        """
        there = [ours, *(peer for peer in peers if isinstance(peer, Contestant))]
        if len({one.name for one in [ours, *peers]}) <= len(peers):
            raise ValueError(f"{operation}, {case}: two contestants share a name")

        def check() -> None:
            for one in there:
                _check(one, f"{operation}, {case}", expect, rtol, atol)

        check()
        if self._benchmark.disabled:
            self._benchmark.pedantic(lambda: None)
            return
        with self._machine.same_threads():
            before = self._machine.limits(bytes, flops)
            crowding = Crowding(self._machine.threads)
            lanes = self._time(there)
            crowded = crowding.measure()
            after = self._machine.limits(bytes, flops)
        check()
        self._benchmark.group = operation
        self._benchmark.extra_info.update(
            operation=operation,
            case=case,
            note=note,
            threads=self._machine.threads,
            crowding=crowded,
            bytes=bytes,
            flops=flops,
            limits={kind: [before[kind], after[kind]] for kind in before},
            contestants=[
                *figures(lanes, bytes, flops, {kind: max(before[kind], after[kind]) for kind in before}),
                *({"name": peer.name, "absent": peer.reason} for peer in peers if isinstance(peer, Absent)),
            ],
        )

    def _time(self, contestants: Sequence[Contestant]) -> list[Lane]:
        lanes = [Lane(one, self._clock) for one in contestants]
        gc.collect()
        gc.disable()
        try:
            one_round = sum(lane.calibrate() + self._settle for lane in lanes)
            rounds = min(max(self._seconds / one_round, self._min_rounds), MAX_ROUNDS)
            rounds = math.ceil(rounds / len(lanes)) * len(lanes)
            queue = rotation(len(lanes), rounds)

            def others() -> None:
                """Time the peers whose turn comes before our next one."""
                for turn in queue:
                    time.sleep(self._settle)
                    lanes[turn].prepare()
                    if turn == 0:
                        return
                    lanes[turn].sample()

            self._benchmark.pedantic(lanes[0].sample, setup=others, rounds=rounds, iterations=1)
            others()
        finally:
            gc.enable()
        return lanes


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
    """
    ours = lanes[0].seconds
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
                "bytes_per_second": nbytes and nbytes / median,
                "flops_per_second": flops and flops / median,
                "shares": shares,
                "bound": bound,
                "share": shares[bound] if bound else None,
            }
        )
    return found


def _check(one: Contestant, where: str, expect: Any, rtol: float, atol: float) -> None:
    try:
        if one.reset:
            one.reset()
        assert_matches(one.result(one.call()), expect, rtol=rtol, atol=atol)
    except AssertionError as error:
        raise WrongResultError(f"{where}: {one.name} computes a wrong result\n{error}") from error
    except Exception as error:
        error.add_note(f"{where}: in contestant {one.name}")
        raise
