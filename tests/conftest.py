"""Fixtures that several tests share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

# transformers looks for a package `kernels`; at the root of a checkout it would find our folder of that name.
sys.modules.setdefault("kernels", None)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption(
        "--default-backend-only",
        action="store_true",
        help="leave out the tests that choose each backend themselves: for a second run under FASTNLP_BACKEND",
    )


def of_a_gpu(item):
    """Tell whether a test is one of arrays on a GPU, real or simulated."""
    return item.path.stem.startswith("test_cuda") or "gpu" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(config, items):
    if config.getoption("--default-backend-only"):
        choosing = {"backend", "either_backend"}
        chosen = [item for item in items if choosing & set(getattr(item, "fixturenames", ())) or of_a_gpu(item)]
        config.hook.pytest_deselected(items=chosen)
        items[:] = [item for item in items if item not in set(chosen)]


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    """Each backend that runs on this machine's arrays, passed explicitly as ``backend=``."""
    if request.param == "cpu" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    return request.param


@pytest.fixture(autouse=True)
def _backend_of_the_gpu(request, monkeypatch):
    """Arrays on a GPU choose their backend, so tests of them want no default."""
    if of_a_gpu(request.node):
        monkeypatch.delenv("FASTNLP_BACKEND", raising=False)


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(20261122)


@pytest.fixture
def corpus_file():
    """Return a function from the name of a development corpus to its path; skips where the corpora are not at hand."""

    def path(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"the development corpus {name} is not at hand")
        return DATA / name

    return path


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few bytes, so that short texts are cut."""
    from fastnlp.text import reading

    monkeypatch.setattr(reading, "BLOCK", 16)


@pytest.fixture(params=["reference", "cpu"])
def either_backend(request, monkeypatch):
    """Each backend in turn for functions that take no ``backend=``; tables of words must grow soon."""
    if request.param == "cpu" and importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    from fastnlp.text import tokens

    monkeypatch.setenv("FASTNLP_BACKEND", request.param)
    monkeypatch.setattr(tokens, "_ROOM", 16)
    return request.param


@pytest.fixture
def text(tmp_path):
    """Lines of three kinds, each with words of its own."""
    rng = np.random.default_rng(0)
    kinds = ["lion tiger cat paw fur", "bread cheese butter milk oven", "train rail station ticket coach"]
    path = tmp_path / "text.txt"
    lines = [" ".join(["The", *rng.permutation(kinds[i * 3 // 600].split() * 2), "."]) for i in range(600)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
