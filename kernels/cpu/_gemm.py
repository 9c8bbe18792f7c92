"""A matrix product from inside a kernel: one call of a BLAS, on the calling thread alone (see ``fastnlp/_blas.py``)."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastnlp.kernels.cpu._jit import jit, kernel_part


@kernel_part
def limit_threads(limit, n):
    """Let BLAS calls of this thread use `n` threads; return what was the limit, to be set back."""
    return _limit(limit, n) if limit != 0 else n


@kernel_part
def matrix(x):  # (M, N), rows contiguous
    """Return an array as `multiply` wants its operands: where it begins, the step from row to row, not transposed."""
    return x.ctypes.data, max(1, x.strides[0] // x.itemsize, x.shape[1]), False


@kernel_part
def transposed(operand):
    """Return the transpose of an operand of `multiply`."""
    address, step, columns = operand
    return address, step, not columns


@kernel_part
def multiply(gemm, a, b, k, c, add):  # (M, K), (K, N), (M, N)
    """C = A B, or C += A B; A and B are operands, C an array whose rows are contiguous."""
    m, n = c.shape
    beta = c.dtype.type(1) if add else c.dtype.type(0)
    address, step, _ = matrix(c)
    if k > 0:  # Fortran sees the transposes of rows: C' = B' A'
        _gemm(gemm, b[2], a[2], n, m, k, b[0], b[1], a[0], a[1], beta, address, step)
    elif not add:
        c[:, :] = 0


@jit("(int64, int64, {f}[:, :, ::1], {f}[:, ::1])")
def add_up(begin, end, parts, total):  # (S, R, D), (R, D)
    """Add up parts of a product in their order."""
    for r in range(begin, end):
        row = total[r]
        for d in range(row.size):
            row[d] = parts[0, r, d]
        for s in range(1, parts.shape[0]):
            part = parts[s, r]
            for d in range(row.size):
                row[d] += part[d]


@intrinsic
def _gemm(typing_context, gemm, transpose_a, transpose_b, m, n, k, a, a_step, b, b_step, beta, c, c_step):
    """Fortran's GEMM with alpha = 1: everything by reference, integers of 32 bits."""
    long, address = types.int64, types.uintp
    shapes = (types.boolean, types.boolean, long, long, long)
    signature = types.void(long, *shapes, address, long, address, long, beta, address, long)

    def generate(context, builder, signature, args):
        gemm, transpose_a, transpose_b, m, n, k, a, a_step, b, b_step, beta, c, c_step = args
        letter, word, real = ir.IntType(8), ir.IntType(32), beta.type

        def at(value):
            with builder.goto_entry_block():  # the stack must not grow in loops
                place = builder.alloca(value.type)
            builder.store(value, place)
            return place

        def flag(value):
            return at(builder.select(value, letter(ord("T")), letter(ord("N"))))

        def integer(value):
            return at(builder.trunc(value, word))

        def matrix(value):
            return builder.inttoptr(value, real.as_pointer())

        shape = (flag(transpose_a), flag(transpose_b), integer(m), integer(n), integer(k))
        factors = (at(ir.Constant(real, 1.0)), matrix(a), integer(a_step), matrix(b), integer(b_step), at(beta))
        given = (*shape, *factors, matrix(c), integer(c_step))
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in given])
        builder.call(builder.inttoptr(gemm, kind.as_pointer()), given)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _limit(typing_context, limit, n):
    def generate(context, builder, signature, args):
        word = ir.IntType(32)
        function = builder.inttoptr(args[0], ir.FunctionType(word, [word]).as_pointer())
        return builder.sext(builder.call(function, [builder.trunc(args[1], word)]), ir.IntType(64))

    return types.int64(types.int64, types.int64), generate
