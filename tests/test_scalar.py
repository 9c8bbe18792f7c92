"""Formulas of one element."""

from __future__ import annotations

import functools
import inspect
import math
import platform
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

numba = pytest.importorskip("numba", reason="numba is not installed")

from fastnlp.kernels import scalar  # noqa: E402

FORMULAS = {
    name: member for name, member in vars(scalar).items() if hasattr(member, "py_func") and not name.startswith("_")
}
DTYPES = [np.float32, np.float64]


FUNCTIONS = {"exp": 2, "log": 2, "tanh": 3}  # ulp
OPTIONS = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy"}  # of the kernels


@functools.cache
def loop(name):
    function = getattr(scalar, name)

    @numba.njit(**OPTIONS)
    def call(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return call


def every_exponent(dtype, rng):
    """Values of all signs and exponents, subnormals too, NaN and infinity, dense where the functions are not flat."""
    bits, unsigned = np.finfo(dtype).bits, np.dtype(f"u{dtype().itemsize}")
    spread = np.arange(0, 2**32, 4099, dtype=np.uint64) if bits == 32 else rng.integers(0, 2**64, 500_000, np.uint64)
    dense = np.concatenate(
        [rng.uniform(-750, 750, 200_000), rng.uniform(0, 3, 100_000), 1 + rng.normal(0, 1e-3, 100_000)]
    )
    return np.concatenate([spread.astype(unsigned).view(dtype), dense.astype(dtype)])


@pytest.mark.parametrize("name", [*FORMULAS, *FUNCTIONS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_maps_a_dtype_to_itself(name, dtype):
    formula = getattr(scalar, name)
    count = len(inspect.signature(getattr(formula, "py_func", formula)).parameters)

    @numba.njit
    def one(a):
        return formula(a)

    @numba.njit
    def two(a, b):
        return formula(a, b)

    @numba.njit
    def three(a, b, c):
        return formula(a, b, c)

    call = (one, two, three)[count - 1]
    call(*[dtype(0.5)] * count)
    (compiled,) = call.overloads.values()
    assert compiled.signature.return_type == numba.from_dtype(np.dtype(dtype))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_are_within_few_ulp_over_the_whole_range(name, dtype, rng):
    x = every_exponent(dtype, rng)
    out = np.full_like(x, 7)
    loop(name)(x, out)
    wider = np.float64 if dtype == np.float32 else np.longdouble
    with np.errstate(all="ignore"):
        truth = getattr(np, name)(x.astype(wider))
        nearest = truth.astype(dtype)
    finite = np.isfinite(nearest)
    assert_array_equal(out[~finite], nearest[~finite])
    ulp = np.spacing(np.maximum(np.abs(nearest[finite]), np.finfo(dtype).tiny)).astype(wider)
    error = np.abs(out[finite] - truth[finite]) / ulp
    assert finite.sum() > 100_000
    assert 0.5 < error.max() < FUNCTIONS[name]


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_special_values(dtype):
    inf, nan = np.inf, np.nan
    least = np.finfo(dtype).smallest_subnormal
    for name, x, y in (
        ("exp", [0, inf, -inf, nan, 1e4, -1e4, least], [1, inf, 0, nan, inf, 0, 1]),
        ("log", [1, 0, -0.0, inf, -inf, nan, -1, -least], [0, -inf, -inf, inf, nan, nan, nan, nan]),
        ("tanh", [0, inf, -inf, nan, 100, -100, least], [0, 1, -1, nan, 1, -1, least]),
    ):
        out = np.empty(len(x), dtype)
        loop(name)(np.array(x, dtype), out)
        assert_array_equal(out, np.array(y, dtype))


def assembly_of(call, dtype):
    call(np.ones(3, dtype), np.ones(3, dtype))
    return call.inspect_asm((numba.types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C"),) * 2)


def calls_the_c_library(assembly, name):
    return re.search(rf"\b(call|jmp|mov|bl)\S*\s+\$?{name}f?\b", assembly) is not None


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_loops_over_functions_are_vectorised(name, dtype):
    assembly = assembly_of(loop(name), dtype)
    assert not calls_the_c_library(assembly, name)
    if platform.machine() in ("x86_64", "AMD64"):
        assert re.search(rf"\bv?mulp{'s' if dtype == np.float32 else 'd'}\b", assembly)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="another assembly")
def test_a_call_of_the_c_library_would_be_seen():
    @numba.njit(**OPTIONS)
    def call(x, out):
        for i in range(x.size):
            out[i] = math.tanh(x[i])

    assert calls_the_c_library(assembly_of(call, np.float64), "tanh")
