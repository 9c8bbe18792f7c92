"""`softmax`, `log_softmax`, `logsumexp`.

A backend provides ``softmax(x, out, scale)``, ``log_softmax(x, out, scale)``, ``logsumexp(x, out)`` on rows ``(N, V)``,
and for each its ``..._backward``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import integer, positive
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable


class _Plan(NamedTuple):
    kernels: ModuleType
    x: Array  # the input, in its own axis order
    axis: int
    scale: float  # 1 / temperature
    dtype: np.dtype[Any]  # of the result
    out: Array | None

    @property
    def last_axis(self) -> bool:
        """Tell whether the rows are the input as it stands."""
        return self.axis in (-1, self.x.ndim - 1)

    def rows(self, array: Array) -> Array:
        """Return an array shaped as the input as rows ``(N, V)``, V along `axis`."""
        if array.dtype != self.x.dtype:
            array = array.astype(self.x.dtype)
        return _arrays.as_rows(array if self.last_axis else _arrays.moveaxis(array, self.axis, -1))

    def target_rows(self, x: Array) -> Array:
        """Return the rows that a kernel fills: `out`, the input's rows where they are `out`, or new ones."""
        out = self.out
        if out is not None and self.last_axis and out.dtype == x.dtype:
            if not _arrays.may_overlap(out, x):
                if _arrays.kernel_ready(out) is out:
                    return out if out.shape == x.shape else out.reshape(x.shape)
            elif _arrays.same_memory(out, x):
                return x
        return _arrays.empty(x.shape, x.dtype, x)

    def back(self, rows: Array) -> Array:
        """Return rows in the input's axis order and dtype."""
        if self.last_axis:
            y = rows if rows.shape == self.x.shape else rows.reshape(self.x.shape)
        else:
            shape = list(self.x.shape)
            shape.append(shape.pop(self.axis))
            y = _arrays.moveaxis(rows.reshape(tuple(shape)), -1, self.axis)
        return y if y.dtype == self.dtype else y.astype(self.dtype)

    def result(self, rows: Array) -> Array:
        """Return rows as `back` does, in the caller's `out` if there is one."""
        if rows is self.out:
            return rows
        y = self.back(rows)
        if self.out is None:
            return y
        if not _arrays.may_overlap(self.out, rows):
            _arrays.fill(self.out, y)
        return self.out


def _plan(
    input: Any, *, axis: int = -1, temperature: float = 1.0, out: Array | None = None, backend: str | None = None
) -> _Plan:
    kernels = kernels_for("softmax", backend, input)
    x = _arrays.floating("input", input)
    axis = integer("axis", axis, least=-x.ndim, most=x.ndim - 1)
    return _Plan(kernels, x, axis, inverse_temperature(temperature, x.dtype), _arrays.result_dtype(input), out)


def inverse_temperature(temperature: float, dtype: np.dtype[Any]) -> float:
    """Return 1 / temperature after checking it; finite and above 0 in `dtype`, so that 0 * inf does not come up."""
    if type(temperature) is float and temperature == 1.0:
        return temperature
    scale = 1.0 / positive("temperature", temperature)
    if not 1e-37 < scale < 1e38:  # float32 holds what is within
        limits = np.finfo(dtype)
        scale = min(max(scale, float(limits.tiny)), float(limits.max))
    return scale


def _forward(kernel: str, plan: _Plan, wrt: frozenset[str]) -> tuple[Array, Saved]:
    if plan.out is not None:
        plan = plan._replace(out=_arrays.output(plan.out, plan.x.shape, plan.dtype, plan.x))
    x = plan.rows(plan.x)
    y = plan.target_rows(x)
    getattr(plan.kernels, kernel)(x, y, plan.scale)
    return plan.result(y), ()


def _backward(kernel: str, plan: _Plan, wrt: frozenset[str], saved: Saved, dy: Array) -> tuple[Array | None]:
    if not wrt:
        return (None,)
    y = plan.rows(saved[0])
    dx = _arrays.empty(y.shape, y.dtype, y)
    getattr(plan.kernels, f"{kernel}_backward")(y, plan.rows(dy), dx, plan.scale)
    return (plan.back(dx),)


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    return (Output(args["input"].shape, narrow=True),)


_softmax_forward: Callable[..., tuple[Array, Saved]] = partial(_forward, "softmax")
_log_softmax_forward: Callable[..., tuple[Array, Saved]] = partial(_forward, "log_softmax")


@differentiable(
    "input",
    plan=_plan,
    forward=_softmax_forward,
    backward=partial(_backward, "softmax"),
    outputs=_outputs,
    keeps_value=True,
)
def softmax(
    input: Any, *, axis: int = -1, temperature: float = 1.0, out: Array | None = None, backend: str | None = None
) -> Array:
    """Softmax: ``p_v = exp(x_v / t) / sum_u exp(x_u / t)`` along an axis.

    Parameters
    ----------
    input
        Logits ``(..., V)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    axis
        The axis that sums to one.
    temperature
        t > 0: above 1 flattens the distribution, below 1 sharpens it.
    out
        An array of the input's shape and dtype to write to; it may be the input itself.
    backend
        "reference", "cpu" or "cuda"; default: by the array.

    Returns
    -------
    array
        Probabilities of the input's shape and dtype. A row of -inf, or one that holds +inf or NaN, is NaN, as in SciPy
        and PyTorch.

    Raises
    ------
    TypeError
        `input` is not of a floating dtype, `out` of another, or `axis` or `temperature` not a number.
    ValueError
        `axis` or `temperature` is out of range, or `out` has another shape.
    """
    plan = _plan(input, axis=axis, temperature=temperature, out=out, backend=backend)
    return _arrays.given_back(_softmax_forward(plan, NOTHING)[0])


@differentiable(
    "input",
    plan=_plan,
    forward=_log_softmax_forward,
    backward=partial(_backward, "log_softmax"),
    outputs=_outputs,
    keeps_value=True,
)
def log_softmax(
    input: Any, *, axis: int = -1, temperature: float = 1.0, out: Array | None = None, backend: str | None = None
) -> Array:
    """Logarithm of `softmax`: ``x_v / t - log sum_u exp(x_u / t)`` along an axis, without overflow or underflow.

    Parameters, result and errors are those of `softmax`. (For a row that holds +inf SciPy has other values than NaN.)
    """
    plan = _plan(input, axis=axis, temperature=temperature, out=out, backend=backend)
    return _arrays.given_back(_log_softmax_forward(plan, NOTHING)[0])


def _logsumexp_plan(input: Any, *, axis: int = -1, out: Array | None = None, backend: str | None = None) -> _Plan:
    return _plan(input, axis=axis, out=out, backend=backend)


def _logsumexp_forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Array, Saved]:
    x = plan.rows(plan.x)
    shape = plan.x.shape[:-1] if plan.last_axis else tuple(np.delete(plan.x.shape, plan.axis))
    out = None if plan.out is None else _arrays.output(plan.out, shape, plan.dtype, x)
    lse = _arrays.empty(x.shape[0], _arrays.wide(x), x)
    plan.kernels.logsumexp(x, lse)
    if out is None:
        lse = lse if plan.dtype == lse.dtype else lse.astype(plan.dtype)
        return (lse.reshape(shape) if shape or _arrays.on_device(lse) else lse[0]), ()
    _arrays.fill(out, lse)
    return out, ()


def _logsumexp_backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dy: Any) -> tuple[Array | None]:
    if not wrt:
        return (None,)
    x = plan.rows(plan.x)
    dx = _arrays.empty(x.shape, x.dtype, x)
    plan.kernels.logsumexp_backward(x, _arrays.kernel_ready(dy.astype(_arrays.wide(x), copy=False)).reshape(-1), dx)
    return (plan.back(dx),)


def _logsumexp_outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    shape = list(args["input"].shape)
    del shape[args.get("axis", -1)]
    return (Output(tuple(shape), narrow=True),)


@differentiable(
    "input",
    plan=_logsumexp_plan,
    forward=_logsumexp_forward,
    backward=_logsumexp_backward,
    outputs=_logsumexp_outputs,
)
def logsumexp(input: Any, *, axis: int = -1, out: Array | None = None, backend: str | None = None) -> Any:
    """Log of the sum of exponentials: ``log sum_v exp(x_v)`` along an axis, without overflow.

    Parameters
    ----------
    input
        ``(..., V)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    axis
        The axis that is summed over.
    out
        An array to write to, of the input's dtype and of its shape without `axis`.
    backend
        "reference", "cpu" or "cuda"; default: by the array.

    Returns
    -------
    array
        Shape of the input without `axis`. A row of -inf gives -inf, a row that holds +inf gives inf, NaN gives NaN.

    Raises
    ------
    TypeError
        `input` is not of a floating dtype, `out` of another, or `axis` not an integer.
    ValueError
        `axis` is out of range, or `out` has another shape.
    """
    plan = _logsumexp_plan(input, axis=axis, out=out, backend=backend)
    return _arrays.given_back(_logsumexp_forward(plan, NOTHING)[0])
