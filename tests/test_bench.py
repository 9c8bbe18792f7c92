"""The bench frame: who is timed when, who may be timed at all, and that the report says what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

import fastnlp
from bench import __main__ as command
from bench import report
from bench.check import assert_matches
from bench.harness import Absent, Contest, Contestant, WrongResultError, prepared
from bench.lane import Lane, figures, rotation
from bench.load import LIMIT, STEP, Crowding, settle
from bench.machine import Machine

ROOT = Path(__file__).resolve().parents[1]


class Benchmark:
    """What the harness uses of pytest-benchmark's fixture."""

    def __init__(self, disabled=False):
        self.disabled = disabled
        self.group = None
        self.extra_info = {}
        self.rounds = 0

    def pedantic(self, target, setup=None, rounds=1, iterations=1):
        for _ in range(rounds):
            if setup:
                setup()
            target()
            self.rounds += 1


class Clock:
    """A clock that stands still but for calls of `spend`."""

    now = 0.0

    def __call__(self):
        return self.now

    def spend(self, name, seconds, log, value=1.0):
        def call():
            self.now += seconds
            log.append(name)
            return value

        return call


def no_pause():
    """Stand in for `settle` under a clock that stands still."""


@pytest.fixture(scope="module")
def still():
    """A machine whose limits are known: copies at 1 GB/s, products at 1 TFLOP/s."""
    machine = Machine(threads=1)
    machine.copy_rate = lambda nbytes: 1e9
    machine.gemm_rate = lambda: 1e12
    return machine


@pytest.fixture
def contest(still):
    """A contest on that machine under a fake clock, without pauses."""
    clock = Clock()
    found = Contest(Benchmark(), still, seconds=0.1, settle=no_pause, clock=clock)
    found.clock, found.benchmark = clock, found._benchmark
    return found


def test_rotation_gives_everybody_every_position():
    for k in (1, 2, 3, 5):
        rounds = np.array(list(rotation(k, 4 * k))).reshape(-1, k)
        for row in rounds:
            assert sorted(row) == list(range(k))
        for position in rounds.T:
            assert Counter(position.tolist()) == dict.fromkeys(range(k), 4)

    turns = list(rotation(4, 8))
    assert len({after for before, after in pairwise(turns) if before == 0}) > 1, "0 always has the same one behind it"


def test_samples_are_taken_in_the_rotation(contest):
    log = []
    names = ("ours", "a", "b")
    ours, *peers = (Contestant(name, contest.clock.spend(name, 0.031, log)) for name in names)
    contest("op", "case", ours=ours, peers=peers, expect=1.0)
    rounds = contest.benchmark.rounds
    assert rounds == 6, "at least five, and a multiple of three"
    timed = log[2 * 3 : -3]  # before it the check and the calibration, after it the check
    assert timed == [names[i] for i in rotation(3, rounds)]


def test_rounds_longer_than_the_time_of_a_case_are_as_few_as_asked(contest):
    ours, *peers = (Contestant(name, contest.clock.spend(name, 0.05, [])) for name in ("ours", "a", "b"))
    contest("op", "case", ours=ours, peers=peers, expect=1.0)
    assert contest.benchmark.rounds == 5


@pytest.mark.parametrize(("spins", "waits"), [(0.0, 0.0), (0.11, 0.11), (1.0, LIMIT)])
def test_settle_outlasts_threads_that_spin(monkeypatch, spins, waits):
    """A process of which one thread spins for so long, while the other sleeps."""
    clock = Clock()
    functions = {
        "perf_counter": clock,
        "process_time": lambda: min(clock.now, spins),
        "sleep": lambda seconds: clock.spend("", seconds, [])(),
    }
    monkeypatch.setattr("bench.load.time", SimpleNamespace(**functions))
    settle()
    assert waits <= clock.now <= waits + 4 * STEP


def test_time_over_the_floor(contest):
    spend = contest.clock.spend
    ours = Contestant("ours", spend("ours", 0.012, []), floor="bare")
    peers = [Contestant("bare", spend("bare", 0.01, [])), Contestant("other", spend("other", 0.02, []), floor="gone")]
    contest("op", "case", ours=ours, peers=peers, expect=1.0)
    info = contest.benchmark.extra_info
    assert report.over_floors(info) == ["time over that of bare: ours 1.20"]
    assert "case: time over that of bare: ours 1.20." in report.notes([info])


def test_ratios_are_of_medians(contest):
    log = []
    ours = Contestant("ours", contest.clock.spend("ours", 0.002, log))
    slow = Contestant("slow", contest.clock.spend("slow", 0.006, log))
    fast = Contestant("fast", contest.clock.spend("fast", 1e-5, log))
    contest("op", "case", ours=ours, peers=[slow, fast], expect=1.0, bytes=1e6, flops=1e9)
    info = contest.benchmark.extra_info
    one, two, three = info["contestants"]
    assert contest.benchmark.group == "op"
    assert one["ratio"] == 1.0
    assert two["ratio"] == pytest.approx(3.0)
    assert three["ratio"] == pytest.approx(0.005)
    assert three["median"] == pytest.approx(1e-5), "per call, not per sample"
    assert three["loops"] * 1e-5 >= 1e-3
    assert one["bytes_per_second"] == pytest.approx(5e8)
    assert one["shares"] == pytest.approx({"copy": 0.5, "gemm": 0.5})
    assert two["share"] == pytest.approx(0.5 / 3)
    json.dumps(info)


def test_figures_of_known_samples():
    ours, peer = (Lane(Contestant(name, int), Clock()) for name in ("ours", "peer"))
    ours.seconds, peer.seconds = [1.0, 2.0, 3.0, 4.0, 50.0], [9.0, 2.0, 6.0, 8.0, 50.0]
    one, two = figures([ours, peer], 12e9, None, {"copy": 8e9})
    assert (one["median"], one["min"], one["q1"], one["q3"], one["rounds"]) == (3.0, 1.0, 2.0, 4.0, 5)
    assert two["ratio"] == 8 / 3
    assert (two["ratio_q1"], two["ratio_q3"]) == (1.0, 2.0)  # of 9, 1, 2, 2, 1
    assert (one["bound"], one["share"], one["flops_per_second"]) == ("copy", 0.5, None)


@pytest.mark.parametrize("disabled", [False, True])
@pytest.mark.parametrize("wrong", ["ours", "peer"])
def test_wrong_contestant_fails_the_case(still, wrong, disabled):
    log, clock = [], Clock()
    benchmark = Benchmark(disabled)
    one, other = (
        Contestant(name, clock.spend(name, 0.01, log, value=np.array([1.0, 2.0 + (name == wrong)])))
        for name in ("ours", "peer")
    )
    run = Contest(benchmark, still, settle=no_pause, clock=clock)
    with pytest.raises(WrongResultError, match=f"op, case: {wrong} computes a wrong result"):
        run("op", "case", ours=one, peers=[other], expect=np.array([1.0, 2.0]))
    assert benchmark.rounds == 0
    assert not benchmark.extra_info


def test_contestant_that_becomes_wrong_fails_the_case(contest):
    total = np.zeros(1)
    drifting = Contestant("drifting", lambda: total.__iadd__(contest.clock.spend("", 0.05, [])()))
    with pytest.raises(WrongResultError, match="drifting"):
        contest("op", "case", ours=drifting, expect=np.ones(1))
    assert not contest.benchmark.extra_info


def test_reset_comes_before_every_call_and_off_the_clock(contest):
    total, log = np.zeros(1), []

    def add():
        contest.clock.spend("", 1e-6, log)()
        total[0] += 1
        return total

    def reset():
        contest.clock.now += 10.0
        total[0] = 0

    contest("op", "case", ours=Contestant("ours", add, reset=reset), expect=np.ones(1))
    (ours,) = contest.benchmark.extra_info["contestants"]
    assert ours["median"] == pytest.approx(1e-6)
    assert ours["loops"] == 1


def test_missing_peer_is_listed_with_its_reason(contest):
    def needs_a_package():
        import no_such_package_anywhere

        return no_such_package_anywhere.f

    peer = prepared("rival", needs_a_package)
    assert peer == Absent("rival", "No module named 'no_such_package_anywhere'")
    ours = Contestant("ours", contest.clock.spend("ours", 0.05, []))
    contest("op", "case", ours=ours, peers=[peer], expect=1.0)
    assert contest.benchmark.extra_info["contestants"][1] == {"name": "rival", "absent": peer.reason}


def test_exception_names_the_contestant(contest):
    def fails():
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk") as caught:
        contest("op", "case", ours=Contestant("ours", fails), expect=1.0)
    assert caught.value.__notes__ == ["op, case: in contestant ours"]


def test_two_contestants_of_one_name_are_refused(contest):
    one = Contestant("ours", lambda: 1.0)
    with pytest.raises(ValueError, match="share a name"):
        contest("op", "case", ours=one, peers=[one], expect=1.0)


def test_disabled_run_checks_and_times_nothing(still):
    log, clock = [], Clock()
    benchmark = Benchmark(disabled=True)
    one, other = (Contestant(name, clock.spend(name, 0.01, log)) for name in ("ours", "peer"))
    Contest(benchmark, still, clock=clock)("op", "case", ours=one, peers=[other], expect=1.0)
    assert log == ["ours", "peer"]
    assert not benchmark.extra_info


MATRIX = sparse.csr_array(np.array([[0.0, 2.0], [3.0, 0.0]]))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (1.0, 1.1),
        (np.arange(3.0), np.arange(4.0)),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0])),
        ((1, np.ones(2)), [1, np.zeros(2)]),
        ([1, 2], [1, 2, 3]),
        ({"a": 1, "b": (2, "x")}, {"a": 1, "b": (2, "y")}),
        ({"a": 1}, {"a": 1, "b": 2}),
        (MATRIX, MATRIX * 2),
        (MATRIX, MATRIX.T.tocsr()),
        (MATRIX, MATRIX.toarray()),
        ("word", "world"),
        (None, 0),
    ],
)
def test_nests_are_compared(right, wrong):
    assert_matches(right, right, rtol=1e-6, atol=0)
    with pytest.raises(AssertionError):
        assert_matches(wrong, right, rtol=1e-6, atol=0)


def test_sparse_matrices_are_compared_by_their_entries():
    unsorted = sparse.csr_array(([1.0, 0.0, 1.0, 3.0], [1, 0, 1, 0], [0, 3, 4]), shape=(2, 2))
    assert_matches(unsorted, MATRIX, rtol=0, atol=0)


def test_expectation_may_be_a_function():
    assert_matches(3, lambda got: got == 3, rtol=0, atol=0)
    assert_matches(3, lambda got: None, rtol=0, atol=0)
    with pytest.raises(AssertionError):
        assert_matches(4, lambda got: got == 3, rtol=0, atol=0)


def test_threads_are_set_for_everybody_and_restored():
    before = fastnlp.get_num_threads()
    machine = Machine(threads=before + 1)
    with machine.same_threads():
        assert fastnlp.get_num_threads() == before + 1
        if sys.modules.get("torch"):
            assert sys.modules["torch"].get_num_threads() == before + 1
    assert fastnlp.get_num_threads() == before


def test_machine_describes_itself_and_measures_its_limits(monkeypatch):
    monkeypatch.setattr("bench.machine.MEMORY", 1 << 22)
    monkeypatch.setattr("bench.machine.GEMM_SIZE", 64)
    machine = Machine(threads=2)
    machine.measure()
    found = json.loads(json.dumps(machine.describe()))
    assert found["threads"] == 2
    assert found["cpu"]
    assert found["packages"]["numpy"] == np.__version__
    assert all(rate > 1e6 for rates in found["limits"].values() for rate in rates)
    assert machine.limits(None, None) == {}


def test_crowding_counts_the_work_of_others(monkeypatch):
    readings = iter(
        [(0.0, 0.0, 0.0), (3.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (3.0, 1.0, 2.0)]
    )
    monkeypatch.setattr(Crowding, "_now", staticmethod(lambda: next(readings)))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert Crowding(threads=4).measure() == 1.0  # two seconds of others' work in two seconds, no CPU to spare
    assert Crowding(threads=4).measure() == 0.0
    assert Crowding(threads=2).measure() == 0.0  # the others had CPUs of their own


def synthetic(crowding=0.0):
    def one(name, median, ratio, share):
        return {
            "name": name, "median": median, "min": median, "q1": median, "q3": median, "rounds": 6, "loops": 7,
            "ratio": ratio, "ratio_q1": ratio - 0.01, "ratio_q3": ratio + 0.01, "bytes_per_second": 2.5e9,
            "flops_per_second": None, "shares": {"copy": share}, "bound": "copy", "share": share,
        }  # fmt: skip

    def case(name, ratio, crowding):
        contestants = [one("fastnlp", 0.002, 1.0, 0.42), one("torch", 0.002 * ratio, ratio, 0.42 / ratio)]
        contestants.append({"name": "rival", "absent": "No module named 'rival'"})
        return {"operation": "op <1>", "case": name, "note": "", "crowding": crowding, "contestants": contestants}

    machine = {
        "cpu": "Some CPU", "cpus_available": 4, "threads": 2, "simd": "avx2", "caches": {"L2": "1M"},
        "memory_bytes": 2**33, "os": "Linux", "python": "3.11", "packages": {"numpy": "2.0"}, "environment": {},
        "blas": [{"internal_api": "openblas", "version": "1"}],
        "limits": {"copy, cache": [3e10, 4e10], "gemm, float32": [1.5e11]},
    }  # fmt: skip
    cases = [case("small", 1.37, 0.0), case("large", 2.91, crowding)]
    return {
        "machine": machine,
        "datetime": "2026-01-02T03:04:05.678",
        "commit_info": {"id": "abcdef0123456", "dirty": True},
        "benchmarks": [{"extra_info": info} for info in cases],
    }


def test_report_holds_the_numbers(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "results.json").write_text(json.dumps(synthetic()))
    assert command.main(["report", str(tmp_path / "results.json"), "-o", str(tmp_path / "out")]) == 0
    assert "report.html" in capsys.readouterr().out
    markdown, page = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("md", "html"))
    for text in (markdown, page):
        for number in (
            "1.37 (1.36 to 1.38)",
            "2.91 (2.90 to 2.92)",
            "1.37 to 2.91",
            "42 % of copy",
            "2.74 ms",
            "6 x 7",
        ):
            assert number in text, number
        for word in (
            "Some CPU",
            "2 for every contestant",
            "35.0 GB/s (30.0 to 40.0 over the run)",
            "150.0 GFLOP/s",
            "abcdef0123",
        ):
            assert word in text, word
        assert "rival" in text
        assert "absent" in text
    assert "No module named 'rival'" in markdown
    assert "op &lt;1&gt;" in page
    assert page.count("<svg") == 1
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert "#0101" not in page, "a stand-in colour was left"


def test_disturbed_cases_are_marked_and_left_out_at_a_glance():
    run = synthetic(crowding=0.7)
    cases = [bench["extra_info"] for bench in run["benchmarks"]]
    assert report.glance(cases)[1] == [["op <1>", "1.37", ""]]
    assert report.glance(cases[1:])[1] == [["op <1>", "disturbed", ""]]
    assert [row[0] for row in report.ratios(cases)[1]] == ["small", "large *"]
    assert report.DISTURBED in report.notes(cases)
    assert report.DISTURBED not in report.notes(cases[:1])


def test_report_of_no_cases_is_refused(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"benchmarks": []}))
    with pytest.raises(ValueError, match="holds no cases"):
        report.write(tmp_path / "results.json", tmp_path)


CASES = """
from bench.harness import Absent, Contestant

def bench_right(contest):
    contest("sum", "ten", ours=Contestant("ours", lambda: sum(range(10))), expect=45, bytes=80,
            peers=[Contestant("peer", lambda: 45), Absent("rival", "not installed")])

def bench_wrong(contest):
    contest("sum", "wrong", ours=Contestant("ours", lambda: 45), peers=[Contestant("peer", lambda: 44)], expect=45)
"""


def test_cases_run_under_pytest_benchmark(tmp_path):
    """The real fixture, end to end: one case is reported, the other fails the run."""
    (tmp_path / "conftest.py").write_text(
        "import bench.machine as m\nm.MEMORY, m.GEMM_SIZE = 1 << 22, 64\npytest_plugins = ['bench.conftest']\n"
    )
    (tmp_path / "bench_sum.py").write_text(CASES)
    options = ["-q", "--import-mode=importlib", "-o", "python_functions=bench_*", "-p", "no:cacheprovider"]
    options += ["--benchmark-enable", "--benchmark-quiet", "--benchmark-max-time=0.05", "--threads=1"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--benchmark-json=results.json", "bench_sum.py"],
        cwd=tmp_path,
        env={**alone, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "sum, wrong: peer computes a wrong result" in done.stdout
    assert "rival absent" in done.stdout
    run = json.loads((tmp_path / "results.json").read_text())
    (bench,) = (bench for bench in run["benchmarks"] if bench["extra_info"])
    assert [one["name"] for one in bench["extra_info"]["contestants"]] == ["ours", "peer", "rival"]
    assert bench["extra_info"]["contestants"][0]["rounds"] == bench["stats"]["rounds"]
    assert run["machine"]["threads"] == 1
    assert [len(rates) for rates in run["machine"]["limits"].values()] == [2, 2, 2]


def test_grid_runs_only_when_asked():
    def collected(*options):
        run = [sys.executable, "-m", "pytest", "--collect-only", "-q", "bench/bench_linear_cross_entropy.py", *options]
        done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.count("::bench_linear_cross_entropy[")

    assert collected() == 4
    assert collected("--grid") == 3 * 3 * 2 + 3 * 3 * 4 * 3 * 2


def test_contestants_of_a_linear_head_agree(rng):
    """All but torch.compile, which takes long: value and gradients of a small case, with rows ignored."""
    from bench import heads

    x, w = (rng.standard_normal(shape, np.float32) for shape in ((12, 8), (40, 8)))
    target = rng.integers(0, 40, 12)
    target[::4] = -100
    want = heads.ours(x, w, target, True)
    want = want.result(want.call())
    made = [heads.ours, heads.tensors, heads.eager, partial(heads.chunked, rows=4), partial(heads.chunked, rows=None)]
    others = [prepared("peer", make, x, w, target, True) for make in made]
    for one in (one for one in others if isinstance(one, Contestant)):
        assert_matches(one.result(one.call()), want, rtol=1e-4, atol=1e-7)
        assert len(want) == 3


def test_memory_of_a_call_is_its_peak():
    pytest.importorskip("torch")
    from bench import memory

    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the peak of the resident memory is not at hand")
    peak = memory.extra_peak(lambda: np.ones(48 << 20, np.uint8).sum() and np.ones(16 << 20, np.uint8))
    assert 44 << 20 < peak < 56 << 20, "the larger of the two, not the sum, not what is left"
    small, large = (memory.measure("torch eager", 64, classes, 32) for classes in (20_000, 60_000))
    assert large - small > 2 * 4 * 64 * 40_000, "torch eager holds at least logits and their gradient"
    with pytest.raises(RuntimeError, match="torch eager: ValueError"):
        memory.measure("torch eager", 64, -1, 32)


def test_first_call_is_measured_in_a_process_of_its_own(tmp_path):
    from bench import first_call

    assert 0 < first_call.measure("time.sleep(0.2)", str(tmp_path)) - 0.2 < 5
    with pytest.raises(subprocess.CalledProcessError):
        first_call.measure("fastnlp.softmax('words')", str(tmp_path))
