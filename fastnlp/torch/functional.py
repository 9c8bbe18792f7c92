"""Functions of tensors in torch's signatures; extras of this library are keyword-only at the end."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from fastnlp._dispatch import backend_of, implementation
from fastnlp.ops import cross_entropy as _cross_entropy
from fastnlp.ops import entropy as _entropy
from fastnlp.ops import kl_div as _kl_div
from fastnlp.ops import linear_cross_entropy as _linear_cross_entropy
from fastnlp.ops import linear_kl_div as _linear_kl_div
from fastnlp.ops import linear_softmax as _linear_softmax
from fastnlp.ops import pool as _pool
from fastnlp.ops import softmax as _softmax
from fastnlp.ops import softmax_kl_div as _softmax_kl_div
from fastnlp.torch._bridge import bridge

_cross_entropy_op = bridge(_cross_entropy.cross_entropy)
_kl_div_op = bridge(_kl_div.kl_div)
_linear_cross_entropy_op = bridge(_linear_cross_entropy.linear_cross_entropy)
_log_softmax_op = bridge(_softmax.log_softmax)
_logsumexp_op = bridge(_softmax.logsumexp)
_softmax_op = bridge(_softmax.softmax)

# What torch does not have keeps the signature that it has for arrays.
entropy = bridge(_entropy.entropy)
linear_kl_div = bridge(_linear_kl_div.linear_kl_div)
linear_softmax = bridge(_linear_softmax.linear_softmax)
pool = bridge(_pool.pool)
softmax_kl_div = bridge(_softmax_kl_div.softmax_kl_div)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    token_weight: Tensor | None = None,
    return_stats: bool = False,
) -> Any:
    """Cross-entropy of logits against class indices or distributions, as ``torch.nn.functional.cross_entropy``.

    Parameters
    ----------
    input
        Logits ``(C)``, ``(N, C)`` or ``(N, C, d1, ..., dk)``: classes on axis 1, as in torch. float16 and bfloat16 are
        computed in float32, and their loss comes back in float32.
    target
        Class indices of the shape of `input` without its class axis, of any integer dtype; or probabilities of the
        shape of `input`, which get no gradient here.
    weight
        Class weights ``(C)``.
    size_average, reduce
        Deprecated in torch: they overrule `reduction`, with a warning.
    ignore_index
        Targets that count for nothing.
    reduction
        "mean", "sum" or "none".
    label_smoothing
        As in torch.
    temperature, softcap, z_loss, token_weight, return_stats
        As in `fastnlp.cross_entropy`; `token_weight` is of the shape of the loss a row, ``(N, d1, ..., dk)``, and
        ``return_stats=True`` returns ``(loss, stats)``.

    Raises
    ------
    NotImplementedError
        A device without kernels, or an argument other than `input` that requires a gradient.
    RuntimeError
        In the backward of a backward: there is no second derivative.
    TypeError, ValueError
        As `fastnlp.cross_entropy`.
    """
    if isinstance(input, Tensor) and input.dim() > 2:
        if isinstance(target, Tensor) and target.is_floating_point() and target.dim() == input.dim():
            target = target.movedim(1, -1)
        input = input.movedim(1, -1)
    return _cross_entropy_op(
        input,
        target,
        weight=weight,
        ignore_index=ignore_index,
        reduction=named_reduction(size_average, reduce, reduction),
        label_smoothing=label_smoothing,
        temperature=temperature,
        softcap=softcap,
        z_loss=z_loss,
        token_weight=token_weight,
        return_stats=return_stats,
    )


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
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    token_weight: Tensor | None = None,
    workspace: int | None = None,
    deterministic: bool | None = None,
    return_stats: bool = False,
    compact: bool = False,
    num_valid: int | None = None,
) -> Any:
    """Cross-entropy of a linear classifier, its logits never whole, as ``torch.nn.functional.linear_cross_entropy``.

    Parameters
    ----------
    input
        ``(..., D)``; leading axes are free. float16 and bfloat16 are computed in float32 (on a GPU their logits are
        rounded to 16 bits, and all sums are in float32), and their loss comes back in float32.
    linear_weight
        ``(C, D)``; or ``(C, d1, ..., dk, D)`` for `input` ``(N, D)``: a classifier for each of the places d.
    target
        Class indices ``(...)``, of any integer dtype, or probabilities ``(..., C)``, which get no gradient here. For
        places: ``(N, d1, ..., dk)`` or ``(N, C, d1, ..., dk)``.
    linear_bias
        Of the shape of `linear_weight` without D, or None.
    weight
        Class weights ``(C,)``.
    reduction
        "mean", "sum" or "none".
    ignore_index
        Targets that count for nothing; None means -100, as in torch.
    label_smoothing
        As in torch.
    options
        A ``torch.nn.LinearCrossEntropyOptions``: its `batch_chunk_size` bounds the workspace by as many rows of logits;
        the rest needs no choice here (sums are in float32 or better, and graphs can be retained).
    temperature, softcap, z_loss, token_weight, workspace, deterministic, return_stats, compact, num_valid
        As in `fastnlp.linear_cross_entropy`.

    Raises
    ------
    NotImplementedError
        A device without kernels, an argument without a gradient that requires one, or `z_loss`, `token_weight`,
        `return_stats` or `num_valid` for places.
    RuntimeError
        In the backward of a backward: there is no second derivative.
    TypeError, ValueError
        As `fastnlp.linear_cross_entropy`.
    """
    if options is not None:
        workspace = _workspace_of(options, input, linear_weight, workspace)
    given = {
        "weight": weight,
        "ignore_index": -100 if ignore_index is None else ignore_index,
        "label_smoothing": label_smoothing,
        "temperature": temperature,
        "softcap": softcap,
        "z_loss": z_loss,
        "token_weight": token_weight,
        "workspace": workspace,
        "deterministic": deterministic,
        "return_stats": return_stats,
        "compact": compact,
        "num_valid": num_valid,
    }
    if isinstance(linear_weight, Tensor) and linear_weight.dim() > 2:
        return _of_places(input, linear_weight, target, linear_bias, reduction, given)
    return _linear_cross_entropy_op(input, linear_weight, target, linear_bias=linear_bias, reduction=reduction, **given)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Kullback-Leibler divergence of given distributions, as ``torch.nn.functional.kl_div``.

    Parameters
    ----------
    input
        Log-probabilities of the distribution that approximates, of any shape.
    target
        Probabilities of the distribution that is approximated, of the same shape.
    size_average, reduce
        Deprecated in torch: they overrule `reduction`, with a warning.
    reduction
        "mean" over the elements (torch warns of it), "batchmean" (the divergence of a row on average), "sum" or "none".
    log_target
        `target` holds log-probabilities.

    Raises
    ------
    NotImplementedError
        A device without kernels.
    RuntimeError
        In the backward of a backward: there is no second derivative.
    TypeError, ValueError
        As `fastnlp.kl_div`.
    """
    reduction = named_reduction(size_average, reduce, reduction)
    return _kl_div_op(input, target, reduction=reduction, log_target=log_target)


def perplexity(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    token_weight: Tensor | None = None,
) -> Tensor:
    """Exponential of the mean cross-entropy; parameters are those of `cross_entropy`."""
    return cross_entropy(
        input,
        target,
        weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        softcap=softcap,
        token_weight=token_weight,
    ).exp()


def softmax(
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Softmax along `dim`, as ``torch.nn.functional.softmax``.

    Parameters
    ----------
    input
        Logits, at least one axis.
    dim
        The axis that sums to one. None chooses as torch does, with a warning.
    dtype
        The dtype to which `input` is brought first.
    temperature
        As in `fastnlp.softmax`.
    """
    input, axis = _along("softmax", input, dim, _stacklevel, dtype)
    return _softmax_op(input, axis=axis, temperature=temperature)


def log_softmax(
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Logarithm of the softmax, as ``torch.nn.functional.log_softmax``; parameters are those of `softmax`."""
    input, axis = _along("log_softmax", input, dim, _stacklevel, dtype)
    return _log_softmax_op(input, axis=axis, temperature=temperature)


def logsumexp(input: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Log of the sum of exponentials along one or several axes, as ``torch.logsumexp``."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if len(dims) == 1:
        out = _logsumexp_op(input, axis=dims[0])
    else:
        out = _logsumexp_op(input.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims)))
    if not keepdim:
        return out
    summed = {d % input.dim() for d in dims}
    return out.reshape([1 if axis in summed else size for axis, size in enumerate(input.shape)])


def _along(name: str, input: Tensor, dim: int | None, stacklevel: int, dtype: torch.dtype | None) -> tuple[Tensor, int]:
    """Return the input in `dtype`, and the axis."""
    if dim is None:
        dim = 0 if input.dim() in (0, 1, 3) else 1
        warnings.warn(
            f"{name}: the choice of dim={dim} where none is given is deprecated: give dim", stacklevel=stacklevel
        )
    return input if dtype is None else input.to(dtype), dim


def named_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """Return the reduction that torch's deprecated arguments name, or `reduction` without them."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        named = "none"
    else:
        named = "sum" if size_average is False else "mean"
    warnings.warn(f"size_average and reduce are deprecated: use reduction='{named}'", stacklevel=3)
    return named


def _workspace_of(options: Any, input: Tensor, linear_weight: Tensor, workspace: int | None) -> int | None:
    """Return the workspace that torch's choice of chunks amounts to."""
    try:
        rows, dtype = options.batch_chunk_size, options.acc_dtype
    except AttributeError:
        raise TypeError(f"options must be a torch.nn.LinearCrossEntropyOptions, got {type(options).__name__}") from None
    computed = input.dtype if input.dtype == torch.float64 else torch.float32
    if dtype not in (None, computed):
        raise ValueError(f"options.acc_dtype is {dtype}, but {input.dtype} is summed in {computed} here: leave it None")
    if rows is None:
        return workspace
    if workspace is not None:
        raise ValueError("options.batch_chunk_size and workspace bound the same thing: give one of them")
    classes, features = linear_weight.shape[0], linear_weight.shape[-1]
    rows_given = math.prod(input.shape[:-1])
    if input.is_cuda:
        backend, itemsize, padded = "cuda", input.dtype.itemsize, -(-classes // 8) * 8
    else:
        backend, itemsize, padded = backend_of(None), computed.itemsize, classes
    least = implementation("linear_cross_entropy", backend).least_workspace
    return max(rows * padded * itemsize, least(rows_given, features, classes, itemsize, True))


def _of_places(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    reduction: str,
    given: dict[str, Any],
) -> Tensor:
    """Compute the loss of a weight ``(C, d1, ..., dk, D)``: a classifier for each place, reduced together."""
    for name, without in (("z_loss", 0.0), ("token_weight", None), ("return_stats", False), ("num_valid", None)):
        if isinstance(given[name], Tensor) or given[name] != without:
            raise NotImplementedError(f"{name} is not there for a linear_weight of more than two axes: leave it out")
    classes, *places, features = linear_weight.shape
    n, count, shape = len(input), math.prod(places), tuple(target.shape)
    soft = target.is_floating_point()
    wanted = (n, classes, *places) if soft else (n, *places)
    if input.dim() != 2 or shape != wanted:
        raise ValueError(
            f"a linear_weight {tuple(linear_weight.shape)} wants input (N, {features}) and target {wanted}, "
            f"got {tuple(input.shape)} and {shape}"
        )
    weights = linear_weight.reshape(classes, count, features)
    targets = target.reshape(n, classes, count) if soft else target.reshape(n, count)
    biases = None if linear_bias is None else linear_bias.reshape(classes, count)
    losses = [
        _linear_cross_entropy_op(
            input,
            weights[:, k],
            targets[..., k],
            linear_bias=None if biases is None else biases[:, k],
            reduction="sum" if reduction == "mean" else reduction,
            **given,
        )
        for k in range(count)
    ]
    if reduction == "none":
        return torch.stack(losses, -1).reshape(n, *places)
    total = torch.stack(losses).sum()
    if reduction != "mean":
        return total
    if soft:
        return over(total, torch.tensor(n * count))
    counted = target != given["ignore_index"]
    if given["weight"] is None:
        return over(total, counted.sum())
    label = torch.where(counted, target, 0).long().clamp(0, classes - 1)  # on a GPU a wrong one has not raised yet
    return over(total, given["weight"][label].mul(counted).sum())


def over(total: Tensor, count: Tensor) -> Tensor:
    """Return total / count; without rows that count it is NaN, as in torch, and yet its gradient zero and not NaN."""
    return total / torch.where(count == 0, 1, count) + torch.where(count == 0, math.nan, 0.0).to(total.dtype)
