"""`softmax_kl_div` of two arrays of logits, and what divergences of softmaxes share: `beta`, reductions.

A backend provides ``forward(x, target, beta, scale, loss)`` and
``gradient(x, target, beta, scale, upstream, loss, dx, dtarget)`` on rows ``(N, V)``.

On the CPU the gradients of a reduced loss come from the pass of the loss, and the backward scales them. On a GPU the
backward computes them, for then the upstream gradient is known, and nothing of the size of the logits is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import flag, positive
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable
from fastnlp.ops._batch_rows import BatchRows, batch_rows
from fastnlp.ops._loss_rows import scaled
from fastnlp.ops.softmax import inverse_temperature

REDUCTIONS = ("batchmean", "sum", "none")

_NAMES = ("input", "target")


def checked_beta(beta: Any) -> float:
    """Return `beta` as a float within [0, 1].

    Raises
    ------
    TypeError
        Not a number.
    ValueError
        Out of range.
    """
    beta = positive("beta", beta, or_zero=True)
    if beta > 1:
        raise ValueError(f"beta must be within [0, 1], got {beta}")
    return beta


def checked_reduction(reduction: Any) -> str:
    """Return `reduction`.

    Raises
    ------
    ValueError
        It is not one of `REDUCTIONS`.
    """
    if not (isinstance(reduction, str) and reduction in REDUCTIONS):
        hint = " (batchmean is the mean over the rows)" if isinstance(reduction, str) and reduction == "mean" else ""
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}{hint}")
    return reduction


class _Plan(NamedTuple):
    kernels: ModuleType
    x: Array  # (N, V)
    target: Array  # (N, V)
    beta: float
    scale: float  # 1 / temperature
    rows: BatchRows
    shape: tuple[int, ...]
    dtypes: tuple[np.dtype[Any], ...]  # of the gradients

    def gradients(self, wrt: frozenset[str], dloss: Any) -> tuple[Array, list[Array | None]]:
        """Return the divergences of the rows, and the gradients wanted."""
        x, dtype = self.x, _arrays.wide(self.x)
        loss = _arrays.empty(x.shape[0], dtype, x)
        grads = [_arrays.empty(x.shape, x.dtype, x) if name in wrt else None for name in _NAMES]
        upstream = self.rows.scales(dloss, dtype)[0]
        self.kernels.gradient(x, self.target, self.beta, self.scale, upstream, loss, *grads)
        return loss, [None if grad is None else grad.reshape(self.shape) for grad in grads]


def _plan(
    input: Any,
    target: Any,
    *,
    temperature: float = 1.0,
    beta: float = 0.0,
    reduction: str = "batchmean",
    scale_by_t2: bool = False,
    backend: str | None = None,
) -> _Plan:
    kernels = kernels_for("softmax_kl_div", backend, input, target)
    x = _arrays.floating("input", input)
    y = _arrays.floating("target", target, like=x)
    if y.shape != x.shape:
        raise ValueError(f"target must have the shape of input, {x.shape}, got {y.shape}")
    scale = inverse_temperature(temperature, _arrays.wide(x))
    factor = scale**-2 if flag("scale_by_t2", scale_by_t2) else 1.0
    dtypes = tuple(_arrays.result_dtype(a) for a in (input, target))
    beta, reduction = checked_beta(beta), checked_reduction(reduction)
    rows = batch_rows(x.shape[:-1], x.shape[-1], x, reduction=reduction, factor=factor)
    return _Plan(kernels, _arrays.as_rows(x), _arrays.as_rows(y), beta, scale, rows, x.shape, dtypes)


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Any, Saved]:
    x, rows = plan.x, plan.rows
    if wrt and rows.reduction != "none" and not _arrays.on_device(x):
        loss, grads = plan.gradients(wrt, 1.0)
        return rows.reduce(loss, None), tuple(grads)
    loss = _arrays.empty(x.shape[0], _arrays.wide(x), x)
    plan.kernels.forward(x, plan.target, plan.beta, plan.scale, loss)
    return rows.reduce(loss, loss), ()


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dloss: Any) -> tuple[Array | None, ...]:
    if not wrt:
        return (None, None)
    grads, factor = (list(saved), dloss) if saved else (plan.gradients(wrt, dloss)[1], 1.0)
    return tuple(scaled(grad, factor, dtype) for grad, dtype in zip(grads, plan.dtypes, strict=True))


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    shape = tuple(args["input"].shape)
    if args["reduction"] == "none":
        return (Output(shape[:-1]),)
    if not wrt or _arrays.on_device(args["input"]):
        return (Output(()),)
    return (Output(()), *(Output(shape if name in wrt else (0,)) for name in _NAMES))


@differentiable(*_NAMES, plan=_plan, forward=_forward, backward=_backward, outputs=_outputs)
def softmax_kl_div(
    input: Any,
    target: Any,
    *,
    temperature: float = 1.0,
    beta: float = 0.0,
    reduction: str = "batchmean",
    scale_by_t2: bool = False,
    backend: str | None = None,
) -> Any:
    """Divergence of two softmaxes from their logits: Kullback-Leibler, reverse, or generalised Jensen-Shannon.

    With ``P = softmax(target / temperature)`` and ``Q = softmax(input / temperature)``, for each row

    - beta = 0: ``KL(P || Q) = sum_v P_v log(P_v / Q_v)``, as of knowledge distillation (Hinton et al., 2015),
    - beta = 1: ``KL(Q || P)``,
    - between: ``beta KL(P || M) + (1 - beta) KL(Q || M)``, with ``M = beta P + (1 - beta) Q``, as in Agarwal et al.,
      2023 (GKD). It goes to 0 at both ends, which are therefore cases of their own.

    Small divergences, of distributions that are nearly equal, keep their relative accuracy.

    Parameters
    ----------
    input
        Logits of Q, ``(..., V)``, float32 or float64 (float16 and bfloat16 are computed in float32; on a GPU there is
        no float64).
    target
        Logits of P, of the input's shape and dtype.
    temperature
        Above 0; divides both logits.
    beta
        Within [0, 1].
    reduction
        "batchmean" over the rows, "sum", or "none" for one divergence a row, ``(...)``. Nothing is divided by V.
    scale_by_t2
        Multiply by temperature squared, so that the size of the gradients hardly depends on the temperature.
    backend
        "reference", "cpu" or "cuda"; default: by the arrays.

    Returns
    -------
    scalar or array
        The divergence, in nats, float32 or better. A class at -inf has no mass, and 0 log 0 is 0; mass where the other
        distribution has none gives inf at the ends of beta. NaN without rows with "batchmean", and for rows of -inf or
        that hold +inf or NaN.

    Raises
    ------
    TypeError
        Arrays of different or other than floating dtypes, or options of a wrong type.
    ValueError
        Shapes that differ, a `temperature` or `beta` out of range, or an unknown reduction.
    """
    plan = _plan(
        input,
        target,
        temperature=temperature,
        beta=beta,
        reduction=reduction,
        scale_by_t2=scale_by_t2,
        backend=backend,
    )
    return _arrays.given_back(_forward(plan, NOTHING)[0])
