"""`linear_softmax`.

A backend provides ``forward(x, weight, bias, scale, out, matmul)`` here, and for the gradient its ``softmax`` and
``linear``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._blas import chosen, matmul
from fastnlp._dispatch import backend_of, implementation
from fastnlp._op import NOTHING, Saved, differentiable
from fastnlp.ops.linear import (
    Gradients,
    LinearArguments,
    hand_over,
    linear_arguments,
    linear_output,
    linear_outputs,
    upstream_rows,
)
from fastnlp.ops.softmax import inverse_temperature

_NAMES = ("input", "weight", "bias")


class _Plan(NamedTuple):
    kernels: ModuleType
    softmax: ModuleType
    linear: ModuleType
    args: LinearArguments
    scale: float  # 1 / temperature
    out: Array | None
    matmul: Callable[..., Any]


def _plan(
    input: Any,
    weight: Any,
    bias: Any = None,
    *,
    temperature: float = 1.0,
    out: Array | None = None,
    backend: str | None = None,
    blas: str = "numpy",
) -> _Plan:
    on = backend_of(backend, input, weight, bias)
    kernels, softmax, linear = (implementation(op, on) for op in ("linear_softmax", "softmax", "linear"))
    args = linear_arguments(input, weight, bias, _NAMES)
    scale = inverse_temperature(temperature, args.x.dtype)
    return _Plan(kernels, softmax, linear, args, scale, out, matmul(chosen(blas)))


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Array, Saved]:
    args = plan.args
    p, rows = linear_output(args, plan.out)
    plan.kernels.forward(*args.ready()[:3], plan.scale, rows, plan.matmul)
    return hand_over(p, rows), ()


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dy: Any) -> tuple[Array | None, ...]:
    args = plan.args
    p = _arrays.as_rows(saved[0].astype(args.x.dtype, copy=False))
    dlogits = _arrays.empty(p.shape, p.dtype, p)
    plan.softmax.softmax_backward(p, upstream_rows(dy, p), dlogits, plan.scale)
    grads = Gradients.wanted(args, wrt, _NAMES)
    plan.linear.backward(dlogits, *args.ready()[:2], *grads, plan.matmul)
    return grads.for_caller(args)


@differentiable(*_NAMES, plan=_plan, forward=_forward, backward=_backward, outputs=linear_outputs, keeps_value=True)
def linear_softmax(
    input: Any,
    weight: Any,
    bias: Any = None,
    *,
    temperature: float = 1.0,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Probabilities of a linear classifier: ``p = softmax((x W' + b) / t)``, the logits never stored beside them.

    Parameters
    ----------
    input
        x, ``(..., D)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    weight
        W, ``(V, D)``, any strides.
    bias
        b, ``(V,)``, or None.
    temperature
        t > 0.
    out
        An array ``(..., V)`` of the input's dtype to write to.
    backend
        "reference", "cpu" or "cuda"; default: by the array.

    Returns
    -------
    array
        ``(..., V)``; each row sums to one.

    Raises
    ------
    TypeError
        Arguments of different or other than floating dtypes, or a temperature that is not a number.
    ValueError
        Shapes that do not fit, or a temperature that is not positive.
    """
    plan = _plan(input, weight, bias, temperature=temperature, out=out, backend=backend)
    return _arrays.given_back(_forward(plan, NOTHING)[0])
