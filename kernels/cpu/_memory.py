"""Ways to memory that a plain loop does not have: ask for what comes next, and write past the caches.

An output that is larger than the caches is read before it is written, line by line, unless it is streamed past them.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnlp.kernels.cpu._jit import kernel_part

LINE = 64  # bytes of a cache line
_STREAM = 32  # bytes that are streamed at once
_STREAMED = 1 << 25  # bytes: an output so large has left the caches before anybody reads it
_LONG = 1024  # elements of a row: shorter ones would end within too many lines


def streamed(out):  # (N, V)
    """Tell whether an output is so large that it is better written past the caches."""
    return out.nbytes >= _STREAMED and out.shape[1] >= _LONG


@intrinsic
def prefetch(typing_context, x, i):
    """Ask for the cache line of x[i], which may be beyond the end of x."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, args[0])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(builder.gep(array.data, [args[1]]), byte)
        asks = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], asks)
        builder.call(function, [address, word(0), word(3), word(1)])  # to read, for all caches, data
        return context.get_dummy_value()

    return types.void(x, i), generate


@intrinsic
def _stream(typing_context, x, i, factor, out):
    """Write factor * x to out, from i, as many as _STREAM bytes hold, past the caches; &out[i] is a multiple of it."""

    def generate(context, builder, signature, args):
        source, target = signature.args[0], signature.args[3]
        one = args[2].type
        several = ir.VectorType(one, _STREAM // (source.dtype.bitwidth // 8))

        def address(kind, array):
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [args[1]]), several.as_pointer())

        first = builder.insert_element(ir.Constant(several, ir.Undefined), args[2], ir.IntType(32)(0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), several.count), [0] * several.count)
        factors = builder.shuffle_vector(first, first, lanes)
        values = builder.load(address(source, args[0]), align=source.dtype.bitwidth // 8)
        store = builder.store(builder.fmul(values, factors), address(target, args[3]), align=_STREAM)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(x, i, factor, out), generate


@intrinsic
def stream_fence(typing_context):
    """Let other threads see what was streamed."""

    def generate(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@kernel_part
def row_stream(x, factor, out):  # (V,), (V,)
    """Write factor * x to `out` past the caches: what comes from memory and goes there is then not read first."""
    step = _STREAM // x.itemsize
    head = min(x.size, (-out.ctypes.data % _STREAM) // x.itemsize)
    tail = head + (x.size - head) // step * step
    for j in range(head):
        out[j] = factor * x[j]
    for j in range(head, tail, step):
        _stream(x, j, factor, out)
    for j in range(tail, x.size):
        out[j] = factor * x[j]
