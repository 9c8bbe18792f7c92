"""What every cross-entropy shares: the comparison of a row with its target, the reduction over rows, the statistics.

For a row of logits x, with ``z = softcap tanh(x / temperature / softcap)`` (or ``x / temperature``) and the target's
mass q on the classes, the loss is ``l = sum_v q_v (lse - z_v)``, lse = log sum exp z. Kernels compute l and lse of each
row from a `Criterion`; the reduction, with token weights u and class weights w, is done here in float64:

    mean    sum u_n l_n / sum u_n w_y(n)  +  z_loss sum u_n lse_n^2 / sum u_n     (w = 1 for distributions)
    sum     sum u_n (l_n + z_loss lse_n^2)
    none    u_n (l_n + z_loss lse_n^2)

A row counts if it is not ignored and its token weight is not zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnlp._arrays import Array
from fastnlp._op import Output

REDUCTIONS = ("mean", "sum", "none")


class Criterion(NamedTuple):
    """What each row of logits is compared with, and how logits are transformed first."""

    target: Array | None  # (N,) int64 class indices, -1 where the row does not count; None with probabilities
    probabilities: Array | None  # (N, V), not required to sum to one; None with class indices
    class_weight: Array | None  # (V,) of the dtype of the logits
    label_smoothing: float
    temperature: float
    softcap: float | None


class Stats(NamedTuple):
    """Arrays that a kernel fills for every row; zero where a row does not count."""

    nll: Array  # (N,) unweighted and unsmoothed: lse - z_t, or sum_v P_v (lse - z_v)
    entropy: Array  # (N,) of softmax(z)
    argmax: Array  # (N,) int64, the first maximum; -1 where the row does not count

    @classmethod
    def zeros(cls, n: int, dtype: np.dtype[Any]) -> Stats:
        """Allocate the statistics of `n` rows that do not count."""
        return cls(np.zeros(n, dtype), np.zeros(n, dtype), np.full(n, -1, np.int64))


class LossStats(NamedTuple):
    """What the pass over the logits knows beside the loss; no gradient flows through it.

    Attributes
    ----------
    lse
        Log-sum-exp of each row's logits after temperature and soft-cap, ``(...)``; 0 where a row does not count.
    nll
        Cross-entropy of each row without weights, smoothing and z-loss, ``(...)``, in nats; 0 where it does not count.
    entropy
        Entropy of each row's softmax, ``(...)``, in nats; 0 where a row does not count.
    argmax
        The most probable class of each row, ``(...)``, the first of equals; -1 where a row does not count.
    accuracy
        Share of the rows that count in which `argmax` is the target (for a distribution: its first maximum); NaN
        without rows.
    count
        How many rows count: those that are neither ignored nor of token weight zero.
    z_loss
        The z-loss term in the loss: a scalar, or ``(...)`` with reduction "none".
    """

    lse: Any
    nll: Any
    entropy: Any
    argmax: Any
    accuracy: Any
    count: Any
    z_loss: Any


def stats_outputs(args: Any, shape: tuple[Any, ...]) -> tuple[Output, ...]:
    """Return what the fields of `LossStats` are, if they are wanted, for rows of `shape`."""
    if not args["return_stats"]:
        return ()
    rows, scalar = Output(shape), Output(())
    squared = rows if args["reduction"] == "none" else scalar
    return (rows, rows, rows, Output(shape, dtype="int64"), scalar, Output((), dtype="int64"), squared)
