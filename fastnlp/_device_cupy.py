"""CuPy arrays as `DeviceArray`: CuPy's memory pool, cuBLAS through ``gemmEx``, CuPy's current stream."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from fastnlp._device import DeviceArray, Library, Pinned


def library_of(x: cupy.ndarray) -> CupyLibrary:
    """Return the library of arrays on the device of `x`."""
    return library_on(x.device.id)


@functools.cache
def library_on(device: int) -> CupyLibrary:
    """Return the library of arrays on a device."""
    return CupyLibrary(device)


# cudaDataType and cublasComputeType_t, as cuBLAS numbers them
_CUDA_TYPES = {"float32": 0, "float16": 2, "bfloat16": 14}
_COMPUTE_32F, _DEFAULT_ALGORITHM = 68, -1
_ONE, _ZERO = np.ones((), np.float32), np.zeros((), np.float32)


def gemm_arguments(
    a: DeviceArray, b: DeviceArray, out: DeviceArray, a_address: int, b_address: int, out_address: int
) -> tuple[Any, ...]:
    """Return what the column-major ``gemmEx`` is given for the row-major ``out = a @ b``, without alpha and beta.

    In memory a row-major matrix is its transpose in column-major order, and ``out' = b' a'``: the operands change
    places, and each is transposed there if it is here.
    """
    (m, k), n = a.shape, b.shape[1]

    def operand(x: DeviceArray) -> tuple[int, int]:  # whether it is transposed, and its leading dimension
        rows, columns = x.shape
        if x.by_rows:
            return 0, max(1, columns) if rows == 1 else x.strides[0]
        if x.by_columns:
            return 1, max(1, rows) if columns == 1 else x.strides[1]
        raise ValueError(f"a matrix of shape {x.shape} and strides {x.strides} is in neither order")

    (ta, lda), (tb, ldb) = operand(a), operand(b)
    types = _CUDA_TYPES
    return (
        (tb, ta, n, m, k),
        (b_address, types[b.dtype.name], ldb, a_address, types[a.dtype.name], lda),
        (out_address, types[out.dtype.name], out.pitch),
    )


class CupyLibrary(Library):
    """CuPy arrays on one device."""

    name = "cupy"
    out_of_memory = cupy.cuda.memory.OutOfMemoryError

    def __init__(self, device: int) -> None:
        self.device = device

    def wrap(self, owner: Any) -> DeviceArray:
        strides = tuple(s // owner.itemsize for s in owner.strides)
        return DeviceArray(owner, self, owner.shape, strides, owner.dtype)

    def address(self, x: DeviceArray) -> int:
        return int(x.owner.data.ptr)

    def empty(self, shape: int | Sequence[int], dtype: Any) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            return self.wrap(cupy.empty(shape, dtype))

    def zeros(self, shape: int | Sequence[int], dtype: Any) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            return self.wrap(cupy.zeros(shape, dtype))

    def full(self, shape: int | Sequence[int], value: float, dtype: Any) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            return self.wrap(cupy.full(shape, value, dtype))

    def clear(self, x: DeviceArray) -> None:
        with cupy.cuda.Device(self.device):
            x.owner.fill(0)

    def cast(self, x: DeviceArray, dtype: Any) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            return self.wrap(x.owner.astype(dtype, order="C"))

    def ready(self, x: DeviceArray) -> DeviceArray:
        if x.contiguous:
            return x
        with cupy.cuda.Device(self.device):
            return self.wrap(cupy.ascontiguousarray(x.owner))

    def reshape(self, x: DeviceArray, shape: Any) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            return self.wrap(x.owner.reshape(shape))

    def moveaxis(self, x: DeviceArray, source: int, to: int) -> DeviceArray:
        return self.wrap(cupy.moveaxis(x.owner, source, to))

    def copy(self, source: DeviceArray, out: DeviceArray) -> None:
        with cupy.cuda.Device(self.device):
            out.owner[...] = source.owner.reshape(out.shape)

    def matmul(self, a: DeviceArray, b: DeviceArray, out: DeviceArray, *, accumulate: bool = False) -> None:
        try:
            from cupy_backends.cuda.libs import cublas
        except ImportError as error:
            from fastnlp._detect import INSTALL

            raise ImportError(f"CuPy does not find cuBLAS, a library of the CUDA toolkit: {INSTALL}") from error
        if not a.size or not b.size:
            if not accumulate:
                self.clear(out)
            return
        with cupy.cuda.Device(self.device):
            sizes, operands, result = gemm_arguments(a, b, out, a.address, b.address, out.address)
            beta = (_ONE if accumulate else _ZERO).ctypes.data
            handle = cupy.cuda.device.get_cublas_handle()
            cublas.gemmEx(
                handle,
                *sizes,
                _ONE.ctypes.data,
                *operands,
                beta,
                *result,
                _COMPUTE_32F,
                _DEFAULT_ALGORITHM,
            )

    def nonzero(self, x: DeviceArray) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            return self.wrap(cupy.flatnonzero(x.owner))

    def take(self, x: DeviceArray, rows: DeviceArray) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            return self.wrap(x.owner[rows.owner])

    def sort(self, x: DeviceArray) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            x.owner.sort()
        return x

    def cumsum(self, x: DeviceArray) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            return self.wrap(cupy.cumsum(x.owner))

    def upload(self, x: Any) -> DeviceArray:
        with cupy.cuda.Device(self.device):
            return self.wrap(cupy.asarray(x))

    def run(self, kernel: Any, words: tuple[str | None, ...], blocks: int, threads: int, args: list[Any]) -> None:
        from fastnlp.kernels.cuda import prims

        with cupy.cuda.Device(self.device):
            stream = cupy.cuda.get_current_stream().ptr
            prims.launch(kernel, words, blocks, threads, self.device, stream, args)

    def capturing(self) -> bool:
        with cupy.cuda.Device(self.device):
            return bool(cupy.cuda.get_current_stream().is_capturing())

    def pinned(self, n: int) -> Pinned:
        memory = cupy.cuda.alloc_pinned_memory(8 * n)
        host = np.frombuffer(memory, np.int64, n)
        host[...] = 0
        return Pinned(host, int(memory.ptr))

    def read(self, x: DeviceArray) -> Any:
        with cupy.cuda.Device(self.device):
            return cupy.asnumpy(x.owner)

    def synchronize(self) -> None:
        with cupy.cuda.Device(self.device):
            cupy.cuda.get_current_stream().synchronize()

    def properties(self) -> dict[str, int]:
        attributes = cupy.cuda.Device(self.device).attributes
        return {
            "processors": attributes["MultiProcessorCount"],
            "shared": attributes["MaxSharedMemoryPerBlockOptin"],
        }
