"""Parts of words: counting co-occurrences and training GloVe vectors on the GPU, beside the CPU of the same machine.

Words follow Zipf's distribution, as in text. An epoch is timed from outside, from one call of `progress` to the next:
with all that the host does between, and the copy of the vectors at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.contestant import Contestant
from bench.gpu.device import HostClock
from bench.gpu.part import Part
from bench.gpu.race import race, reason, record
from bench.lane import Lane

VOCAB, WINDOW, DIM = 50_000, 10, 300
EPOCHS = 4
_NEEDS = ("cupy", "scipy")
WAYS: dict[str, dict[str, Any]] = {
    "fastnlp": {"backend": "cuda"},
    "fastnlp, hogwild": {"backend": "cuda", "hogwild": True},
    "fastnlp, CPU": {"backend": "cpu"},
}
TOLERANCE = {"fastnlp": 1e-3, "fastnlp, hogwild": 3e-2, "fastnlp, CPU": 1e-3}
"""How far the loss of the last epoch may be from that of the first way."""


def main() -> list[Part]:
    """Return the case of the target."""
    run = partial(glove, draws=60_000_000, dim=DIM, ways=list(WAYS)[:2])
    return [Part("glove", run, 40, 4 << 30, _NEEDS)]


def more() -> list[Part]:
    """Return the rest, which the CPU takes part in."""
    return [
        Part("cooccurrence", partial(counting, tokens=4_000_000), 25, 8 << 30, (*_NEEDS, "torch")),
        Part("glove beside the CPU", partial(glove, draws=6_000_000, dim=100, ways=list(WAYS)), 20, 1 << 30, _NEEDS),
    ]


def zipf(n: int, seed: int, vocab: int = VOCAB) -> np.ndarray:
    """Return n word ids; the chance of id k is about ``1 / (k + 1)``."""
    drawn = np.random.default_rng(seed).random(n, np.float32)
    np.exp(drawn * np.float32(np.log(vocab + 1)), out=drawn)
    return np.minimum(drawn.astype(np.int32) - 1, vocab - 1)


def counts(draws: int, vocab: int = VOCAB) -> Any:
    """Return a matrix of how often each pair of words was drawn."""
    from scipy import sparse

    pair = zipf(draws, 1, vocab), zipf(draws, 2, vocab)
    matrix = sparse.coo_array((np.ones(draws, np.float32), pair), shape=(vocab, vocab)).tocsr()
    matrix.sum_duplicates()
    return matrix


def glove(device: Any, *, draws: int, dim: int, ways: Sequence[str], vocab: int = VOCAB) -> Any:
    """Race for an epoch of training; the first is left out, in which kernels are compiled."""
    import fastnlp

    matrix = counts(draws, vocab)
    lanes, absent, losses = [], [], []
    for name in ways:
        ends: list[float] = []

        def progress(done: float, epochs: int, loss: float, ends: list[float] = ends) -> None:
            if done == int(done):
                ends.append(time.perf_counter())

        model = fastnlp.GloVe(dim, x_max=10.0, epochs=EPOCHS)
        try:
            model.fit(matrix, progress=progress, **WAYS[name])
            losses.append(model.loss_[-1])
            _check(name, model.loss_, losses[0])
        except Exception as error:
            absent.append({"name": name, "absent": reason(error), "failed": True})
        else:
            one = Lane(Contestant(name, lambda: None), time.perf_counter)
            one.seconds = np.diff(ends).tolist()
            lanes.append(one)
    case = f"{matrix.nnz:,} counts of {vocab:,} words, d {dim}"
    note = "An epoch, by the host's clock; counts are copied to the GPU before the first."
    shape = {"dim": dim, "counts": matrix.nnz}
    found = record("glove", case, ways[0], lanes, absent, per_call={"pairs": matrix.nnz}, note=note)
    return [{**found, "shape": shape}]


def _check(name: str, losses: Sequence[float], first: float) -> None:
    assert losses[-1] < losses[0], f"the loss grew from {losses[0]:.4g} to {losses[-1]:.4g}"
    error = abs(losses[-1] / first - 1)
    assert error <= TOLERANCE[name], f"the loss is off by {error:.1e} from that of the first, {first:.4g}"


def counting(device: Any, *, tokens: int, vocab: int = VOCAB) -> Any:
    """Race for the counts of a text, which must be the CPU's to the last bit."""
    import cupy

    import fastnlp

    ids = zipf(tokens, 3, vocab)
    on_gpu = cupy.asarray(ids)
    count = partial(fastnlp.cooccurrence, vocab_size=vocab, window=WINDOW)
    found = race(
        HostClock(device),
        "cooccurrence",
        f"{tokens:,} tokens of {vocab:,} words, window {WINDOW}",
        [Contestant("fastnlp", lambda: count(on_gpu)), Contestant("fastnlp, CPU", lambda: count(ids))],
        check=_same_as(count(ids)),
        per_call={"tokens": tokens},
        note="By the host's clock; the ids are on the GPU before, and the counts on the host after.",
    )
    return [found]


def _same_as(true: Any) -> Callable[[Any], None]:
    def check(got: Any) -> None:
        for name in ("indptr", "indices", "data"):
            assert np.array_equal(getattr(got, name), getattr(true, name)), f"other {name} than on the CPU"

    return check
