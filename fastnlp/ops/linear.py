"""`linear`.

A backend provides ``forward(x, weight, bias, activation, out, matmul)``, ``activation_backward(y, dy, activation, dz)``
and ``backward(dz, x, weight, dx, dweight, dbias, matmul)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._blas import chosen, matmul
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable

ACTIVATIONS = ("relu", "sigmoid", "tanh")


class LinearArguments(NamedTuple):
    """The checked arguments of an operation that starts with a linear map."""

    x: Array  # (N, D)
    weight: Array  # (V, D), any strides
    bias: Array | None  # (V,)
    shape: tuple[int, ...]  # the input's
    dtypes: tuple[np.dtype[Any], ...]  # of the caller's arrays, and of their gradients

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of array results: the input's."""
        return self.dtypes[0]

    def ready(self) -> LinearArguments:
        """Return them as kernels take them: on a GPU in one dtype, matrices as products take them."""
        if not _arrays.on_device(self.x):
            return self
        weight = _arrays.factor_ready(self.weight.astype(self.x.dtype, copy=False))
        bias = None if self.bias is None else self.bias.astype(self.x.dtype, copy=False)
        return self._replace(weight=weight, bias=bias)

    @property
    def rows_shape(self) -> tuple[int, int]:
        """The shape of the output as rows: (N, V)."""
        return self.x.shape[0], self.weight.shape[0]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the output as the caller sees it: (..., V)."""
        return (*self.shape[:-1], self.weight.shape[0])


def linear_arguments(input: Any, weight: Any, bias: Any, names: tuple[str, str, str]) -> LinearArguments:
    """Check an input ``(..., D)``, a weight ``(V, D)`` and a bias ``(V,)`` or None, known to the caller by `names`.

    Raises
    ------
    TypeError
        A dtype that is not floating, or not the input's.
    ValueError
        Shapes that do not fit.
    """
    x = _arrays.floating(names[0], input)
    w = _parameter(names[1], weight, x, 2)
    if x.shape[-1] != w.shape[1]:
        hint = f" ({names[1]}.T would fit)" if x.shape[-1] == w.shape[0] else ""
        raise ValueError(
            f"{names[1]} must have shape (classes, {x.shape[-1]}) for an {names[0]} of shape {x.shape}, "
            f"got {w.shape}{hint}"
        )
    b = None
    if bias is not None:
        b = _arrays.kernel_ready(_parameter(names[2], bias, x, 1))
        if b.shape[0] != w.shape[0]:
            raise ValueError(f"{names[2]} must have shape ({w.shape[0]},), one entry a class, got {b.shape}")
    dtypes = tuple(_arrays.result_dtype(array) for array in (input, weight, bias))
    return LinearArguments(_arrays.as_rows(x), w, b, x.shape, dtypes)


def _parameter(name: str, array: Any, x: Array, ndim: int) -> Array:
    """Check a weight or a bias against the features `x`, whose dtype it must have.

    On a GPU float32 will do beside 16 bits, as mixed precision has it: `LinearArguments.ready` rounds it.
    """
    if _arrays.on_device(x) and x.dtype.itemsize == 2:
        given = _arrays.floating(name, array, ndim=ndim)
        if given.dtype == np.float32:
            return given
    return _arrays.floating(name, array, ndim=ndim, like=x)


class Gradients(NamedTuple):
    """Gradient buffers of a linear map, allocated for what is wanted; None for the rest."""

    input: Array | None
    weight: Array | None
    bias: Array | None

    @classmethod
    def wanted(
        cls, args: LinearArguments, wrt: frozenset[str], names: tuple[str, str, str], some_rows: bool = False
    ) -> Gradients:
        """Allocate a buffer for each of `names` that is in `wrt`; the input's of zeros where `some_rows` get none."""
        arrays, dtype = (args.x, args.weight, args.bias), _arrays.wide(args.x)
        makes = (_arrays.zeros if some_rows else _arrays.empty, _arrays.empty, _arrays.empty)
        return cls(
            *(
                make(array.shape, dtype, args.x) if name in wrt and array is not None else None
                for make, name, array in zip(makes, names, arrays, strict=True)
            )
        )

    def shaped(self, args: LinearArguments) -> Gradients:
        """Return the gradients in the shapes of the arguments."""
        return self if self.input is None else self._replace(input=self.input.reshape(args.shape))

    def for_caller(self, args: LinearArguments) -> tuple[Array | None, ...]:
        """Return the gradients in the shapes and the dtypes of the arguments."""
        pairs = zip(self.shaped(args), args.dtypes, strict=True)
        return tuple(None if grad is None else grad.astype(dtype, copy=False) for grad, dtype in pairs)


_NAMES = ("input", "weight", "bias")


class _Plan(NamedTuple):
    kernels: ModuleType
    args: LinearArguments
    activation: str | None
    out: Array | None
    matmul: Callable[..., Any]


def _plan(
    input: Any,
    weight: Any,
    bias: Any = None,
    *,
    activation: str | None = None,
    out: Array | None = None,
    backend: str | None = None,
    blas: str = "numpy",
) -> _Plan:
    kernels = kernels_for("linear", backend, input, weight, bias)
    args = linear_arguments(input, weight, bias, _NAMES)
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"activation must be None or one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return _Plan(kernels, args, activation, out, matmul(chosen(blas)))


def linear_output(args: LinearArguments, out: Array | None) -> tuple[Array, Array]:
    """Return the array that goes to the caller, and the rows ``(N, V)`` in it (or beside it) that kernels fill."""
    y = _arrays.output(out, args.output_shape, args.dtype, args.x)
    inputs = (args.x, args.weight, args.bias)
    overlap = out is not None and any(x is not None and _arrays.may_overlap(y, x) for x in inputs)
    if y.dtype == args.x.dtype and _arrays.kernel_ready(y) is y and not overlap:
        return y, y.reshape(args.rows_shape)
    return y, _arrays.empty(args.rows_shape, args.x.dtype, args.x)


def hand_over(y: Array, rows: Array) -> Array:
    """Return `y` filled from `rows`, which may be its own memory."""
    if not _arrays.may_overlap(y, rows):
        _arrays.fill(y, rows)
    return y


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Array, Saved]:
    args = plan.args
    y, rows = linear_output(args, plan.out)
    plan.kernels.forward(*args.ready()[:3], plan.activation, rows, plan.matmul)
    return hand_over(y, rows), ()


def upstream_rows(dy: Array, like: Array) -> Array:
    """Return an upstream gradient as kernel-ready rows of the dtype of `like`."""
    return _arrays.as_rows(dy.astype(like.dtype, copy=False))


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dy: Any) -> tuple[Array | None, ...]:
    args = plan.args
    dz = upstream_rows(dy, args.x)
    if plan.activation is not None:
        y = _arrays.as_rows(saved[0].astype(args.x.dtype, copy=False))
        upstream, dz = dz, _arrays.empty(dz.shape, dz.dtype, dz)
        plan.kernels.activation_backward(y, upstream, plan.activation, dz)
    grads = Gradients.wanted(args, wrt, _NAMES)
    plan.kernels.backward(dz, *args.ready()[:2], *grads, plan.matmul)
    return grads.for_caller(args)


def linear_outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    """The value of a linear map is (..., V)."""
    return (Output((*args["input"].shape[:-1], args["weight"].shape[0]), narrow=True),)


@differentiable(*_NAMES, plan=_plan, forward=_forward, backward=_backward, outputs=linear_outputs, keeps_value=True)
def linear(
    input: Any,
    weight: Any,
    bias: Any = None,
    *,
    activation: str | None = None,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Linear map: ``y = f(x W' + b)``.

    Parameters
    ----------
    input
        x, ``(..., D)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    weight
        W, ``(V, D)``, any strides: ``weight.T`` of an array kept the other way round is not copied.
    bias
        b, ``(V,)``, or None.
    activation
        f: None (the identity), "relu", "sigmoid" or "tanh", applied while the output is in cache.
    out
        An array ``(..., V)`` of the input's dtype to write to; it may overlap the other arguments.
    backend
        "reference", "cpu" or "cuda"; default: by the array.

    Returns
    -------
    array
        ``(..., V)``, in the input's dtype.

    Raises
    ------
    TypeError
        Arguments of different or other than floating dtypes.
    ValueError
        Shapes that do not fit, or an unknown activation.
    """
    plan = _plan(input, weight, bias, activation=activation, out=out, backend=backend)
    return _arrays.given_back(_forward(plan, NOTHING)[0])
