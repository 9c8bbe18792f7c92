# ruff: noqa: N802 (the names of the driver)
"""What of CUDA is found, and the sentence for each thing that can be missing."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys

import pytest

from fastnlp import _detect, _dispatch
from fastnlp._detect import Driver, Part

NEWEST = Driver((13, 0), (_detect.Gpu("a GPU", (9, 0), 80 << 30),), None)
WHOLE = {name: Part(f"/lib/{name}.so", (13, 0, 88)) for name in ("libNVVM", "NVRTC", "nvJitLink")}


class FakeDriver:
    """The library of a driver, with the functions that are asked."""

    def __init__(self, cuda=13000, code=0, gpus=1):
        self.cuda, self.code, self.gpus = cuda, code, gpus

    def cuDriverGetVersion(self, number):
        number._obj.value = self.cuda
        return 0

    def cuInit(self, flags):
        return self.code

    def cuDeviceGetCount(self, number):
        number._obj.value = self.gpus
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = b"NVIDIA H100"
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 80 << 30
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0


def asked(monkeypatch, library, **environment):
    """Ask a driver in an environment."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def load(name):
        if library is None:
            raise OSError(f"{name}: cannot open shared object file")
        return library

    monkeypatch.setattr(_detect, "_load", load)
    return _detect.driver.__wrapped__()


def test_a_driver_with_a_gpu(monkeypatch):
    found = asked(monkeypatch, FakeDriver(cuda=12040, gpus=2))
    assert found.cuda == (12, 4)
    assert found.gpus == (_detect.Gpu("NVIDIA H100", (9, 0), 80 << 30),) * 2
    assert found.reason is None


@pytest.mark.parametrize(
    ("library", "environment", "says"),
    [
        (None, {}, "no NVIDIA driver is installed"),
        (FakeDriver(code=100), {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is empty, which hides every GPU"),
        (FakeDriver(gpus=0), {"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES is empty"),
        (FakeDriver(code=100), {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES=7 names no GPU"),
        (FakeDriver(code=100), {}, "sees no GPU"),
        (FakeDriver(code=803), {}, "restart the machine"),
        (FakeDriver(code=999), {}, r"does not start \(cuInit returned 999\)"),
    ],
)
def test_why_there_is_no_gpu(monkeypatch, library, environment, says):
    found = asked(monkeypatch, library, **environment)
    assert found.gpus == ()
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.reason)
    assert "\n" not in found.reason


def parts(**versions):
    return {name: Part(f"/lib/{name}.so", versions.get(name, part.version)) for name, part in WHOLE.items()}


@pytest.mark.parametrize(
    ("toolkit", "cuda", "says"),
    [
        (WHOLE, (13, 0), None),
        (WHOLE, (13, 2), None),
        (parts(libNVVM=(13, 5, 37), nvJitLink=(13, 5), NVRTC=(13, 5)), (13, 0), None),  # minor versions fit
        ({k: v for k, v in WHOLE.items() if k != "libNVVM"}, (13, 0), "libNVVM, a compiler.*is not found: pip install"),
        ({k: v for k, v in WHOLE.items() if k != "NVRTC"}, (13, 0), "NVRTC, a compiler.*is not found: pip install"),
        (parts(libNVVM=(13, 5, 37)), (13, 0), "libNVVM 13.5.37 is newer than nvJitLink 13.0.88.*>=13.5,<14"),
        (WHOLE, (12, 4), "driver runs CUDA up to 12.4, and the toolkit is 13.0.88: update the driver"),
        (parts(libNVVM=None, NVRTC=(13, 0)), (12, 4), "and the toolkit is 13.0: update"),
        (
            {k: v for k, v in parts(libNVVM=(13, 5, 37)).items() if k != "nvJitLink"},
            (13, 0),
            r"newer than the driver \(CUDA 13.0\).*nvJitLink, which is not found",
        ),
    ],
)
def test_why_kernels_cannot_be_compiled(monkeypatch, toolkit, cuda, says):
    monkeypatch.setattr(_detect, "toolkit", lambda: toolkit)
    monkeypatch.setattr(_detect, "driver", lambda: NEWEST._replace(cuda=cuda))
    reason = _detect.why_not_compiled()
    if says is None:
        assert reason is None
    else:
        with pytest.raises(AssertionError, match=says):
            raise AssertionError(reason)


def test_the_first_thing_comes_first(monkeypatch):
    missing = "numba_cuda not installed: pip install 'fastnlp-kernels[cuda]'"
    monkeypatch.setattr(_dispatch, "why_missing", lambda backend: missing)
    monkeypatch.setattr(_detect, "driver", lambda: Driver(None, (), "no driver"))
    assert _detect.why_not_running() == missing
    monkeypatch.setattr(_dispatch, "why_missing", lambda backend: None)
    assert _detect.why_not_running() == "no driver"
    old = _detect.Gpu("Tesla T4", (7, 5), 16 << 30)
    monkeypatch.setattr(_detect, "driver", lambda: Driver((13, 0), (old,), None))
    assert _detect.why_not_running() == "Tesla T4 has compute capability 7.5, and kernels need 8.0 or more"
    monkeypatch.setattr(_detect, "toolkit", lambda: WHOLE)
    monkeypatch.setattr(_detect, "driver", lambda: Driver((13, 0), (old, *NEWEST.gpus), None))
    assert _detect.why_not_running() is None


def test_an_error_is_explained_in_one_sentence(monkeypatch):
    monkeypatch.setattr(_detect, "why_not_running", lambda: "no driver")
    assert str(_detect.explained(ValueError("a\nb"))) == "no kernel runs on the GPU: no driver"
    monkeypatch.setattr(_detect, "why_not_running", lambda: None)
    told = str(_detect.explained(ValueError("\nan illegal\naddress\n")))
    assert told == (
        "no kernel runs on the GPU: ValueError: an illegal address (fastnlp info shows the driver and the toolkit)"
    )


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip = None\n", ""),
        ("cuda: Optional[str] = '13.0'\n", "13.0"),
        ("cuda = '12.8'\n", "12.8"),
    ],
)
def test_what_torch_is_built_for(monkeypatch, tmp_path, text, built):
    (tmp_path / "version.py").write_text(text, encoding="utf-8")
    (tmp_path / "__init__.py").write_text("raise AssertionError('torch was imported')", encoding="utf-8")
    spec = _detect.importlib.util.spec_from_file_location(
        "torch", tmp_path / "__init__.py", submodule_search_locations=[str(tmp_path)]
    )
    monkeypatch.setattr(_detect.importlib.util, "find_spec", lambda name: spec)
    assert _detect.torch_build() == built
    monkeypatch.setattr(_detect.importlib.util, "find_spec", lambda name: None)
    assert _detect.torch_build() is None
    assert _detect.toolkit.__wrapped__() == {}


def test_the_toolkit_that_is_installed_here():
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    found = _detect.toolkit()
    assert {"libNVVM", "NVRTC"} <= set(found)
    for part in found.values():
        assert os.path.isabs(part.path)
    assert found["NVRTC"].version is not None


def test_of_a_library_that_tells_no_version():
    assert _detect._version("nvrtc", ctypes.util.find_library("c") or "libc.so.6", None) is None
    assert _detect._version("nvrtc", "/nowhere/lib.so", None) is None
    assert _detect._version("nvvm", "/nowhere/cu13/lib.so", "no-such-wheel") is None


def test_detection_is_not_part_of_a_call():
    """No CUDA package is imported and no driver asked before an array on a GPU comes in."""
    code = (
        "import sys, ctypes, numpy as np, fastnlp\n"
        "opened = []\n"
        "cdll = ctypes.CDLL\n"
        "ctypes.CDLL = lambda name, *rest, **options: opened.append(str(name)) or cdll(name, *rest, **options)\n"
        "fastnlp.cross_entropy(np.ones((2, 3), 'f4'), np.array([0, 1]))\n"
        "heavy = {'fastnlp._detect', 'numba.cuda', 'numba_cuda', 'cupy', 'cuda.bindings', 'ml_dtypes'}\n"
        "print(sorted(heavy & set(sys.modules)), [name for name in opened if 'cuda' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
