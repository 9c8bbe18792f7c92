"""What the first call of an operation costs: with an empty cache of compiled kernels, and in the next process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

_SETUP = (
    "import time, numpy as np, fastnlp\n"
    "x, w, ids = np.ones((4, 8), np.float32), np.ones((9, 8), np.float32), np.arange(9) % 5\n"
    "begin = time.perf_counter()\n"
)
CALLS = {
    "softmax": "fastnlp.softmax(x)",
    "linear_cross_entropy with gradients": ("fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(x, w, [0, 1, 2, 3])"),
    "pack": "fastnlp.pack([3, 2, 1], 4)",
    "cooccurrence": "fastnlp.cooccurrence(ids, vocab_size=5)",
    "cooccurrence and GloVe.fit": "fastnlp.GloVe(4, epochs=1).fit(fastnlp.cooccurrence(ids, vocab_size=5))",
}


def measure(call: str, cache: str) -> float:
    """Return the seconds that `call` takes in a process of its own, after ``import fastnlp``."""
    code = f"{_SETUP}{call}\nprint(time.perf_counter() - begin)"
    environment = os.environ | {"FASTNLP_CACHE_DIR": cache, "FASTNLP_BACKEND": "cpu"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout)


def main() -> None:
    """Print a line an operation."""
    print(f"{'first call, seconds':<38} empty cache   next process")
    for name, call in CALLS.items():
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = measure(call, cache), measure(call, cache)
        print(f"{name:<38} {cold:11.1f}   {warm:12.1f}")
