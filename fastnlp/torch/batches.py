"""Assembly of batches as functions of tensors: those of `fastnlp` of the same names, without a copy in between.

What is made of tokens, or taken out of values, that are CUDA tensors is made on their GPU.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastnlp import _arrays, _device
from fastnlp.ops import assemble_pairs as _assemble_pairs
from fastnlp.ops import block_diagonal_mask as _block_diagonal_mask
from fastnlp.ops import pack_arrays as _pack_arrays
from fastnlp.ops import pad_arrays as _pad_arrays


def _of_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with tensors where it has arrays, in what it takes, fills and returns.

    Raises (when called)
    --------------------
    TypeError
        A tensor that is neither on the CPU nor a CUDA tensor; and whatever `function` raises.
    """
    signature = inspect.signature(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        for name, x in given.items():
            for tensor in x if isinstance(x, tuple) else (x,):
                if isinstance(tensor, Tensor) and tensor.device.type not in ("cpu", "cuda"):
                    raise TypeError(
                        f"{function.__name__}: {name} is on {tensor.device}, batches are made on the CPU or with CUDA: "
                        f"pass {name} as CPU tensors, and move the result with .to({str(tensor.device)!r})"
                    )
        if isinstance(given.get("dtype"), torch.dtype):
            given["dtype"] = str(given["dtype"]).removeprefix("torch.")
        for name, x in given.items():
            given[name] = _each(_array if name == "out" else _device_array, x)
        return _each(_tensor, function(*bound.args, **bound.kwargs))

    return _named(call, function, signature)


def _taking(function: Callable[..., Any], places: Callable[[Any, Any], int]) -> Callable[..., Any]:
    """Return `function`, which takes entries out of its first argument, with tensors of any dtype and device.

    ``places(values, second argument)`` tells how many leading axes of the values are places. Which entries are taken is
    computed once for the numbers of the places; torch takes them, so that there are gradients.
    """
    signature = inspect.signature(function)
    of_tensors = _of_tensors(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        values, *rest = bound.args
        if not isinstance(values, Tensor):
            return of_tensors(*args, **kwargs)
        axes = places(values, rest[0] if rest else None)
        shape = tuple(values.shape[:axes])
        numbers = torch.arange(prod(shape), device=values.device if _arrays.on_device(values) else None).reshape(shape)
        chosen, offsets = of_tensors(numbers, *rest, **bound.kwargs)
        return values.flatten(0, axes - 1)[chosen.to(values.device)], offsets

    return _named(call, function, signature)


def _named(call: Callable[..., Any], function: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    functools.update_wrapper(call, function)
    call.__module__ = __name__
    call.__doc__ = f"The function of tensors that `fastnlp.{function.__name__}` is of arrays."
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _each(convert: Callable[[Any], Any], x: Any) -> Any:
    """Convert an array or tensor, or those in a tuple, which keeps its names."""
    if not isinstance(x, tuple):
        return convert(x)
    values = map(convert, x)
    return type(x)(*values) if hasattr(x, "_fields") else tuple(values)


def _array(x: Any) -> Any:
    x = _device_array(x)
    return x.detach().numpy() if isinstance(x, Tensor) else x


def _device_array(x: Any) -> Any:
    """Return a CUDA tensor as kernels take it, anything else as it is."""
    return _device.of(x) if isinstance(x, Tensor) and _arrays.on_device(x) else x


def _tensor(x: Any) -> Any:
    return torch.from_numpy(np.require(x, requirements="W")) if isinstance(x, np.ndarray) else x


pad_arrays = _of_tensors(_pad_arrays.pad_arrays)
unpad_arrays = _taking(_pad_arrays.unpad_arrays, lambda values, _: 2)
pack_arrays = _of_tensors(_pack_arrays.pack_arrays)
unpack_arrays = _taking(
    _pack_arrays.unpack_arrays, lambda _, packed: getattr(getattr(packed, "input_ids", None), "ndim", 1)
)
block_diagonal_mask = _of_tensors(_block_diagonal_mask.block_diagonal_mask)
assemble_pairs = _of_tensors(_assemble_pairs.assemble_pairs)
