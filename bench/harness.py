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
more than one other. A sample repeats its call until it lasts a millisecond. Before it comes a pause, until the threads
of the one before have stopped spinning, and for a short call one off the clock, which warms its own threads and caches.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.check import assert_matches
from bench.contestant import Absent, Contestant, prepared
from bench.lane import Lane, figures, rotation
from bench.load import Crowding, settle
from bench.machine import Machine

__all__ = ["Absent", "Contest", "Contestant", "WrongResultError", "prepared"]

MAX_ROUNDS = 60


class WrongResultError(AssertionError):
    """A contestant's result is not the expected one: there is nothing to time."""


class Contest:
    """Runs cases with pytest-benchmark's fixture `benchmark` on `machine`.

    Parameters
    ----------
    seconds, min_rounds
        A case takes about so long, and no fewer rounds. The rounds are a multiple of the contestants, but where one
        round alone takes longer than `seconds`.
    settle
        Waits before a sample until the threads of the sample before are at rest.
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
        settle: Callable[[], None] = settle,
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
            one_round = sum(lane.calibrate() + self._pause() for lane in lanes)
            rounds = min(max(math.ceil(self._seconds / one_round), self._min_rounds), MAX_ROUNDS)
            if one_round <= self._seconds:
                rounds = math.ceil(rounds / len(lanes)) * len(lanes)
            queue = rotation(len(lanes), rounds)

            def others() -> None:
                """Time the peers whose turn comes before our next one."""
                for turn in queue:
                    self._settle()
                    lanes[turn].prepare()
                    if turn == 0:
                        return
                    lanes[turn].sample()

            self._benchmark.pedantic(lanes[0].sample, setup=others, rounds=rounds, iterations=1)
            others()
        finally:
            gc.enable()
        return lanes

    def _pause(self) -> float:
        """Settle; return the seconds that it took."""
        begin = self._clock()
        self._settle()
        return self._clock() - begin


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
