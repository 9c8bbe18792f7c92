"""The rows of a cross-entropy on a GPU: what `Rows` of ``_loss_rows.py`` is, without the host knowing a value.

Which rows count, what a mean is taken over and the reduced loss stay on the device, so nothing here waits for it. A
target that is no class makes the loss NaN; the device leaves word of it, which the next call raises.
"""

from __future__ import annotations

from math import prod
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _device_status
from fastnlp._device import DeviceArray, Library
from fastnlp.ops._criterion import Criterion, LossStats, Stats

_F32, _F64, _I64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)


class DeviceRows(NamedTuple):
    """A batch of rows on a GPU, with the attributes and the methods of `Rows`."""

    criterion: Criterion
    counted: int  # the most rows that can count
    token_weight: DeviceArray | None  # (N,) float32; None: all one
    z_loss: float
    reduction: str
    return_stats: bool
    shape: tuple[int, ...]
    n: int
    tally: DeviceArray  # (3,) float64, see ``kernels/cuda/_reduce.py``
    labels: DeviceArray  # (N,) int64, -1 where a row does not count
    indices: DeviceArray | None  # (K,) the rows that count, if they are dropped beforehand

    @property
    def library(self) -> Library:
        """What allocates and launches."""
        return self.labels.library

    def kept(self) -> DeviceArray | None:
        """Return the indices of the rows that count, or None if kernels are to skip the others."""
        return self.indices

    def scales(self, dloss: Any, dtype: Any) -> tuple[DeviceArray, DeviceArray | None]:
        """Return the factors of l_n and lse_n^2 in the reduced loss times its upstream gradient: (N,), (N,) or None."""
        reduce, library = _reduce(), self.library
        upstream = None
        if isinstance(dloss, DeviceArray):
            upstream = library.ready(dloss.astype(_F32, copy=False)).reshape(-1)
        scale = library.empty(self.n, _F32)
        lse_scale = library.empty(self.n, _F32) if self.z_loss else None
        library.launch(
            reduce.scale_rows,
            *reduce.one_a_thread(library, self.n),
            self.labels,
            self.token_weight,
            self.tally if self.reduction == "mean" else None,
            upstream,
            int(self.reduction == "none"),
            1.0 if upstream is not None else float(dloss),
            self.z_loss,
            self.n,
            scale,
            lse_scale,
        )
        return scale, lse_scale

    def reduce(self, loss: DeviceArray, lse: DeviceArray, stats: Stats | None = None) -> Any:
        """Reduce the losses of the rows to a 0-d float32 array, or weigh them. The mean over no row is NaN."""
        reduce, library, shape = _reduce(), self.library, self.shape if self.reduction == "none" else ()
        value = library.empty(shape, _F32)
        squared = library.empty(shape, _F32) if stats is not None else None
        z_loss, u = self.z_loss, self.token_weight
        if self.reduction == "none":
            args = (loss, lse, u, z_loss, self.n, value, squared)
            library.launch(reduce.weigh_rows, *reduce.one_a_thread(library, self.n), *args)
        else:
            tally = self.tally if self.reduction == "mean" else None
            library.launch(reduce.reduce_rows, 1, reduce.THREADS, loss, lse, u, tally, z_loss, self.n, value, squared)
        return value if stats is None else (value, self._told(lse, stats, squared))

    def wanted_stats(self, dtype: Any) -> Stats | None:
        """Allocate what kernels are to tell of each row, if it is wanted."""
        if not self.return_stats:
            return None
        nll, entropy = self.library.zeros(self.n, _F32), self.library.zeros(self.n, _F32)
        arrays: tuple[Any, ...] = (nll, entropy, self.library.full(self.n, -1, _I64))
        return Stats(*arrays)

    def zero_uncounted(self, *arrays: Any) -> None:
        """Do nothing: kernels write zeros where a row does not count."""

    def _told(self, lse: DeviceArray, stats: Stats, squared: DeviceArray | None) -> LossStats:
        library, reduce = self.library, _reduce()
        accuracy, count = library.empty((), _F32), library.empty((), _I64)
        best: Any = self.labels
        if self.criterion.probabilities is not None:
            best = library.empty(self.n, _I64)
            rows: Any = self.criterion.probabilities
            library.launch(
                reduce.argmax_rows, min(self.n, 8 * library.processors), 256, rows, rows.pitch, *rows.shape, best
            )
        library.launch(reduce.count_hits, 1, reduce.THREADS, stats.argmax, best, self.tally, self.n, accuracy, count)
        of_rows, nll, entropy, argmax = (x.reshape(self.shape) for x in (lse, *stats))
        return LossStats(of_rows, nll, entropy, argmax, accuracy, count, squared)


def device_rows(
    shape: tuple[int, ...],
    classes: int,
    like: Any,
    target: Any,
    probabilities: Any,
    weight: Any,
    ignore_index: int | None,
    reduction: str,
    label_smoothing: float,
    temperature: float,
    softcap: float | None,
    z_loss: float,
    token_weight: Any,
    return_stats: bool,
    compact: bool,
    num_valid: int | None,
) -> DeviceRows:
    """Find out on the device which rows count; the arguments are checked, but for the values of arrays."""
    library, n = like.library, prod(shape)
    _device_status.raise_pending(library)
    labels = library.empty(n, _I64)
    tally = library.empty(3, _F64)
    dropping = compact or num_valid is not None
    indices = library.empty(n, _I64) if dropping else None
    if weight is not None:
        weight = library.ready(weight.astype(_F32, copy=False))
    if token_weight is not None:
        token_weight = library.ready(token_weight.astype(_F32, copy=False)).reshape(-1)
    given = None if probabilities is not None else library.ready(target.astype(_I64, copy=False)).reshape(-1)
    library.launch(
        _reduce().count_rows,
        1,
        _reduce().THREADS,
        given,
        int(ignore_index is not None and probabilities is None),
        ignore_index or 0,
        classes,
        token_weight,
        weight,
        n,
        -1 if num_valid is None else num_valid,
        labels,
        tally,
        indices,
        _device_status.word(library),
    )
    counted = n
    if indices is not None:
        counted = num_valid if num_valid is not None else _device_status.count(library, tally)
        indices = indices[:counted]
    _device_status.checked_now(library)
    criterion: Any = Criterion(labels, probabilities, weight, label_smoothing, temperature, softcap)
    return DeviceRows(
        criterion, counted, token_weight, z_loss, reduction, return_stats, shape, n, tally, labels, indices
    )


def count_again(rows: DeviceRows, classes: int) -> DeviceRows:
    """Return rows whose mean is taken over how many of them count, whatever their weights."""
    library, reduce, labels = rows.library, _reduce(), rows.labels
    tally, promised = library.empty(3, _F64), -1 if rows.indices is None else rows.counted
    nothing = (None, None, rows.n, promised)
    library.launch(reduce.count_rows, 1, reduce.THREADS, labels, 1, -1, classes, *nothing, labels, tally, None, None)
    return rows._replace(tally=tally)


def scaled(grad: DeviceArray, factor: Any, dtype: Any) -> DeviceArray:
    """Return a saved float32 gradient times the upstream factor, a number or a 0-d array, in the caller's dtype.

    A spare one in that dtype is multiplied where it is: it may be as large as the weights.
    """
    if not isinstance(factor, DeviceArray) and factor == 1.0:
        return grad.astype(dtype, copy=False)
    library, n = grad.library, grad.size
    out = grad if grad.spare and grad.dtype == dtype else library.empty(grad.shape, dtype)
    array, number = (factor, 1.0) if isinstance(factor, DeviceArray) else (None, float(factor))
    if array is not None:
        array = array.astype(_F32, copy=False)
    reduce = _reduce()
    wide = n // 8 * 8 if out.address % 16 == 0 == grad.address % 16 else 0
    blocks = min(-(-n // 2048), 8 * library.processors)
    library.launch(reduce.scale_elements, blocks, 256, grad, array, number, wide, n, out)
    return out


def _reduce() -> ModuleType:
    from fastnlp.kernels.cuda import _reduce

    return _reduce
