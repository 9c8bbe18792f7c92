"""`pool`.

A backend provides ``mean(x, begin, end, out)`` and ``max(x, begin, end, out, place)`` for the sequences in rows
``(R, D)``, and for each its ``..._backward``. The first and the last vector need no kernel: they are rows.
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
    def row(self) -> Array | None:
        """The row that is the whole result of each sequence, if one is."""
        return {"cls": self.begin[:-1], "last": self.end - 1}.get(self.mode)


def _plan(
    hidden: Any,
    *,
    mode: str = "cls",
    lengths: Any = None,
    cu_seqlens: Any = None,
    out: Array | None = None,
    backend: str | None = None,
) -> _Plan:
    kernels = kernels_for("pool", backend, hidden, lengths, cu_seqlens)
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
    x = _arrays.floating("hidden", hidden)
    begin, end = _padded(x.shape, lengths) if cu_seqlens is None else _packed(x.shape, lengths, cu_seqlens)
    return _Plan(kernels, _arrays.as_rows(x), begin, end, mode, x.shape, _arrays.result_dtype(hidden), out)


def _padded(shape: tuple[int, ...], lengths: Any) -> tuple[Array, Array]:
    """Return the first row of each sequence of ``(B, S, D)``, with the end, and the row behind its last one."""
    if len(shape) != 3:
        raise ValueError(
            f"hidden must have shape (B, S, D), got {shape}: for sequences one after another, (T, D), give cu_seqlens"
        )
    batch, steps, _ = shape
    begin = np.arange(batch + 1) * steps
    if lengths is None:
        if batch and not steps:
            raise ValueError(_empty(0))
        return begin, begin[1:]
    counts = _arrays.integers("lengths", lengths)
    if counts.size != batch:
        raise ValueError(f"lengths must have an entry for each of the {batch} sequences of hidden, got {counts.size}")
    wrong = (counts < 1) | (counts > steps)
    if np.count_nonzero(wrong):
        n = int(wrong.argmax())
        if counts[n] == 0:
            raise ValueError(_empty(n))
        raise ValueError(
            f"lengths holds {int(counts[n])} for sequence {n}, but hidden has room for 1 to {steps} vectors"
        )
    return begin, begin[:-1] + counts


def _packed(shape: tuple[int, ...], lengths: Any, cu_seqlens: Any) -> tuple[Array, Array]:
    """Return what `_padded` does, for sequences that lie one after another in ``(T, D)`` or ``(1, T, D)``."""
    if lengths is not None:
        raise ValueError("lengths and cu_seqlens tell the same in two ways: give one of them")
    if len(shape) != 2 and not (len(shape) == 3 and shape[0] == 1):
        raise ValueError(f"hidden must have shape (T, D) or (1, T, D) with cu_seqlens, got {shape}")
    total = shape[-2]
    ptr = _arrays.kernel_ready(_arrays.integers("cu_seqlens", cu_seqlens))
    if not ptr.size or ptr[0] != 0 or ptr[-1] != total:
        ends = f"from {int(ptr[0])} to {int(ptr[-1])}" if ptr.size else "no entries"
        raise ValueError(f"cu_seqlens must go from 0 to the {total} vectors of hidden, got {ends}")
    wrong = ptr[1:] <= ptr[:-1]
    if np.count_nonzero(wrong):
        n = int(wrong.argmax())
        if ptr[n] == ptr[n + 1]:
            raise ValueError(_empty(n))
        raise ValueError(f"cu_seqlens falls from {int(ptr[n])} to {int(ptr[n + 1])} at sequence {n}: it must rise")
    return ptr, ptr[1:]


def _empty(n: int) -> str:
    return f"sequence {n} is empty, so there is nothing to pool: leave empty sequences out"


def _forward(plan: _Plan, wrt: frozenset[str]) -> tuple[Array, Saved]:
    x, out = plan.x, plan.out
    y = _target(plan)
    saved: Saved = ()
    if plan.row is not None:
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
        out[...] = y
    return out, saved


def _target(plan: _Plan) -> Array:
    """Return the array that a kernel fills: `out` if it is fit for that, or a new one."""
    x, out = plan.x, plan.out
    shape = (plan.end.size, x.shape[1])
    if out is not None:
        _arrays.output(out, shape, plan.dtype, x)
        if out.dtype == x.dtype and _arrays.kernel_ready(out) is out and not np.may_share_memory(out, x):
            return out
    return _arrays.empty(shape, x.dtype, x)


def _backward(plan: _Plan, wrt: frozenset[str], saved: Saved, dy: Array) -> tuple[Array | None]:
    if not wrt:
        return (None,)
    x = plan.x
    dout = _arrays.as_rows(dy.astype(x.dtype, copy=False))
    if plan.row is not None:
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
        or with `cu_seqlens` ``(T, D)`` or ``(1, T, D)``, the sequences one after another.
    mode
        "cls": the vector of the first token. "last": that of the last token. "mean": ``1 / L sum_t x_t``, summed in
        float64. "max": the maximum of each feature, NaN where there is one; its gradient goes to the first place of
        the maximum.
    lengths
        Tokens of each sequence of ``(B, S, D)``, ``(B,)`` integers from 1 to S; None: all S count.
    cu_seqlens
        ``(N + 1,)`` integers that rise from 0 to T: sequence n is the vectors ``cu_seqlens[n] : cu_seqlens[n + 1]``.
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
    return _forward(plan, NOTHING)[0]
