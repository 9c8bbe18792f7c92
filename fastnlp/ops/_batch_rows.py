"""What the divergences of softmaxes share: which rows count, and how their losses are reduced.

    batchmean    factor sum u_n l_n / (how many rows count)
    sum          factor sum u_n l_n
    none         factor u_n l_n

A row counts if its label, where there are labels, is not ignored, and its token weight u is not zero.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._checks import flag, integer
from fastnlp.ops._loss_rows import token_weights


class BatchRows(NamedTuple):
    """A batch of rows on the CPU; those on a GPU are `DeviceRows`, which have what is used of this."""

    n: int
    counted: int  # how many rows count
    indices: Array | None  # (K,) those that count; None: all
    labels: Array | None  # (N,) int64, -1 where a row does not count
    token_weight: Array | None  # (N,) float64
    factor: float
    reduction: str
    shape: tuple[int, ...]  # of the loss with reduction "none"

    def kept(self) -> Array | None:
        """Return the indices of the rows that count, or None if all do."""
        return self.indices

    def scales(self, dloss: Any, dtype: np.dtype[Any]) -> tuple[Array, None]:
        """Return the factors of l_n in the reduced loss times its upstream gradient: (N,), and None."""
        if self.reduction == "none":
            each = np.asarray(dloss, np.float64).reshape(-1) * self.factor
        else:
            rows = max(self.counted, 1) if self.reduction == "batchmean" else 1
            each = np.full(self.n, float(dloss) * self.factor / rows)
        return (each if self.token_weight is None else each * self.token_weight).astype(dtype), None

    def reduce(self, loss: Array, lse: Any) -> Any:
        """Reduce the losses of the rows; float32 or better. The mean over no row is NaN. `lse` is not read."""
        u, factor = self.token_weight, self.factor
        if self.reduction == "none":
            loss = loss if u is None else (loss * u).astype(loss.dtype)
            return (loss if factor == 1 else loss * loss.dtype.type(factor)).reshape(self.shape)[()]
        total = np.add.reduce(loss, dtype=np.float64) if u is None else np.dot(loss.astype(np.float64), u)
        total *= factor
        if self.reduction == "batchmean":
            total = total / self.counted if self.counted else np.nan
        return loss.dtype.type(total)


def batch_rows(
    shape: tuple[int, ...],
    classes: int,
    like: Array,
    *,
    reduction: str,
    factor: float = 1.0,
    labels: Any = None,
    ignore_index: int | None = None,
    token_weight: Any = None,
    compact: bool = False,
    num_valid: int | None = None,
) -> Any:
    """Check labels and token weights of rows of `shape`, and find out which rows count, beside `like`.

    Raises
    ------
    TypeError
        Labels that are not of an integer dtype, or weights that are not numbers.
    ValueError
        Shapes that do not fit, a label out of range, a weight that is negative or not finite, or a wrong `num_valid`.
    """
    n = prod(shape)
    if compact is not False:
        compact = flag("compact", compact)
    if num_valid is not None:
        num_valid = integer("num_valid", num_valid, least=0, most=n)
    if _arrays.on_device(like):
        if labels is not None:
            labels = _arrays.read("labels", labels)
            _arrays.check_class_indices("labels", labels, shape)
        if token_weight is not None:
            token_weight = token_weights(token_weight, shape)
        dropping = compact, num_valid
        return _on_device(shape, classes, like, reduction, factor, labels, ignore_index, token_weight, *dropping)
    counts: Any = None
    if labels is not None:
        labels = _arrays.class_indices("labels", labels, shape=shape, classes=classes, ignore_index=ignore_index)[0]
        labels = _arrays.kernel_ready(labels)
        counts = labels >= 0
    if token_weight is not None:
        token_weight = token_weights(token_weight, shape)
        counts = token_weight != 0 if counts is None else counts & (token_weight != 0)
    indices = None if counts is None or counts.all() else np.flatnonzero(counts)
    counted = n if indices is None else len(indices)
    if num_valid is not None and num_valid != counted:
        raise ValueError(f"num_valid must be the number of rows that count, {counted}, got {num_valid}")
    return BatchRows(n, counted, indices, labels, token_weight, factor, reduction, shape)


def summed(rows: Any) -> Any:
    """Return the rows of whose loss the gradient is computed before its upstream gradient is known.

    On a GPU that is the sum, of which `mean_of` makes the mean: gradients of logits in 16 bits would vanish if they
    were divided by thousands of rows.
    """
    return rows._replace(reduction="sum") if _mean_later(rows) else rows


def mean_of(rows: Any, dloss: Any) -> Any:
    """Return the factor of a gradient of `summed` rows: the upstream gradient, divided by what is left to divide by."""
    if not _mean_later(rows):
        return dloss
    one = rows._replace(n=1, labels=rows.library.zeros(1, np.int64), token_weight=None)
    return one.scales(dloss, np.float32)[0].reshape(())


def _mean_later(rows: Any) -> bool:
    """Tell whether the mean can be taken last: rows are on a GPU, and all terms are divided by the same."""
    if not hasattr(rows, "tally") or rows.reduction != "mean":
        return False
    return not rows.z_loss or rows.criterion.class_weight is None


def _on_device(
    shape: tuple[int, ...],
    classes: int,
    like: Any,
    reduction: str,
    factor: float,
    labels: Any,
    ignore_index: int | None,
    token_weight: Any,
    compact: bool,
    num_valid: int | None,
) -> Any:
    """Return `DeviceRows` whose mean is one over rows, not over their weights."""
    from fastnlp.ops._device_rows import count_again, device_rows

    rows = device_rows(
        shape,
        classes if labels is not None else 1,  # without labels all are taken to be of class 0
        like,
        labels,
        like if labels is None else None,  # what says that there are no labels
        None,
        ignore_index,
        "mean" if reduction == "batchmean" else reduction,
        0.0,
        1.0,
        None,
        0.0,
        token_weight,
        False,
        compact,
        num_valid,
    )
    if token_weight is not None:
        rows = count_again(rows, classes)
    if factor != 1.0:
        assert token_weight is None
        rows = rows._replace(token_weight=like.library.full(rows.n, factor, np.float32))
    return rows
