"""Compiled code is kept on disk: the second process starts warm, and nothing an earlier one left behind can hurt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is not installed")

CALL = """
import sys, numpy as np, fastnlp
from fastnlp.kernels.cpu import softmax
x = np.arange(6, dtype={dtype!r}).reshape(2, 3)
y = fastnlp.softmax(x, backend="cpu")
assert abs(y.sum() - 2) < 1e-6, y
stats = softmax._softmax.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def start(cache, dtype="f4", **environment):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CALL.format(dtype=dtype)],
        env=os.environ | {"FASTNLP_CACHE_DIR": str(cache)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    hits, misses = map(int, out.split())
    return hits, misses


def files(cache):
    return sorted(cache.rglob("softmax._softmax-*.nbc"))


def test_the_second_process_starts_warm(tmp_path):
    assert finish(start(tmp_path)) == (0, 1)
    assert finish(start(tmp_path)) == (1, 0)


def test_processes_that_compile_at_once_do_not_harm_each_other(tmp_path):
    processes = [start(tmp_path, dtype) for dtype in ("f4", "f8", "f4", "f8")]
    for process in processes:
        finish(process)
    assert len(files(tmp_path)) == 2
    for dtype in ("f4", "f8"):
        assert finish(start(tmp_path, dtype)) == (1, 0)
    assert not [path for path in tmp_path.rglob("tmp*") if path.is_file()]


def test_damaged_files_are_compiled_again(tmp_path):
    finish(start(tmp_path))
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    assert finish(start(tmp_path)) == (0, 1)
    assert finish(start(tmp_path)) == (1, 0)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_damage_within_a_file_is_noticed_before_the_code_runs(place, tmp_path):
    finish(start(tmp_path))
    (path,) = files(tmp_path)
    contents = bytearray(path.read_bytes())
    at = int(place * len(contents))
    contents[at : at + 512] = bytes(512)
    path.write_bytes(contents)
    assert finish(start(tmp_path)) == (0, 1)
    assert finish(start(tmp_path)) == (1, 0)


def test_another_kernels_code_under_its_name_is_not_run(tmp_path):
    finish(start(tmp_path, "f4"))
    (single,) = files(tmp_path)
    finish(start(tmp_path, "f8"))
    (double,) = set(files(tmp_path)) - {single}
    shutil.copy(single, double)
    assert finish(start(tmp_path, "f8")) == (0, 1)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is wanted")
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    settings = {"XDG_CACHE_HOME": str(blocked), "HOME": str(blocked), "LOCALAPPDATA": str(blocked)}
    assert finish(start(blocked, TMPDIR=str(elsewhere), **settings)) == (0, 1)
    assert files(elsewhere)
    assert finish(start(blocked, TMPDIR=str(elsewhere), **settings)) == (1, 0)


def folder_of(tmp_path, code="", **environment):
    """The cache folder of a process that starts in `tmp_path`, and whether it is there."""
    code = f"{code}\nfrom fastnlp.kernels.cpu._jit import cache_folder as f\nprint(f(), f().is_dir())"
    environment = {k: v for k, v in (os.environ | environment).items() if v is not None}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    folder, there = run.stdout.split()
    assert there == "True"
    return Path(folder)


def test_folders_relative_to_home_and_to_here(tmp_path):
    home = tmp_path / "home"
    assert folder_of(tmp_path, FASTNLP_CACHE_DIR="~/kernels", HOME=str(home)).parent == home / "kernels"
    assert folder_of(tmp_path, FASTNLP_CACHE_DIR="here").parent == tmp_path / "here"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="homes are looked up otherwise there")
def test_a_user_without_a_home_gets_a_temporary_folder(tmp_path):
    nobody = "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown"
    settings = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "FASTNLP_CACHE_DIR"))
    assert folder_of(tmp_path, nobody, TMPDIR=str(tmp_path), **settings).parent == tmp_path


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no owners here")
def test_a_link_to_a_folder_is_not_taken_for_ones_own(tmp_path):
    asked, other = tmp_path / "asked", tmp_path / "other"
    version = folder_of(tmp_path, FASTNLP_CACHE_DIR=str(other)).name
    asked.mkdir()
    (asked / version).symlink_to(other / version)
    settings = {"FASTNLP_CACHE_DIR": str(asked), "XDG_CACHE_HOME": str(tmp_path / "user")}
    assert folder_of(tmp_path, **settings).parent == tmp_path / "user" / "fastnlp"


def test_no_folder_at_all_is_no_error(tmp_path, monkeypatch):
    from fastnlp.kernels.cpu import _jit

    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(_jit, "_candidates", lambda: iter([blocked]))
    _jit.cache_folder.cache_clear()
    try:
        assert _jit.cache_folder() is None

        @_jit.jit("(float64)")
        def double(x):
            return x + x

        assert double(1.5) == 3
        assert not list(tmp_path.rglob("*.nbc"))
    finally:
        _jit.KERNELS.pop()
        monkeypatch.undo()
        _jit.cache_folder.cache_clear()


def test_the_users_own_numba_cache_is_left_alone():
    code = (
        "from numba.core import config; before = config.CACHE_DIR\n"
        "import fastnlp.kernels.cpu.softmax; print(before == config.CACHE_DIR)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"


def test_warm_up_compiles_each_declared_signature(monkeypatch):
    from fastnlp.kernels.cpu import _jit

    monkeypatch.setattr(_jit, "KERNELS", [])

    @_jit.jit("({f}, {i})")
    def product(x, k):
        return x * k

    labels = list(_jit.warm_up())
    assert len(labels) == len(product.signatures) == 4
    assert labels[0] == "test_jit.product(float32, int32)"


def test_calls_after_a_warm_up_compile_nothing(tmp_path):
    code = (
        "from fastnlp.kernels.cpu import _jit, softmax\n"
        "_jit.KERNELS[:] = [(kernel, s) for kernel, s in _jit.KERNELS if kernel is softmax._softmax]\n"
        "assert len(list(_jit.warm_up())) == 2"
    )
    environment = os.environ | {"FASTNLP_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    for dtype in ("f4", "f8"):
        assert finish(start(tmp_path, dtype)) == (1, 0)
    assert len(files(tmp_path)) == 2


def test_fingerprint_depends_on_the_sources(monkeypatch, tmp_path):
    from fastnlp.kernels.cpu import _jit

    before = _jit._fingerprint.__wrapped__()
    monkeypatch.setattr(_jit.numba, "__version__", "0.0.0")
    assert _jit._fingerprint.__wrapped__() != before
    monkeypatch.undo()
    copy = tmp_path / "kernels"
    shutil.copytree(os.path.dirname(os.path.dirname(_jit.__file__)), copy)
    monkeypatch.setattr(_jit, "__file__", str(copy / "cpu" / "_jit.py"))
    assert _jit._fingerprint.__wrapped__() == before
    with open(copy / "scalar.py", "a") as file:
        file.write("# changed\n")
    assert _jit._fingerprint.__wrapped__() != before
