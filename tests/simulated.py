"""A library of device arrays whose device is this CPU: NumPy memory, and kernels in the simulator.

In a test:

    gpu = SimulatedLibrary()
    x = gpu.on_device(rng.standard_normal((5, 24)), "bfloat16", offset=1, pitch=27)
    loss = gpu.empty(5, "float32")            # poisoned
    labels.forward(x, ..., loss)              # a driver of kernels/cuda
    host(loss)                                # a NumPy array
    gpu.waits                                 # what made the host wait: [] where nothing may
"""

from __future__ import annotations

import functools
import inspect
import mmap
import re

import ml_dtypes
import numpy as np

from fastnlp._device import DeviceArray, Library, Pinned
from tests import simt
from tests.simt_arguments import FAR

_ALIGNED = 256
_UNRESERVED = getattr(mmap, "MAP_NORESERVE", 0x4000)


def host(x):
    """Return what a simulated array holds, as a NumPy array (bfloat16 from ml_dtypes)."""
    return np.array(x.owner)


class SimulatedLibrary(Library):
    """NumPy arrays as a GPU sees them.

    Parameters
    ----------
    processors
        Multiprocessors of the device: few, so that there are more rows than blocks.
    most_threads
        A launch with more threads a block is simulated with so many: kernels do not depend on it.
    most_blocks
        A launch with more blocks is simulated with so many where the kernel steps by their number (``+= blocks()``):
        such a kernel takes any number, and a block then takes several items.
    seed
        Of the first launch's order of blocks and threads; each launch adds one.
    races
        Whether the simulator looks for them.
    """

    name = "simulated"
    device = 0

    def __init__(self, *, processors=3, most_threads=64, most_blocks=3, seed=0, races=True):
        self._processors, self.most_threads, self.most_blocks = processors, most_threads, most_blocks
        self.seed, self.races = seed, races
        self.launches = []
        self.waits = []
        self.in_capture = False

    # --- arrays

    def wrap(self, owner):
        assert isinstance(owner, np.ndarray), type(owner)
        strides = tuple(s // owner.itemsize for s in owner.strides)
        return DeviceArray(owner, self, owner.shape, strides, owner.dtype)

    def address(self, x):
        return int(x.owner.ctypes.data)

    def allocate(self, n, dtype, offset=0):
        """Return n poisoned elements whose first stands `offset` elements after a multiple of 256 bytes."""
        dtype = np.dtype(dtype)
        if n * dtype.itemsize > FAR:  # addresses, not memory
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _UNRESERVED
            return np.frombuffer(mmap.mmap(-1, (offset + n) * dtype.itemsize, flags=flags), dtype)[offset:]
        raw = np.empty((offset + n) * dtype.itemsize + _ALIGNED, np.uint8)
        first = -raw.ctypes.data % _ALIGNED + offset * dtype.itemsize
        flat = raw[first : first + n * dtype.itemsize].view(dtype)
        flat[...] = _poison(dtype)
        return flat

    def empty(self, shape, dtype):
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        return self.wrap(self.allocate(int(np.prod(shape, dtype=np.int64)), dtype).reshape(shape))

    def zeros(self, shape, dtype):
        return self.full(shape, 0, dtype)

    def full(self, shape, value, dtype):
        made = self.empty(shape, dtype)
        made.owner[...] = value
        return made

    def on_device(self, array, dtype=None, *, offset=0, pitch=None, readonly=False):
        """Return a copy of an array, `offset` elements after an aligned address, its rows `pitch` elements apart."""
        array = np.asarray(array)
        dtype = array.dtype if dtype is None else np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
        pitch = array.shape[-1] if pitch is None and array.ndim else pitch
        if array.ndim < 2 or pitch == array.shape[-1]:
            view = self.allocate(array.size, dtype, offset).reshape(array.shape)
        else:
            rows = array.size // array.shape[-1]
            flat = self.allocate(rows * pitch, dtype, offset)
            view = flat.reshape(*array.shape[:-1], pitch)[..., : array.shape[-1]]
        with np.errstate(over="ignore"):
            view[...] = array.astype(dtype)
        view.flags.writeable = not readonly
        return self.wrap(view)

    def clear(self, x):
        x.owner[...] = 0

    def cast(self, x, dtype):
        made = self.empty(x.shape, dtype)
        with np.errstate(over="ignore"):
            made.owner[...] = x.owner.astype(dtype)
        return made

    def ready(self, x):
        return x if x.contiguous else self.cast(x, x.dtype)

    def moveaxis(self, x, source, to):
        return self.wrap(np.moveaxis(x.owner, source, to))

    def copy(self, source, out):
        out.owner[...] = source.owner.reshape(out.shape)

    def matmul(self, a, b, out, *, accumulate=False):
        assert a.dtype == b.dtype
        assert out.dtype in (a.dtype, np.float32)
        assert out.size == 0 or out.contiguous or out.strides[1] == 1, out.strides
        assert all(_in_an_order(x) for x in (a, b)), (a.shape, a.strides, b.shape, b.strides)
        product = np.matmul(a.owner.astype(np.float32), b.owner.astype(np.float32))
        with np.errstate(over="ignore"):
            out.owner[...] = (product + out.owner if accumulate else product).astype(out.dtype)

    def nonzero(self, x):
        self._wait("nonzero")
        return self.on_device(np.flatnonzero(x.owner))

    def take(self, x, rows):
        return self.on_device(x.owner[rows.owner])

    def sort(self, x):
        return self.on_device(np.sort(x.owner))

    def cumsum(self, x):
        return self.on_device(np.cumsum(x.owner))

    # --- from and to the host

    def upload(self, x):
        return self.on_device(x)

    def read(self, x):
        self._wait("read")
        return host(x)

    # --- the device

    def launch(self, kernel, blocks, threads, *args):
        if not blocks:
            return
        words = [_word(x) for x in args]
        self.launches.append(kernel.name)
        self.seed += 1
        views = [self._view(x) for x in args]
        assert 0 < threads <= kernel.threads, f"{kernel.name} is launched with {threads} threads a block"
        assert 0 < blocks < 1 << 31, f"{kernel.name} is launched with {blocks} blocks"
        assert type(blocks) is type(threads) is int  # the driver's interface takes no other
        threads = min(threads, self.most_threads)
        if _steps_by_blocks(kernel):
            blocks = min(blocks, self.most_blocks)
        simt.launch(kernel, blocks, threads, views, words=words, seed=self.seed, races=self.races)

    def _view(self, x):
        if isinstance(x, DeviceArray):
            assert x.library is self, f"an array of {x.library} in a launch of {self}"
            return x.owner
        return x.host if isinstance(x, Pinned) else x

    def run(self, kernel, words, blocks, threads, args):
        raise AssertionError("launch runs the simulator")

    def capturing(self):
        return self.in_capture

    def pinned(self, n):
        words = self.zeros(n, np.int64)
        return Pinned(words.owner, words.address)

    def synchronize(self):
        self._wait("synchronize")

    def properties(self):
        return {"processors": self._processors, "shared": 227 << 10}

    def _wait(self, what):
        assert not self.in_capture, f"{what} while a graph is captured"
        self.waits.append(what)


@functools.cache
def _steps_by_blocks(kernel):
    return re.search(r"\+= .*\bblocks\(\)", inspect.getsource(kernel.function)) is not None


def _in_an_order(x):
    """Tell whether cuBLAS takes a matrix: an axis without gaps, and what it has along the other one apart."""
    (n, v), (rows, columns) = x.shape, x.strides
    by_rows = (v == 1 or columns == 1) and (n == 1 or rows >= v)
    by_columns = (n == 1 or rows == 1) and (v == 1 or columns >= n)
    return not x.size or by_rows or by_columns


def _word(x):
    if isinstance(x, DeviceArray):
        return x.word
    return "i64*" if isinstance(x, Pinned) else None if x is None else "i64" if isinstance(x, int) else "f32"


def _poison(dtype):
    return np.nan if dtype.kind in "fV" else np.iinfo(dtype).max - 77 if dtype.kind in "iu" else True
