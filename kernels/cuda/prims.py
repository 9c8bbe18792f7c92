"""Everything that knows the CUDA compiler: declaring and launching kernels, wide loads and stores, reductions.

Kernels are plain functions of pointers and numbers, written with the names of this file alone, so that another
compiler, or a simulator, is another version of this file. An argument of a kernel is declared by one word:

    f32* f16* bf16* i64* i32* u8*     a pointer, or None; ``x*`` stands for each of f32*, f16*, bf16*,
                                      ``i*`` and ``j*`` each for i64* and i32*
    i64 f32                           a number

A pointer is not checked against anything: whoever launches answers for the bounds. Elements of 16 bits travel as their
bits and are read and written by `load1`, `load8`, `store1`, `store8`, which give and take float32; 32-bit and 64-bit
elements may also be indexed.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda.bindings import driver
from cuda.core import LaunchConfig, Stream
from cuda.core import launch as core_launch
from llvmlite import ir
from numba import cuda, types
from numba.cuda import dispatcher
from numba.cuda.api import get_current_device
from numba.cuda.cudadrv.error import CudaSupportError
from numba.cuda.dispatcher import CUDACache
from numba.cuda.extending import intrinsic

from fastnlp.kernels.cpu import _jit

_WORDS = {
    "f32*": types.CPointer(types.float32),
    "f64*": types.CPointer(types.float64),
    "f16*": types.CPointer(types.int16),
    "bf16*": types.CPointer(types.uint16),
    "i64*": types.CPointer(types.int64),
    "i32*": types.CPointer(types.int32),
    "u8*": types.CPointer(types.uint8),
    "i64": types.int64,
    "f32": types.float32,
}
FLOATS = ("f32*", "f16*", "bf16*")
"""What ``x*`` stands for."""
_ANY = {"x*": FLOATS, "i*": ("i64*", "i32*"), "j*": ("i64*", "i32*")}

KERNELS: list[Kernel] = []
"""Every kernel that is imported."""


class Kernel:
    """A kernel: its function, the arguments it is declared for, and what the compiler must make of it.

    Attributes
    ----------
    function
        The Python source.
    signatures
        Tuples of words, one for each set of argument types.
    threads
        The most threads a block is launched with.
    registers, loads, stores
        Bounds that the compiled code is held to: registers a thread at most, 16-byte loads and stores at least.
    float64
        Whether it computes in float64, on purpose.
    """

    def __init__(
        self,
        function: Callable[..., None],
        signature: str,
        threads: int,
        registers: int,
        loads: int,
        stores: int,
        float64: bool,
    ) -> None:
        self.function = function
        self.name = f"{function.__module__.rpartition('.')[2].lstrip('_')}.{function.__name__}"
        words = signature.split()
        several = [word for word in _ANY if word in words]
        chosen = (dict(zip(several, one, strict=True)) for one in product(*(_ANY[word] for word in several)))
        self.signatures = tuple(tuple(one.get(word, word) for word in words) for one in chosen)
        self.threads, self.registers, self.loads, self.stores = threads, registers, loads, stores
        self.float64 = float64

    def types(self, signature: tuple[str, ...]) -> Any:
        """Return the compiler's form of one of the signatures."""
        return types.void(*(_WORDS[word] for word in signature))

    def signature_for(self, words: tuple[str | None, ...]) -> tuple[str, ...]:
        """Return the signature that fits the words of some arguments; None, of an argument that is None, fits any.

        Raises
        ------
        TypeError
            There is none.
        """
        for signature in self.signatures:
            if len(words) == len(signature) and all(
                word is None or word == wanted for word, wanted in zip(words, signature, strict=True)
            ):
                return signature
        raise TypeError(f"{self.name} takes {' or '.join(map(str, self.signatures))}, got {words}")


def kernel(
    signature: str,
    *,
    threads: int = 256,
    registers: int = 64,
    loads: int = 0,
    stores: int = 0,
    float64: bool = False,
) -> Callable[[Callable[..., None]], Kernel]:
    """Declare a kernel (see `Kernel`); nothing is compiled before the first launch."""

    def declare(function: Callable[..., None]) -> Kernel:
        made = Kernel(function, signature, threads, registers, loads, stores, float64)
        KERNELS.append(made)
        return made

    return declare


def launch(
    kernel: Kernel,
    words: tuple[str | None, ...],
    blocks: int,
    threads: int,
    device: int,
    stream: int,
    args: Sequence[Any],
) -> None:
    """Launch a kernel on a stream of the current device, which is `device`; `args` are addresses and numbers.

    Raises
    ------
    RuntimeError
        It cannot be compiled or run on this machine, and why; or a graph is being captured before it is compiled.
    """
    if not blocks:
        return
    try:
        _configured(kernel, words, device, blocks, threads, stream)(*args)
    except Exception as error:
        if not _of_the_toolkit(error):
            raise
        from fastnlp._detect import explained

        raise explained(error) from error


@functools.lru_cache(maxsize=1024)
def _configured(
    kernel: Kernel, words: tuple[str | None, ...], device: int, blocks: int, threads: int, stream: int
) -> Callable[..., None]:
    """Return what launches a compiled kernel on a grid and a stream, as the compiler does, in a tenth of its time."""
    signature = kernel.signature_for(words)
    with _loading:
        made = _compiled.get((kernel, signature, device))
        if made is None:
            if _capturing(stream):
                raise RuntimeError(
                    f"{kernel.name} is not compiled yet, which cannot be done while a CUDA graph is captured: "
                    "call the function once with such arguments before the capture"
                )
            made = _compiled[kernel, signature, device] = _compile(kernel, signature)
        function = next(iter(made.overloads.values()))._codelibrary.get_cufunc().kernel
    at, shape = Stream.from_handle(stream), LaunchConfig(grid=blocks, block=threads)
    converted = tuple(_CTYPES.get(word) for word in signature)

    def start(*args: Any) -> None:
        if int(driver.cuCtxGetCurrent()[1]) == 0:  # a thread, such as one of autograd's, that has not used the device
            cuda.current_context()
        given = [x if convert is None else convert(x) for x, convert in zip(args, converted, strict=True)]
        core_launch(at, shape, function, *given)

    return start


def warm_up() -> Iterator[str]:
    """Compile every form of every kernel that is imported for the current device, yielding a label before each."""
    device = cuda.current_context().device.id
    for one, signature in kernels():
        yield f"{one.name}({' '.join(signature)})"
        if (one, signature, device) not in _compiled:
            _compiled[one, signature, device] = _compile(one, signature)


_CTYPES = {"i64": ctypes.c_int64, "f32": ctypes.c_float}
_compiled: dict[tuple[Kernel, tuple[str, ...], int], Any] = {}
_loading = threading.Lock()
"""The compiler takes it for a fault if two threads load one kernel."""


def _compile(kernel: Kernel, signature: tuple[str, ...]) -> Any:
    """Compile a kernel for one of its signatures and the current device, or load it from the disk."""
    dispatcher = cuda.jit(launch_bounds=(kernel.threads, 1))(kernel.function)
    folder = cache_folder()
    if folder is not None:
        dispatcher._cache = _cache(kernel, folder)
    dispatcher.compile(kernel.types(signature).args)
    dispatcher._specialized = True  # one set of types: arguments are not looked at
    dispatcher.disable_compile()
    return dispatcher


@functools.cache
def cache_folder() -> Path | None:
    """Return where compiled kernels are kept: a folder of these sources and this compiler, beside the CPU's kernels."""
    folder = _jit.cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(version("numba-cuda").encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    folder /= f"cuda-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder


def _cache(kernel: Kernel, folder: Path) -> CUDACache:
    """Return a cache of a kernel in files that know all sources: the compiler's own sees those of one file change."""
    cache = CUDACache(kernel.function)
    cache._cache_file = _jit._Files(folder, kernel.name)
    return cache


def _capturing(stream: int) -> bool:
    error, status = driver.cuStreamIsCapturing(stream)
    if error == driver.CUresult.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT:  # another stream is, and this one is in its way
        return True
    return bool(error == driver.CUresult.CUDA_SUCCESS and status != driver.CUstreamCaptureStatus(0))


def _of_the_toolkit(error: Exception) -> bool:
    """Tell whether an error is the driver's, or of a library of the toolkit, and not a fault in a kernel."""
    module = type(error).__module__
    return module.partition(".")[0] == "cuda" or ".cudadrv." in module


part = cuda.jit(device=True, forceinline=True)
"""Decorates a function that kernels call: typed once, and compiled into them."""

block_memory = cuda.jit(device=True, inline="always")
"""Decorates a function that returns memory that the block shares."""


def _capability() -> Any:
    """Return the current device, for which parts are typed; where there is none, what stands for the oldest one."""
    try:
        return get_current_device()
    except CudaSupportError:
        return SimpleNamespace(compute_capability=(8, 0))


dispatcher.get_current_device = _capability

syncthreads = cuda.syncthreads


# --- where a thread is, and what its block shares


@part
def thread():
    """Return the index of this thread in its block."""
    return np.int32(cuda.threadIdx.x)


@part
def threads():
    """Return how many threads the block has."""
    return np.int32(cuda.blockDim.x)


@part
def block():
    """Return the index of this block."""
    return np.int32(cuda.blockIdx.x)


@part
def blocks():
    """Return how many blocks there are."""
    return np.int32(cuda.gridDim.x)


# --- memory


def _address(builder, pointer, index, index_type):
    """Return pointer + index, without the code for negative indices that arrays have."""
    wide = ir.IntType(64)
    if index.type.width < 64:
        index = builder.sext(index, wide) if index_type.signed else builder.zext(index, wide)
    return builder.gep(pointer, [index], inbounds=True)


_F32, _I32, _I16 = ir.FloatType(), ir.IntType(32), ir.IntType(16)
_EIGHT, _EIGHT_BITS = types.UniTuple(types.float32, 8), types.UniTuple(types.boolean, 8)
_FOUR = types.UniTuple(types.float32, 4)
_FOUR_FLOATS, _FOUR_WORDS = ir.VectorType(_F32, 4), ir.VectorType(_I32, 4)
_STORED = {types.float32: "f32", types.int16: "f16", types.uint16: "bf16"}


def _lane(k):
    return ir.Constant(_I32, k)


def _wide_load(builder, address, kind):
    loaded = builder.load(builder.bitcast(address, kind.as_pointer()))
    loaded.align = 16
    return loaded


def _wide_store(builder, value, address):
    builder.store(value, builder.bitcast(address, value.type.as_pointer())).align = 16


def _halves(builder, word, stored):
    """Return the two float32 values of a 32-bit word of two elements."""
    if stored == "bf16":
        low, high = builder.shl(word, _lane(16)), builder.and_(word, ir.Constant(_I32, 0xFFFF0000))
        return [builder.bitcast(low, _F32), builder.bitcast(high, _F32)]
    pair = ir.FunctionType(ir.LiteralStructType([_F32, _F32]), [_I32])
    text = "{.reg .f16 l,h; mov.b32 {l,h}, $2; cvt.f32.f16 $0, l; cvt.f32.f16 $1, h;}"
    both = builder.call(ir.InlineAsm(pair, text, "=f,=f,r"), [word])
    return [builder.extract_value(both, 0), builder.extract_value(both, 1)]


@intrinsic
def load8(typingctx, pointer, index):
    """Return 8 elements from `index` on as float32; pointer + index is a multiple of 16 bytes."""
    stored = _STORED[pointer.dtype]

    def codegen(context, builder, signature, args):
        address = _address(builder, args[0], args[1], signature.args[1])
        values = []
        if stored == "f32":
            for quad in range(2):
                at = builder.gep(address, [ir.Constant(ir.IntType(64), 4 * quad)], inbounds=True)
                loaded = _wide_load(builder, at, _FOUR_FLOATS)
                values += [builder.extract_element(loaded, _lane(k)) for k in range(4)]
        else:
            loaded = _wide_load(builder, address, _FOUR_WORDS)
            for k in range(4):
                values += _halves(builder, builder.extract_element(loaded, _lane(k)), stored)
        return context.make_tuple(builder, _EIGHT, values)

    return _EIGHT(pointer, index), codegen


@intrinsic
def store8(typingctx, pointer, index, values):
    """Write 8 float32 values from `index` on, rounded to nearest even; pointer + index is a multiple of 16 bytes."""
    stored = _STORED[pointer.dtype]

    def codegen(context, builder, signature, args):
        address = _address(builder, args[0], args[1], signature.args[1])
        given = [builder.extract_value(args[2], k) for k in range(8)]
        if stored == "f32":
            for quad in range(2):
                at = builder.gep(address, [ir.Constant(ir.IntType(64), 4 * quad)], inbounds=True)
                vector = ir.Constant(_FOUR_FLOATS, ir.Undefined)
                for k in range(4):
                    vector = builder.insert_element(vector, given[4 * quad + k], _lane(k))
                _wide_store(builder, vector, at)
        else:
            name = {"bf16": "bf16x2", "f16": "f16x2"}[stored]
            narrow = ir.InlineAsm(ir.FunctionType(_I32, [_F32, _F32]), f"cvt.rn.{name}.f32 $0, $1, $2;", "=r,f,f")
            vector = ir.Constant(_FOUR_WORDS, ir.Undefined)
            for k in range(4):
                word = builder.call(narrow, [given[2 * k + 1], given[2 * k]])  # the high half comes first
                vector = builder.insert_element(vector, word, _lane(k))
            _wide_store(builder, vector, address)
        return context.get_dummy_value()

    return types.void(pointer, index, _EIGHT), codegen


@intrinsic
def load1(typingctx, pointer, index):
    """Return the element at `index` as float32."""
    stored = _STORED[pointer.dtype]

    def codegen(context, builder, signature, args):
        loaded = builder.load(_address(builder, args[0], args[1], signature.args[1]))
        if stored == "bf16":
            return builder.bitcast(builder.shl(builder.zext(loaded, _I32), _lane(16)), _F32)
        if stored == "f16":
            widen = ir.InlineAsm(ir.FunctionType(_F32, [_I16]), "cvt.f32.f16 $0, $1;", "=f,h")
            return builder.call(widen, [loaded])
        return loaded

    return types.float32(pointer, index), codegen


@intrinsic
def store1(typingctx, pointer, index, value):
    """Write a float32 value at `index`, rounded to nearest even."""
    stored = _STORED[pointer.dtype]

    def codegen(context, builder, signature, args):
        value = args[2]
        if stored != "f32":
            narrow = ir.InlineAsm(ir.FunctionType(_I16, [_F32]), f"cvt.rn.{stored}.f32 $0, $1;", "=h,f")
            value = builder.call(narrow, [value])
        builder.store(value, _address(builder, args[0], args[1], signature.args[1]))
        return context.get_dummy_value()

    return types.void(pointer, index, types.float32), codegen


@intrinsic
def store4_int(typingctx, pointer, index, values):
    """Write 4 integers from `index` on, cut to those of the pointer; pointer + index is a multiple of 16 bytes."""
    lanes = 128 // pointer.dtype.bitwidth

    def codegen(context, builder, signature, args):
        address = _address(builder, args[0], args[1], signature.args[1])
        kind = ir.IntType(pointer.dtype.bitwidth)
        for first in range(0, 4, lanes):
            vector = ir.Constant(ir.VectorType(kind, lanes), ir.Undefined)
            for k in range(lanes):
                value = builder.extract_value(args[2], first + k)
                value = value if value.type == kind else builder.trunc(value, kind)
                vector = builder.insert_element(vector, value, _lane(k))
            at = builder.gep(address, [ir.Constant(ir.IntType(64), first)], inbounds=True)
            _wide_store(builder, vector, at)
        return context.get_dummy_value()

    return types.void(pointer, index, types.UniTuple(types.int64, 4)), codegen


@intrinsic
def load4(typingctx, pointer, index):
    """Return 4 float32 from `index` on; pointer + index is a multiple of 16 bytes."""

    def codegen(context, builder, signature, args):
        loaded = _wide_load(builder, _address(builder, args[0], args[1], signature.args[1]), _FOUR_FLOATS)
        return context.make_tuple(builder, _FOUR, [builder.extract_element(loaded, _lane(k)) for k in range(4)])

    return _FOUR(pointer, index), codegen


@intrinsic
def load4_fresh(typingctx, pointer, index):
    """Return 4 float32 from `index` on, past the first-level cache: as other blocks left them."""

    def codegen(context, builder, signature, args):
        address = _address(builder, args[0], args[1], signature.args[1])
        shape = ir.FunctionType(ir.LiteralStructType([_F32] * 4), [address.type])
        load = ir.InlineAsm(shape, "ld.global.cg.v4.f32 {$0, $1, $2, $3}, [$4];", "=f,=f,=f,=f,l,~{memory}", True)
        loaded = builder.call(load, [address])
        return context.make_tuple(builder, _FOUR, [builder.extract_value(loaded, k) for k in range(4)])

    return _FOUR(pointer, index), codegen


@intrinsic
def store4(typingctx, pointer, index, values):
    """Write 4 float32 from `index` on; pointer + index is a multiple of 16 bytes."""

    def codegen(context, builder, signature, args):
        vector = ir.Constant(_FOUR_FLOATS, ir.Undefined)
        for k in range(4):
            vector = builder.insert_element(vector, builder.extract_value(args[2], k), _lane(k))
        _wide_store(builder, vector, _address(builder, args[0], args[1], signature.args[1]))
        return context.get_dummy_value()

    return types.void(pointer, index, _FOUR), codegen


@intrinsic
def prefetch(typingctx, pointer, index):
    """Ask for the line of the second-level cache that the element at `index` is in."""

    def codegen(context, builder, signature, args):
        address = _address(builder, args[0], args[1], signature.args[1])
        ask = ir.InlineAsm(ir.FunctionType(ir.VoidType(), [address.type]), "prefetch.global.L2 [$0];", "l", True)
        builder.call(ask, [address])
        return context.get_dummy_value()

    return types.void(pointer, index), codegen


@intrinsic
def atomic_add(typingctx, pointer, index, value):
    """Add to an integer element, and return what it was: in whatever order, the sum is the same."""

    def codegen(context, builder, signature, args):
        address = _address(builder, args[0], args[1], signature.args[1])
        return builder.atomic_rmw("add", address, args[2], "monotonic")

    return pointer.dtype(pointer, index, pointer.dtype), codegen


@intrinsic
def atomic_max(typingctx, pointer, index, value):
    """Let an integer element be at least `value`, and return what it was."""

    def codegen(context, builder, signature, args):
        address = _address(builder, args[0], args[1], signature.args[1])
        return builder.atomic_rmw("max", address, args[2], "monotonic")

    return pointer.dtype(pointer, index, pointer.dtype), codegen


@intrinsic
def atomic_add_float(typingctx, pointer, index, value):
    """Add to a float32 or float64 element: the rounding depends on the order, which differs from run to run."""
    kind, letter = {types.float32: ("f32", "f"), types.float64: ("f64", "d")}[pointer.dtype]

    def codegen(context, builder, signature, args):
        address = _address(builder, args[0], args[1], signature.args[1])
        shape = ir.FunctionType(ir.VoidType(), [address.type, args[2].type])
        add = ir.InlineAsm(shape, f"red.global.add.{kind} [$0], $1;", f"l,{letter},~{{memory}}", True)
        builder.call(add, [address, args[2]])
        return context.get_dummy_value()

    return types.void(pointer, index, pointer.dtype), codegen


@intrinsic
def given(typingctx, pointer):
    """Tell whether an argument is not None."""

    def codegen(context, builder, signature, args):
        return builder.icmp_unsigned("!=", args[0], ir.Constant(args[0].type, None))

    return types.boolean(pointer), codegen


# --- arithmetic


@intrinsic
def exp2(typingctx, x):
    """Return 2**x for float32, within 2 ulp, 0 where it would be subnormal; one instruction."""

    def codegen(context, builder, signature, args):
        unit = ir.InlineAsm(ir.FunctionType(_F32, [_F32]), "ex2.approx.ftz.f32 $0, $1;", "=f,f")
        return builder.call(unit, [args[0]])

    return types.float32(types.float32), codegen


@intrinsic
def reciprocal(typingctx, x):
    """Return 1 / x for float32, within 1 ulp, 0 where it would be subnormal; one instruction."""

    def codegen(context, builder, signature, args):
        unit = ir.InlineAsm(ir.FunctionType(_F32, [_F32]), "rcp.approx.ftz.f32 $0, $1;", "=f,f")
        return builder.call(unit, [args[0]])

    return types.float32(types.float32), codegen


@intrinsic
def maximum(typingctx, a, b):
    """Return the larger of two float32, NaN if either is; `max` returns the other one then."""

    def codegen(context, builder, signature, args):
        unit = ir.InlineAsm(ir.FunctionType(_F32, [_F32, _F32]), "max.NaN.f32 $0, $1, $2;", "=f,f,f")
        return builder.call(unit, [args[0], args[1]])

    return types.float32(types.float32, types.float32), codegen


@intrinsic
def rsqrt(typingctx, x):
    """Return 1 / sqrt(x) for float32, within 2 ulp; one instruction."""

    def codegen(context, builder, signature, args):
        unit = ir.InlineAsm(ir.FunctionType(_F32, [_F32]), "rsqrt.approx.ftz.f32 $0, $1;", "=f,f")
        return builder.call(unit, [args[0]])

    return types.float32(types.float32), codegen


@intrinsic
def above8(typingctx, a, b):
    """Tell which of the eight of a are above those of b; NaN is above all else."""

    def codegen(context, builder, signature, args):
        found = []
        for k in range(8):
            x, y = builder.extract_value(args[0], k), builder.extract_value(args[1], k)
            found.append(builder.and_(builder.fcmp_unordered(">", x, y), builder.fcmp_ordered("==", y, y)))
        return context.make_tuple(builder, _EIGHT_BITS, found)

    return _EIGHT_BITS(_EIGHT, _EIGHT), codegen


@intrinsic
def choose8(typingctx, chosen, a, b):
    """Return those of the eight of a that are chosen, by eight booleans, and those of b elsewhere."""

    def codegen(context, builder, signature, args):
        picked = [builder.select(*(builder.extract_value(x, k) for x in args)) for k in range(8)]
        return context.make_tuple(builder, signature.return_type, picked)

    return a(_EIGHT_BITS, a, a), codegen


@part
def log(x):
    """Return the natural logarithm of a float32."""
    return np.float32(math.log(x))


@part
def log64(x):
    """Return the natural logarithm of a float64."""
    return math.log(x)


@part
def exp64(x):
    """Return e**x of a float64."""
    return math.exp(x)


@part
def log1p(x):
    """Return log(1 + x) of a float32."""
    return np.float32(math.log1p(x))


@part
def tanh(x):
    """Return the hyperbolic tangent of a float32."""
    return np.float32(math.tanh(x))


# --- reductions: the same order whatever the grid, so the same bits from run to run

_ALL = np.uint32(0xFFFFFFFF)
_LOWEST, _ZERO, _NOWHERE = np.float32(-np.inf), np.float32(0), np.int32(2**31 - 1)


@part
def warp_sum(v):
    """Return the sum of `v` over the 32 threads of a warp."""
    v += cuda.shfl_xor_sync(_ALL, v, 16)
    v += cuda.shfl_xor_sync(_ALL, v, 8)
    v += cuda.shfl_xor_sync(_ALL, v, 4)
    v += cuda.shfl_xor_sync(_ALL, v, 2)
    v += cuda.shfl_xor_sync(_ALL, v, 1)
    return v


@part
def warp_max(v):
    """Return the largest `v` of the 32 threads of a warp."""
    v = max(v, cuda.shfl_xor_sync(_ALL, v, 16))
    v = max(v, cuda.shfl_xor_sync(_ALL, v, 8))
    v = max(v, cuda.shfl_xor_sync(_ALL, v, 4))
    v = max(v, cuda.shfl_xor_sync(_ALL, v, 2))
    return max(v, cuda.shfl_xor_sync(_ALL, v, 1))


@block_memory
def shared_floats():
    """Return 4096 float32 that the block shares."""
    return cuda.shared.array(4096, types.float32)


@block_memory
def shared_ints():
    """Return 4096 int32 that the block shares."""
    return cuda.shared.array(4096, types.int32)


@part
def any_thread(flag):
    """Wait for all threads of the block; tell whether `flag` is true in any."""
    return cuda.syncthreads_or(np.int32(1) if flag else np.int32(0)) != 0


@block_memory
def scratch():
    """Return what the reductions of a block go through: one float32 a warp."""
    return cuda.shared.array(32, types.float32)


@block_memory
def scratch64():
    """Return what reductions of float64 go through."""
    return cuda.shared.array(32, types.float64)


@part
def block_sum(v, shared):
    """Return the sum of `v` over the block, in every thread; blocks are whole warps."""
    lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
    v = warp_sum(v)
    if lane == 0:
        shared[warp] = v
    cuda.syncthreads()
    v = warp_sum(shared[lane] if lane < (cuda.blockDim.x >> 5) else _ZERO)
    cuda.syncthreads()
    return v


@part
def block_max(v, shared):
    """Return the largest `v` of the block, in every thread; blocks are whole warps."""
    lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
    v = warp_max(v)
    if lane == 0:
        shared[warp] = v
    cuda.syncthreads()
    v = warp_max(shared[lane] if lane < (cuda.blockDim.x >> 5) else _LOWEST)
    cuda.syncthreads()
    return v


@part
def block_rank(flag, shared):
    """Return how many threads of the block before this one have `flag` set, and how many have in all."""
    lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
    set_in_warp = cuda.ballot_sync(_ALL, flag)
    before = cuda.popc(set_in_warp & np.uint32((np.uint32(1) << np.uint32(lane)) - np.uint32(1)))
    if lane == 0:
        shared[warp] = cuda.popc(set_in_warp)
    cuda.syncthreads()
    total = np.int32(0)
    for w in range(cuda.blockDim.x >> 5):
        if w < warp:
            before += np.int32(shared[w])
        total += np.int32(shared[w])
    cuda.syncthreads()
    return np.int32(before), np.int32(total)


@part
def block_sums(a, b, shared):
    """Return the sums of `a` and of `b` over the block, in every thread; `shared` is a `scratch_pairs`."""
    lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
    a, b = warp_sum(a), warp_sum(b)
    if lane == 0:
        shared[warp] = a
        shared[warp + 32] = b
    cuda.syncthreads()
    there = lane < (cuda.blockDim.x >> 5)
    a, b = warp_sum(shared[lane] if there else _ZERO), warp_sum(shared[lane + 32] if there else _ZERO)
    cuda.syncthreads()
    return a, b


@block_memory
def scratch_pairs():
    """Return what `block_sums` goes through: two float32 a warp."""
    return cuda.shared.array(64, types.float32)


@block_memory
def scratch_places():
    """Return what `block_first` goes through beside `scratch`: one int32 a warp."""
    return cuda.shared.array(32, types.int32)


@part
def _first(v, at, distance):
    """Return the larger of this thread's `v` and another's, with its `at`; NaN is the largest, of equals the first."""
    w, to = cuda.shfl_xor_sync(_ALL, v, distance), cuda.shfl_xor_sync(_ALL, at, distance)
    same = w == v or (w != w and v != v)
    if (same and to < at) or (not same and (w > v or w != w)):
        return w, to
    return v, at


@part
def warp_first(v, at):
    """Return the largest `v` of a warp, NaN the largest of all, and the least `at` (int32) of those that have it."""
    v, at = _first(v, at, 16)
    v, at = _first(v, at, 8)
    v, at = _first(v, at, 4)
    v, at = _first(v, at, 2)
    return _first(v, at, 1)


@part
def block_first(v, at, shared, places):
    """Return what `warp_first` does over the block, in every thread."""
    lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
    v, at = warp_first(v, at)
    if lane == 0:
        shared[warp] = v
        places[warp] = at
    cuda.syncthreads()
    there = lane < (cuda.blockDim.x >> 5)
    v, at = warp_first(shared[lane] if there else _LOWEST, places[lane] if there else _NOWHERE)
    cuda.syncthreads()
    return v, at


def kernels() -> Iterator[tuple[Kernel, tuple[str, ...]]]:
    """Yield every kernel that is imported with each of its signatures."""
    for one in KERNELS:
        for signature in one.signatures:
            yield one, signature
