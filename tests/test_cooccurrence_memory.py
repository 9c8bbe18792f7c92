"""`cooccurrence` within a budget: parts, runs in files, what is left of a call that was interrupted."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import fastnlp
from fastnlp.text import load_cooccurrences
from tests.cooccurrences import assert_same_bits, zipf_text

# Hidden by the function of its name.
operation = importlib.import_module("fastnlp.ops.cooccurrence")
plan, text_module = (importlib.import_module(f"fastnlp.ops._cooccurrence_{name}") for name in ("plan", "text"))

V = 300


@pytest.fixture
def text(rng):
    ids, boundaries = zipf_text(rng, 20_000, V)
    return ids, {"vocab_size": V, "boundaries": boundaries}


@pytest.fixture
def cut(monkeypatch):
    """Return a function that makes the following calls count the text in parts of so many places."""

    def into(places, scratch=3000):
        monkeypatch.setattr(plan, "_MOST", places)
        monkeypatch.setattr(plan, "_SCRATCH", scratch)

    return into


@pytest.mark.parametrize("places", [1, 7, 999, 6667, 19_999])
def test_parts_are_the_whole(places, cut, backend, rng, tmp_path):
    ids, boundaries = zipf_text(rng, 20_000 if places > 500 else 60, V)
    ids[rng.random(ids.size) < 0.1] = -1
    sides = {"both": {}, "left": {"symmetric": False, "side": "left"}, "upper": {"format": "upper"}}
    for oov in ("gap", "close"):
        for side in sides.values():
            options = {"vocab_size": V, "window": 6, "boundaries": boundaries, "oov": oov, "backend": backend, **side}
            whole = fastnlp.cooccurrence(ids, **options)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(plan, "_MOST", places)
                patch.setattr(plan, "_SCRATCH", 3000)
                patch.setattr(text_module, "_PIECE", 64)
                assert_same_bits(fastnlp.cooccurrence(ids, **options), whole)
                if side == {}:
                    path = fastnlp.cooccurrence(ids, out=tmp_path / "a.bin", **options)
                    assert_same_bits(load_cooccurrences(path, vocab_size=V), whole)
                    counts = fastnlp.cooccurrence(ids, format="counts", **options)
                    assert_same_bits(counts.matrix(), whole)
            assert list(tmp_path.glob("*")) in ([], [tmp_path / "a.bin"])


def test_threads_make_no_difference(cut, text):
    ids, options = text
    whole = fastnlp.cooccurrence(ids, **options)
    cut(3000)
    before = fastnlp.get_num_threads()
    try:
        for n in (1, 2, 4):
            fastnlp.set_num_threads(n)
            assert_same_bits(fastnlp.cooccurrence(ids, **options), whole)
    finally:
        fastnlp.set_num_threads(before)


def test_a_budget_beyond_all_memory(text):
    ids, options = text
    assert_same_bits(fastnlp.cooccurrence(ids, memory="9" * 400, **options), fastnlp.cooccurrence(ids, **options))


def test_a_budget_cuts_the_text(text, monkeypatch):
    ids, options = text
    monkeypatch.setattr(plan, "_LOADED", 0)
    monkeypatch.setattr(plan, "_LEAST", 100)
    plans = []

    def plan_of(*args):
        plans.append(plan.plan_of(*args))
        return plans[-1]

    monkeypatch.setattr(operation, "plan_of", plan_of)
    whole = fastnlp.cooccurrence(ids, **options)
    for memory in (250_000, "0.2MB", "1MiB", None):
        assert_same_bits(fastnlp.cooccurrence(ids, memory=memory, **options), whole)
    parts = [p.parts for p in plans[1:]]
    assert parts[1] > parts[0] > 1
    assert parts[2:] == [1, 1]
    monkeypatch.setattr(plan, "_LOADED", 50_000_000)
    with pytest.raises(ValueError, match=r"memory must be at least 51 MB .* got 0.0001 MB: ids that are mapped"):
        fastnlp.cooccurrence(ids, memory=100, **options)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_ids_in_a_file(mode, text, cut, tmp_path):
    ids, options = text
    whole = fastnlp.cooccurrence(ids, **options)
    np.save(tmp_path / "ids.npy", ids)
    mapped = np.load(tmp_path / "ids.npy", mmap_mode=mode)
    if mode == "c":
        mapped[:100] = 0  # only in memory: letting its pages go would lose it
        whole = fastnlp.cooccurrence(np.array(mapped), **options)
    cut(3000)
    before = np.array(mapped)
    for given in (mapped, mapped[::1], np.asarray(mapped)):
        assert_same_bits(fastnlp.cooccurrence(given, memory="1GB", **options), whole)
    np.testing.assert_array_equal(mapped, before)


def test_an_interrupted_call_goes_on(text, cut, tmp_path, monkeypatch):
    ids, options = text
    whole = fastnlp.cooccurrence(ids, **options)
    cut(3000)
    options |= {"spill": tmp_path / "runs"}

    def stop(done, total):
        if done > 8000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fastnlp.cooccurrence(ids, out=tmp_path / "a.bin", progress=stop, **options)
    assert sorted(os.listdir(tmp_path)) == ["runs"]
    assert sorted(os.listdir(tmp_path / "runs")) == ["run-00000", "run-00001", "runs.json"]
    (tmp_path / "runs/run-00001/counts.u8").write_bytes(b"short")  # a run that is not whole is counted again

    counted = []
    count_rows = operation.count_rows
    monkeypatch.setattr(operation, "count_rows", lambda *args: counted.append(args[2]) or count_rows(*args))
    told = []
    path = fastnlp.cooccurrence(ids, out=tmp_path / "a.bin", progress=lambda *now: told.append(now), **options)
    assert_same_bits(load_cooccurrences(path, vocab_size=V), whole)
    assert counted == [3000, 6000, 9000, 12_000, 15_000, 18_000]
    assert told == sorted(told)
    assert told[-1] == (40_000, 40_000)
    counted.clear()
    assert_same_bits(fastnlp.cooccurrence(ids, **options), whole)
    assert counted == []
    cut(5000)  # the parts that are there fit
    assert_same_bits(fastnlp.cooccurrence(ids, **options), whole)
    assert counted == []
    cut(2000)  # they do not
    assert_same_bits(fastnlp.cooccurrence(ids, **options), whole)
    assert len(counted) == 10


def test_runs_of_something_else_are_refused(text, cut, tmp_path):
    ids, options = text
    cut(5000)
    spill = tmp_path / "runs"
    fastnlp.cooccurrence(ids, spill=spill, **options)
    other = ids.copy()
    other[12_345] ^= 1
    for changed, change in [
        (other, {}),
        (ids, {"window": 9}),
        (ids, {"weighting": "uniform"}),
        (ids, {"symmetric": False}),
        (ids, {"rows": [3]}),
        (ids, {"boundaries": None}),
    ]:
        with pytest.raises(ValueError, match="are of another text or of other options"):
            fastnlp.cooccurrence(changed, spill=spill, **{**options, **change})
    (spill / "runs.json").write_text("{")
    with pytest.raises(ValueError, match=r"runs\.json is damaged"):
        fastnlp.cooccurrence(ids, spill=spill, **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").write_text("all of it")
    with pytest.raises(ValueError, match="is not empty and holds no runs"):
        fastnlp.cooccurrence(ids, spill=tmp_path / "mine", **options)
    assert os.listdir(tmp_path / "mine") == ["thesis"]


@pytest.mark.parametrize("name", ["starts.npy", "columns.i4", "counts.u8", "check"])
@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:-2] + b"\xff\x7f", None]
)
def test_a_damaged_run_is_counted_again(name, damage, text, cut, tmp_path):
    ids, options = text
    cut(12_000)
    options |= {"spill": tmp_path}
    whole = fastnlp.cooccurrence(ids, **options)
    path = tmp_path / "run-00001" / name
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    assert_same_bits(fastnlp.cooccurrence(ids, **options), whole)


def test_what_killed_calls_left_among_the_runs_goes(text, cut, tmp_path):
    ids, options = text
    cut(12_000)
    for _ in range(2):  # before there are runs, and beside them
        (tmp_path / ".00.tmp").mkdir()
        (tmp_path / ".00.tmp/columns.i4").write_bytes(b"half")
        (tmp_path / ".11.tmp").write_bytes(b"half")
        fastnlp.cooccurrence(ids, spill=tmp_path, **options)
        assert sorted(os.listdir(tmp_path)) == ["run-00000", "run-00001", "runs.json"]


@pytest.mark.parametrize("places", [0, -3, None, "x", 2.5])
def test_runs_of_damaged_places_are_refused(places, text, cut, tmp_path):
    ids, options = text
    cut(12_000)
    fastnlp.cooccurrence(ids, spill=tmp_path, **options)
    about = json.loads((tmp_path / "runs.json").read_text())
    (tmp_path / "runs.json").write_text(json.dumps(about | {"places": places}))
    with pytest.raises(ValueError, match=r"runs\.json is damaged: delete the folder"):
        fastnlp.cooccurrence(ids, spill=tmp_path, **options)


KILLED = """
import importlib, sys, time
import numpy as np, fastnlp
plan = importlib.import_module("fastnlp.ops._cooccurrence_plan")
plan._MOST, plan._SCRATCH = 3000, 3000
def told(done, total):
    print(done, flush=True)
    time.sleep(0.02)
ids, boundaries = np.load("ids.npy"), np.load("boundaries.npy")
fastnlp.cooccurrence(
    ids, vocab_size=300, boundaries=boundaries, out="a.bin", spill="runs", progress=told, backend="reference"
)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9 there")
@pytest.mark.parametrize("after", [7000, 23_000])
def test_a_killed_process_leaves_what_it_finished(after, text, cut, tmp_path):
    ids, options = text
    np.save(tmp_path / "ids.npy", ids)
    np.save(tmp_path / "boundaries.npy", options["boundaries"])
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) > after:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.bin").exists()
    finished = sorted(p.name for p in (tmp_path / "runs").glob("run-*"))
    assert len(finished) == min(after // 3000, 7)
    whole = fastnlp.cooccurrence(ids, **options)
    cut(3000)
    dates = {name: (tmp_path / "runs" / name).stat().st_mtime_ns for name in finished}
    path = fastnlp.cooccurrence(ids, out=tmp_path / "a.bin", spill=tmp_path / "runs", **options)
    assert_same_bits(load_cooccurrences(path, vocab_size=V), whole)
    assert dates == {name: (tmp_path / "runs" / name).stat().st_mtime_ns for name in finished}


MEASURED = """
import resource, sys
import numba, numpy as np, fastnlp
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
before = peak()
ids = np.load("ids.npy", mmap_mode="r") if sys.argv[2] == "mapped" else np.load("ids.npy")
fastnlp.cooccurrence(ids, vocab_size=30_000, memory=sys.argv[1], out=sys.argv[3], backend="cpu")
print(peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="it says how much memory was taken")
@pytest.mark.parametrize(("memory", "ids", "out"), [("128MB", "mapped", "a.csr"), ("128MB", "memory", "a.bin")])
def test_the_budget_is_kept(memory, ids, out, rng, tmp_path):
    pytest.importorskip("numba", reason="numba is not installed")
    text, _ = zipf_text(rng, 4_000_000, 30_000)
    np.save(tmp_path / "ids.npy", text)
    command = [sys.executable, "-c", MEASURED, memory, ids, out]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 128_000_000
