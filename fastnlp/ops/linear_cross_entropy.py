"""`linear_cross_entropy`: the loss of a linear classifier, its logits a chunk of rows at a time.

A backend provides ``forward(x, weight, bias, target, nll, rows, matmul)`` and
``gradient(x, weight, bias, target, scale, nll, dx, dweight, dbias, rows, block, matmul)``, which go through the batch
`rows` rows at a time, and add to dW `block` classes at a time. The rows that do not count are gone by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import integer
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable
from fastnlp.ops.cross_entropy import Rows, scaled
from fastnlp.ops.linear import Gradients, LinearArguments, linear_arguments

WORKSPACE = 48 << 20
"""Default bytes for temporaries: 390 rows of 32,000 float32 logits, near the cache and enough for a GEMM."""

_SCRATCH = 4 << 20  # of it, for the product that is added to dW
_NAMES = ("input", "linear_weight", "linear_bias")


class _Plan(NamedTuple):
    kernels: ModuleType
    args: LinearArguments
    rows: Rows
    workspace: int | None
    matmul: Callable[..., Any]

    def compact(self) -> tuple[Array, Array, Array | None]:
        """Return the input rows and targets that count, and where they stand (None: all do)."""
        if self.rows.counted == self.rows.target.size:
            return self.args.x, self.rows.target, None
        kept = np.flatnonzero(self.rows.target >= 0)
        return self.args.x[kept], self.rows.target[kept], kept

    @property
    def block(self) -> int:
        """How many classes of dW are added to at a time."""
        classes, features = self.args.weight.shape
        return max(1, min(classes, _SCRATCH // max(1, features * self.args.x.itemsize)))

    def chunk_rows(self, n: int, gradients: bool) -> int:
        """Return how many rows of `n` go through the workspace at a time, in chunks of nearly equal size."""
        classes, item = self.args.weight.shape[0], self.args.x.itemsize
        row_bytes = max(1, classes * item)
        scratch = self.block * self.args.weight.shape[1] * item if gradients else 0
        least = row_bytes + scratch
        workspace = max(WORKSPACE, least) if self.workspace is None else self.workspace
        rows = workspace // row_bytes
        if rows < n:
            rows = (workspace - scratch) // row_bytes
        if rows < 1:
            raise ValueError(
                f"workspace must be at least {least} bytes to hold a row of {classes} logits, got {workspace}"
            )
        chunks = max(1, -(-n // rows))
        return max(1, -(-n // chunks))

    def run(self, wrt: frozenset[str], dloss: Any) -> tuple[Array, tuple[Array | None, ...]]:
        """Return the losses of all rows, and the gradients wanted, from one pass."""
        x, target, kept = self.compact()
        rows = self.chunk_rows(len(x), bool(wrt))
        args = self.args._replace(x=x)
        nll = _arrays.empty(len(x), x.dtype, x)
        if not wrt:
            self.kernels.forward(x, args.weight, args.bias, target, nll, rows, self.matmul)
            return self._spread(nll, kept), ()
        scale = self.rows.scale(dloss, x.dtype)
        scale = scale if kept is None else scale[kept]
        grads = Gradients.wanted(args, wrt, _NAMES)
        self.kernels.gradient(x, args.weight, args.bias, target, scale, nll, *grads, rows, self.block, self.matmul)
        if grads.input is not None:
            grads = grads._replace(input=self._spread(grads.input, kept))
        return self._spread(nll, kept), grads.shaped(self.args)

    def _spread(self, counted: Array, kept: Array | None) -> Array:
        """Put the results of the rows that count where they stand, zeros elsewhere."""
        if kept is None:
            return counted
        spread = np.zeros((self.rows.target.size, *counted.shape[1:]), counted.dtype)
        spread[kept] = counted
        return spread


def _plan(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    workspace: int | None = None,
    backend: str | None = None,
    matmul: Callable[..., Any] = np.matmul,
) -> _Plan:
    kernels = kernels_for("linear_cross_entropy", backend, input, linear_weight, target, linear_bias)
    args = linear_arguments(input, linear_weight, linear_bias, _NAMES)
    if workspace is not None:
        workspace = integer("workspace", workspace, least=1, most=None)
    rows = Rows.checked(target, args.shape[:-1], args.weight.shape[0], ignore_index, reduction)
    return _Plan(kernels, args, rows, workspace, matmul)


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Any, Saved]:
    fused = wrt if plan.rows.reduction != "none" else NOTHING
    plan.chunk_rows(plan.rows.counted, bool(wrt))  # what the backward of "none" will need is refused here, too
    nll, grads = plan.run(fused, 1.0)
    return plan.rows.reduce(nll), grads


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dloss: Any) -> tuple[Array | None, ...]:
    if not wrt:
        return (None, None, None)
    if plan.rows.reduction == "none":
        saved, factor = plan.run(wrt, dloss)[1], 1.0
    else:
        factor = float(dloss)
    return tuple(scaled(grad, factor, plan.args.dtype) for grad in saved)


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    if args["reduction"] == "none":
        return (Output(args["target"].shape),)
    if not wrt:
        return (Output(()),)
    return (Output(()), *(Output(args[name].shape if name in wrt else (0,)) for name in _NAMES))


@differentiable(*_NAMES, plan=_plan, forward=_forward, backward=_backward, outputs=_outputs)
def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    workspace: int | None = None,
    backend: str | None = None,
) -> Any:
    """Cross-entropy of a linear classifier: ``cross_entropy(x W' + b, target)``, the logits within a budget of bytes.

    The loss and all gradients of a scalar loss come from one pass over chunks of rows: three GEMMs (6 N C D flops), one
    exponential a logit. Rows that are ignored are dropped before the first.

    Parameters
    ----------
    input
        x, ``(..., D)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    linear_weight
        W, ``(C, D)``, any strides.
    target
        Class indices ``(...)``, of any integer dtype, in ``[0, C)`` or `ignore_index`.
    linear_bias
        b, ``(C,)``, or None.
    ignore_index
        Rows with this target count for nothing and cost nothing. None: no row is ignored.
    reduction
        "mean" over the rows that count, "sum", or "none" for one loss a row, ``(...)``. With "none" the gradient
        computes the logits a second time.
    workspace
        Bytes for temporaries; default 48 MiB, or what one row takes. Fewer make smaller chunks, at the cost of time.
    backend
        "reference", "cpu" or "cuda"; default: by the arrays.

    Returns
    -------
    scalar or array
        The loss, in nats, float32 or better. With "mean" and no row that counts: NaN, as in PyTorch (the gradients are
        zero).

    Raises
    ------
    TypeError
        Floating arguments of different or other dtypes, a target that is not of an integer dtype, or an `ignore_index`
        or `workspace` that is not an integer.
    ValueError
        Shapes that do not fit, a target out of range, an unknown reduction, or a workspace that does not hold one row.
    """
    plan = _plan(
        input,
        linear_weight,
        target,
        linear_bias=linear_bias,
        ignore_index=ignore_index,
        reduction=reduction,
        workspace=workspace,
        backend=backend,
    )
    return _forward(plan, NOTHING)[0]
