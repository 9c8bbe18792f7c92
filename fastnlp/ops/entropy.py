"""`entropy` of softmax, and `perplexity`.

A backend provides ``forward(x, scale, out)`` and ``gradient(x, scale, upstream, dx)`` on rows ``(N, V)``.
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
from fastnlp.ops.cross_entropy import cross_entropy
from fastnlp.ops.softmax import inverse_temperature


class _Plan(NamedTuple):
    kernels: ModuleType
    x: Array  # (N, V)
    scale: float  # 1 / temperature
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of the gradient


def _plan(input: Any, *, temperature: float = 1.0, backend: str | None = None) -> _Plan:
    kernels = kernels_for("entropy", backend, input)
    x = _arrays.floating("input", input)
    scale = inverse_temperature(temperature, x.dtype)
    return _Plan(kernels, _arrays.as_rows(x), scale, x.shape, _arrays.result_dtype(input))


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Any, Saved]:
    out = _arrays.empty(plan.x.shape[0], plan.x.dtype, plan.x)
    plan.kernels.forward(plan.x, plan.scale, out)
    return out.reshape(plan.shape[:-1])[()], ()


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dy: Any) -> tuple[Array | None]:
    if not wrt:
        return (None,)
    x = plan.x
    dx = _arrays.empty(x.shape, x.dtype, x)
    plan.kernels.gradient(x, plan.scale, np.ascontiguousarray(dy, dtype=x.dtype).reshape(-1), dx)
    return (dx.reshape(plan.shape).astype(plan.dtype, copy=False),)


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    return (Output(tuple(args["input"].shape[:-1])),)


@differentiable("input", plan=_plan, forward=_forward, backward=_backward, outputs=_outputs)
def entropy(input: Any, *, temperature: float = 1.0, backend: str | None = None) -> Any:
    """Entropy of softmax: ``H = -sum_v p_v log p_v`` with ``p = softmax(x / temperature)``, along the last axis.

    A small entropy, of a confident prediction, keeps its relative accuracy.

    Parameters
    ----------
    input
        Logits x, ``(..., V)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    temperature
        Above 0; above 1 flattens the distribution, below 1 sharpens it.
    backend
        "reference", "cpu" or "cuda"; default: by the array.

    Returns
    -------
    scalar or array
        ``(...)``, in nats, float32 or better. A class at -inf counts for nothing; a row of -inf, or one that holds +inf
        or NaN, is NaN.

    Raises
    ------
    TypeError
        `input` is not of a floating dtype, or `temperature` not a number.
    ValueError
        `temperature` is out of range.
    """
    return _forward(_plan(input, temperature=temperature, backend=backend), NOTHING)[0]


def perplexity(
    input: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    token_weight: Any = None,
    backend: str | None = None,
) -> Any:
    """Perplexity: ``exp`` of the mean `cross_entropy` over the rows that count.

    Parameters
    ----------
    input, target, weight, ignore_index, label_smoothing, temperature, softcap, token_weight, backend
        As in `cross_entropy`.

    Returns
    -------
    scalar
        1 for sure predictions that are right, V for uniform ones; float32 or better, inf where the mean's exponential
        overflows, NaN where no row counts.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.
    """
    loss = cross_entropy(
        input,
        target,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        softcap=softcap,
        token_weight=token_weight,
        backend=backend,
    )
    with np.errstate(over="ignore"):
        return np.exp(loss)
