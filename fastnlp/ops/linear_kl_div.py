"""`linear_kl_div`: the divergence of a linear classifier from a teacher, their logits a chunk of rows at a time.

A backend provides ``least_workspace(features, teacher_features, classes, itemsize, gradients)``,
``forward(x, weight, bias, teacher, objective, kept, loss, workspace, blas)`` and
``gradient(x, weight, bias, teacher, objective, kept, scale, loss, dx, dweight, dbias, workspace, blas)``. Arrays of
rows keep their full length; kernels gather a chunk of the rows `kept` at a time and write results where those stand.
On a GPU labels tell which rows count, too, and `kept` is None unless others are to be dropped.
With ``alpha=1``, the kernels are those of `linear_cross_entropy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._blas import chosen
from fastnlp._checks import flag, integer, positive
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable
from fastnlp.ops._batch_rows import BatchRows, batch_rows, mean_of, summed
from fastnlp.ops._criterion import Criterion
from fastnlp.ops._loss_rows import scaled
from fastnlp.ops.linear import Gradients, LinearArguments, linear_arguments
from fastnlp.ops.linear_cross_entropy import default_workspace, within_memory
from fastnlp.ops.softmax import inverse_temperature
from fastnlp.ops.softmax_kl_div import checked_beta, checked_reduction

_NAMES = ("input", "linear_weight", "linear_bias")


class Teacher(NamedTuple):
    """What the student's distribution is held against: one of the three, the others None."""

    linear: LinearArguments | None  # x (N, E), weight (V, E), bias (V,) or None
    logits: Array | None  # (N, V)
    probabilities: Array | None  # (N, V), not required to sum to one; temperature does not apply

    def ready(self) -> Teacher:
        """Return it as kernels take it."""
        return self if self.linear is None else self._replace(linear=self.linear.ready())


class Objective(NamedTuple):
    """The loss of a row: ``soft * D_beta(P || Q) + hard * cross-entropy(z, label)``."""

    beta: float
    scale: float  # 1 / temperature, of the logits in P and Q
    soft: float
    hard: float
    labels: Array | None  # (N,) int64; None where hard is 0. On a GPU: always, -1 where a row does not count


class _Plan(NamedTuple):
    kernels: ModuleType
    args: LinearArguments
    teacher: Teacher
    objective: Objective
    rows: BatchRows
    workspace: int | None
    blas: str

    @property
    def hard_only(self) -> bool:
        """Whether the divergence has no part in the loss; an infinite one has none then, either."""
        return self.objective.hard == 1

    def budget(self, gradients: bool) -> int:
        """Return the bytes for temporaries.

        Raises
        ------
        ValueError
            The caller's workspace does not hold one row.
        """
        classes, features = self.args.weight.shape
        linear, item = self.teacher.linear, self.args.x.itemsize
        if self.hard_only:
            least = self.kernels.least_workspace(self.rows.counted, features, classes, item, gradients)
        else:
            teacher_features = 0 if linear is None else linear.x.shape[1]
            least = self.kernels.least_workspace(features, teacher_features, classes, item, gradients)
        if self.workspace is None:
            logits = classes if linear is None or self.hard_only else 2 * classes
            return max(default_workspace(self.args.x, self.rows.counted, logits, gradients), least)
        if self.workspace < least:
            raise ValueError(
                f"workspace must be at least {least} bytes to hold a row of {classes} logits of student and teacher, "
                f"got {self.workspace}"
            )
        return self.workspace

    def run(self, wrt: frozenset[str], upstream: Array | None) -> tuple[Array, tuple[Array | None, ...]]:
        """Return the losses of all rows, and the gradients wanted for the upstream gradients (N,), from one pass."""
        budget = self.budget(bool(wrt))
        with within_memory(self.args.x, budget):
            return self._run(wrt, upstream, budget)

    def _run(self, wrt: frozenset[str], upstream: Array | None, budget: int) -> tuple[Array, tuple[Array | None, ...]]:
        (x, weight, bias), kept, dtype = self.args.ready()[:3], self.rows.kept(), _arrays.wide(self.args.x)
        loss = _arrays.zeros(x.shape[0], dtype, x)
        compared: tuple[Any, ...] = (self.teacher.ready(), self.objective)
        told: tuple[Array | None, ...] = (loss,)
        scales: tuple[Array | None, ...] = (upstream,)
        if self.hard_only:
            compared = (Criterion(self.objective.labels, None, None, 0.0, 1.0, None),)
            told = (loss, _arrays.empty(x.shape[0], dtype, x), None)
            scales = (upstream, None)
        if not wrt:
            self.kernels.forward(x, weight, bias, *compared, kept, *told, budget, self.blas)
            return loss, ()
        grads = Gradients.wanted(self.args, wrt, _NAMES, some_rows=kept is not None)
        self.kernels.gradient(x, weight, bias, *compared, kept, *scales, *told, *grads, budget, self.blas)
        return loss, grads.shaped(self.args)


def _plan(
    input: Any,
    linear_weight: Any,
    target_input: Any = None,
    target_weight: Any = None,
    *,
    linear_bias: Any = None,
    target_bias: Any = None,
    target_logits: Any = None,
    target_probs: Any = None,
    temperature: float = 1.0,
    beta: float = 0.0,
    scale_by_t2: bool = False,
    labels: Any = None,
    alpha: float = 0.0,
    ignore_index: int | None = -100,
    token_weight: Any = None,
    reduction: str = "batchmean",
    workspace: int | None = None,
    deterministic: bool | None = None,
    compact: bool = False,
    num_valid: int | None = None,
    backend: str | None = None,
    blas: str = "numpy",
) -> _Plan:
    arrays = (input, linear_weight, linear_bias, target_input, target_weight, target_bias, target_logits, target_probs)
    alpha = positive("alpha", alpha, or_zero=True)
    if alpha > 1:
        raise ValueError(f"alpha must be within [0, 1], got {alpha}")
    if alpha and labels is None:
        raise ValueError(f"alpha={alpha} mixes in the cross-entropy with labels, which are not given")
    op = "linear_cross_entropy" if alpha == 1 else "linear_kl_div"
    kernels = kernels_for(op, backend, *arrays, labels, token_weight)
    args = linear_arguments(input, linear_weight, linear_bias, _NAMES)
    teacher = _teacher(args, target_input, target_weight, target_bias, target_logits, target_probs)
    scale = inverse_temperature(temperature, _arrays.wide(args.x))
    factor = scale**-2 if flag("scale_by_t2", scale_by_t2) else 1.0
    if workspace is not None:
        workspace = integer("workspace", workspace, least=1, most=None)
    if labels is not None and ignore_index is not None:
        ignore_index = integer("ignore_index", ignore_index, least=-(2**63), most=2**63 - 1)
    beta, reduction, blas = checked_beta(beta), checked_reduction(reduction), chosen(blas, deterministic)
    rows = batch_rows(
        args.shape[:-1],
        args.weight.shape[0],
        args.x,
        reduction=reduction,
        labels=labels,
        ignore_index=ignore_index,
        token_weight=token_weight,
        compact=compact,
        num_valid=num_valid,
    )
    soft = (1 - alpha) * factor if alpha < 1 else 0.0
    needed = alpha or _arrays.on_device(args.x)
    objective = Objective(beta, scale, soft, alpha, rows.labels if needed else None)
    return _Plan(kernels, args, teacher, objective, rows, workspace, blas)


def _teacher(args: LinearArguments, hidden: Any, weight: Any, bias: Any, logits: Any, probabilities: Any) -> Teacher:
    """Check the one teacher that is given, against the student's rows, classes and dtype."""
    given = [hidden is not None or weight is not None, logits is not None, probabilities is not None]
    if sum(given) != 1:
        raise ValueError(
            "give one teacher: target_input with target_weight, target_logits, or target_probs; "
            f"got {sum(given)} of the three"
        )
    rows, classes = args.shape[:-1], args.weight.shape[0]
    if given[0]:
        if hidden is None or weight is None:
            raise ValueError("target_input and target_weight come together: one of them is not given")
        linear = linear_arguments(hidden, weight, bias, ("target_input", "target_weight", "target_bias"))
        if linear.x.dtype != args.x.dtype:
            raise TypeError(
                f"target_input is {linear.x.dtype.name}, but {args.x.dtype.name} is wanted: "
                "convert one with .astype(...)"
            )
        if linear.shape[:-1] != rows or linear.weight.shape[0] != classes:
            raise ValueError(
                f"the teacher must have the student's rows and classes, {rows} and {classes}, "
                f"got {linear.shape[:-1]} and {linear.weight.shape[0]}"
            )
        return Teacher(linear, None, None)
    if bias is not None:
        raise ValueError("target_bias belongs to target_input and target_weight, which are not given")
    name = "target_logits" if given[1] else "target_probs"
    array = _arrays.floating(name, logits if given[1] else probabilities, like=args.x)
    if array.shape != args.output_shape:
        raise ValueError(f"{name} must have shape {args.output_shape}, got {array.shape}")
    array = _arrays.as_rows(array)
    if given[1]:
        return Teacher(None, array, None)
    if not _arrays.on_device(array) and array.size and _has_nan(array):
        raise ValueError("target_probs holds NaN")
    return Teacher(None, None, array)


def _has_nan(x: Array) -> bool:
    return bool(np.isnan(x.sum(dtype=np.float64)) and np.isnan(x).any())


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Any, Saved]:
    plan.budget(bool(wrt))  # what the backward of "none" will need is refused here, too
    rows, dtype = plan.rows, _arrays.wide(plan.args.x)
    fused = wrt if rows.reduction != "none" else NOTHING
    loss, grads = plan.run(fused, summed(rows).scales(1.0, dtype)[0] if fused else None)
    return rows.reduce(loss, loss), grads


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dloss: Any) -> tuple[Array | None, ...]:
    if not wrt:
        return (None, None, None)
    rows, dtype = plan.rows, _arrays.wide(plan.args.x)
    if rows.reduction == "none":
        saved, factor = plan.run(wrt, rows.scales(dloss, dtype)[0])[1], 1.0
    else:
        factor = mean_of(rows, dloss)
    return tuple(scaled(grad, factor, dtype) for grad, dtype in zip(saved, plan.args.dtypes, strict=True))


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    if args["reduction"] == "none":
        return (Output(tuple(args["input"].shape[:-1])),)
    if not wrt:
        return (Output(()),)
    return (Output(()), *(Output(tuple(args[name].shape) if name in wrt else (0,)) for name in _NAMES))


@differentiable(*_NAMES, plan=_plan, forward=_forward, backward=_backward, outputs=_outputs)
def linear_kl_div(
    input: Any,
    linear_weight: Any,
    target_input: Any = None,
    target_weight: Any = None,
    *,
    linear_bias: Any = None,
    target_bias: Any = None,
    target_logits: Any = None,
    target_probs: Any = None,
    temperature: float = 1.0,
    beta: float = 0.0,
    scale_by_t2: bool = False,
    labels: Any = None,
    alpha: float = 0.0,
    ignore_index: int | None = -100,
    token_weight: Any = None,
    reduction: str = "batchmean",
    workspace: int | None = None,
    deterministic: bool | None = None,
    compact: bool = False,
    num_valid: int | None = None,
    backend: str | None = None,
) -> Any:
    """Distillation loss of a linear classifier: its divergence from a teacher, the logits within a budget of bytes.

    With the student's logits ``z = x W' + b``, ``Q = softmax(z / temperature)``, and the teacher's P, a row's loss is

        ``(1 - alpha) D_beta(P || Q) + alpha cross_entropy(z, label)``

    where D is that of `softmax_kl_div`: KL(P || Q), KL(Q || P), or generalised Jensen-Shannon; the temperature applies
    to D alone (Hinton et al., 2015). The loss and all gradients of a scalar loss come from one pass over chunks of
    rows: four GEMMs, one of them the teacher's. Rows that count for nothing are dropped before the first. The teacher
    gets no gradient.

    Parameters
    ----------
    input
        x, ``(..., D)``, float32 or float64 (float16 and bfloat16 are computed in float32).
    linear_weight
        W, ``(V, D)``, any strides.
    target_input, target_weight
        The teacher's hidden states ``(..., E)`` and weight ``(V, E)``; E need not be D.
    linear_bias, target_bias
        Biases ``(V,)`` of student and teacher, or None.
    target_logits
        In the place of hidden states: the teacher's logits, ``(..., V)``.
    target_probs
        Or its probabilities, ``(..., V)``, taken as they are, without temperature; they need not sum to one.
    temperature
        Above 0; divides the logits of both in D.
    beta
        Within [0, 1]; 0 is KL(P || Q), 1 is KL(Q || P).
    scale_by_t2
        Multiply D by temperature squared.
    labels
        Class indices ``(...)``, of any integer dtype, in ``[0, V)`` or `ignore_index`.
    alpha
        Within [0, 1]: the share of the cross-entropy with `labels`. With 1 the divergence is not computed.
    ignore_index
        Rows with this label count for nothing and cost nothing (on a GPU: see `compact`). None: no row is ignored.
    token_weight
        Weights of the rows ``(...)``, 0 or more, which multiply their losses; a row of weight 0 costs nothing.
    reduction
        "batchmean" over the rows that count, "sum", or "none" for one loss a row, ``(...)``. With "none" the gradient
        computes the logits a second time.
    workspace
        Bytes for temporaries; default 48 MiB, on a GPU 1 GiB, or what one row takes. Fewer make smaller chunks, at the
        cost of time.
    deterministic
        True: the same bits for any number of threads, of this library and of the BLAS. False: for given numbers of
        threads. None: as `use_deterministic` says.
    compact, num_valid
        On a GPU, to drop rows that do not count, as in `linear_cross_entropy`.
    backend
        "reference", "cpu" or "cuda"; default: by the arrays.

    Returns
    -------
    scalar or array
        The loss, in nats, float32 or better. With "batchmean" and no row that counts: NaN (the gradients are zero).

    Raises
    ------
    TypeError
        Floating arguments of different or other dtypes, labels that are not of an integer dtype, or options of a wrong
        type.
    ValueError
        Shapes that do not fit, no teacher or more than one, a label or option out of range, an `alpha` without labels,
        or a workspace that does not hold one row.
    """
    plan = _plan(
        input,
        linear_weight,
        target_input,
        target_weight,
        linear_bias=linear_bias,
        target_bias=target_bias,
        target_logits=target_logits,
        target_probs=target_probs,
        temperature=temperature,
        beta=beta,
        scale_by_t2=scale_by_t2,
        labels=labels,
        alpha=alpha,
        ignore_index=ignore_index,
        token_weight=token_weight,
        reduction=reduction,
        workspace=workspace,
        deterministic=deterministic,
        compact=compact,
        num_valid=num_valid,
        backend=backend,
    )
    return _arrays.given_back(_forward(plan, NOTHING)[0])
