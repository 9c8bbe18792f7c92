"""`pool`.

A backend provides ``mean(x, begin, end, out)`` and ``max(x, begin, end, out, place)`` for the sequences in rows
``(R, D)``, and for each its ``..._backward``. The first and the last vector need no kernel on the CPU: they are rows.
"cuda", where the host may not know which, has ``ends(x, begin, end, last, out)`` for them, and makes the bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastnlp import _arrays
from fastnlp._arrays import Array
from fastnlp._dispatch import kernels_for
from fastnlp._op import NOTHING, Output, Saved, differentiable
from fastnlp.ops._sequence_bounds import sequence_bounds

MODES = ("cls", "mean", "max", "last")


class _Plan(NamedTuple):
    kernels: ModuleType
    x: Array  # (R, D), all sequences one after another, with their padding
    begin: Array  # (N + 1,), the first row of each sequence, and R
    end: Array  # (N,), the row behind its last one
    mode: str
    shape: tuple[int, ...]  # of the argument
    dtype: np.dtype[Any]  # of the result
    out: Array | None

    @property
    def is_row(self) -> bool:
        """Whether the result of each sequence is one of its rows."""
        return self.mode in ("cls", "last")

    @property
    def row(self) -> Array:
        """The row that is the whole result of each sequence."""
        return self.begin[:-1] if self.mode == "cls" else self.end - 1


def _plan(
    hidden: Any,
    *,
    mode: str = "cls",
    lengths: Any = None,
    cu_seqlens: Any = None,
    out: Array | None = None,
    backend: str | None = None,
) -> _Plan:
    on_gpu = _arrays.on_device(hidden)  # lengths may be on the host all the same
    placed = (given for given in (lengths, cu_seqlens) if not on_gpu or _arrays.on_device(given))
    kernels = kernels_for("pool", backend, hidden, *placed)
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
    x = _arrays.floating("hidden", hidden)
    begin, end = sequence_bounds(kernels, x, lengths, cu_seqlens)
    return _Plan(kernels, _arrays.as_rows(x), begin, end, mode, x.shape, _arrays.result_dtype(hidden), out)


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Array, Saved]:
    x, out = plan.x, plan.out
    if out is not None:
        out = _arrays.output(out, (plan.end.size, x.shape[1]), plan.dtype, x)
    y = _target(x, plan.end.size, out)
    saved: Saved = ()
    if plan.is_row and _arrays.on_device(x):
        plan.kernels.ends(x, plan.begin, plan.end, plan.mode == "last", y)
    elif plan.is_row:
        x.take(plan.row, axis=0, out=y, mode="clip")  # one copy, of x[row] two; none is clipped
    elif plan.mode == "mean":
        plan.kernels.mean(x, plan.begin, plan.end, y)
    else:
        place = _arrays.empty(y.shape, np.int32, x)
        plan.kernels.max(x, plan.begin, plan.end, y, place)
        saved = (place,) if wrt else ()
    if out is None:
        return y.astype(plan.dtype, copy=False), saved
    if y is not out:
        _arrays.fill(out, y)
    return out, saved


def _target(x: Array, n: int, out: Array | None) -> Array:
    """Return the array that a kernel fills: `out` if it is fit for that, or a new one."""
    fit = out is not None and out.dtype == x.dtype and _arrays.kernel_ready(out) is out
    if out is not None and fit and not _arrays.may_overlap(out, x):
        return out
    return _arrays.empty((n, x.shape[1]), x.dtype, x)


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dy: Array) -> tuple[Array | None]:
    if not wrt:
        return (None,)
    x = plan.x
    dout = _arrays.as_rows(dy.astype(x.dtype, copy=False))
    if plan.is_row and _arrays.on_device(x):
        dx = _arrays.empty(x.shape, x.dtype, x)
        plan.kernels.ends_backward(dout, plan.begin, plan.end, plan.mode == "last", dx)
    elif plan.is_row:
        dx = _arrays.zeros(x.shape, x.dtype, x)
        dx[plan.row] = dout
    else:
        dx = _arrays.empty(x.shape, x.dtype, x)
        if dx.size:
            getattr(plan.kernels, f"{plan.mode}_backward")(dout, plan.begin, plan.end, *saved, dx)
    return (dx.reshape(plan.shape).astype(plan.dtype, copy=False),)


def _outputs(args: Mapping[str, Any], wrt: frozenset[str]) -> tuple[Output, ...]:
    hidden, cu_seqlens = args["hidden"], args["cu_seqlens"]
    sequences = hidden.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    shape = (sequences, hidden.shape[-1])
    places = (Output(shape, dtype="int32"),) if args["mode"] == "max" and wrt else ()
    return (Output(shape, narrow=True), *places)


@differentiable("hidden", plan=_plan, forward=_forward, backward=_backward, outputs=_outputs)
def pool(
    hidden: Any,
    *,
    mode: str = "cls",
    lengths: Any = None,
    cu_seqlens: Any = None,
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """One vector for each sequence from its hidden states: the first, the last, their mean or their maximum.

    The result is what a classification head takes, such as `linear_softmax` or `linear_cross_entropy`. "cls" is the
    first vector as it stands: the dense layer with tanh that some BERT models put behind it is theirs.

    Parameters
    ----------
    hidden
        Float32 or float64 (float16 and bfloat16 are computed in float32): ``(B, S, D)``, padded behind each sequence;
        or with `cu_seqlens` ``(T, D)`` or ``(1, T, D)``, the sequences one after another. On a GPU not float64.
    mode
        "cls": the vector of the first token. "last": that of the last token. "mean": ``1 / L sum_t x_t``, summed in
        float64, on a GPU in float32. "max": the maximum of each feature, NaN where there is one; its gradient goes to
        the first place of the maximum.
    lengths
        Tokens of each sequence of ``(B, S, D)``, ``(B,)`` integers from 1 to S; None: all S count.
    cu_seqlens
        ``(N + 1,)`` integers that rise from 0 to T: sequence n is the vectors ``cu_seqlens[n] : cu_seqlens[n + 1]``.
        With `hidden` on a GPU these two may be there or on the host. What is on the GPU is not waited for and so not
        checked: it is cut to the vectors that there are, and a sequence that is empty then is NaN, its gradient 0.
    out
        An array ``(N, D)`` of the dtype of `hidden` to write to.
    backend
        "reference", "cpu" or "cuda"; default: by the array.

    Returns
    -------
    array
        ``(N, D)``, of the dtype of `hidden`; N is B without `cu_seqlens`.

    Raises
    ------
    TypeError
        `hidden` is not of a floating dtype, `lengths` or `cu_seqlens` not integers, `out` of another dtype.
    ValueError
        A sequence is empty or longer than S; `cu_seqlens` does not rise from 0 to T; both or neither of the two are
        given where one is wanted; another number of axes; `mode` is unknown; `out` has another shape.

    Examples
    --------
    >>> import numpy as np, fastnlp
    >>> hidden = np.arange(8.0).reshape(4, 2)
    >>> fastnlp.pool(hidden, mode="mean", cu_seqlens=[0, 3, 4])
    array([[2., 3.],
           [6., 7.]])
    """
    plan = _plan(hidden, mode=mode, lengths=lengths, cu_seqlens=cu_seqlens, out=out, backend=backend)
    return _arrays.given_back(_forward(plan, NOTHING)[0])
