"""`linear_cross_entropy`: the loss of a linear classifier, its logits a part at a time.

A backend provides ``forward(x, weight, bias, criterion, kept, loss, lse, stats, workspace, blas)`` and
``gradient(x, weight, bias, criterion, kept, scale, lse_scale, loss, lse, stats, dx, dweight, dbias, workspace, blas)``
with temporaries of at most `workspace` bytes, and ``least_workspace(rows, features, classes, itemsize, gradients)``.
Arrays of rows have their full length; kernels visit only the rows `kept`, the others are zero already.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, NamedTuple

from fastnlp import _arrays, _device
from fastnlp._arrays import Array
from fastnlp._blas import chosen
from fastnlp._checks import integer
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable
from fastnlp.ops._batch_rows import mean_of, summed
from fastnlp.ops._criterion import LossStats, Stats, stats_outputs
from fastnlp.ops._loss_rows import Rows, rows_of, scaled
from fastnlp.ops.linear import Gradients, LinearArguments, linear_arguments

WORKSPACE = 48 << 20
"""Default bytes for temporaries: 390 rows of 32,000 float32 logits, near the cache and enough for a GEMM."""

DEVICE_WORKSPACE = 1 << 30
"""The same on a GPU: 4,096 rows of 131,072 logits of 16 bits, enough for cuBLAS and for the weights' gradient."""

_ENOUGH_ROWS, _ALIGNED = 1024, 8  # classes that a row of logits is rounded up to
_NAMES = ("input", "linear_weight", "linear_bias")


def default_workspace(x: Array, rows: int, classes: int, gradients: bool) -> int:
    """Return the default bytes for the temporaries of a batch that lives where `x` does.

    On a GPU the weights' gradient is read and written with each chunk, so that chunks of fewer than 1,024 rows would
    wait for memory.
    """
    if not _arrays.on_device(x):
        return WORKSPACE
    enough = min(rows, _ENOUGH_ROWS) * (classes + _ALIGNED) * x.itemsize if gradients else 0
    return max(DEVICE_WORKSPACE, enough)


def within_memory(x: Array, workspace: int) -> AbstractContextManager[None]:
    """Let a GPU that has no more memory in here name the option that takes less; on a CPU nothing is done."""
    if not _arrays.on_device(x):
        return nullcontext()
    remedy = f"{workspace:,} bytes are for logits: a smaller workspace= takes less, at the cost of time"
    return _device.of(x).library.memory_errors(remedy)


class _Plan(NamedTuple):
    kernels: ModuleType
    args: LinearArguments
    rows: Rows
    workspace: int | None
    blas: str

    def budget(self, gradients: bool) -> int:
        """Return the bytes for temporaries."""
        classes, features = self.args.weight.shape
        least = self.kernels.least_workspace(self.rows.counted, features, classes, self.args.x.itemsize, gradients)
        if self.workspace is None:
            return max(default_workspace(self.args.x, self.rows.counted, classes, gradients), least)
        if self.workspace < least:
            raise ValueError(
                f"workspace must be at least {least} bytes for {classes} classes of {features} features "
                f"{'with' if gradients else 'without'} gradients, got {self.workspace}"
            )
        return self.workspace

    def run(
        self, wrt: frozenset[str], dloss: Any, stats: Stats | None
    ) -> tuple[Array, Array, tuple[Array | None, ...]]:
        """Return the losses and the log-sum-exps of all rows, and the gradients wanted, from one pass."""
        with within_memory(self.args.x, self.budget(bool(wrt))):
            return self._run(wrt, dloss, stats)

    def _run(
        self, wrt: frozenset[str], dloss: Any, stats: Stats | None
    ) -> tuple[Array, Array, tuple[Array | None, ...]]:
        (x, weight, bias), rows = self.args.ready()[:3], self.rows
        kept = rows.kept()
        make, dtype = _arrays.empty if kept is None else _arrays.zeros, _arrays.wide(x)
        loss, lse = make(len(x), dtype, x), make(len(x), dtype, x)
        if not wrt:
            budget = self.budget(False)
            self.kernels.forward(x, weight, bias, rows.criterion, kept, loss, lse, stats, budget, self.blas)
            return loss, lse, ()
        grads = Gradients.wanted(self.args, wrt, _NAMES, some_rows=kept is not None)
        scale, lse_scale = summed(rows).scales(dloss, dtype)
        self.kernels.gradient(
            x,
            weight,
            bias,
            rows.criterion,
            kept,
            scale,
            lse_scale,
            loss,
            lse,
            stats,
            *grads,
            self.budget(True),
            self.blas,
        )
        return loss, lse, grads.shaped(self.args)


def _plan(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    token_weight: Any = None,
    workspace: int | None = None,
    deterministic: bool | None = None,
    return_stats: bool = False,
    compact: bool = False,
    num_valid: int | None = None,
    backend: str | None = None,
    blas: str = "numpy",
) -> _Plan:
    arrays = (input, linear_weight, target, linear_bias, weight, token_weight)
    kernels = kernels_for("linear_cross_entropy", backend, *arrays)
    args = linear_arguments(input, linear_weight, linear_bias, _NAMES)
    if workspace is not None:
        workspace = integer("workspace", workspace, least=1, most=None)
    blas = chosen(blas, deterministic)
    rows = rows_of(
        args.shape[:-1],
        args.weight.shape[0],
        args.x,
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
        compact,
        num_valid,
    )
    return _Plan(kernels, args, rows, workspace, blas)


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Any, Saved]:
    fused = wrt if plan.rows.reduction != "none" else NOTHING
    plan.budget(bool(wrt))  # what the backward of "none" will need is refused here, too
    stats = plan.rows.wanted_stats(_arrays.wide(plan.args.x))
    loss, lse, grads = plan.run(fused, 1.0, stats)
    return plan.rows.reduce(loss, lse, stats), grads


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dloss: Any) -> tuple[Array | None, ...]:
    if not wrt:
        return (None, None, None)
    if plan.rows.reduction == "none":
        saved, factor = plan.run(wrt, dloss, None)[2], 1.0
    else:
        factor = mean_of(plan.rows, dloss)
    return tuple(scaled(grad, factor, dtype) for grad, dtype in zip(saved, plan.args.dtypes, strict=True))


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    shape = tuple(args["input"].shape)[:-1]
    stats = stats_outputs(args, shape)
    if args["reduction"] == "none":
        return (Output(shape), *stats)
    if not wrt:
        return (Output(()), *stats)
    return (Output(()), *stats, *(Output(args[name].shape if name in wrt else (0,)) for name in _NAMES))


@differentiable(*_NAMES, plan=_plan, forward=_forward, backward=_backward, outputs=_outputs, statistics=LossStats)
def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    token_weight: Any = None,
    workspace: int | None = None,
    deterministic: bool | None = None,
    return_stats: bool = False,
    compact: bool = False,
    num_valid: int | None = None,
    backend: str | None = None,
) -> Any:
    """Cross-entropy of a linear classifier: ``cross_entropy(x W' + b, target)``, the logits within a budget of bytes.

    The loss and all gradients of a scalar loss come from one pass over the rows: three GEMMs (6 N C D flops), one
    exponential a logit. Rows that do not count (ignored, of token weight zero) are dropped before the first.

    Parameters
    ----------
    input
        x, ``(..., D)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    linear_weight
        W, ``(C, D)``, any strides.
    target
        Class indices ``(...)`` of any integer dtype, in ``[0, C)`` or `ignore_index`; or distributions ``(..., C)`` of
        the input's dtype.
    linear_bias
        b, ``(C,)``, or None.
    weight
        Class weights, ``(C,)``, as in `cross_entropy`.
    ignore_index
        Rows with this target count for nothing and cost nothing. None: no row is ignored.
    reduction
        "mean" over the rows that count, "sum", or "none" for one loss a row, ``(...)``. With "none" the gradient
        computes the logits a second time.
    label_smoothing, temperature, softcap, z_loss, token_weight
        As in `cross_entropy`.
    workspace
        Bytes for temporaries; default 48 MiB, or what one row takes. Fewer make smaller chunks, at the cost of time.
    deterministic
        True: the same bits for any number of threads, of this library and of the BLAS. False: for given numbers of
        threads. None: as `use_deterministic` says.
    return_stats
        True: return ``(loss, stats)``, as in `cross_entropy`.
    compact
        On a GPU, rows that do not count go through the matrix products with the others, for the host does not know
        which they are. True: drop them beforehand; the host waits for the GPU to know how many are left (not within a
        CUDA graph). On a CPU they are dropped always.
    num_valid
        How many rows count, where the caller knows: they are dropped without waiting.
    backend
        "reference", "cpu" or "cuda"; default: by the arrays.

    Returns
    -------
    scalar or array, or a pair of it and a LossStats
        The loss, in nats, float32 or better. With "mean" and no row that counts: NaN, as in PyTorch (the gradients are
        zero).

    Raises
    ------
    TypeError
        Floating arguments of different or other dtypes, a target of neither an integer nor a floating dtype, or an
        option of another type.
    ValueError
        Shapes that do not fit, a target out of range or not finite, weights that are negative or not finite, an option
        out of its range, an unknown reduction, or a workspace that does not hold one row.
    """
    plan = _plan(
        input,
        linear_weight,
        target,
        linear_bias=linear_bias,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        temperature=temperature,
        softcap=softcap,
        z_loss=z_loss,
        token_weight=token_weight,
        workspace=workspace,
        deterministic=deterministic,
        return_stats=return_stats,
        compact=compact,
        num_valid=num_valid,
        backend=backend,
    )
    return _arrays.given_back(_forward(plan, NOTHING)[0])
