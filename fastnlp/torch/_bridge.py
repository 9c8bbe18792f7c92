"""The one bridge from an operation of ``fastnlp.ops`` to torch: a custom op with its fake kernel and its gradient.

`bridge(function)` reads the `Op` behind the function and registers ``fastnlp::<name>`` and ``fastnlp::<name>_backward``
with ``torch.library``, so that autograd and ``torch.compile(fullgraph=True)`` see one node each. Tensors are handed on
as views of the same memory: on the CPU NumPy's, where float16 and bfloat16 are computed in float32, on a GPU
`DeviceArray`, in their own dtype and without waiting for the device. Which gradients are wanted is an argument of the
op, so nothing is computed for a frozen input. Its outputs are the value, the statistics if they are asked for, and what
the gradients follow from; only the first is differentiable.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastnlp import _arrays, _device
from fastnlp._device import DeviceArray
from fastnlp._op import Op, Output, op_of

# The annotations of public functions in the language of torch schemas; Any stands for an array.
_SCHEMA_TYPES = {"Any": "Tensor", "int": "int", "float": "float", "str": "str", "bool": "bool"}
# What such an argument may be; a traced int is a SymInt.
_ACCEPTED = {
    "Any": (Tensor,),
    "int": (int, np.integer, torch.SymInt),
    "float": (float, int, np.floating, torch.SymFloat),
    "str": (str,),
    "bool": (bool,),
}
_NOT_BRIDGED = ("out", "backend")
_NUMPY_HAS = (torch.float32, torch.float64)
_DEVICES = ("cpu", "cuda")


def bridge(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register `function` with torch; return it as a function of tensors, with the same parameters and autograd.

    Raises (when called)
    --------------------
    TypeError
        What is not a tensor where one is wanted, a tensor that is not dense, an option of another type.
    ValueError
        Tensors on different devices; and whatever `function` raises.
    NotImplementedError
        Tensors on a device that has no kernels here, or a gradient that `function` does not have.
    """
    op = op_of(function)
    parameters = {name: p for name, p in op.signature.parameters.items() if name not in _NOT_BRIDGED}
    arguments = ", ".join(_declaration(p) for p in parameters.values())
    forward_op = _register_forward(op, tuple(parameters), arguments)
    backward_op = _register_backward(op, tuple(parameters), arguments)
    _register_autograd(op, forward_op, backward_op, tuple(parameters))
    signature = inspect.Signature(list(parameters.values()))

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        for name, parameter in parameters.items():
            _check_type(op.name, parameter, given[name])
        _check_tensors(op, given)
        wrt = [_needs_gradient(given[name]) for name in op.differentiable]
        value, *rest = forward_op(*given.values(), wrt)
        statistics = rest[: _told(op, given)]
        return (value, op.statistics(*statistics)) if statistics and op.statistics else value

    call.__name__ = call.__qualname__ = op.name
    call.__doc__ = f"The function of tensors that `fastnlp.{op.name}` is of arrays, with autograd."
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _register_forward(op: Op, names: Sequence[str], arguments: str) -> Any:
    def forward(*args: Any) -> list[Tensor]:
        *values, wrt = args
        given = dict(zip(names, values, strict=True))
        value, saved = op.forward(_plan(op, given), _wanted(op, wrt))
        value, statistics = value if _told(op, given) else (value, ())
        declared, device = _declared(op, given, wrt), given[op.differentiable[0]].device
        outputs = zip((value, *statistics, *saved), declared, strict=True)
        return [_tensor(x, dtype, device) for x, (_, dtype) in outputs]

    registered = torch.library.custom_op(
        f"fastnlp::{op.name}", forward, mutates_args=(), schema=f"({arguments}, bool[] wrt) -> Tensor[]"
    )

    @registered.register_fake
    def _(*args: Any) -> list[Tensor]:
        *values, wrt = args
        given = dict(zip(names, values, strict=True))
        like = given[op.differentiable[0]]
        return [like.new_empty(shape, dtype=dtype) for shape, dtype in _declared(op, given, wrt)]

    return registered


def _register_backward(op: Op, names: Sequence[str], arguments: str) -> Any:
    def backward(*args: Any) -> list[Tensor]:
        *values, wrt, saved, dvalue = args
        return _gradients(op, dict(zip(names, values, strict=True)), wrt, saved, dvalue, hand_over=False)

    registered = torch.library.custom_op(
        f"fastnlp::{op.name}_backward",
        backward,
        mutates_args=(),
        schema=f"({arguments}, bool[] wrt, Tensor[] saved, Tensor dvalue) -> Tensor[]",
    )

    @registered.register_fake
    def _(*args: Any) -> list[Tensor]:
        *values, wrt, _, _ = args
        given = dict(zip(names, values, strict=True))
        return [given[name].new_empty(given[name].shape) for name, _ in _asked(op, wrt, wrt)]

    return registered


def _gradients(
    op: Op, given: Mapping[str, Any], wrt: Sequence[bool], saved: Sequence[Tensor], dvalue: Tensor, hand_over: bool
) -> list[Tensor]:
    """Return the gradients asked for. Those that are in `saved` are copied, or handed over and gone there."""
    value = saved[:1] if op.keeps_value else ()  # which may be empty, where nothing else that is wanted is
    arrays = [*map(_array, value), *(_array(x) if x.numel() else None for x in saved[len(value) :])]
    if saved and given.get("compact"):  # the forward has dropped the rows: no second wait to know how many are left
        given = {**given, "compact": False}
    for array in arrays[len(value) :]:  # the value is the caller's
        if isinstance(array, DeviceArray):
            array.spare = hand_over
    of_array = {id(array): x for array, x in zip(arrays, saved, strict=True) if array is not None}
    grads = op.backward(_plan(op, given), _wanted(op, wrt), tuple(arrays), _array(dvalue))
    gradients = []
    for name, grad in _asked(op, wrt, grads):
        like = given[name]
        if grad is None:
            gradients.append(like.new_empty(like.shape))
        elif id(grad) not in of_array:
            gradients.append(_tensor(grad, like.dtype, like.device))
        else:
            gradients.append(of_array[id(grad)] if hand_over else of_array[id(grad)].clone())
    return gradients


def _may_hand_over(tensors: Sequence[Tensor]) -> bool:
    """Tell whether this backward is the last that sees what forward saved: the graph is not kept, nothing is traced.

    A gradient the size of the weights is then not copied, and the parameter takes it as it is.
    """
    internals: Any = torch._C
    try:
        kept, modes = internals._autograd._get_current_graph_task_keep_graph(), internals._len_torch_dispatch_stack()
        wrapped = internals._functorch.is_functorch_wrapped_tensor
    except AttributeError:  # another torch
        return False
    return not (kept or modes or torch.compiler.is_compiling()) and all(
        type(x) is Tensor and not wrapped(x) for x in tensors
    )


def _register_autograd(op: Op, forward_op: Any, backward_op: Any, names: Sequence[str]) -> None:
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        *values, wrt = inputs
        saved = output[1 + _told(op, dict(zip(names, values, strict=True))) :]
        saved = [output[0], *saved] if op.keeps_value else saved
        ctx.set_materialize_grads(False)  # no zeros of the size of the saved gradients
        ctx.mark_non_differentiable(*output[1:])
        tensors = [x for x in values if isinstance(x, Tensor)]
        ctx.save_for_backward(*tensors, *saved)
        ctx.options = [None if isinstance(x, Tensor) else x for x in values]
        ctx.is_tensor = [isinstance(x, Tensor) for x in values]
        ctx.wrt = wrt

    def backward(ctx: Any, douts: list[Tensor | None]) -> tuple[Any, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                f"fastnlp.torch.{op.name} has no second derivative: its gradients are computed by a fused kernel; "
                "call backward without create_graph=True, or use torch's own function there"
            )
        dvalue = douts[0]
        if dvalue is None:
            return (None,) * (len(names) + 1)
        kept, n_tensors = ctx.saved_tensors, sum(ctx.is_tensor)  # read once: checkpointing makes them anew for it
        tensors, saved = iter(kept[:n_tensors]), list(kept[n_tensors:])
        values = [next(tensors) if is_one else x for is_one, x in zip(ctx.is_tensor, ctx.options, strict=True)]
        if _may_hand_over((*saved, dvalue)):
            given = dict(zip(names, values, strict=True))
            grads = iter(_gradients(op, given, ctx.wrt, saved, dvalue, hand_over=True))
        else:
            grads = iter(backward_op(*values, ctx.wrt, saved, dvalue))
        wanted = {name for name, asked in zip(op.differentiable, ctx.wrt, strict=True) if asked}
        return (*(next(grads) if name in wanted else None for name in names), None)

    forward_op.register_autograd(backward, setup_context=setup_context)


def _declaration(parameter: inspect.Parameter) -> str:
    """Write a parameter in a torch schema; an array that may be None is ``Tensor?``."""
    kind, optional = _kind(parameter)
    return f"{_SCHEMA_TYPES[kind]}{'?' if optional else ''} {parameter.name}"


def _kind(parameter: inspect.Parameter) -> tuple[str, bool]:
    """Return the annotation of a parameter without None, and whether it may be None."""
    annotation = str(parameter.annotation)
    optional = annotation.endswith(" | None") or (annotation == "Any" and parameter.default is None)
    return annotation.removesuffix(" | None"), optional


def _plan(op: Op, given: Mapping[str, Any]) -> Any:
    arrays = {name: _array(x) if isinstance(x, Tensor) else x for name, x in given.items()}
    return op.plan(**arrays, **({"blas": "torch"} if _takes_blas(op.plan) else {}))


@functools.cache
def _takes_blas(plan: Callable[..., Any]) -> bool:
    return "blas" in inspect.signature(plan).parameters


def _declared(op: Op, given: Mapping[str, Any], wrt: Sequence[bool]) -> list[tuple[tuple[Any, ...], torch.dtype]]:
    """Return the shape and dtype of each output of the forward op."""
    dtype = given[op.differentiable[0]].dtype
    wide = dtype if dtype in _NUMPY_HAS else torch.float32
    outputs: tuple[Output, ...] = op.outputs(given, _wanted(op, wrt))
    return [(x.shape, getattr(torch, x.dtype) if x.dtype else dtype if x.narrow else wide) for x in outputs]


def _told(op: Op, given: Mapping[str, Any]) -> int:
    """Return how many statistics stand behind the value."""
    return len(op.statistics._fields) if op.statistics and given["return_stats"] else 0


def _wanted(op: Op, wrt: Sequence[bool]) -> frozenset[str]:
    return frozenset(name for name, _ in _asked(op, wrt, wrt))


def _asked(op: Op, wrt: Sequence[bool], values: Sequence[Any]) -> list[tuple[str, Any]]:
    """Pair each differentiable argument whose gradient is wanted with its value."""
    return [(name, value) for name, asked, value in zip(op.differentiable, wrt, values, strict=True) if asked]


def _array(tensor: Tensor) -> Any:
    """Return a tensor as kernels take it; on the CPU in a dtype that NumPy has."""
    if _arrays.on_device(tensor):
        return _device.of(tensor)
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.dtype not in _NUMPY_HAS:
        tensor = tensor.float()
    return tensor.resolve_neg().numpy()


def _tensor(x: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return what an operation computed as a tensor in C order; nothing as one without elements."""
    if x is None:
        return torch.empty(0, dtype=dtype, device=device)
    if isinstance(x, DeviceArray):
        made: Tensor = x.owner
        return made.to(dtype).contiguous()
    tensor = torch.from_numpy(np.require(x, requirements=["C", "W"])) if np.ndim(x) else torch.tensor(x)
    return tensor.to(dtype)


def _needs_gradient(x: Tensor | None) -> bool:
    return x is not None and x.requires_grad and torch.is_grad_enabled()


def _check_type(op: str, parameter: inspect.Parameter, value: Any) -> None:
    kind, optional = _kind(parameter)
    if isinstance(value, _ACCEPTED[kind]) or (optional and value is None):
        return
    wanted, remedy = ("a tensor", ": use torch.as_tensor(...)") if kind == "Any" else (f"of type {kind}", "")
    raise TypeError(f"{op}: {parameter.name} must be {wanted}, got {type(value).__name__}{remedy}")


def _check_tensors(op: Op, given: Mapping[str, Any]) -> None:
    name, tensors = op.name, {key: x for key, x in given.items() if isinstance(x, Tensor)}
    devices = {x.device for x in tensors.values()}
    if len(devices) > 1:
        places = ", ".join(f"{key} on {x.device}" for key, x in tensors.items())
        raise ValueError(f"{name}: the tensors are on different devices ({places}): move them to one with .to(device)")
    if devices and next(iter(devices)).type not in _DEVICES:
        raise NotImplementedError(
            f"{name} has no kernels for {devices.pop()} yet; it runs on tensors on {' and '.join(_DEVICES)}"
        )
    if not torch.compiler.is_compiling() and any(_is_transformed(x) for x in tensors.values()):
        raise NotImplementedError(
            f"fastnlp.torch.{name} does not work within torch.func (grad, vmap, jvp, ...) or forward-mode "
            "differentiation: use backward() or torch.autograd.grad, or torch's own function there"
        )
    for key, x in tensors.items():
        if x.layout != torch.strided:
            raise TypeError(f"{name}: {key} must be a dense tensor, got layout {x.layout}: use .to_dense()")
        if key not in op.differentiable and _needs_gradient(x):
            raise NotImplementedError(f"{name} has no gradient for {key}: hand over {key}.detach()")


def _is_transformed(x: Tensor) -> bool:
    """Tell whether a transform of torch.func wraps a tensor, or it carries a tangent, which a custom op would drop."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x) or (
        forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None
    )
