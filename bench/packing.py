"""How tightly and how fast lengths are packed, streamed, bucketed and dealt to ranks: the figures of made lengths.

Quality does not depend on the machine. Times are medians of calls in this process, one contestant after the other in
each round; quote their ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

import fastnlp
from bench.harness import Absent, Contestant, prepared

ALGORITHMS = ("next_fit", "best_fit_decreasing", "first_fit_decreasing", "optimal")
ROUNDS = 5


def lognormal(n, capacity, rng):
    """Lengths of text: median 200 tokens, sigma 1, cut at the capacity."""
    return rng.lognormal(np.log(200), 1, n).clip(1, capacity).astype(np.int32)


def narrow(n, capacity, rng):
    """Lengths near a third of the capacity, which first-fit-decreasing packs badly."""
    return rng.normal(0.34 * capacity, 0.03 * capacity, n).round().clip(1, capacity).astype(np.int32)


def uniform(n, capacity, rng):
    """Lengths between a fifth and a half of the capacity."""
    return rng.integers(capacity // 5, capacity // 2 + 1, n).astype(np.int32)


def questions(n, capacity, rng):
    """A question with its paragraph, about as in SQuAD: 170 tokens at the mean, some cut at the capacity."""
    return (rng.gamma(9, 16, n) + rng.gamma(6, 2, n) + 12).round().clip(30, capacity).astype(np.int32)


def main() -> None:
    """Print all tables."""
    _quality()
    _speed()
    _stream()
    _buckets()
    _ranks()


def _quality() -> None:
    print("100,000 lengths: rows above the proven bound, share of real tokens, seconds")
    cases = [(lognormal, 512), (lognormal, 2048), (lognormal, 8192), (questions, 384), (narrow, 2048), (uniform, 2048)]
    for draw, capacity in cases:
        lengths = draw(100_000, capacity, np.random.default_rng(0))
        packings = {}
        for algorithm in ALGORITHMS:
            fastnlp.pack(lengths[:1000], capacity, algorithm=algorithm)
            begin = time.perf_counter()
            packings[algorithm] = fastnlp.pack(lengths, capacity, algorithm=algorithm), time.perf_counter() - begin
        bound = max(packing.lower_bound for packing, _ in packings.values())
        print(f"{draw.__name__}, capacity {capacity:,}, at least {bound:,} rows")
        for algorithm, (packing, seconds) in packings.items():
            print(f"  {algorithm:<22} +{len(packing) - bound:<7,} {packing.efficiency:8.3%} {seconds:8.3f}")


def _speed() -> None:
    print("\nlognormal lengths, capacity 2,048: milliseconds a call (median), and as a multiple of ours")
    for n in (1_000_000, 10_000_000):
        lengths = lognormal(n, 2048, np.random.default_rng(0))
        ours = {
            "fastnlp": partial(fastnlp.pack, lengths, 2048),
            "fastnlp, shuffled": partial(fastnlp.pack, lengths, 2048, seed=0),
            "fastnlp without Numba": partial(fastnlp.pack, lengths, 2048, backend="reference"),
        }
        for threads in dict.fromkeys((1, fastnlp.get_num_threads())):
            with _threads(threads):
                times = _medians(ours)
            for name, seconds in times.items():
                print(
                    f"{n:>12,} on {threads} thread(s)  {name:<24} {1e3 * seconds:10.1f}"
                    f" {seconds / times['fastnlp']:9.2f}"
                )
        if n == 1_000_000:
            _trl(lengths, _medians({"fastnlp": ours["fastnlp"]})["fastnlp"])


def _trl(lengths, ours: float) -> None:
    """Time TRL's best-fit-decreasing on a table of all sequences, once, since it takes many seconds."""
    contestant = prepared("TRL", _trl_call, lengths)
    if isinstance(contestant, Absent):
        print(f"TRL absent: {contestant.reason}")
        return
    begin = time.perf_counter()
    rows = len(contestant.call())
    seconds = time.perf_counter() - begin
    mine = len(fastnlp.pack(lengths, 2048))
    print(f"{'TRL, bfd, as one batch':>50} {1e3 * seconds:11.1f} {seconds / ours:9.0f} ({rows:,} rows, ours {mine:,})")


def _trl_call(lengths):
    """Prepare the function behind `pack_dataset`, on tokens of a byte: it is the loop over items that takes long."""
    import pyarrow as pa
    from trl.data_utils import _pack_bfd

    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    table = pa.table({"input_ids": pa.ListArray.from_arrays(offsets, np.zeros(offsets[-1], np.int8))})
    return Contestant("TRL", partial(_pack_bfd, table, 2048))


def _stream() -> None:
    print("\nstreaming, 300,000 lognormal lengths, buffer 1,000: share of real tokens without the rest, us an item")
    for capacity in (512, 2048, 8192):
        lengths = lognormal(300_000, capacity, np.random.default_rng(0))
        fastnlp.StreamPacker(capacity, buffer=1000, backend="cpu").add(lengths[:2000])  # compiles, or loads
        packer = fastnlp.StreamPacker(capacity, buffer=1000, backend="cpu")
        begin = time.perf_counter()
        rows = packer.add(lengths)
        seconds = time.perf_counter() - begin
        tokens = sum(int(lengths[np.asarray(row.items)].sum()) for row in rows)
        print(f"  capacity {capacity:>5,}  {tokens / (len(rows) * capacity):8.3%} {1e6 * seconds / lengths.size:8.2f}")


def _buckets() -> None:
    print("\nbucketing 1,000,000 lognormal lengths (at most 2,048), one thread: share of real tokens, ns a sequence")
    lengths = lognormal(1_000_000, 2048, np.random.default_rng(0))
    cases = {
        "64 a batch": {"batch_size": 64},
        "64 a batch, sorted within 50 batches": {"batch_size": 64, "window": 3200},
        "32,768 tokens a batch": {"max_tokens": 32_768},
        "32,768 tokens, 8 static shapes": {"max_tokens": 32_768, "boundaries": 8},
    }
    with _threads(1):
        times = _medians(
            {name: lambda o=options: fastnlp.bucket_batches(lengths, **o) for name, options in cases.items()}
        )
    for name, options in cases.items():
        efficiency = fastnlp.bucket_batches(lengths, **options).efficiency
        print(f"  {name:<40} {efficiency:8.3%} {1e9 * times[name] / lengths.size:8.1f}")


def _ranks() -> None:
    print("\n8 ranks, 100,000 lognormal lengths: mean over steps of the largest sum of squared lengths over their mean")
    lengths = lognormal(100_000, 2048, np.random.default_rng(0))
    packing = fastnlp.pack(lengths, 2048, seed=0)
    batches = fastnlp.bucket_batches(lengths, max_tokens=32_768)
    for name, groups in (("rows of 2,048", packing), ("batches of 32,768", batches)):
        for balance in (None, "tokens", "squares"):
            shards = [groups.shard(rank, 8, balance=balance) for rank in range(8)]
            work = np.array([_squares(shard) for shard in shards], float)
            worst = (work.max(axis=0) / work.mean(axis=0)).mean()
            print(f"  {name:<18} balance {balance!s:<8} {worst:6.3f}, {work.shape[1]:,} steps each")


def _squares(groups) -> np.ndarray:
    if isinstance(groups, fastnlp.Packing):
        return groups.row_squares
    return np.diff(groups.batch_ptr) * groups.padded_lengths**2


def _medians(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each call, over rounds in which each is called once, after one off the clock."""
    for call in calls.values():
        call()
    rounds = [{name: _timed(call) for name, call in calls.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(times[name] for times in rounds) for name in calls}


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = fastnlp.get_num_threads()
    fastnlp.set_num_threads(n)
    try:
        yield
    finally:
        fastnlp.set_num_threads(before)
