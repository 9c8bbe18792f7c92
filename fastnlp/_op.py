"""What an operation is, and its gradients.

An operation of ``ops/`` states, beside its public function, three steps and what they hand on:

``plan(*args, **kwargs)``      checks the arguments once, flattens to rows, chooses the kernels
``forward(plan, wrt)``         one kernel call; returns ``(value, saved)``, where `saved` is the least from which the
                               wanted gradients follow (for a scalar loss the gradients themselves: one fused pass);
                               a value with statistics is a tuple ``(value, statistics)``, and only the first of the
                               two has a gradient
``backward(plan, wrt, saved, dvalue)``   returns one gradient for each differentiable argument, None where not wanted;
                               `dvalue` is an array of float32 or float64, of the shape of the value

`value_and_grad`, `vjp` and the torch bridge are made from these three, so no operation writes them again. A `plan` that
takes ``blas=`` is told by the bridge to multiply with torch's BLAS (see `fastnlp._blas.chosen`).
"""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from fastnlp import _arrays

if TYPE_CHECKING:
    import inspect

F = TypeVar("F", bound=Callable[..., Any])
Saved = tuple[Any, ...]
NOTHING: frozenset[str] = frozenset()
"""The gradients that a plain call wants."""


class Output(NamedTuple):
    """The shape of one array that `forward` returns; its dtype is the input's, in float32 at least unless `narrow`."""

    shape: tuple[Any, ...]
    narrow: bool = False
    dtype: str | None = None
    """The dtype where it is not the input's, such as "int64"."""


class Op(NamedTuple):
    """The contract of a differentiable operation (see the module's text)."""

    name: str
    function: Callable[..., Any]
    differentiable: tuple[str, ...]
    plan: Callable[..., Any]
    forward: Callable[[Any, frozenset[str]], tuple[Any, Saved]]
    backward: Callable[[Any, frozenset[str], Saved, Any], tuple[Any, ...]]
    outputs: Callable[[Mapping[str, Any], frozenset[str]], tuple[Output, ...]]
    keeps_value: bool
    statistics: type[Any] | None

    @property
    def signature(self) -> inspect.Signature:
        """The signature of the public function."""
        return _signature(self.function)


def differentiable(
    *names: str,
    plan: Callable[..., Any],
    forward: Callable[[Any, frozenset[str]], tuple[Any, Saved]],
    backward: Callable[[Any, frozenset[str], Saved, Any], tuple[Any, ...]],
    outputs: Callable[[Mapping[str, Any], frozenset[str]], tuple[Output, ...]],
    keeps_value: bool = False,
    statistics: type[Any] | None = None,
) -> Callable[[F], F]:
    """Declare a public function differentiable in the arguments `names`, by the three steps of its `Op`.

    `outputs` tells, from a mapping of the public arguments and the wanted gradients, the shapes and dtypes of
    ``(value, *statistics, *saved)``, for compilers that trace the operation without running it. With `keeps_value` the
    gradient follows from the value itself: `backward` finds it before what `forward` saved. `statistics` is the named
    tuple that `forward` returns beside the value where the argument `return_stats` is True.
    """

    def declare(function: F) -> F:
        op = Op(function.__name__, function, names, plan, forward, backward, outputs, keeps_value, statistics)
        function.__fastnlp_op__ = op  # type: ignore[attr-defined]
        return function

    return declare


def op_of(function: Callable[..., Any]) -> Op:
    """Return the `Op` behind a public function.

    Raises
    ------
    TypeError
        `function` is not a differentiable operation of this library.
    """
    op = getattr(function, "__fastnlp_op__", None)
    if op is None:
        name = getattr(function, "__name__", repr(function))
        raise TypeError(
            f"{name} has no gradient here: pass a differentiable function of fastnlp, such as cross_entropy"
        )
    return op


def vjp(function: Callable[..., Any], *, wrt: Iterable[str] | None = None) -> Callable[..., tuple[Any, Any]]:
    """Return `function` as one that also gives its vector-Jacobian product.

    ``y, pullback = vjp(f)(*args)`` computes ``y = f(*args)``; ``pullback(dy)`` returns ``dy @ J`` for each argument
    in `wrt`, with ``J = dy/darg``, as a named tuple whose fields are the arguments' names. It can be called again; the
    gradients are the caller's own. Of ``(loss, stats)``, which ``return_stats=True`` gives, `dy` is that of the loss.
    Arguments and ``y`` are kept, not copied: leave them unchanged until then.

    Parameters
    ----------
    function
        A differentiable function of fastnlp.
    wrt
        Names of the arguments to differentiate with respect to; default: all that have a gradient and are given (a
        field is None for one that was not given). Nothing is computed for the others.

    Raises
    ------
    TypeError
        `function` is not differentiable; `dy` is not of a floating dtype.
    ValueError
        `wrt` names something that is not a differentiable argument, or is not given; `out` is given; `dy` is not of the
        shape of `y`.

    Examples
    --------
    >>> import numpy as np, fastnlp
    >>> y, pullback = fastnlp.vjp(fastnlp.softmax)(np.array([0.0, 1.0]))
    >>> pullback(np.array([1.0, 0.0])).input.round(4)
    array([ 0.1966, -0.1966])
    """
    op = op_of(function)
    names = _wanted(op, wrt)
    fields = _gradients_type(op.name, names)
    signature = op.signature

    @functools.wraps(function)
    def with_pullback(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if kwargs.get("out") is not None:
            raise ValueError("out cannot be combined with gradients, which need the value unchanged: leave it out")
        given = signature.bind(*args, **kwargs).arguments
        missing = [name for name in names if given.get(name) is None]
        if wrt is not None and missing:
            raise ValueError(f"wrt asks for the gradient of {', '.join(missing)}, which is not given")
        plan = op.plan(*args, **kwargs)
        wanted = frozenset(name for name in names if given.get(name) is not None)
        value, saved = op.forward(plan, wanted)
        primal = _primal(value)
        if op.keeps_value:
            saved = (value, *saved)

        def pullback(dvalue: Any, *, keep: bool = True) -> Any:
            grads = op.backward(plan, wanted, saved, _arrays.upstream(dvalue, primal))
            if keep:  # what the next call starts from stays here
                mine = {id(x) for x in saved if x is not None}
                grads = tuple(grad.copy() if id(grad) in mine else grad for grad in grads)
            named = dict(zip(op.differentiable, grads, strict=True))
            return fields(*(_arrays.given_back(named[name]) for name in names))

        return _arrays.given_back(value), pullback

    return with_pullback


def value_and_grad(function: Callable[..., Any], *, wrt: Iterable[str] | None = None) -> Callable[..., tuple[Any, Any]]:
    """Return a function that computes a scalar loss and its gradients in one fused pass.

    Parameters
    ----------
    function
        A differentiable function of fastnlp whose value is a scalar, such as `linear_cross_entropy`.
    wrt
        As in `vjp`.

    Raises
    ------
    TypeError
        `function` is not differentiable.
    ValueError
        The value is not a scalar (use `vjp`), or `wrt` names something that is not a differentiable argument.

    Examples
    --------
    >>> import numpy as np, fastnlp
    >>> logits, target = np.zeros((2, 2)), np.array([0, 1])
    >>> loss, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(logits, target)
    >>> round(float(loss), 4), grads.input
    (0.6931, array([[-0.25,  0.25],
           [ 0.25, -0.25]]))
    """
    run = vjp(function, wrt=wrt)

    @functools.wraps(function)
    def with_grad(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        value, pullback = run(*args, **kwargs)
        shape = np.shape(_primal(value))
        if shape:
            raise ValueError(
                f"value_and_grad needs a scalar, {function.__name__} gave shape {shape}: "
                "use reduction='mean' or 'sum', or fastnlp.vjp with a dy of that shape"
            )
        return value, pullback(1.0, keep=False)

    return with_grad


def _primal(value: Any) -> Any:
    """Return the part of a value that is differentiated: all of it but statistics."""
    return value[0] if isinstance(value, tuple) else value


def _wanted(op: Op, wrt: Iterable[str] | None) -> tuple[str, ...]:
    if wrt is None:
        return op.differentiable
    names = (wrt,) if isinstance(wrt, str) else tuple(dict.fromkeys(wrt))
    for name in names:
        if name not in op.differentiable:
            raise ValueError(f"wrt: {op.name} has no gradient for {name!r}; it has for {', '.join(op.differentiable)}")
    return names


@functools.cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    import inspect  # 20 ms that a plain call does not need

    return inspect.signature(function)


@functools.cache
def _gradients_type(op: str, names: tuple[str, ...]) -> Callable[..., Any]:
    return namedtuple(f"{op}_gradients", names)  # noqa: PYI024
