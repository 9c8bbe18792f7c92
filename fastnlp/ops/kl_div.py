"""`kl_div` of distributions as they are given: element by element, as torch defines it.

A backend provides ``elements(x, target, log_target, out)``, ``total(x, target, log_target, block, sums)`` and
``gradient(x, target, log_target, scale, dx, dtarget)`` on flat arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import flag
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable

REDUCTIONS = ("mean", "sum", "batchmean", "none")

_BLOCK = 1 << 16  # elements that are summed together: by the data, whatever the number of threads
_NAMES = ("input", "target")


class _Plan(NamedTuple):
    kernels: ModuleType
    x: Array  # (S,)
    target: Array  # (S,)
    log_target: bool
    reduction: str
    shape: tuple[int, ...]
    dtypes: tuple[np.dtype[Any], ...]  # of the gradients

    @property
    def divisor(self) -> int:
        """What the sum of the losses is divided by."""
        return {"mean": self.x.size, "batchmean": self.shape[0]}.get(self.reduction, 1)


def _plan(
    input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False, backend: str | None = None
) -> _Plan:
    kernels = kernels_for("kl_div", backend, input, target)
    x = _arrays.floating("input", input)
    t = _arrays.floating("target", target, like=x)
    if t.shape != x.shape:
        raise ValueError(f"target must have the shape of input, {x.shape}, got {t.shape}")
    if not (isinstance(reduction, str) and reduction in REDUCTIONS):
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    dtypes = tuple(_arrays.result_dtype(a) for a in (input, target))
    flat_x, flat_t = (_arrays.kernel_ready(a).reshape(-1) for a in (x, t))
    return _Plan(kernels, flat_x, flat_t, flag("log_target", log_target), reduction, x.shape, dtypes)


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Any, Saved]:
    x = plan.x
    if plan.reduction == "none":
        out = _arrays.empty(x.shape, x.dtype, x)
        plan.kernels.elements(x, plan.target, plan.log_target, out)
        return out.reshape(plan.shape), ()
    sums = _arrays.empty(-(-x.size // _BLOCK), np.float64, x)
    plan.kernels.total(x, plan.target, plan.log_target, _BLOCK, sums)
    return x.dtype.type(np.add.reduce(sums) / plan.divisor if plan.divisor else np.nan), ()


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dloss: Any) -> tuple[Array | None, ...]:
    x = plan.x
    grads = [_arrays.empty(x.shape, x.dtype, x) if name in wrt else None for name in _NAMES]
    each = plan.reduction == "none"
    scale = 1.0 if each else float(dloss) / (plan.divisor or 1)
    if wrt:
        plan.kernels.gradient(x, plan.target, plan.log_target, scale, *grads)
    shaped = [None if grad is None else grad.reshape(plan.shape) for grad in grads]
    for grad in shaped:
        if grad is not None and each:
            grad *= dloss.astype(x.dtype, copy=False)
    return tuple(
        None if grad is None else grad.astype(dtype, copy=False)
        for grad, dtype in zip(shaped, plan.dtypes, strict=True)
    )


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    return (Output(tuple(args["input"].shape) if args["reduction"] == "none" else ()),)


@differentiable(*_NAMES, plan=_plan, forward=_forward, backward=_backward, outputs=_outputs)
def kl_div(
    input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False, backend: str | None = None
) -> Any:
    """Kullback-Leibler divergence of given distributions: ``l = t (log t - x)`` for every element, x = log q.

    The definition is that of ``torch.nn.functional.kl_div``. From logits `softmax_kl_div` is faster and more accurate.

    Parameters
    ----------
    input
        x, the log-probabilities of the distribution that approximates, of any shape, float32 or float64 (float16 and
        bfloat16 are computed in float32).
    target
        t, the probabilities of the distribution that is approximated, of the input's shape and dtype.
    reduction
        "mean" over the elements, "sum", "batchmean" (the sum over the first dimension's length, which is the divergence
        of a row on average), or "none".
    log_target
        `target` holds log-probabilities: ``l = exp(t) (t - x)``.
    backend
        "reference", "cpu" or "cuda"; default: by the arrays.

    Returns
    -------
    scalar or array
        The divergence, in nats, float32 or better; the input's shape with "none". 0 log 0 is 0: an element whose target
        has no mass counts for nothing even where x is -inf, where PyTorch gives NaN. Mass where x is -inf gives inf.

    Raises
    ------
    TypeError
        Arguments of different or other than floating dtypes, or a `log_target` that is not a bool.
    ValueError
        Shapes that differ, or an unknown reduction.
    """
    return _forward(_plan(input, target, reduction=reduction, log_target=log_target, backend=backend), NOTHING)[0]
