"""The choice of a backend, and what an import costs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import fastnlp
from fastnlp import _dispatch


@pytest.fixture
def clean(monkeypatch):
    """No setting in the environment, no cached answers."""
    monkeypatch.delenv("FASTNLP_BACKEND", raising=False)
    _dispatch.why_missing.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    _dispatch.why_missing.cache_clear()


def without(monkeypatch, *names):
    find = _dispatch.importlib.util.find_spec
    monkeypatch.setattr(
        _dispatch.importlib.util, "find_spec", lambda name, *rest: None if name in names else find(name, *rest)
    )


def on_gpu():
    """An object that looks like a CuPy array."""
    kind = type("ndarray", (), {"__module__": "cupy"})
    return kind()


def test_numpy_goes_to_cpu_or_where_numba_is_missing_to_reference(clean):
    x = np.ones(3)
    assert _dispatch.backend_of(None, x) == "cpu"
    without(clean, "numba")
    _dispatch.why_missing.cache_clear()
    assert _dispatch.backend_of(None, x) == "reference"
    with pytest.raises(ImportError, match="numba not installed: pip install numba"):
        _dispatch.backend_of("cpu", x)


def test_the_keyword_is_stronger_than_the_environment(clean):
    clean.setenv("FASTNLP_BACKEND", "reference")
    assert _dispatch.backend_of(None, np.ones(3)) == "reference"
    assert _dispatch.backend_of("cpu", np.ones(3)) == "cpu"


def test_the_first_half_million_items_take_the_reference(clean):
    pytest.importorskip("numba", reason="numba is not installed")
    clean.setattr(_dispatch, "_seen", {})
    chosen = [_dispatch.backend_for_items("pack", None, n) for n in (300_000, 200_000, 300_000, 1)]
    assert chosen == ["reference", "reference", "cpu", "cpu"]
    assert _dispatch.backend_for_items("bucket_batches", None, 2_000_000) == "cpu"
    small = [_dispatch.backend_for_items("other", None, 10) for _ in range(33)]
    assert (small.count("reference"), small[-1]) == (32, "cpu")
    clean.setattr(_dispatch, "_seen", {})
    assert _dispatch.backend_for_items("pack", "cpu", 10) == "cpu"
    clean.setenv("FASTNLP_BACKEND", "cpu")
    assert _dispatch.backend_for_items("pack", None, 10) == "cpu"
    assert _dispatch.backend_for_items("pack", "reference", 10**7) == "reference"


def test_packing_a_few_items_waits_for_no_compiler():
    code = (
        "import sys, fastnlp\n"
        "for algorithm in ('first_fit_decreasing', 'best_fit_decreasing', 'next_fit'):\n"
        "    fastnlp.pack(list(range(1, 2000)), 2000, algorithm=algorithm, seed=0)\n"
        "print('numba' in sys.modules)"
    )
    assert python(code, FASTNLP_BACKEND="") == "False"


def test_an_explicit_choice_that_cannot_be_honoured_raises(clean):
    with pytest.raises(ValueError, match="backend must be one of reference, cpu, cuda, got 'gpu'"):
        fastnlp.softmax(np.ones(3), backend="gpu")
    clean.setenv("FASTNLP_BACKEND", "fast")
    with pytest.raises(ValueError, match="FASTNLP_BACKEND must be one of"):
        fastnlp.softmax(np.ones(3))
    clean.delenv("FASTNLP_BACKEND")
    with pytest.raises(TypeError, match=r"cuda.*arrays on the CPU.*cupy\.asarray"):
        fastnlp.softmax(np.ones(3), backend="cuda")
    with pytest.raises(TypeError, match=r"cpu.*arrays on the GPU.*cupy\.asnumpy"):
        _dispatch.backend_of("cpu", on_gpu())


def test_device_arrays_go_to_cuda_and_devices_do_not_mix(clean):
    clean.setattr(_dispatch, "why_missing", lambda backend: None)
    assert _dispatch.backend_of(None, on_gpu()) == "cuda"
    with pytest.raises(TypeError, match="cupy and numpy are mixed"):
        _dispatch.backend_of(None, on_gpu(), np.ones(3))
    with pytest.raises(NotImplementedError, match="pack has no cuda kernel yet; it runs on: reference, cpu"):
        _dispatch.kernels_for("pack", None, on_gpu())


def test_missing_packages_are_named_with_the_remedy(clean):
    without(clean, "cupy", "numba_cuda")
    with pytest.raises(ImportError, match=r"numba_cuda.* not installed: pip install 'fastnlp-kernels\[cuda\]'"):
        _dispatch.backend_of(None, on_gpu())


def test_cuda_tensors_need_no_cupy(clean):
    find = _dispatch.importlib.util.find_spec
    there = ("numba", "numba_cuda", "ml_dtypes")
    clean.setattr(
        _dispatch.importlib.util, "find_spec", lambda name, *rest: object() if name in there else find(name, *rest)
    )
    without(clean, "cupy")
    assert _dispatch.why_missing("cuda") is None


def test_kernels_package_refuses_its_bare_name():
    import fastnlp.kernels

    code = compile(Path(fastnlp.kernels.__file__).read_text(), "kernels/__init__.py", "exec")
    with pytest.raises(ImportError, match=r"fastnlp\.kernels"):
        exec(code, types.ModuleType("kernels").__dict__)


def python(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_import_loads_nothing_heavy():
    heavy = {"numba", "llvmlite", "torch", "cupy", "scipy", "matplotlib", "click", "rich", "concurrent.futures"}
    assert python(f"import fastnlp, sys; print(sorted({heavy!r} & set(sys.modules)))") == "[]"


def test_the_reference_backend_needs_no_numba():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np, fastnlp\n"
        "loss, grads = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(np.ones((2, 3)), np.ones((4, 3)), [0, 1])\n"
        "print(round(float(loss), 4))"
    )
    assert python(code, FASTNLP_BACKEND="reference") == "1.3863"


def test_import_costs_less_than_50_ms_over_numpy():
    code = (
        "import time; start = time.perf_counter(); import numpy; middle = time.perf_counter(); import fastnlp;"
        "print(time.perf_counter() - middle)"
    )
    python(code)  # writes the byte code
    assert statistics.median(float(python(code)) for _ in range(5)) < 0.05
