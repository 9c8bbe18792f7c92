"""The proof on a GPU, without one: what is raced, checked, scheduled, judged and written, on the CPU and by stubs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from bench.contestant import Absent, Contestant  # noqa: E402
from bench.gpu import __main__ as command  # noqa: E402
from bench.gpu import (  # noqa: E402
    batches,
    checks,
    heads,
    launches,
    losses,
    machine,
    report,
    rows,
    sanitize,
    schedule,
    targets,
    words,
)
from bench.gpu.part import Part  # noqa: E402
from bench.gpu.parts import parts  # noqa: E402
from bench.gpu.race import race, share  # noqa: E402
from bench.gpu.worker import BROKEN, work  # noqa: E402
from fastnlp._detect import Driver, Gpu, driver  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


class Host:
    """The CPU in the place of a GPU: what a part needs of a device."""

    where = "cpu"
    room = 1 << 40
    broken = False

    def seconds(self, call, loops=1):
        begin = time.perf_counter()
        for _ in range(loops):
            call()
        return (time.perf_counter() - begin) / loops

    def peak(self, call):
        call()
        return 1 << 20

    def flush(self):
        self.flushed = getattr(self, "flushed", 0) + 1

    def synchronize(self):
        if self.broken:
            raise RuntimeError("an illegal memory access")

    def release(self):
        pass

    def free(self):
        return self.room


class Slow(Host):
    """A device on which calls take the seconds that they return."""

    def seconds(self, call, loops=1):
        return sum(call() for _ in range(loops)) / loops


@pytest.fixture
def few_rounds(monkeypatch):
    """Races of parts that are short."""
    monkeypatch.setattr("bench.gpu.race.ROUNDS", (2, 2))


def named(record):
    return {one["name"]: one for one in record["contestants"]}


def test_without_a_gpu_it_says_so_in_one_sentence():
    if driver().gpus:
        pytest.skip("a machine without a GPU is not at hand")
    done = subprocess.run([sys.executable, "-m", "bench.gpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == command.NO_GPU == 2
    assert not done.stdout
    assert done.stderr.count("\n") == 1
    assert "no GPU" in done.stderr


def test_a_dry_run_lists_every_part(capsys):
    assert command.main(["--dry-run"]) == 0
    listed = capsys.readouterr().out
    for part in parts():
        assert part.name in listed
    with pytest.raises(SystemExit):
        command.main(["--dry-run", "-k", "no such part"])


def test_parts_are_named_once_and_fit_the_time():
    names = [part.name for part in parts()]
    assert len(names) == len(set(names))
    assert sum(part.seconds for part in parts()) + command.FOR_CHECKS <= command.SECONDS <= 600
    grid = [name for name in names if name.startswith(losses.OPERATION)]
    assert len([name for name in grid if "float" not in name]) == 3 * 2 * 2 * 2 * 2


def test_a_race_checks_times_and_compares():
    device = Slow()
    entrants = [
        Contestant("fastnlp", lambda: 0.25),
        Contestant("peer", lambda: 0.5),
        Contestant("wrong", lambda: 0.75),
        Absent("missing", "not installed"),
        Contestant("limit", lambda: 0.2),
    ]

    def check(value):
        assert value != 0.75, "three quarters"

    record = race(device, "op", "case", entrants, check=check, per_call={"rows": 10}, memory=1 << 19, flush=True)
    found = named(record)
    assert found["fastnlp"]["median"] == 0.25
    assert found["peer"]["ratio"] == 2
    assert found["fastnlp"]["rates"] == {"rows": 40}
    assert found["fastnlp"]["beyond"] == 1 << 19
    assert found["wrong"] == {"name": "wrong", "absent": "AssertionError: three quarters", "failed": True}
    assert found["missing"] == {"name": "missing", "absent": "not installed"}
    assert share(record, "fastnlp", "limit") == 0.8
    assert share(record, "wrong", "limit") is None
    rounds = found["peer"]["rounds"]
    assert rounds == found["limit"]["rounds"] >= 5
    assert device.flushed == 3 * (rounds + 1)


def test_a_race_without_ours_has_no_ratios():
    def refuse():
        raise NotImplementedError("no kernel yet")

    record = race(Slow(), "op", "case", [Contestant("fastnlp", refuse), Contestant("peer", lambda: 0.5)])
    assert named(record)["peer"]["ratio"] is None
    assert named(record)["fastnlp"]["absent"] == "NotImplementedError: no kernel yet"
    nobody = race(Slow(), "op", "case", [Contestant("fastnlp", refuse)])
    assert len(nobody["contestants"]) == 1


def test_short_calls_are_timed_many_at_a_time():
    record = race(Slow(), "op", "case", [Contestant("fastnlp", lambda: 1e-5)], seconds=0.01)
    assert named(record)["fastnlp"]["loops"] == 50
    one = race(Slow(), "op", "case", [Contestant("fastnlp", lambda: 1e-5, reset=lambda: None)], seconds=0.01)
    assert named(one)["fastnlp"]["loops"] == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("peaked", [False, True])
def test_the_truth_of_a_head_is_what_torch_computes_in_float64(dtype, peaked):
    head = heads.make("cpu", 60, 64, 300, peaked=peaked, ignored=0.5, dtype=dtype)
    assert 0 < head.counted < 60
    x, w = (t.double().requires_grad_() for t in (head.x, head.w))
    loss = torch.nn.functional.cross_entropy(x @ w.T, head.target)
    want = [loss, *torch.autograd.grad(loss, (x, w), torch.tensor(head.upstream).double())]
    for got, true in zip(heads.truth(head), want, strict=True):
        assert (got - true).norm() <= 1e-5 * true.norm()
    assert (loss < 1) == peaked


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_contestants_of_a_head_agree_and_wrong_ones_are_found(dtype):
    head = heads.make("cpu", 80, 64, 500, peaked=False, ignored=0.3, dtype=dtype)
    check = heads.checker(head)
    entrants = [heads.ours(head), *heads.peers(head)]
    there = [one for one in entrants if isinstance(one, Contestant) and one.name != heads.FLOOR]
    assert len(there) >= 3
    for one in there:
        check(one.call())
    loss, dx, dw = there[0].call()
    for wrong in ([loss * 1.1, dx, dw], [loss, dx * 1.1, dw], [loss, dx, dw.roll(1, 0)], [loss, dx * torch.nan, dw]):
        with pytest.raises(AssertionError, match="is off by"):
            check(wrong)


def test_a_gradient_without_the_part_of_the_softmax_is_found():
    head = heads.make("cpu", 80, 64, 8000, peaked=False, ignored=0.0)
    check, (loss, dx, dw) = heads.checker(head), heads.ours(head).call()
    check([loss, dx, dw])
    labels = head.target.unique()
    bare = torch.zeros_like(dw)
    bare[labels] = dw[labels]
    check(heads.Filtered([loss, dx, bare]))  # it is hardly off as a whole
    with pytest.raises(AssertionError, match="no label"):
        check([loss, dx, bare])


def test_the_plain_loop_of_chunks_stands_in_where_torch_has_none(monkeypatch):
    monkeypatch.delattr(torch.nn, "LinearCrossEntropyOptions", raising=False)
    monkeypatch.setattr(heads, "CHUNK", 16)
    head = heads.make("cpu", 50, 8, 30, peaked=False, ignored=0.3, dtype="float32")
    (chunks,) = [one for one in heads.peers(head) if "plain loop" in one.name]
    heads.checker(head)(chunks.call())


@pytest.mark.usefixtures("few_rounds")
def test_parts_of_losses_run():
    shape = {"n": 48, "d": 16, "v": 200}
    (record,) = losses.gradients(Host(), **shape, peaked=True, ignored=0.5, dtype="float32", compiled=False)
    found = named(record)
    assert {"fastnlp", "torch eager", "Liger", "CCE", heads.FLOOR, heads.FLOOR_COUNTED} <= found.keys()
    assert "median" in found["fastnlp"]
    assert {name for name in found if name.startswith("fastnlp, ")} == {
        "fastnlp, compact",
        f"fastnlp, num_valid={heads.make('cpu', 48, 16, 200, peaked=True, ignored=0.5, dtype='float32').counted}",
    }
    assert record["floor"] in found
    (alone,) = losses.forward(Host(), **shape)
    assert "median" in named(alone)["fastnlp"]
    (sweep,) = losses.workspaces(Host(), **shape, sizes=(1 << 20, 1 << 22))
    assert "median" in named(sweep)["fastnlp, workspace=4194304"]


@pytest.mark.parametrize("operation", list(rows.CASES))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.usefixtures("few_rounds")
def test_parts_of_rows_run(operation, dtype, monkeypatch):
    monkeypatch.setattr(rows, "compiled", lambda function: function)
    device = Host()
    (record,) = rows.compete(device, operation=operation, n=9, v=70, dtype=dtype)
    for name in ("fastnlp", "torch eager", rows.COPY):
        assert "median" in named(record)[name], named(record)[name]
    assert device.flushed > 0


@pytest.mark.parametrize("mode", list(batches.MODES))
@pytest.mark.usefixtures("few_rounds")
def test_parts_of_pool_run(mode):
    (record,) = batches.pool(Host(), mode=mode, tokens=3000, d=8)
    assert "median" in named(record)["fastnlp"], named(record)["fastnlp"]
    assert "median" in named(record)["torch, scattered"]


@pytest.mark.usefixtures("few_rounds")
def test_overheads_of_calls_are_timed(monkeypatch):
    monkeypatch.setattr(launches, "LOOPS", 2)
    records = launches.overhead(Host(), n=4, v=16)
    assert [one["operation"].startswith("overhead: ") for one in records] == [True] * 3
    for record in records:
        assert "median" in record["contestants"][0]
        assert "median" in named(record)["torch eager"]


@pytest.mark.usefixtures("few_rounds")
def test_parts_of_words_run(monkeypatch):
    monkeypatch.setattr(words, "WAYS", {name: {"backend": "cpu"} for name in words.WAYS})
    (record,) = words.glove(None, draws=5000, dim=8, ways=list(words.WAYS), vocab=100)
    assert [one["name"] for one in record["contestants"]] == list(words.WAYS)
    for one in record["contestants"]:
        assert one["rounds"] == words.EPOCHS - 1
        assert one["rates"]["pairs"] == record["shape"]["counts"] / one["median"]
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(asarray=np.asarray, __spec__=None))
    (record,) = words.counting(Host(), tokens=3000, vocab=100)
    assert "median" in named(record)["fastnlp"]


def test_a_loss_of_glove_that_is_off_is_refused():
    words._check("fastnlp, hogwild", [2.0, 1.01], 1.0)
    for name, losses_of in (("fastnlp", [2.0, 1.01]), ("fastnlp, hogwild", [2.0, 1.1]), ("fastnlp", [1.0, 1.0])):
        with pytest.raises(AssertionError, match="loss"):
            words._check(name, losses_of, 1.0)


def test_words_are_of_zipf():
    ids = words.zipf(200_000, 0, 1000)
    assert ids.min() == 0
    assert ids.max() == 999
    share = np.bincount(ids)[[0, 9]] / len(ids)
    assert share == pytest.approx(np.log([2, 11 / 10]) / np.log(1001), rel=0.1)


def test_lengths_sum_to_the_tokens():
    for tokens in (1, 1000, 4096):
        lengths = batches._lengths(tokens)
        assert lengths.sum() == tokens
        assert lengths.min() >= 1


def told(chosen, **options):
    said = []
    status = work(chosen, time.time() + 100, lambda **what: said.append(what), **options)
    return status, said


def part(name, run=lambda device: [], **more):
    return Part(name, run, more.pop("seconds", 1.0), needs=more.pop("needs", ()), **more)


def test_work_tells_what_became_of_each_part():
    def fail(device):
        raise ValueError("no such shape")

    chosen = [
        part("good", lambda device: [{"operation": device.where}]),
        part("bad", fail),
        part("long", seconds=1000.0),
        part("large", bytes=1 << 50),
        part("needy", needs=("no_such_package",)),
        part("last"),
    ]
    status, said = told(chosen, make_device=Host)
    assert status == 0
    said = {one["part"]: one for one in said if "begun" not in one}
    assert said["good"]["records"] == [{"operation": "cpu"}]
    assert said["bad"]["failed"] == "ValueError: no such shape"
    assert "no time" in said["long"]["skipped"]
    assert "GiB" in said["large"]["skipped"]
    assert said["needy"]["skipped"] == "no_such_package is not installed"
    assert said["last"]["records"] == []


def test_work_ends_where_the_gpu_is_broken():
    def corrupt(device):
        device.broken = True
        return []

    status, said = told([part("corrupt", corrupt), part("next")], make_device=Host)
    assert status == BROKEN
    assert [one for one in said if one.get("part") == "corrupt"][-1][
        "failed"
    ] == "RuntimeError: an illegal memory access"
    assert not [one for one in said if one.get("part") == "next"]


WORKER = """
import json, os, sys, time
for name in sys.argv[3:]:
    print(json.dumps({"part": name, "begun": 0}), flush=True)
    if name == "dies":
        sys.exit("a last word")
    if name == "hangs":
        time.sleep(60)
    print(json.dumps({"part": name, "records": [os.getpid()]}), flush=True)
    if name == "breaks":
        sys.exit(70)
"""


def scheduled(names, code=WORKER, **options):
    said = []
    chosen = [part(name, seconds=0.1) for name in names]
    schedule.run(chosen, time.time() + 60, said.append, command=(sys.executable, "-c", code), **options)
    return {one["part"]: one for one in said if "begun" not in one}


def test_a_part_that_ends_its_process_is_told_and_the_others_go_on():
    said = scheduled(["first", "dies", "breaks", "last"])
    assert said["dies"]["failed"] == "the process ended with status 1: a last word"
    pids = [said[name]["records"][0] for name in ("first", "breaks", "last")]
    assert len(set(pids)) == 3
    assert os.getpid() not in pids


def test_a_part_that_hangs_is_stopped():
    begin = time.monotonic()
    said = scheduled(["hangs", "last"], patience=1.0)
    assert said["hangs"]["failed"].startswith("it was stopped after")
    assert said["last"]["records"]
    assert time.monotonic() - begin < 30


def test_workers_that_cannot_begin_blame_all():
    said = scheduled(["one", "two"], code="import no_such_package")
    assert {one["failed"] for one in said.values()} == {
        "the process ended with status 1: ModuleNotFoundError: No module named 'no_such_package'"
    }
    assert said.keys() == {"one", "two"}


def test_workers_are_not_started_for_ever():
    names = [f"dies{k}" for k in range(schedule.WORKERS)]
    said = scheduled([*names, "never"], code=WORKER.replace('name == "dies"', 'name.startswith("dies")'))
    assert "workers ended before it" in said["never"]["skipped"]


def test_the_real_worker_tells_that_it_has_no_gpu():
    if driver().gpus:
        pytest.skip("a machine without a GPU is not at hand")
    said = []
    schedule.run(parts()[:1], time.time() + 300, said.append)
    assert "packages" in said[0]["machine"]
    assert "failed" in said[-1]


def head_record(ours=1.0, floor=0.9, beyond=1 << 30, peers=(("torch, chunks", 1.2), ("Liger", 3.0))):
    shape = {"n": losses.N, "d": losses.D, "v": losses.V, "peaked": False, "ignored": 0.0, "dtype": "bfloat16"}
    entrants = [("fastnlp", ours), *peers, (heads.FLOOR, floor)]
    return {
        "operation": losses.OPERATION,
        "case": "the case",
        "note": "",
        "shape": shape,
        "floor": heads.FLOOR,
        "contestants": [figures(name, median, ours, beyond) for name, median in entrants],
    }


def figures(name, median, ours=1.0, beyond=None, rates=None):
    ratio = median / ours
    return {
        "name": name,
        "median": median,
        "ratio": ratio,
        "ratio_q1": ratio,
        "ratio_q3": ratio,
        "peak": 3 << 30,
        "beyond": beyond,
        "rates": rates or {},
    }


def verdicts(*records):
    return {one.goal: one for one in targets.judge(records)}


def found(verdicts, *words):
    (one,) = [one for goal, one in verdicts.items() if all(word in goal for word in words)]
    return one


@pytest.mark.parametrize(
    ("options", "words", "fulfilled"),
    [
        ({}, "three cuBLAS", True),
        ({"floor": 0.8}, "three cuBLAS", False),
        ({}, "at least as fast", True),
        ({"peers": (("torch, chunks", 0.9), ("Liger", 3.0))}, "at least as fast", False),
        ({"peers": (("Liger", 3.0),)}, "at least as fast", True),
        ({"peers": ()}, "at least as fast", None),
        ({}, "memory", True),
        ({"beyond": 2 << 30}, "memory", False),
    ],
)
def test_goals_of_the_linear_head(options, words, fulfilled):
    assert found(verdicts(head_record(**options)), words).fulfilled is fulfilled


def test_goals_of_rows_and_words():
    for operation in rows.TARGETED:
        for copy, fulfilled in ((0.86, True), (0.84, False)):
            record = {
                "operation": operation,
                "shape": {"n": 4096, "v": rows.V, "dtype": "bfloat16"},
                "contestants": [figures("fastnlp", 1.0), figures(rows.COPY, copy)],
            }
            assert found(verdicts(record), f"{operation}, bfloat16").fulfilled is fulfilled
    for pairs, fulfilled in ((1.1e8, True), (0.9e8, False)):
        ours = figures("fastnlp", 1.0, rates={"pairs": pairs})
        record = {"operation": "glove", "shape": {"dim": 300}, "contestants": [ours]}
        assert found(verdicts(record), "GloVe").fulfilled is fulfilled
    assert {one.fulfilled for one in targets.judge([])} == {None}


@pytest.fixture
def on_a_stub(monkeypatch, tmp_path):
    """Return a function that runs the whole command with stub parts on the CPU, and gives its status and results."""

    def run(chosen, *args, checked=()):
        def in_this_process(wanted, deadline, tell, **_):
            tell({"machine": {**machine.describe(), "gpu": "Stub GPU"}})
            work(wanted, deadline, lambda **what: tell(what), make_device=Host)

        monkeypatch.setattr(command, "parts", lambda: chosen)
        stub = Driver((13, 0), (Gpu("Stub GPU", (9, 0), 1 << 36),), None)
        monkeypatch.setattr(command, "driver", lambda: stub)
        monkeypatch.setattr(schedule, "run", in_this_process)
        monkeypatch.setattr(checks, "checks", lambda: checked)
        status = command.main(["-o", str(tmp_path / "out"), *args])
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        return status, results, (tmp_path / "out" / "report.md").read_text()

    return run


def test_a_run_is_written_as_json_and_markdown(on_a_stub, tmp_path):
    tiny = partial(losses.gradients, n=20, d=8, v=60, peaked=False, ignored=0.0, dtype="float32", compiled=False)
    checked = [
        checks.Check("a check", [sys.executable, "-c", "print('fine')"]),
        checks.Check("no tool", [], "the tool is not on the PATH"),
    ]
    chosen = [part("tiny", tiny), part("long", seconds=1e6), part("rest")]
    status, results, text = on_a_stub(chosen, checked=checked)
    assert status == 0
    assert results["machine"]["gpu"] == "Stub GPU"
    assert "numba-cuda" in results["machine"]["packages"]
    assert results["left_out"].keys() == {"long"}
    assert results["checks"][0]["passed"]
    assert (tmp_path / "out" / "a-check.txt").read_text().strip() == "fine"
    for part_of_it in (
        "# fastnlp on Stub GPU",
        "torch eager",
        heads.FLOOR,
        "## Goals",
        "not measured",
        "no time",
        "no tool",
    ):
        assert part_of_it in text
    for line in text.splitlines():
        assert line.startswith("|") == line.endswith("|")


def test_a_run_that_came_to_nothing_is_written_too():
    run = {"machine": {"gpu": "GPU"}, "datetime": "now", "seconds": 1.0, "records": [], "checks": []}
    text = report.markdown({**run, "left_out": {}, "failed": {"a": "b"}})
    assert "not measured" in text
    assert "None was run" in text


def test_what_fails_makes_the_status_one(on_a_stub):
    failing = checks.Check("a check", [sys.executable, "-c", "print('FAILED one'); raise SystemExit(3)"])
    status, results, text = on_a_stub([part("fine")], checked=[failing])
    assert status == 1
    assert results["checks"][0]["status"] == 3
    assert "FAILED one" in text

    def fail(device):
        raise ValueError("no such shape")

    status, results, text = on_a_stub([part("bad", fail)])
    assert status == 1
    assert "no such shape" in text
    assert on_a_stub([part("fine")], "--no-checks")[0] == 0


def test_a_wrong_result_of_ours_makes_the_status_one(on_a_stub):
    def lie(device):
        return [race(device, "op", "case", [Contestant("fastnlp", lambda: 1 / 0)])]

    assert on_a_stub([part("lie", lie)])[0] == 1


def test_checks_that_take_too_long_are_stopped(tmp_path):
    slow = checks.Check("slow", [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"])
    (found,) = checks.run([slow], 2.0, tmp_path)
    assert found["status"] is None
    assert not found["passed"]


def test_the_tests_on_a_gpu_need_no_plugin_of_pytest(tmp_path):
    """The command of the checks runs without this project's options, as where pytest-benchmark is not installed."""
    (tests, memcheck, racecheck) = checks.checks()
    without = ["-p", "no:benchmark", "-p", "no:timeout"]
    command = [*tests.command[:3], *without, *tests.command[3:]]
    (found,) = checks.run([tests._replace(command=command)], 200.0, tmp_path)
    assert found["status"] in (0, 5), (tmp_path / found["log"]).read_text()
    assert memcheck.command[1:3] == ["--tool", "memcheck"]
    assert racecheck.environment == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


def test_what_the_sanitizer_sees_runs(monkeypatch):
    monkeypatch.setattr(sanitize, "SHAPES", ((1, 1), (5, 37)))
    assert sanitize.main("cpu") == 0


def test_names_of_folders():
    assert machine.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert machine.slug("???") == "unknown"


def test_rates_have_units():
    assert report._rate("pairs", 1.234e8) == "123 Mpairs/s"
    assert report._rate("flops", 7.98e14) == "798 Tflops/s"
    assert report._rate("rows", 12.0) == "12 rows/s"
