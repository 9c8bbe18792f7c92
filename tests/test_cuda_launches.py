"""What the driver is given at a launch, through the compiler's and NVIDIA's own libraries, to the byte.

The driver is a small one made here (``stub_driver.c``), so all above it is as on a machine with a GPU.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

HERE = Path(__file__).parent
UNSIGNED = 1 << 64


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """Everything that ``stub_launches.py`` prints."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("a C compiler for Linux is not at hand")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler, *options, str(HERE / "stub_driver.c"), "-o", str(library), "-ldl"], check=True)
    paths = os.pathsep.join(filter(None, (str(folder), os.environ.get("LD_LIBRARY_PATH"))))
    environment = os.environ | {"LD_LIBRARY_PATH": paths, "FASTNLP_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, str(HERE / "stub_launches.py"), str(library)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_addresses_and_numbers_arrive(launches):
    first, second = launches[:2]
    assert first == {
        "grid": [3, 1, 1],
        "block": [32, 1, 1],
        "stream": 0,
        "given": [1 << 47, 8, UNSIGNED - 7, 0],
        "extras": 0,
        "device": 0,
        "kernel": 1,
    }
    assert (second["grid"], second["stream"], second["given"]) == ([5, 1, 1], 0x7F0012345678, [8, 16, 1, 0])
    numbers = launches[4]["given"]
    assert [*numbers[:5], *numbers[7:]] == [8, 0, 0, 16, 1, 4, 24, 0]
    floats = [struct.unpack("<f", struct.pack("<Q", x)[:4])[0] for x in numbers[5:7]]
    assert floats == [ctypes.c_float(0.1).value, 3.0]


def test_a_thread_without_a_context_gets_one(launches):
    assert (launches[2]["device"], launches[2]["kernel"], launches[2]["given"][2]) == (0, 1, 1 << 40)


def test_each_device_has_its_own_code(launches):
    assert (launches[3]["device"], launches[3]["kernel"]) == (1, 2)


def test_threads_load_a_kernel_at_once(launches):
    assert launches[5] == {"faults": []}


def test_within_a_graph_only_what_is_compiled_is_launched(launches):
    assert launches[6]["error"].startswith("RuntimeError: chunks.put_rows is not compiled yet")
    assert launches[7]["stream"] == 7


def test_an_error_of_the_driver_is_told(launches):
    assert launches[8]["error"].startswith("RuntimeError: no kernel runs on the GPU: CUDAError: CUDA_ERROR_STUB")
