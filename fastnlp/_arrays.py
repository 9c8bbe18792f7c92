"""Arrays: checks on what comes in, rows, dtypes, allocation beside it.

With ``_device.py``, which holds what lives on a GPU, the only code that knows array libraries: operations call these
functions for arrays on either side. A CuPy array is a `DeviceArray` from `read` on, and itself again in `given_back`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastnlp import _device
from fastnlp._device import DeviceArray

Array = NDArray[Any]

_COMPUTED = (np.dtype(np.float32), np.dtype(np.float64))
_INT64 = np.dtype(np.int64)
_ON_GPU = {"cupy", "device"}


def library_of(x: object) -> str:
    """Name the library that owns `x` without importing it: ``numpy`` (or what NumPy can read), ``cupy``, ``torch``.

    What the torch bridge hands over for a tensor on a GPU is of ``device``.
    """
    kind = type(x)
    if kind is np.ndarray:
        return "numpy"
    if kind is DeviceArray:
        return "device"
    for base in kind.__mro__:
        root = base.__module__.partition(".")[0]
        if root in ("cupy", "torch"):
            return root
    return "numpy"


def on_device(x: object) -> bool:
    """Tell whether `x` lives on a GPU, as a CuPy array or as a (fake) tensor."""
    return type(x) is not np.ndarray and (library_of(x) in _ON_GPU or bool(getattr(x, "is_cuda", False)))


def common_library(*arrays: Any) -> str:
    """Name the one library that all `arrays` belong to; None entries are skipped.

    Raises
    ------
    TypeError
        The arrays are of different libraries, or torch tensors.
    ValueError
        They live on different GPUs.
    """
    for x in arrays:
        if type(x) is not np.ndarray and x is not None:
            break
    else:  # the usual call
        return "numpy"
    libraries = {library_of(x) for x in arrays if x is not None}
    if "torch" in libraries:
        on_gpu = any(getattr(x, "is_cuda", False) for x in arrays)
        array = "cupy.from_dlpack(tensor.detach())" if on_gpu else "tensor.detach().numpy()"
        raise TypeError(
            "got a torch tensor: call the function of the same name in fastnlp.torch, "
            f"or pass {array} if no gradient is wanted"
        )
    if len(libraries) > 1:
        raise TypeError(
            f"arrays of {' and '.join(sorted(libraries))} are mixed in one call: "
            "move them to one device first (cupy.asarray(x) or cupy.asnumpy(x))"
        )
    several = [x for x in arrays if x is not None]
    if libraries & _ON_GPU and len(several) > 1:
        places = {_device.of(x).library for x in several}
        if len(places) > 1:
            names = " and ".join(sorted(map(str, places)))
            raise ValueError(f"arrays on {names} are mixed in one call: move them to one GPU")
    return libraries.pop() if libraries else "numpy"


def read(name: str, x: Any) -> Array:
    """Return `x` as an array, whatever its dtype; only what is not one yet is converted.

    Raises
    ------
    TypeError
        A masked array.
    ValueError
        Not an array, and nothing that can be read as one.
    """
    if type(x) is np.ndarray:
        return x
    if library_of(x) in _ON_GPU:
        return _device.of(x)  # type: ignore[return-value]
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: fill or drop the masked entries first (x.filled(...))")
    try:
        return np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of different lengths, a tensor that wants gradients
        raise ValueError(f"{name} cannot be read as an array: {error}") from error


def floating(name: str, x: Any, *, ndim: int | None = None, like: Array | None = None) -> Array:
    """Return `x` as a float32 or float64 array; float16 and bfloat16 become float32, nothing else is converted.

    Parameters
    ----------
    name
        The caller's name for the argument, used in errors.
    x
        An array, or a sequence of numbers (read as float64).
    ndim
        The number of axes it must have; None: at least one.
    like
        An array whose dtype it must share.

    Raises
    ------
    TypeError
        Not a floating dtype, or not the dtype of `like`.
    ValueError
        The wrong number of axes, or none.
    """
    array = x if type(x) is np.ndarray and x.dtype in _COMPUTED else _floats(name, x)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {array.shape}")
    if not array.ndim:
        raise ValueError(f"{name} must have at least one axis, got a scalar")
    if like is not None and array.dtype != like.dtype:
        raise TypeError(f"{name} is {array.dtype.name}, but {like.dtype.name} is wanted: convert one with .astype(...)")
    return array


def upstream(dy: Any, value: Any) -> Array:
    """Return an upstream gradient as a float32 or float64 array of the shape of `value`, beside it.

    Raises
    ------
    TypeError
        Not a floating dtype.
    ValueError
        Another shape.
    """
    shape = np.shape(value)
    if type(value) is DeviceArray and isinstance(dy, int | float):
        array: Any = value.library.full((), float(dy), np.float32)
    else:
        array = _floats("dy", dy)
    if (type(array) is DeviceArray) != (type(value) is DeviceArray):
        raise TypeError("dy must live where the value does: move it with cupy.asarray(dy) or cupy.asnumpy(dy)")
    if array.shape != shape:
        raise ValueError(f"dy must have the shape of the value, {shape}, got {array.shape}")
    return array


def _floats(name: str, x: Any) -> Array:
    array = read(name, x)
    if type(array) is DeviceArray:
        if array.dtype.name not in _device.FLOATS:
            raise TypeError(
                f"{name} must be float32, float16 or bfloat16 on a GPU, got {array.dtype.name}: "
                "convert it, or move it to the CPU"
            )
        return array
    if not hasattr(x, "dtype") and array.dtype.kind in "iuf":
        return array.astype(np.float64, copy=False)
    return array if array.dtype in _COMPUTED else array.astype(_computed_dtype(name, array.dtype))


def _computed_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which an argument of another floating dtype is computed."""
    if dtype.name in ("float16", "bfloat16"):
        return _COMPUTED[0]
    native = dtype.newbyteorder("=")
    if native in _COMPUTED:
        return native
    raise TypeError(
        f"{name} must be float32, float64, float16 or bfloat16, got {dtype.name}: convert it with .astype(...)"
    )


def result_dtype(x: Any) -> np.dtype[Any]:
    """Return the dtype in which an array result goes back for the argument `x`: its own if floating, else float64."""
    dtype = getattr(x, "dtype", None)
    return np.dtype(np.float64) if dtype is None else dtype


_FEW = 64  # elements that Python goes through faster than a call of NumPy starts


def class_indices(
    name: str, x: Any, *, shape: tuple[int, ...], classes: int, ignore_index: int | None
) -> tuple[Array, int]:
    """Return class indices `x` as a flat int64 array, -1 where they are ignored, and how many are not.

    Raises
    ------
    TypeError
        Not an integer dtype.
    ValueError
        Not of `shape`, or an entry that is neither in ``[0, classes)`` nor `ignore_index`.
    """
    array = read(name, x)
    if array.size == 0 and not isinstance(x, np.ndarray):
        array = array.astype(np.int64)  # an empty list has no dtype
    check_class_indices(name, array, shape)
    given = array if array.ndim == 1 else array.reshape(-1)
    flat = given if given.dtype == _INT64 else given.astype(np.int64)
    if flat.size <= _FEW and (ignore_index is None or not 0 <= ignore_index < classes):
        values = flat.tolist()
        if not values or (min(values) >= 0 and max(values) < classes):
            return flat, flat.size
    outside = flat.view(np.uint64) >= classes  # negative ones are huge here
    ignored = outside
    if np.count_nonzero(outside):
        wrong = outside if ignore_index is None else outside & (given != ignore_index)
        if np.count_nonzero(wrong):
            row = int(wrong.argmax())
            ignoring = "" if ignore_index is None else f" or ignore_index={ignore_index}"
            raise ValueError(
                f"{name} holds {int(given[row])} at row {row}, outside [0, {classes}){ignoring}: "
                "check the labels against the number of classes"
            )
    elif ignore_index is None or not 0 <= ignore_index < classes:  # the usual call
        return flat, flat.size
    if ignore_index is not None and 0 <= ignore_index < classes:
        ignored = flat == ignore_index
    n_ignored = int(np.count_nonzero(ignored))
    return (np.where(ignored, -1, flat) if n_ignored else flat), flat.size - n_ignored


def check_class_indices(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Check the dtype and the shape of class indices, not their values.

    Raises
    ------
    TypeError
        Not an integer dtype.
    ValueError
        Not of `shape`.
    """
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold class indices (int32 or int64), got {array.dtype.name}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, one class index a row, got {array.shape}")


def integers(name: str, x: Any) -> Array:
    """Return `x` as a one-dimensional int64 array: `any_integers`, converted."""
    return any_integers(name, x).astype(np.int64, copy=False)


def any_integers(name: str, x: Any) -> Array:
    """Return `x` as a one-dimensional array of integers that int64 can hold; floats, booleans are refused.

    Raises
    ------
    TypeError
        Not an integer dtype.
    ValueError
        Not one axis, or a value beyond int64.
    """
    array = read(name, x)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} must be integers, got {array.dtype.name}: convert them with .astype(np.int64)")
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}")
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds a value beyond int64")
    return array


def wide(x: Array) -> np.dtype[Any]:
    """Return the dtype of what is summed from `x`: losses, log-sum-exps, gradients of weights."""
    return _COMPUTED[0] if type(x) is DeviceArray else x.dtype


def kernel_ready(x: Array) -> Array:
    """Return `x` as compiled kernels want it: C-contiguous, native, aligned; a view wherever it already is.

    A read-only array is passed as a view that is flagged writeable: kernels never write to their inputs, and the flag
    alone would make the compiler build every kernel a second time.
    """
    if type(x) is DeviceArray:
        return x.library.ready(x)
    flags = x.flags
    if type(x) is np.ndarray and flags.carray and x.dtype.isnative:
        return x
    if not (flags.c_contiguous and getattr(flags, "aligned", True) and x.dtype.isnative):
        return x.astype(x.dtype.newbyteorder("="), order="C", copy=True)
    if not getattr(flags, "writeable", True):
        return np.asarray(_Writeable(x))
    return x


def factor_ready(x: Array) -> Array:
    """Return a matrix as products take it: on a GPU in C order or the other, rows or columns that may be apart."""
    return x if type(x) is not DeviceArray or x.by_rows or x.by_columns else x.library.ready(x)


def same_memory(a: Array, b: Array) -> bool:
    """Tell whether two C-contiguous arrays are the same elements."""
    if type(a) is DeviceArray:
        return a.contiguous and b.contiguous and a.nbytes == b.nbytes and a.address == b.address
    if not (a.flags.c_contiguous and b.flags.c_contiguous and a.nbytes == b.nbytes):
        return False
    return bool(a.__array_interface__["data"][0] == b.__array_interface__["data"][0])


def may_overlap(a: Array, b: Array) -> bool:
    """Tell whether two arrays on one side may have elements in common."""
    if type(a) is DeviceArray:
        return a.address < b.address + b.extent and b.address < a.address + a.extent
    return np.may_share_memory(a, b)


def moveaxis(x: Array, source: int, to: int) -> Array:
    """Return a view of `x` with one axis elsewhere."""
    return x.moveaxis(source, to) if type(x) is DeviceArray else np.moveaxis(x, source, to)


def fill(out: Array, x: Array) -> None:
    """Write `x`, in its order, to `out`, of as many elements."""
    if type(out) is DeviceArray:
        out.library.copy(x, out)
    else:
        out[...] = x.reshape(out.shape)


def given_back(value: Any) -> Any:
    """Return a result as the caller has arrays: what is on a GPU is a CuPy array again, also within a tuple."""
    if type(value) is DeviceArray:
        return value.owner
    if isinstance(value, tuple) and value and type(value[0]) is DeviceArray:
        parts = map(given_back, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


class _Writeable:
    """The memory of a read-only array under an array interface that says writeable."""

    def __init__(self, base: Array) -> None:
        interface = dict(base.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self._base = base  # keeps the memory alive


def as_rows(x: Array) -> Array:
    """Return `x` with its leading axes flattened to rows: ``(..., V)`` becomes a kernel-ready ``(N, V)``.

    On a GPU rows may be further apart than they are long.
    """
    if type(x) is DeviceArray and x.ndim == 2 and x.by_rows:
        return x
    rows = kernel_ready(x)
    return rows if rows.ndim == 2 else rows.reshape(prod(x.shape[:-1]), x.shape[-1])


def empty(shape: int | Sequence[int], dtype: DTypeLike, like: Array) -> Array:
    """Allocate an uninitialised array of `shape` where `like` lives."""
    return like.library.empty(shape, dtype) if type(like) is DeviceArray else np.empty(shape, dtype)


def zeros(shape: int | Sequence[int], dtype: DTypeLike, like: Array) -> Array:
    """Allocate an array of zeros where `like` lives: the system's zeroed pages, so that none is written here."""
    return like.library.zeros(shape, dtype) if type(like) is DeviceArray else np.zeros(shape, dtype)


def output(out: Array | None, shape: tuple[int, ...], dtype: DTypeLike, like: Array) -> Array:
    """Return the caller's `out` after checking it, or a new array.

    Raises
    ------
    TypeError
        `out` is not an array of the wanted dtype beside `like`.
    ValueError
        `out` has another shape, or cannot be written to.
    """
    if out is None:
        return empty(shape, dtype, like)
    if type(out) is np.ndarray is type(like) and out.dtype == dtype and out.shape == shape and out.flags.writeable:
        return out
    if type(like) is DeviceArray and library_of(out) in _ON_GPU:
        out = read("out", out)
    beside = type(out) is DeviceArray and out.library is like.library if type(like) is DeviceArray else _is_numpy(out)
    if not beside or out.dtype != dtype:
        raise TypeError(f"out must be an array of {np.dtype(dtype).name} beside the input, got {_describe(out)}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if type(out) is not DeviceArray and not out.flags.writeable:
        raise ValueError("out is read-only")
    return out


def _is_numpy(x: object) -> bool:
    return library_of(x) == "numpy" and hasattr(x, "dtype")


def _describe(x: object) -> str:
    dtype = getattr(x, "dtype", None)
    return f"{type(x).__name__} of {dtype}" if dtype is not None else type(x).__name__
