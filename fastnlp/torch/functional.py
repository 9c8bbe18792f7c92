"""Functions of tensors in torch's signatures; extras of this library are keyword-only at the end."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastnlp.ops import cross_entropy as _cross_entropy
from fastnlp.ops import linear_cross_entropy as _linear_cross_entropy
from fastnlp.torch._bridge import bridge

_cross_entropy_op = bridge(_cross_entropy.cross_entropy)
_linear_cross_entropy_op = bridge(_linear_cross_entropy.linear_cross_entropy)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits against class indices, as ``torch.nn.functional.cross_entropy``.

    Parameters
    ----------
    input
        Logits ``(C)``, ``(N, C)`` or ``(N, C, d1, ..., dk)``: classes on axis 1, as in torch. float16 and bfloat16 are
        computed in float32, and their loss comes back in float32.
    target
        Class indices of the shape of `input` without its class axis, of any integer dtype.
    weight, label_smoothing
        Not there yet: raise NotImplementedError where they are not the default.
    size_average, reduce
        Deprecated in torch, refused here: use `reduction`.
    ignore_index
        Targets that count for nothing.
    reduction
        "mean", "sum" or "none".

    Raises
    ------
    NotImplementedError
        An option that is not there yet, or a device without kernels.
    RuntimeError
        In the backward of a backward: there is no second derivative.
    TypeError, ValueError
        As `fastnlp.cross_entropy`.
    """
    _refuse(weight=weight, size_average=size_average, reduce=reduce, label_smoothing=label_smoothing or None)
    if isinstance(input, Tensor) and input.dim() > 2:
        input = input.movedim(1, -1)
    return _cross_entropy_op(input, target, ignore_index=ignore_index, reduction=reduction)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    workspace: int | None = None,
) -> Tensor:
    """Cross-entropy of a linear classifier, chunk by chunk, as ``torch.nn.functional.linear_cross_entropy``.

    Parameters
    ----------
    input
        ``(..., D)``; leading axes are free. float16 and bfloat16 are computed in float32, and their loss comes back in
        float32.
    linear_weight
        ``(C, D)``.
    target
        Class indices ``(...)``, of any integer dtype.
    linear_bias
        ``(C,)`` or None.
    weight, label_smoothing
        Not there yet: raise NotImplementedError where they are not the default.
    reduction
        "mean", "sum" or "none".
    ignore_index
        Targets that count for nothing; None means -100, as in torch.
    options
        torch's choice of chunks: refused, give `workspace`.
    workspace
        Bytes for temporaries; default 48 MiB.

    Raises
    ------
    NotImplementedError
        An option that is not there yet, or a device without kernels.
    RuntimeError
        In the backward of a backward: there is no second derivative.
    TypeError, ValueError
        As `fastnlp.linear_cross_entropy`.
    """
    _refuse(weight=weight, options=options, label_smoothing=label_smoothing or None)
    return _linear_cross_entropy_op(
        input,
        linear_weight,
        target,
        linear_bias=linear_bias,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        workspace=workspace,
    )


def _refuse(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise NotImplementedError(f"{name} is not there yet: leave it out, or use torch's own function")
