"""Nothing of CUDA is imported, and no driver asked, before an array on a GPU comes in."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

USE = """
import sys
import numpy as np
import fastnlp
x, w = np.ones((4, 3), np.float32), np.ones((5, 3), np.float32)
fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(x, w, [0, 1, 2, 3])
fastnlp.cooccurrence(np.arange(9) % 5, vocab_size=5)
"""
TORCH = """
import torch
from fastnlp.torch import linear_cross_entropy
x = torch.ones(4, 3, requires_grad=True)
linear_cross_entropy(x, torch.ones(5, 3), torch.arange(4)).backward()
"""
LOADED = """
ours = "fastnlp.kernels.cuda", "fastnlp._device_torch", "fastnlp._device_cupy"
found = [name for name in sys.modules if name.startswith(("cupy", "numba_cuda", "numba.cuda", "ml_dtypes", *ours))]
assert not found, found
with open("/proc/self/maps") as maps:
    assert "libcuda.so" not in maps.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has loaded is not at hand")
@pytest.mark.parametrize("torch", [False, True], ids=["numpy", "torch"])
def test_calls_on_the_cpu_load_nothing_of_cuda(torch):
    if torch and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    code = USE + (TORCH if torch else "") + LOADED
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
