"""Arrays on a GPU, whichever library they belong to: `DeviceArray`, and what a `Library` does for it.

Operations and drivers of CUDA kernels see these two alone. A library makes arrays, multiplies matrices (cuBLAS) and
launches kernels, all on the stream that is current for its caller; nothing here waits for the device. Each library has
a file of its own (``_device_cupy.py``, ``_device_torch.py``), imported when an array of it comes in.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import numpy as np

_WORDS = {"float32": "f32*", "float64": "f64*", "float16": "f16*", "bfloat16": "bf16*", "int64": "i64*"}
_WORDS |= {"int32": "i32*", "uint8": "u8*", "bool": "u8*"}
FLOATS = ("float32", "float16", "bfloat16")
"""The names of the dtypes that kernels read and write."""


@functools.cache
def _word(dtype: np.dtype[Any]) -> str:
    return _WORDS[dtype.name]  # a name takes NumPy as long as a launch has


class DeviceArray:
    """A view of an array on a GPU: its shape, its dtype, its address; never its values.

    Attributes
    ----------
    owner
        The CuPy array or the tensor.
    library
        What allocates beside it and launches where it lives.
    dtype
        As NumPy has it, bfloat16 from ml_dtypes.
    spare
        Whether its memory may be written over: what is there is needed by nobody else.
    """

    __slots__ = ("dtype", "library", "owner", "shape", "spare", "strides")

    def __init__(
        self, owner: Any, library: Library, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any
    ) -> None:
        self.owner, self.library, self.shape, self.dtype = owner, library, shape, dtype
        self.strides = strides  # in elements
        self.spare = False

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(self.dtype.itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def address(self) -> int:
        """Where its first element stands."""
        return self.library.address(self)

    @property
    def word(self) -> str:
        """What kernels call a pointer to its elements."""
        return _word(self.dtype)

    @property
    def pitch(self) -> int:
        """Elements from one row to the next, of rows ``(N, V)``."""
        return self.strides[0] if self.shape[0] > 1 else max(1, self.shape[1])

    @property
    def contiguous(self) -> bool:
        """Whether it is in C order without gaps."""
        expected = 1
        for n, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n != 1 and stride != expected:
                return self.size == 0
            expected *= n
        return True

    @property
    def by_rows(self) -> bool:
        """Whether it is rows ``(N, V)`` without gaps inside, which do not overlap."""
        n, v = self.shape
        return not v or ((v == 1 or self.strides[1] == 1) and (n <= 1 or self.strides[0] >= v))

    @property
    def by_columns(self) -> bool:
        """Whether it is columns of a matrix without gaps inside, which do not overlap."""
        n, v = self.shape
        return not n or ((n == 1 or self.strides[0] == 1) and (v <= 1 or self.strides[1] >= n))

    @property
    def extent(self) -> int:
        """Bytes from its first element to the end of its last."""
        if not self.size:
            return 0
        return self.itemsize * (1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)))

    @property
    def T(self) -> DeviceArray:  # noqa: N802 (as NumPy calls it)
        """The transposed view."""
        return self.library.wrap(self.owner.T)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> DeviceArray:
        return self.library.wrap(self.owner[index])

    def reshape(self, *shape: Any) -> DeviceArray:
        """Return a view of another shape, or a copy where there is no such view."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        return self if wanted == self.shape else self.library.reshape(self, wanted)

    def moveaxis(self, source: int, to: int) -> DeviceArray:
        """Return a view with one axis elsewhere."""
        return self.library.moveaxis(self, source, to)

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        """Return it in another dtype; itself where that is its own and no copy is asked for."""
        return self if not copy and dtype == self.dtype else self.library.cast(self, np.dtype(dtype))

    def copy(self) -> DeviceArray:
        """Return a copy."""
        return self.library.cast(self, self.dtype)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("an array on the GPU is not moved to the CPU silently: use cupy.asnumpy(x) or tensor.cpu()")

    def __repr__(self) -> str:
        return f"DeviceArray({self.shape}, {self.dtype.name}, {self.library})"


class Pinned(NamedTuple):
    """Memory of the host that kernels write to, int64: no copy, and no wait, tells the host what they found."""

    host: Any  # as NumPy sees it
    address: int


class Library(abc.ABC):
    """What an array library does on one device. `wrap` makes a `DeviceArray` of an array of its own."""

    name: str
    device: int
    out_of_memory: type[Exception] = MemoryError
    """What it raises where the device has no more memory."""

    @abc.abstractmethod
    def wrap(self, owner: Any) -> DeviceArray:
        """Return an array of the library as a `DeviceArray`."""

    @abc.abstractmethod
    def address(self, x: DeviceArray) -> int:
        """Return where the first element stands."""

    @abc.abstractmethod
    def empty(self, shape: int | Sequence[int], dtype: Any) -> DeviceArray:
        """Allocate an uninitialised array."""

    @abc.abstractmethod
    def zeros(self, shape: int | Sequence[int], dtype: Any) -> DeviceArray:
        """Allocate an array of zeros."""

    @abc.abstractmethod
    def full(self, shape: int | Sequence[int], value: float, dtype: Any) -> DeviceArray:
        """Allocate an array of one value."""

    @abc.abstractmethod
    def clear(self, x: DeviceArray) -> None:
        """Write zeros."""

    @abc.abstractmethod
    def cast(self, x: DeviceArray, dtype: Any) -> DeviceArray:
        """Return a copy in another dtype."""

    @abc.abstractmethod
    def ready(self, x: DeviceArray) -> DeviceArray:
        """Return `x` in C order; itself where it already is."""

    @abc.abstractmethod
    def moveaxis(self, x: DeviceArray, source: int, to: int) -> DeviceArray:
        """Return a view with one axis elsewhere."""

    @abc.abstractmethod
    def copy(self, source: DeviceArray, out: DeviceArray) -> None:
        """Write the elements of one array, in its order, to another of as many."""

    @abc.abstractmethod
    def matmul(self, a: DeviceArray, b: DeviceArray, out: DeviceArray, *, accumulate: bool = False) -> None:
        """Write ``a @ b`` to `out`, or add it there: float32 sums; `out` may be float32 where a and b are 16-bit."""

    @abc.abstractmethod
    def nonzero(self, x: DeviceArray) -> DeviceArray:
        """Return the indices at which a vector is not zero, int64; the host waits to know how many."""

    @abc.abstractmethod
    def take(self, x: DeviceArray, rows: DeviceArray) -> DeviceArray:
        """Return some rows of a matrix, as a copy."""

    @abc.abstractmethod
    def sort(self, x: DeviceArray) -> DeviceArray:
        """Return the elements of a vector in ascending order; `x` may be overwritten."""

    @abc.abstractmethod
    def cumsum(self, x: DeviceArray) -> DeviceArray:
        """Return the sums of the first elements of an int64 vector, each with its own."""

    @abc.abstractmethod
    def upload(self, x: Any) -> DeviceArray:
        """Return a copy on the device of an array on the host."""

    @abc.abstractmethod
    def run(self, kernel: Any, words: tuple[str | None, ...], blocks: int, threads: int, args: list[Any]) -> None:
        """Launch a kernel on the current stream: addresses and numbers."""

    @abc.abstractmethod
    def capturing(self) -> bool:
        """Tell whether the current stream is being captured into a graph."""

    @abc.abstractmethod
    def pinned(self, n: int) -> Pinned:
        """Allocate n int64 zeros on the host that kernels can write to."""

    @abc.abstractmethod
    def read(self, x: DeviceArray) -> Any:
        """Return the values of `x` as a NumPy array: the host waits for the device."""

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Wait for the current stream."""

    @abc.abstractmethod
    def properties(self) -> dict[str, int]:
        """Return ``processors`` and ``shared`` (bytes a block may share), of the device."""

    def reshape(self, x: DeviceArray, shape: Any) -> DeviceArray:
        """Return a view of another shape, or a copy where there is no such view."""
        return self.wrap(x.owner.reshape(shape))

    @functools.cached_property
    def processors(self) -> int:
        """How many multiprocessors the device has."""
        return self.properties()["processors"]

    def launch(self, kernel: Any, blocks: int, threads: int, *args: Any) -> None:
        """Launch `kernel` on `args`: arrays, None, ints, floats, in the order in which it declares them."""
        words: list[str | None] = []
        values: list[Any] = []
        for x in args:
            if isinstance(x, DeviceArray):
                words.append(x.word)
                values.append(x.address)
            elif isinstance(x, Pinned):
                words.append("i64*")
                values.append(x.address)
            elif x is None:
                words.append(None)
                values.append(0)
            else:
                words.append("i64" if isinstance(x, int) else "f32")
                values.append(x)
        self.run(kernel, tuple(words), blocks, threads, values)

    @contextmanager
    def memory_errors(self, remedy: str) -> Iterator[None]:
        """Let an allocation that fails in here say what helps, in the library's own exception."""
        try:
            yield
        except self.out_of_memory as error:
            error.args = (f"{error} ({remedy})",)
            raise

    def __str__(self) -> str:
        return f"{self.name}:{self.device}"


def of(x: Any) -> DeviceArray:
    """Return a CuPy array or a CUDA tensor as a `DeviceArray`; one that is already comes back as it is.

    Raises
    ------
    TypeError
        Neither.
    """
    if isinstance(x, DeviceArray):
        return x
    roots = {base.__module__.partition(".")[0] for base in type(x).__mro__}
    if "cupy" in roots:
        from fastnlp._device_cupy import library_of

        return library_of(x).wrap(x)
    if "torch" in roots and x.is_cuda:
        from fastnlp._device_torch import library_on

        return library_on(x.device).wrap(x)
    raise TypeError(f"not an array on a GPU: {type(x).__name__}")
