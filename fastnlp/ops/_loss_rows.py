"""Rows beside their targets: the checks of what a cross-entropy is given, which rows count, the reduction.

What is compared and what is told of each row: ``_criterion.py``. Of arrays on a GPU: ``_device_rows.py``.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import flag, integer, positive
from fastnlp.ops import _device_rows
from fastnlp.ops._criterion import REDUCTIONS, Criterion, LossStats, Stats


class Rows(NamedTuple):
    """A batch of rows: what they are compared with, and how their losses are reduced."""

    criterion: Criterion
    counted: int  # how many rows count
    token_weight: Array | None  # (N,) float64; None: all one
    z_loss: float
    reduction: str
    return_stats: bool
    shape: tuple[int, ...]  # of the loss with reduction "none"
    total: float  # what a sum of losses is divided by with "mean"
    tokens: float  # what a sum of squared lse is divided by with "mean"

    @property
    def n(self) -> int:
        """How many rows there are."""
        target = self.criterion.target
        return len(self.criterion.probabilities if target is None else target)  # type: ignore[arg-type]

    def kept(self) -> Array | None:
        """Return the indices of the rows that count, or None if all do."""
        if self.counted == self.n:
            return None
        target, u = self.criterion.target, self.token_weight
        return np.flatnonzero(target >= 0 if target is not None else u != 0)

    def scales(self, dloss: Any, dtype: np.dtype[Any]) -> tuple[Array, Array | None]:
        """Return the factors of l_n and lse_n^2 in the reduced loss times its upstream gradient: (N,), (N,) or None."""
        u, z_loss = self.token_weight, self.z_loss
        if self.reduction == "none":
            scale = np.asarray(dloss).reshape(-1)
            scale = scale if u is None else scale * u
            return np.ascontiguousarray(scale, dtype), (scale * z_loss).astype(dtype) if z_loss else None
        mean, factor = self.reduction == "mean", float(dloss)
        one = factor / self.total if mean and self.total else 0.0 if mean else factor
        squared = factor * z_loss / self.tokens if mean and self.tokens else factor * z_loss
        if u is None:
            return np.full(self.n, one, dtype), np.full(self.n, squared, dtype) if z_loss else None
        return (u * one).astype(dtype), (u * squared).astype(dtype) if z_loss else None

    def reduce(self, loss: Array, lse: Array, stats: Stats | None = None) -> Any:
        """Reduce the losses of the rows; float32 or better. The mean over no row is NaN, as in PyTorch."""
        u, z_loss = self.token_weight, self.z_loss
        squared: Any = 0.0
        if self.reduction == "none":
            if u is not None:
                loss = (loss * u).astype(loss.dtype)
            if z_loss:
                squared = z_loss * np.square(lse, dtype=np.float64)
                squared = squared if u is None else squared * u
                loss = (loss + squared).astype(loss.dtype)
            value = loss.reshape(self.shape)
        else:
            if u is not None:
                total = np.dot(loss, u)
            else:  # of few rows a list is the faster sum
                total = np.add.reduce(loss, 0, np.float64) if loss.size > 64 else sum(loss.tolist())
            if z_loss:
                squares = np.square(lse, dtype=np.float64)
                squared = z_loss * (np.add.reduce(squares) if u is None else np.dot(squares, u))
            if self.reduction == "mean":
                total = _ratio(total, self.total)
                squared = _ratio(squared, self.tokens) if z_loss else squared
            value = loss.dtype.type(total + squared)
        return value if stats is None else (value, self._told(loss.dtype, lse, stats, squared))

    def wanted_stats(self, dtype: np.dtype[Any]) -> Stats | None:
        """Allocate what kernels are to tell of each row, if it is wanted."""
        return Stats.zeros(self.n, dtype) if self.return_stats else None

    def zero_uncounted(self, *arrays: Array | None) -> None:
        """Zero what kernels wrote for rows that do not count, where only the token weights say which they are."""
        if self.criterion.target is None and self.counted < self.n:
            for array in arrays:
                if array is not None:
                    array[self.token_weight == 0] = -1 if array.dtype.kind == "i" else 0

    def _told(self, dtype: np.dtype[Any], lse: Array, stats: Stats, squared: Any) -> LossStats:
        criterion = self.criterion
        if criterion.target is not None:
            hits = np.count_nonzero((stats.argmax == criterion.target) & (stats.argmax >= 0))
        else:
            assert criterion.probabilities is not None
            best = np.argmax(criterion.probabilities, axis=1) if criterion.probabilities.size else -2
            hits = np.count_nonzero(stats.argmax == best)
        accuracy = dtype.type(hits / self.counted if self.counted else np.nan)
        if self.reduction == "none":
            z_loss = np.broadcast_to(np.asarray(squared, dtype), self.n).reshape(self.shape)
        else:
            z_loss = dtype.type(squared)
        lse, nll, entropy, argmax = (array.reshape(self.shape) for array in (lse, *stats))
        return LossStats(lse, nll, entropy, argmax, accuracy, np.int64(self.counted), z_loss)


def _ratio(total: Any, count: float) -> Any:
    """Return total / count as IEEE 754 has it, without a warning."""
    if count:
        return total / count
    return np.float64(np.copysign(np.inf, total) if abs(total) > 0 else np.nan)


def rows_of(
    shape: tuple[int, ...],
    classes: int,
    like: Array,
    target: Any,
    weight: Any,
    ignore_index: int | None,
    reduction: str,
    label_smoothing: float,
    temperature: float,
    softcap: float | None,
    z_loss: float,
    token_weight: Any,
    return_stats: bool,
    compact: bool = False,
    num_valid: int | None = None,
) -> Any:
    """Check what a cross-entropy is given beside its logits, rows of `shape` over `classes` in the dtype of `like`.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        Shapes that do not fit, a value out of range, or an unknown reduction.
    """
    if not (isinstance(reduction, str) and reduction in REDUCTIONS):
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if ignore_index is not None and (ignore_index != -100 or type(ignore_index) is not int):
        ignore_index = integer("ignore_index", ignore_index, least=-(2**63), most=2**63 - 1)
    if label_smoothing != 0.0 or type(label_smoothing) is not float:
        label_smoothing = positive("label_smoothing", label_smoothing, or_zero=True)
        if label_smoothing > 1:
            raise ValueError(f"label_smoothing must be within [0, 1], got {label_smoothing}")
    if temperature != 1.0 or type(temperature) is not float:
        temperature = positive("temperature", temperature)
        temperature = _representable(temperature, like)
    if softcap is not None:
        softcap = _representable(positive("softcap", softcap), like)
    if num_valid is not None:
        num_valid = integer("num_valid", num_valid, least=0, most=prod(shape))
    if compact is not False:
        compact = flag("compact", compact)
    if z_loss != 0.0 or type(z_loss) is not float:
        z_loss = positive("z_loss", z_loss, or_zero=True)
    if return_stats is not False:
        return_stats = flag("return_stats", return_stats)
    if weight is not None:
        weight = _class_weight(weight, classes, like)
    if token_weight is not None:
        token_weight = token_weights(token_weight, shape)

    indices: Array | None = None
    probabilities: Array | None = None
    given = _arrays.read("target", target)
    of_classes = given.ndim != len(shape) + 1 or (given.dtype.kind != "f" and given.dtype.name != "bfloat16")
    if _arrays.on_device(like):
        if of_classes:
            _arrays.check_class_indices("target", given, shape)
        else:
            probabilities = _probabilities(target, given, (*shape, classes), like, ignore_index)
        return _device_rows.device_rows(
            shape,
            classes,
            like,
            given,
            probabilities,
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
    if of_classes:
        indices, counted = _arrays.class_indices(
            "target", target, shape=shape, classes=classes, ignore_index=ignore_index
        )
        indices = _arrays.kernel_ready(indices)
        if token_weight is not None:
            indices, counted = _without(indices, token_weight == 0)
        valid = counted
        if weight is not None and counted and not (label_smoothing or z_loss or return_stats):
            indices, counted = _without(indices, weight[indices] == 0)
    else:
        probabilities = _probabilities(target, given, (*shape, classes), like, ignore_index)
        valid = counted = len(probabilities) if token_weight is None else int(np.count_nonzero(token_weight))
    if num_valid is not None and num_valid != valid:
        raise ValueError(f"num_valid must be the number of rows that count, {valid}, got {num_valid}")

    total: float = counted
    tokens: float = counted
    if reduction == "mean" and (weight is not None or token_weight is not None):
        counts = slice(None) if indices is None else indices >= 0
        if token_weight is not None:
            total = tokens = float(token_weight[counts].sum())
        if weight is not None and indices is not None:
            of_rows = weight[indices[counts]]
            total = float(
                of_rows.sum(dtype=np.float64) if token_weight is None else np.dot(of_rows, token_weight[counts])
            )
    criterion = Criterion(indices, probabilities, weight, label_smoothing, temperature, softcap)
    return Rows(criterion, counted, token_weight, z_loss, reduction, return_stats, shape, total, tokens)


def _representable(value: float, like: Array) -> float:
    """Return a factor or divisor of logits within what their dtype holds, so that 0 * inf does not come up."""
    least = float(np.finfo(_arrays.wide(like)).tiny)
    return min(max(value, least), 1 / least)


def _without(indices: Array, dropped: Array) -> tuple[Array, int]:
    """Return class indices without the rows that are `dropped`, and how many are left."""
    indices = np.where(dropped, -1, indices)
    return indices, int(np.count_nonzero(indices >= 0))


def _class_weight(weight: Any, classes: int, like: Array) -> Array:
    if not hasattr(weight, "dtype") and not _arrays.on_device(like):
        weight = np.asarray(_arrays.floating("weight", weight), like.dtype)
    of_any_dtype = _arrays.on_device(like)  # there it is read in float32, whatever the logits are
    weight = _arrays.kernel_ready(_arrays.floating("weight", weight, ndim=1, like=None if of_any_dtype else like))
    if len(weight) != classes:
        raise ValueError(f"weight must have shape ({classes},), one entry a class, got {weight.shape}")
    if not of_any_dtype:
        _finite("weight", weight)
    return weight


def token_weights(weight: Any, shape: tuple[int, ...]) -> Array:
    """Check weights of rows of `shape`, and return them as float64: (N,).

    Raises
    ------
    TypeError
        Not numbers.
    ValueError
        Not of `shape`, negative, or not finite.
    """
    array = _arrays.read("token_weight", weight)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"token_weight must hold numbers, got {array.dtype.name}")
    if array.shape != shape:
        raise ValueError(f"token_weight must have shape {shape}, one entry a row, got {array.shape}")
    if _arrays.on_device(array):
        return array
    array = np.ascontiguousarray(array, np.float64).reshape(-1)
    _finite("token_weight", array)
    return array


def _finite(name: str, weight: Array) -> None:
    wrong = ~((weight >= 0) & (weight < np.inf))
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"{name} must be finite, 0 or more, got {weight[at]} at {at}")


def _probabilities(target: Any, array: Array, shape: tuple[int, ...], like: Array, ignore_index: int | None) -> Array:
    """Return the distributions `target`, read as an `array`, as rows (N, V)."""
    if not hasattr(target, "dtype"):
        array = array.astype(like.dtype)
    array = _arrays.floating("target", array, like=like)
    if array.shape != shape:
        raise ValueError(f"target must have shape {shape} as a distribution, got {array.shape}")
    if ignore_index is not None and ignore_index >= 0:
        raise ValueError(
            f"ignore_index={ignore_index} names a class, but target is a distribution: "
            "leave ignore_index out, and give rows that do not count a token_weight of 0"
        )
    array = _arrays.as_rows(array)
    if _arrays.on_device(array):
        return array
    if array.size and not np.isfinite(array.sum(dtype=np.float64)) and not np.isfinite(array).all():
        raise ValueError("target holds NaN or infinite entries")
    return array


def scaled(grad: Array | None, factor: Any, dtype: np.dtype[Any]) -> Array | None:
    """Return a saved gradient times the upstream factor, a scalar, in the caller's dtype; itself where nothing changes.

    The dtype is the last to change: a factor that keeps float16 gradients from vanishing must come before.
    """
    if grad is None:
        return None
    if _arrays.on_device(grad):
        return _device_rows.scaled(grad, factor, dtype)  # type: ignore[arg-type,return-value]
    factor = float(factor)
    return (grad if factor == 1.0 else grad * grad.dtype.type(factor)).astype(dtype, copy=False)
