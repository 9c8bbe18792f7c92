"""Modules in torch's signatures; extras of this library are keyword-only at the end."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from fastnlp.torch import functional


class CrossEntropyLoss(nn.Module):
    """`fastnlp.torch.cross_entropy` as a module, in the place of ``torch.nn.CrossEntropyLoss``.

    Parameters are those of the function. ``loss(input, target, token_weight=None)`` computes it.
    """

    weight: Tensor | None

    def __init__(
        self,
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
        return_stats: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = functional.named_reduction(size_average, reduce, reduction)
        self.label_smoothing = label_smoothing
        self.temperature = temperature
        self.softcap = softcap
        self.z_loss = z_loss
        self.return_stats = return_stats

    def forward(self, input: Tensor, target: Tensor, *, token_weight: Tensor | None = None) -> Any:
        """Return the loss, or ``(loss, stats)`` with `return_stats`."""
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            temperature=self.temperature,
            softcap=self.softcap,
            z_loss=self.z_loss,
            token_weight=token_weight,
            return_stats=self.return_stats,
        )

    def extra_repr(self) -> str:
        """List what is not the default."""
        return _options(self, CrossEntropyLoss)


class LinearCrossEntropyLoss(nn.Module):
    """`fastnlp.torch.linear_cross_entropy` with a linear layer of its own, as ``torch.nn.LinearCrossEntropyLoss``.

    Parameters
    ----------
    in_features, num_classes
        Of the layer ``self.linear``, whose weight is ``(num_classes * prod(out_features), in_features)``.
    out_features
        Places, each with a classifier of its own.
    bias, device, dtype
        Of the layer.
    reduction, weight, ignore_index, label_smoothing, options, temperature, softcap, z_loss, workspace, deterministic, \
return_stats, compact
        As in the function. ``loss(input, target, token_weight=None, num_valid=None)`` computes it.

    Raises
    ------
    ValueError
        `weight` is not of shape ``(num_classes,)``, or `label_smoothing` outside [0, 1].
    """

    weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
        temperature: float = 1.0,
        softcap: float | None = None,
        z_loss: float = 0.0,
        workspace: int | None = None,
        deterministic: bool | None = None,
        return_stats: bool = False,
        compact: bool = False,
    ) -> None:
        super().__init__()
        if weight is not None and weight.shape != (num_classes,):
            raise ValueError(f"weight must have shape ({num_classes},), one entry a class, got {tuple(weight.shape)}")
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be within [0, 1], got {label_smoothing}")
        self.register_buffer("weight", weight)
        self.num_classes = num_classes
        self.out_features = tuple(out_features)
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.linear = nn.Linear(
            in_features, math.prod(self.out_features, start=num_classes), bias=bias, device=device, dtype=dtype
        )
        self.options = options
        self.temperature = temperature
        self.softcap = softcap
        self.z_loss = z_loss
        self.workspace = workspace
        self.deterministic = deterministic
        self.return_stats = return_stats
        self.compact = compact

    def forward(
        self, input: Tensor, target: Tensor, *, token_weight: Tensor | None = None, num_valid: int | None = None
    ) -> Any:
        """Return the loss, or ``(loss, stats)`` with `return_stats`."""
        linear_weight, linear_bias = self.linear.weight, self.linear.bias
        if self.out_features:
            linear_weight = linear_weight.reshape(self.num_classes, *self.out_features, -1)
            linear_bias = linear_bias if linear_bias is None else linear_bias.reshape(linear_weight.shape[:-1])
        return functional.linear_cross_entropy(
            input,
            linear_weight,
            target,
            linear_bias=linear_bias,
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
            temperature=self.temperature,
            softcap=self.softcap,
            z_loss=self.z_loss,
            token_weight=token_weight,
            workspace=self.workspace,
            deterministic=self.deterministic,
            return_stats=self.return_stats,
            compact=self.compact,
            num_valid=num_valid,
        )

    def extra_repr(self) -> str:
        """List the shape of the layer, and what is not the default."""
        layer = f"in_features={self.linear.in_features}, num_classes={self.num_classes}"
        options = _options(self, LinearCrossEntropyLoss)
        return f"{layer}, {options}" if options else layer


class KLDivLoss(nn.Module):
    """`fastnlp.torch.kl_div` as a module, in the place of ``torch.nn.KLDivLoss``.

    Parameters are those of the function.
    """

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__()
        self.reduction = functional.named_reduction(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the divergence."""
        return functional.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)

    def extra_repr(self) -> str:
        """List what is not the default."""
        return _options(self, KLDivLoss)


def _options(module: nn.Module, kind: type) -> str:
    """Write the options of a module that are not the default of its class."""
    defaults = {
        name: p.default
        for name, p in inspect.signature(kind).parameters.items()
        if p.default is not inspect.Parameter.empty
    }
    changed = {name: x for name, x in vars(module).items() if name in defaults and x != defaults[name]}
    return ", ".join(f"{name}={x!r}" for name, x in changed.items())
