"""Arrays: checks on what comes in, rows, dtypes, allocation beside it. The only code that knows array libraries."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]

_COMPUTED = (np.dtype(np.float32), np.dtype(np.float64))
_INT64 = np.dtype(np.int64)


def library_of(x: object) -> str:
    """Name the library that owns `x` without importing it: ``numpy`` (or what NumPy can read), ``cupy``, ``torch``."""
    kind = type(x)
    if kind is np.ndarray:
        return "numpy"
    for base in kind.__mro__:
        root = base.__module__.partition(".")[0]
        if root in ("cupy", "torch"):
            return root
    return "numpy"


def common_library(*arrays: Any) -> str:
    """Name the one library that all `arrays` belong to; None entries are skipped.

    Raises
    ------
    TypeError
        The arrays are of different libraries, or torch tensors.
    """
    for x in arrays:
        if type(x) is not np.ndarray and x is not None:
            break
    else:  # the usual call
        return "numpy"
    libraries = {library_of(x) for x in arrays if x is not None}
    if "torch" in libraries:
        raise TypeError(
            "got a torch tensor: call the function of the same name in fastnlp.torch, "
            "or pass tensor.detach().numpy() if no gradient is wanted"
        )
    if len(libraries) > 1:
        raise TypeError(
            f"arrays of {' and '.join(sorted(libraries))} are mixed in one call: "
            "move them to one device first (cupy.asarray(x) or cupy.asnumpy(x))"
        )
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
    if type(x) is np.ndarray or library_of(x) == "cupy":
        return x
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


def upstream(dy: Any, shape: tuple[int, ...]) -> Array:
    """Return an upstream gradient as a float32 or float64 array of `shape`.

    Raises
    ------
    TypeError
        Not a floating dtype.
    ValueError
        Another shape.
    """
    array = _floats("dy", dy)
    if array.shape != shape:
        raise ValueError(f"dy must have the shape of the value, {shape}, got {array.shape}")
    return array


def _floats(name: str, x: Any) -> Array:
    array = read(name, x)
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
    if array.dtype.kind not in "iu" and not (array.size == 0 and not isinstance(x, np.ndarray)):
        raise TypeError(f"{name} must hold class indices (int32 or int64), got {array.dtype.name}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, one class index a row, got {array.shape}")
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


def kernel_ready(x: Array) -> Array:
    """Return `x` as compiled kernels want it: C-contiguous, native, aligned; a view wherever it already is.

    A read-only array is passed as a view that is flagged writeable: kernels never write to their inputs, and the flag
    alone would make the compiler build every kernel a second time.
    """
    flags = x.flags
    if type(x) is np.ndarray and flags.carray and x.dtype.isnative:
        return x
    if not (flags.c_contiguous and getattr(flags, "aligned", True) and x.dtype.isnative):
        return x.astype(x.dtype.newbyteorder("="), order="C", copy=True)
    if not getattr(flags, "writeable", True):
        return np.asarray(_Writeable(x))
    return x


def same_memory(a: Array, b: Array) -> bool:
    """Tell whether two C-contiguous arrays are the same elements."""
    if not (a.flags.c_contiguous and b.flags.c_contiguous and a.nbytes == b.nbytes):
        return False
    return bool(a.__array_interface__["data"][0] == b.__array_interface__["data"][0])


class _Writeable:
    """The memory of a read-only array under an array interface that says writeable."""

    def __init__(self, base: Array) -> None:
        interface = dict(base.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self._base = base  # keeps the memory alive


def as_rows(x: Array) -> Array:
    """Return `x` with its leading axes flattened to rows: ``(..., V)`` becomes a kernel-ready ``(N, V)``."""
    rows = kernel_ready(x)
    return rows if rows.ndim == 2 else rows.reshape(prod(x.shape[:-1]), x.shape[-1])


def empty(shape: int | Sequence[int], dtype: DTypeLike, like: Array) -> Array:
    """Allocate an uninitialised array of `shape` where `like` lives."""
    if type(like) is np.ndarray or library_of(like) != "cupy":
        return np.empty(shape, dtype)
    import cupy

    return cupy.empty(shape, dtype)


def zeros(shape: int | Sequence[int], dtype: DTypeLike, like: Array) -> Array:
    """Allocate an array of zeros where `like` lives: the system's zeroed pages, so that none is written here."""
    if type(like) is np.ndarray or library_of(like) != "cupy":
        return np.zeros(shape, dtype)
    import cupy

    return cupy.zeros(shape, dtype)


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
    if library_of(out) != library_of(like) or not hasattr(out, "dtype") or out.dtype != dtype:
        raise TypeError(f"out must be an array of {np.dtype(dtype).name} beside the input, got {_describe(out)}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if not getattr(out.flags, "writeable", True):
        raise ValueError("out is read-only")
    return out


def _describe(x: object) -> str:
    dtype = getattr(x, "dtype", None)
    return f"{type(x).__name__} of {dtype}" if dtype is not None else type(x).__name__
