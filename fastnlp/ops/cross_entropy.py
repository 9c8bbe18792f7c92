"""`cross_entropy` on logits, and what every cross-entropy shares: targets, reductions, the scale of a row.

A backend provides ``forward(x, target, nll)`` and ``gradient(x, target, scale, nll, dx)`` on rows; a negative target
marks a row that does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import integer
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable

REDUCTIONS = ("mean", "sum", "none")


class Rows(NamedTuple):
    """The targets of a batch of rows, and how their losses are reduced."""

    target: Array  # (N,), -1 where the row does not count
    counted: int  # how many rows count
    reduction: str
    shape: tuple[int, ...]  # of the target, as the caller gave it

    @classmethod
    def checked(
        cls, target: Any, shape: tuple[int, ...], classes: int, ignore_index: int | None, reduction: str
    ) -> Rows:
        """Check a target of class indices against the rows' `shape` and the number of classes.

        Raises
        ------
        TypeError
            The target is not of an integer dtype, or `ignore_index` is not an integer.
        ValueError
            Its shape does not fit, an index is out of range, or the reduction is unknown.
        """
        if not (isinstance(reduction, str) and reduction in REDUCTIONS):
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        if ignore_index is not None:
            ignore_index = integer("ignore_index", ignore_index, least=-(2**63), most=2**63 - 1)
        flat, counted = _arrays.class_indices("target", target, shape=shape, classes=classes, ignore_index=ignore_index)
        return cls(_arrays.kernel_ready(flat), counted, reduction, shape)

    def scale(self, dloss: Any, dtype: np.dtype[Any]) -> Array:
        """Return d(reduced loss)/d(nll_n) times the upstream gradient, for each row: (N,)."""
        if self.reduction == "none":
            return np.ascontiguousarray(dloss, dtype=dtype).reshape(-1)
        one = 1.0 / self.counted if self.reduction == "mean" and self.counted else 1.0
        return np.full(self.target.size, one * float(dloss), dtype)

    def reduce(self, nll: Array) -> Any:
        """Reduce the losses of the rows; float32 or better. The mean over no row is NaN, as in PyTorch."""
        if self.reduction == "none":
            return nll.reshape(self.shape)
        total = np.add.reduce(nll, dtype=np.float64)
        if self.reduction == "mean":
            total = total / self.counted if self.counted else np.float64(np.nan)
        return nll.dtype.type(total)


def scaled(grad: Array | None, factor: float, dtype: np.dtype[Any]) -> Array | None:
    """Return a saved gradient times the upstream factor, in the caller's dtype; itself where nothing changes.

    The dtype is the last to change: a factor that keeps float16 gradients from vanishing must come before.
    """
    if grad is None:
        return None
    return (grad if factor == 1.0 else grad * grad.dtype.type(factor)).astype(dtype, copy=False)


class _Plan(NamedTuple):
    kernels: ModuleType
    x: Array  # (N, V)
    rows: Rows
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of the gradient

    def gradient(self, dloss: Any) -> tuple[Array, Array]:
        """Return the losses of the rows, and the gradient in the input's shape."""
        x = self.x
        nll, dx = _arrays.empty(x.shape[0], x.dtype, x), _arrays.empty(x.shape, x.dtype, x)
        self.kernels.gradient(x, self.rows.target, self.rows.scale(dloss, x.dtype), nll, dx)
        return nll, dx.reshape(self.shape)


def _plan(
    input: Any, target: Any, *, ignore_index: int | None = -100, reduction: str = "mean", backend: str | None = None
) -> _Plan:
    kernels = kernels_for("cross_entropy", backend, input, target)
    x = _arrays.floating("input", input)
    rows = Rows.checked(target, x.shape[:-1], x.shape[-1], ignore_index, reduction)
    return _Plan(kernels, _arrays.as_rows(x), rows, x.shape, _arrays.result_dtype(input))


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Any, Saved]:
    if wrt and plan.rows.reduction != "none":
        nll, dx = plan.gradient(1.0)
        return plan.rows.reduce(nll), (dx,)
    nll = _arrays.empty(plan.x.shape[0], plan.x.dtype, plan.x)
    plan.kernels.forward(plan.x, plan.rows.target, nll)
    return plan.rows.reduce(nll), ()


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dloss: Any) -> tuple[Array | None]:
    if not wrt:
        return (None,)
    if plan.rows.reduction == "none":
        return (scaled(plan.gradient(dloss)[1], 1.0, plan.dtype),)
    return (scaled(saved[0], float(dloss), plan.dtype),)


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    if args["reduction"] == "none":
        return (Output(args["target"].shape),)
    return (Output(()), Output(args["input"].shape)) if wrt else (Output(()),)


@differentiable("input", plan=_plan, forward=_forward, backward=_backward, outputs=_outputs)
def cross_entropy(
    input: Any, target: Any, *, ignore_index: int | None = -100, reduction: str = "mean", backend: str | None = None
) -> Any:
    """Cross-entropy of logits against class indices: ``l = log sum_v exp(x_v) - x_t``.

    Parameters
    ----------
    input
        Logits ``(..., C)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    target
        Class indices ``(...)``, of any integer dtype, in ``[0, C)`` or `ignore_index`.
    ignore_index
        Rows with this target count for nothing: their loss and gradient are zero. None: no row is ignored.
    reduction
        "mean" over the rows that count, "sum", or "none" for one loss a row, ``(...)``.
    backend
        "reference", "cpu" or "cuda"; default: by the array.

    Returns
    -------
    scalar or array
        The loss, in nats, float32 or better. With "mean" and no row that counts: NaN, as in PyTorch (the gradients are
        zero).

    Raises
    ------
    TypeError
        A dtype that is not floating (input) or integer (target), or an `ignore_index` that is not an integer.
    ValueError
        Shapes that do not fit, a target out of range, or an unknown reduction.
    """
    return _forward(_plan(input, target, ignore_index=ignore_index, reduction=reduction, backend=backend), NOTHING)[0]
