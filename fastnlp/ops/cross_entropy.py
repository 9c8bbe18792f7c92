"""`cross_entropy` on logits.

A backend provides, on rows, ``forward(x, criterion, loss, lse, stats)`` and
``gradient(x, criterion, scale, lse_scale, loss, lse, stats, dx)``, the gradient of
``sum_n scale_n loss_n + lse_scale_n lse_n^2`` (what `Criterion` and `Stats` hold: ``_criterion.py``).

On the CPU the gradient of a reduced loss comes from the pass of the loss, and the backward scales it. On a GPU the
backward computes it, for then the upstream gradient is known, and nothing of the size of the logits is kept: a row is
read from memory as often in either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable
from fastnlp.ops._criterion import LossStats, stats_outputs
from fastnlp.ops._loss_rows import Rows, rows_of, scaled


class _Plan(NamedTuple):
    kernels: ModuleType
    x: Array  # (N, V)
    rows: Rows
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of the gradient


def _plan(
    input: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    token_weight: Any = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> _Plan:
    kernels = kernels_for("cross_entropy", backend, input, target, weight, token_weight)
    x = _arrays.floating("input", input)
    shape = x.shape
    rows = rows_of(
        shape[:-1],
        shape[-1],
        x,
        target,
        weight,
        ignore_index,
        reduction,
        label_smoothing,
        temperature,
        softcap,
        z_loss,
        token_weight,
        return_stats,
    )
    return _Plan(kernels, _arrays.as_rows(x), rows, shape, _arrays.result_dtype(input))


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Any, Saved]:
    kernels, x, rows = plan.kernels, plan.x, plan.rows
    n, dtype = len(x), _arrays.wide(x)
    loss, lse = _arrays.empty(n, dtype, x), _arrays.empty(n, dtype, x)
    stats = rows.wanted_stats(dtype) if rows.return_stats else None
    if not wrt or rows.reduction == "none" or _arrays.on_device(x):
        kernels.forward(x, rows.criterion, loss, lse, stats)
        if rows.counted < n:
            rows.zero_uncounted(loss, lse, *(stats or ()))
        return rows.reduce(loss, lse, stats), ()
    dx = _arrays.empty(x.shape, x.dtype, x)
    kernels.gradient(x, rows.criterion, *rows.scales(1.0, dtype), loss, lse, stats, dx)
    rows.zero_uncounted(loss, lse, *(stats or ()), dx)
    return rows.reduce(loss, lse, stats), (dx.reshape(plan.shape),)


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dloss: Any) -> tuple[Array | None]:
    if not wrt:
        return (None,)
    if saved:
        return (scaled(saved[0], dloss, plan.dtype),)
    x, dtype = plan.x, _arrays.wide(plan.x)
    loss, lse = _arrays.empty(len(x), dtype, x), _arrays.empty(len(x), dtype, x)
    dx = _arrays.empty(x.shape, x.dtype, x)
    plan.kernels.gradient(x, plan.rows.criterion, *plan.rows.scales(dloss, dtype), loss, lse, None, dx)
    plan.rows.zero_uncounted(dx)
    return (scaled(dx.reshape(plan.shape), 1.0, plan.dtype),)


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    shape = tuple(args["input"].shape)
    stats = stats_outputs(args, shape[:-1])
    if args["reduction"] == "none":
        return (Output(shape[:-1]), *stats)
    saved = (Output(shape),) if wrt and not _arrays.on_device(args["input"]) else ()
    return (Output(()), *stats, *saved)


@differentiable("input", plan=_plan, forward=_forward, backward=_backward, outputs=_outputs, statistics=LossStats)
def cross_entropy(
    input: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    token_weight: Any = None,
    return_stats: bool = False,
    backend: str | None = None,
) -> Any:
    """Cross-entropy of logits against class indices or distributions: ``l = log sum_v exp(z_v) - z_t``.

    z are the logits after temperature and soft-cap, ``z = softcap tanh(x / temperature / softcap)``. In general
    ``l = sum_v q_v (log sum_u exp(z_u) - z_v)`` with the mass q that the target puts on the classes: for a class index
    t ``q_v = (1 - label_smoothing) w_t [v = t] + label_smoothing w_v / C``, for a distribution P
    ``q_v = w_v ((1 - label_smoothing) P_v + label_smoothing / C)``, as in PyTorch. With P this is H(P, Q),
    Q = softmax(z), which is not H(Q, P); a class without mass adds nothing, whatever its logit.

    Parameters
    ----------
    input
        Logits x ``(..., C)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    target
        Class indices ``(...)`` of any integer dtype, in ``[0, C)`` or `ignore_index`; or distributions P ``(..., C)``
        of the input's dtype, which need not sum to one.
    weight
        Class weights w, ``(C,)`` of the input's dtype, 0 or more; default: all one.
    ignore_index
        Rows with this target count for nothing: their loss and gradient are zero. None: no row is ignored. With
        distributions only a negative one, which then does nothing, as in PyTorch.
    reduction
        "mean" over the rows that count: ``sum u_n l_n / sum u_n w_y(n)``, w left out below for distributions; "sum"
        ``sum u_n l_n``; or "none" for one loss a row, ``u_n l_n``, ``(...)``.
    label_smoothing
        Share of the target that is spread evenly over the classes, within [0, 1].
    temperature
        Logits are divided by it before all else; above 0.
    softcap
        Bound on the size of logits, above 0 (Gemma 2); None: no bound.
    z_loss
        Factor, 0 or more, of a term that keeps log-sum-exp near zero (PaLM): ``z_loss sum u_n lse_n^2 / sum u_n`` with
        "mean", ``z_loss u_n lse_n^2`` a row otherwise. It is part of the loss.
    token_weight
        Weights of the rows u, ``(...)``, any real dtype, 0 or more; default: all one. Rows of weight 0 count for
        nothing, as ignored ones do.
    return_stats
        True: return ``(loss, stats)``, stats a `LossStats` of what the same pass knows: ``lse``, ``nll``, ``entropy``,
        ``argmax`` of the rows, ``accuracy``, ``count``, ``z_loss``. No gradient flows through them.
    backend
        "reference", "cpu" or "cuda"; default: by the array.

    Returns
    -------
    scalar or array, or a pair of it and a LossStats
        The loss, in nats, float32 or better. With "mean" and no row that counts: NaN, as in PyTorch (the gradients are
        zero).

    Raises
    ------
    TypeError
        A dtype that is not floating (input, weight), not the input's (weight, distributions), not integer or floating
        (target), or an option of another type.
    ValueError
        Shapes that do not fit, a target out of range or not finite, weights that are negative or not finite, an option
        out of its range, or an unknown reduction.
    """
    plan = _plan(
        input,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        temperature=temperature,
        softcap=softcap,
        z_loss=z_loss,
        token_weight=token_weight,
        return_stats=return_stats,
        backend=backend,
    )
    return _arrays.given_back(_forward(plan, NOTHING)[0])
