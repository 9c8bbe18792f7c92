"""CUDA tensors as `DeviceArray`: torch's allocator, torch's cuBLAS, torch's current stream."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fastnlp._device import DeviceArray, Library, Pinned

_ADDS_WIDE = torch.__version__ >= (2, 10)
"""Whether `torch.addmm` adds a product of 16-bit matrices to float32; older ones refuse, and `torch.mm` does not."""
_ELEMENTS_AT_A_TIME = 1 << 24  # of the product that is then added


@functools.cache
def _dtypes() -> dict[torch.dtype, Any]:
    import ml_dtypes

    names = (
        "float32",
        "float64",
        "float16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    )
    return {getattr(torch, name): np.dtype(name) for name in names} | {torch.bfloat16: np.dtype(ml_dtypes.bfloat16)}


@functools.cache
def _torch_dtype(dtype: Any) -> torch.dtype:
    found: torch.dtype = getattr(torch, np.dtype(dtype).name)
    return found


@functools.cache
def library_on(device: torch.device) -> TorchLibrary:
    """Return the library of tensors on a CUDA device."""
    return TorchLibrary(device)


class TorchLibrary(Library):
    """Tensors on one CUDA device."""

    name = "cuda"
    out_of_memory = torch.OutOfMemoryError

    def __init__(self, device: torch.device) -> None:
        self.torch_device = device
        self.device = device.index or 0

    def wrap(self, owner: torch.Tensor) -> DeviceArray:
        owner = owner.detach()
        if owner.is_neg():
            owner = owner.resolve_neg()
        dtype = _dtypes().get(owner.dtype)
        if dtype is None:
            raise TypeError(f"there are no kernels for tensors of {owner.dtype} on a GPU")
        return DeviceArray(owner, self, tuple(owner.shape), owner.stride(), dtype)

    def _made(self, owner: torch.Tensor) -> DeviceArray:
        return DeviceArray(owner, self, tuple(owner.shape), owner.stride(), _dtypes()[owner.dtype])

    def address(self, x: DeviceArray) -> int:
        return int(x.owner.data_ptr())

    def empty(self, shape: int | Sequence[int], dtype: Any) -> DeviceArray:
        return self._made(torch.empty(shape, dtype=_torch_dtype(dtype), device=self.torch_device))

    def zeros(self, shape: int | Sequence[int], dtype: Any) -> DeviceArray:
        return self._made(torch.zeros(shape, dtype=_torch_dtype(dtype), device=self.torch_device))

    def full(self, shape: int | Sequence[int], value: float, dtype: Any) -> DeviceArray:
        size = (shape,) if isinstance(shape, int) else tuple(shape)
        return self._made(torch.full(size, value, dtype=_torch_dtype(dtype), device=self.torch_device))

    def clear(self, x: DeviceArray) -> None:
        x.owner.zero_()

    def cast(self, x: DeviceArray, dtype: Any) -> DeviceArray:
        return self.wrap(x.owner.to(_torch_dtype(dtype), copy=True, memory_format=torch.contiguous_format))

    def ready(self, x: DeviceArray) -> DeviceArray:
        return x if x.contiguous else self.wrap(x.owner.contiguous())

    def moveaxis(self, x: DeviceArray, source: int, to: int) -> DeviceArray:
        return self.wrap(x.owner.movedim(source, to))

    def copy(self, source: DeviceArray, out: DeviceArray) -> None:
        out.owner.copy_(source.owner.reshape(out.shape))

    def matmul(self, a: DeviceArray, b: DeviceArray, out: DeviceArray, *, accumulate: bool = False) -> None:
        wide = {} if out.dtype == a.dtype else {"out_dtype": torch.float32}
        if wide and not hasattr(torch.ops.aten.mm, "dtype_out"):
            raise NotImplementedError(
                f"float16 and bfloat16 on a GPU need torch 2.8 or newer, whose matrix products have float32 sums; "
                f"this is {torch.__version__}: pip install --upgrade torch, or convert to float32"
            )
        if accumulate and wide and not _ADDS_WIDE:
            rows = max(1, _ELEMENTS_AT_A_TIME // max(1, out.shape[1]))
            for part, to in zip(a.owner.split(rows), out.owner.split(rows), strict=True):
                to += torch.mm(part, b.owner, **wide)
        elif accumulate:
            torch.addmm(out.owner, a.owner, b.owner, **wide, out=out.owner)
        else:
            torch.mm(a.owner, b.owner, **wide, out=out.owner)

    def nonzero(self, x: DeviceArray) -> DeviceArray:
        return self.wrap(torch.nonzero(x.owner).reshape(-1))

    def take(self, x: DeviceArray, rows: DeviceArray) -> DeviceArray:
        return self.wrap(x.owner.index_select(0, rows.owner))

    def sort(self, x: DeviceArray) -> DeviceArray:
        return self.wrap(torch.sort(x.owner).values)

    def cumsum(self, x: DeviceArray) -> DeviceArray:
        return self.wrap(torch.cumsum(x.owner, 0))

    def upload(self, x: Any) -> DeviceArray:
        host = torch.tensor(x).pin_memory()  # a copy from pageable memory would wait for the stream
        return self.wrap(host.to(self.torch_device, non_blocking=True))

    def run(self, kernel: Any, words: tuple[str | None, ...], blocks: int, threads: int, args: list[Any]) -> None:
        from fastnlp.kernels.cuda import prims

        with torch.cuda.device(self.torch_device):
            stream = torch.cuda.current_stream().cuda_stream
            prims.launch(kernel, words, blocks, threads, self.device, stream, args)

    def capturing(self) -> bool:
        with torch.cuda.device(self.torch_device):
            return bool(torch.cuda.is_current_stream_capturing())

    def pinned(self, n: int) -> Pinned:
        host = torch.zeros(n, dtype=torch.int64, pin_memory=True)
        return Pinned(host.numpy(), host.data_ptr())

    def read(self, x: DeviceArray) -> Any:
        return x.owner.cpu().numpy()

    def synchronize(self) -> None:
        torch.cuda.current_stream(self.torch_device).synchronize()

    def properties(self) -> dict[str, int]:
        found = torch.cuda.get_device_properties(self.torch_device)
        shared = getattr(found, "shared_memory_per_block_optin", 48 << 10)
        return {"processors": found.multi_processor_count, "shared": shared}
