"""Arrays on a GPU and the libraries they belong to, as far as that goes without one.

What a library of tensors does to memory is the same on the CPU, where it runs here; of CuPy only what its cuBLAS is
given can be seen. A launch goes as far as the driver, which a stand-in replaces.
"""

from __future__ import annotations

import ctypes
import itertools
import sys

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

from fastnlp import _device, _device_status  # noqa: E402
from fastnlp._device import DeviceArray, Pinned  # noqa: E402


class Host(_device.Library):
    """NumPy arrays, for what a library inherits."""

    name, device = "host", 0

    def wrap(self, owner):
        return DeviceArray(owner, self, owner.shape, tuple(s // owner.itemsize for s in owner.strides), owner.dtype)

    def address(self, x):
        return x.owner.ctypes.data

    def run(self, *args):
        self.ran = args


Host.__abstractmethods__ = frozenset()


def device_array(shape, strides):
    return DeviceArray(None, Host(), shape, strides, np.dtype(np.float32))


@pytest.mark.parametrize(
    ("shape", "strides", "contiguous", "by_rows", "pitch"),
    [
        ((3, 4), (4, 1), True, True, 4),
        ((3, 4), (6, 1), False, True, 6),
        ((1, 4), (99, 1), True, True, 4),
        ((3, 1), (1, 7), True, True, 1),
        ((3, 4), (1, 3), False, False, 1),
        ((3, 4), (0, 1), False, False, 0),
        ((0, 4), (1, 9), True, False, 4),
        ((3, 0), (5, 1), True, True, 5),
    ],
)
def test_layouts(shape, strides, contiguous, by_rows, pitch):
    x = device_array(shape, strides)
    assert (x.contiguous, x.by_rows, x.pitch) == (contiguous, by_rows, pitch)
    assert (x.size, x.nbytes, len(x)) == (shape[0] * shape[1], 4 * shape[0] * shape[1], shape[0])


def test_device_arrays_do_not_become_numpy_arrays():
    with pytest.raises(TypeError, match=r"cupy\.asnumpy\(x\) or tensor\.cpu\(\)"):
        np.asarray(device_array((3,), (1,)))
    with pytest.raises(TypeError, match="not an array on a GPU: ndarray"):
        _device.of(np.zeros(3))


def test_a_launch_is_addresses_and_numbers():
    host = Host()
    x, half = np.zeros(3, np.float32), np.zeros(3, ml_dtypes.bfloat16)
    host.launch("kernel", 2, 32, host.wrap(x), host.wrap(half), None, Pinned(None, 77), 5, 0.5)
    words, values = ("f32*", "bf16*", None, "i64*", "i64", "f32"), [x.ctypes.data, half.ctypes.data, 0, 77, 5, 0.5]
    assert host.ran == ("kernel", words, 2, 32, values)


def test_memory_that_runs_out_names_the_remedy():
    remedy = "a smaller workspace= takes less"
    with pytest.raises(MemoryError, match=rf"^out of memory \({remedy}\)$"), Host().memory_errors(remedy):
        raise MemoryError("out of memory")
    with pytest.raises(ValueError, match=r"^other$"), Host().memory_errors(remedy):
        raise ValueError("other")


def test_word_of_what_the_device_found(monkeypatch):
    host, words = Host(), np.zeros(3, np.int64)
    monkeypatch.setattr(Host, "capturing", lambda self: True, raising=False)
    monkeypatch.setattr(Host, "pinned", lambda self, n: Pinned(words, words.ctypes.data), raising=False)
    _device_status.raise_pending(host)
    assert _device_status.word(host) is None  # nothing is allocated within a graph
    monkeypatch.setattr(Host, "capturing", lambda self: False)
    assert _device_status.word(host) is _device_status.word(host)
    words[:] = 5, 50, 0
    with pytest.raises(ValueError, match="target holds 50 at row 4, which is neither a class nor ignore_index"):
        _device_status.raise_pending(host)
    _device_status.raise_pending(host)  # once
    words[2] = 8
    with pytest.raises(ValueError, match="num_valid is not the number of rows that count, which is 7"):
        _device_status.raise_pending(host)
    assert not words.any()


# --- tensors


@pytest.fixture
def tensors(monkeypatch):
    """The library of tensors, its device being the CPU."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fastnlp._device_torch import TorchLibrary

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # which wants a driver
    return TorchLibrary(torch.device("cpu"))


def test_tensors_are_wrapped_as_they_are(tensors):
    import torch

    x = torch.randn(4, 6, requires_grad=True)
    view = tensors.wrap(x[:, ::2])
    assert (view.shape, view.strides, view.dtype.name) == ((4, 3), (6, 2), "float32")
    assert view.address == x.data_ptr()
    assert not view.owner.requires_grad
    assert view.T.strides == (2, 6)
    assert view[1:].address == x.data_ptr() + 24
    assert tensors.wrap(torch.zeros(2, dtype=torch.bfloat16)).dtype == ml_dtypes.bfloat16
    assert tensors.wrap(torch._neg_view(torch.ones(2))).owner.tolist() == [-1, -1]  # a sign that memory has not
    with pytest.raises(TypeError, match=r"no kernels for tensors of torch\.complex64"):
        tensors.wrap(torch.zeros(2, dtype=torch.complex64))
    parameter = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(TypeError, match="not an array on a GPU"):
        _device.of(parameter)


def test_tensors_are_allocated_and_copied(tensors):
    assert tensors.empty(3, np.int64).owner.shape == (3,)
    assert not tensors.zeros((2, 3), np.float32).owner.any()
    assert tensors.full((), np.nan, np.float32).owner.isnan()
    x = tensors.upload(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    assert (x.T.contiguous, tensors.ready(x.T).strides, tensors.cast(x.T, np.float64).strides) == (
        False,
        (2, 1),
        (2, 1),
    )
    assert tensors.ready(x) is x
    assert x.astype(np.float32, copy=False) is x
    frozen = np.arange(3)
    frozen.flags.writeable = False
    assert tensors.upload(frozen).owner.tolist() == [0, 1, 2]
    assert tensors.nonzero(tensors.upload(np.array([0, 3, 0, 1]))).owner.tolist() == [1, 3]
    rows = tensors.upload(np.array([1, 1, 0]))
    assert tensors.take(x, rows).owner.tolist() == [[3, 4, 5], [3, 4, 5], [0, 1, 2]]
    assert tensors.read(tensors.sort(tensors.upload(np.array([3, 1, 2])))).tolist() == [1, 2, 3]
    assert tensors.read(tensors.cumsum(rows)).tolist() == [1, 2, 2]
    out = tensors.empty(6, np.float64)
    tensors.copy(x, out)
    assert out.owner.tolist() == [0, 1, 2, 3, 4, 5]
    tensors.clear(out)
    assert not out.owner.any()


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_products_of_tensors(tensors, transposed, rng):
    (m, k, n) = (3, 4, 5)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    given = [
        tensors.upload(np.ascontiguousarray(x.T)).T if t else tensors.upload(x)
        for x, t in zip((a, b), transposed, strict=True)
    ]
    out = tensors.full((m, n + 2), np.nan, np.float32)[:, :n]  # a buffer whose rows are longer
    tensors.matmul(*given, out)
    np.testing.assert_allclose(out.owner, a @ b, rtol=1e-5)
    tensors.matmul(*given, out, accumulate=True)
    np.testing.assert_allclose(out.owner, 2 * (a @ b), rtol=1e-5)
    nothing = tensors.full((m, n), 7, np.float32)
    tensors.matmul(tensors.zeros((m, 0), np.float32), tensors.zeros((0, n), np.float32), nothing)
    assert not nothing.owner.any()


@pytest.mark.parametrize("adds", [False, True])
def test_products_of_16_bit_matrices_are_added_to_float32(tensors, monkeypatch, adds):
    """As torch's CUDA functions do it: before 2.10 `addmm` took no float32 array beside 16-bit matrices."""
    import torch

    from fastnlp import _device_torch

    def mm(a, b, out_dtype):
        return (a.double() @ b.double()).to(out_dtype)

    def addmm(c, a, b, out_dtype, out):
        assert adds
        assert c.dtype == out.dtype == out_dtype
        return out.copy_(c + mm(a, b, out_dtype))

    monkeypatch.setattr(_device_torch, "_ADDS_WIDE", adds)
    monkeypatch.setattr(_device_torch, "_ELEMENTS_AT_A_TIME", 11)  # two rows
    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(torch, "addmm", addmm)
    dz, x = torch.randn(6, 8).bfloat16()[:, :7], torch.randn(6, 5).bfloat16()
    total = torch.randn(7, 5)
    expected = total.double() + dz.double().T @ x.double()
    tensors.matmul(tensors.wrap(dz).T, tensors.wrap(x), tensors.wrap(total), accumulate=True)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)
    nothing = tensors.zeros((0, 5), np.float32), tensors.zeros((7, 0), np.float32)
    half = tensors.wrap(torch.zeros(0, 6).bfloat16()), tensors.wrap(torch.zeros(6, 0).bfloat16())
    tensors.matmul(half[0], tensors.wrap(x), nothing[0], accumulate=True)
    tensors.matmul(tensors.wrap(dz).T, half[1], nothing[1], accumulate=True)


# --- CuPy


def column_major_gemm(sizes, a, b, c, memory):
    """Do what cuBLAS does with the arguments of gemmEx, on a dictionary from addresses to vectors."""
    (ta, tb, m, n, k), (a_at, _, lda), (b_at, _, ldb), (c_at, _, ldc) = sizes, a, b, c

    def matrix(at, rows, columns, leading):
        assert leading >= max(1, rows)
        return np.lib.stride_tricks.as_strided(memory[at], (rows, columns), (4, 4 * leading))

    left = matrix(a_at, *((k, m) if ta else (m, k)), lda)
    right = matrix(b_at, *((n, k) if tb else (k, n)), ldb)
    matrix(c_at, m, n, ldc)[...] = (left.T if ta else left) @ (right.T if tb else right)


@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (1, 6, 1)])
@pytest.mark.parametrize("layouts", list(itertools.product(("rows", "columns", "pitch"), repeat=2)))
def test_what_cublas_is_given(sizes, layouts, rng):
    pytest.importorskip("cupy", reason="cupy is not installed")
    from fastnlp._device_cupy import gemm_arguments

    host, (m, k, n) = Host(), sizes

    def laid_out(shape, layout):
        if layout == "columns":
            return rng.standard_normal(shape[::-1], np.float32).T
        return rng.standard_normal((shape[0], shape[1] + 3 * (layout == "pitch")), np.float32)[:, : shape[1]]

    a, b, out = laid_out((m, k), layouts[0]), laid_out((k, n), layouts[1]), laid_out((m, n), "pitch")
    memory = {at: x.base if x.base is not None else x for at, x in zip("abc", (a, b, out), strict=True)}
    counts, operands, result = gemm_arguments(*map(host.wrap, (a, b, out)), "a", "b", "c")
    first, second = operands[:3], operands[3:]
    column_major_gemm(counts, first, second, result, memory)
    np.testing.assert_allclose(out, a @ b, rtol=1e-5)


def test_matrices_that_cublas_cannot_take():
    pytest.importorskip("cupy", reason="cupy is not installed")
    from fastnlp._device_cupy import gemm_arguments

    host, x = Host(), np.zeros((4, 6), np.float32)
    row = x[:1, ::2]
    overlapping = np.lib.stride_tricks.as_strided(x, (4, 3), (4, 8))
    for a in (x[:, ::2], x[::-1, :3], np.broadcast_to(row, (4, 3)), np.broadcast_to(x[:, :1], (4, 3)), overlapping):
        with pytest.raises(ValueError, match=r"shape \(4, 3\) and strides \(.*\) is in neither order"):
            gemm_arguments(host.wrap(a), host.wrap(np.zeros((3, 2), np.float32)), host.wrap(x[:, :2]), 0, 0, 0)


# --- launches


class Module:
    """A module of the driver."""

    initialized = True

    def get_function(self, name):
        return type("Function", (), {"module": self, "name": name, "kernel": "the function"})()


class Context:
    """A context of the driver, on a device of compute capability 9.0."""

    device = type("Device", (), {"compute_capability": (9, 0), "id": 0})()

    def create_module_image(self, cubin, *callbacks):
        return Module()

    def get_default_stream(self):
        return 0


@pytest.fixture
def prims(monkeypatch, tmp_path):
    """The compiler, as if there were a device, and an empty cache."""
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    from fastnlp.kernels.cpu import _jit
    from fastnlp.kernels.cuda import prims

    monkeypatch.setattr(_jit, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(prims, "_compiled", {})
    monkeypatch.setattr(prims, "_capturing", lambda stream: False)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("numba.cuda"):
            for name in ("get_context", "current_context"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, lambda *args: Context())
    caches = (prims.cache_folder, prims._configured)
    for cache in caches:
        cache.cache_clear()
    yield prims
    for cache in caches:
        cache.cache_clear()


def small_kernel(prims):
    from fastnlp.kernels.cuda import _chunks

    return next(kernel for kernel in prims.KERNELS if kernel.function is _chunks.put_integers.function)


def test_kernels_are_kept_on_the_disk(prims, tmp_path):
    kernel = small_kernel(prims)
    first = prims._compile(kernel, kernel.signatures[0])
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".nbc"]
    second = prims._compile(kernel, kernel.signatures[0])
    assert (sum(first._cache_hits.values()), sum(second._cache_hits.values())) == (0, 1)
    assert second.specialized


def test_a_kernel_is_given_addresses_and_c_numbers(prims, monkeypatch):
    kernel, launched, entered = small_kernel(prims), [], []
    contexts = iter([0, 5])
    monkeypatch.setattr(prims, "core_launch", lambda *args: launched.append(args))
    monkeypatch.setattr(prims.driver, "cuCtxGetCurrent", lambda: (0, next(contexts)))
    monkeypatch.setattr(prims.cuda, "current_context", lambda: entered.append(1) or Context())
    for _ in range(2):
        prims.launch(kernel, ("i64*", "i64*", "i64", None), 3, 32, 0, 0, [1 << 40, 8, 7, 0])
    (stream, shape, function, *args), again = launched
    assert (tuple(shape.grid), tuple(shape.block), function) == ((3, 1, 1), (32, 1, 1), "the function")
    assert (args[0], args[1], args[3]) == (1 << 40, 8, 0)
    assert (type(args[2]), args[2].value) == (ctypes.c_int64, 7)
    assert again[:3] == (stream, shape, function)
    assert len(entered) == 1  # the first launch was in a thread without a context


def test_nothing_is_compiled_within_a_graph(prims, monkeypatch):
    kernel = small_kernel(prims)
    monkeypatch.setattr(prims, "_capturing", lambda stream: True)
    with pytest.raises(RuntimeError, match=r"put_integers is not compiled yet.*call the function once"):
        prims.launch(kernel, kernel.signatures[0], 1, 32, 0, 0, [0, 0, 1, 0])


def test_a_launch_that_fails_is_explained(prims, monkeypatch):
    from numba.cuda.cudadrv.error import CudaSupportError

    from fastnlp import _detect

    def fails(*args):
        raise CudaSupportError("driver init")

    kernel = small_kernel(prims)
    monkeypatch.setattr(prims, "_configured", fails)
    monkeypatch.setattr(_detect, "why_not_running", lambda: "no NVIDIA driver is installed")
    with pytest.raises(RuntimeError, match=r"^no kernel runs on the GPU: no NVIDIA driver is installed$"):
        prims.launch(kernel, kernel.signatures[0], 1, 32, 0, 0, [0, 0, 1, 0])
    prims.launch(kernel, kernel.signatures[0], 0, 32, 0, 0, [])  # no block, no launch


def test_arguments_of_other_types_are_refused(prims):
    kernel = small_kernel(prims)
    with pytest.raises(TypeError, match="put_integers takes"):
        prims.launch(kernel, ("f32*", "i64*", "i64", "i64*"), 1, 32, 0, 0, [0, 0, 1, 0])
