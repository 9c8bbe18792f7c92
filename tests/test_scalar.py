"""Formulas of one element."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="numba is not installed")

from fastnlp.kernels import scalar  # noqa: E402

FORMULAS = {
    name: member for name, member in vars(scalar).items() if hasattr(member, "py_func") and not name.startswith("_")
}
DTYPES = [np.float32, np.float64]


@numba.njit
def exp_all(x, out):
    for i in range(x.size):
        out[i] = scalar.exp(x[i])


@pytest.mark.parametrize("name", [*FORMULAS, "exp"])
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


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_is_within_two_ulp(dtype, rng):
    info = np.finfo(dtype)
    low, high = np.log(float(info.smallest_subnormal)) - 1, np.log(float(info.max))
    x = np.concatenate([np.linspace(low, high, 400_001), rng.standard_normal(100_000), [0.0, -0.0]]).astype(dtype)
    out = np.full_like(x, np.nan)
    exp_all(x, out)
    truth = np.exp(x.astype(np.longdouble))
    with np.errstate(over="ignore", under="ignore"):
        nearest = truth.astype(dtype)
    finite = np.isfinite(nearest)
    ulp = np.spacing(np.maximum(nearest, info.smallest_subnormal)[finite]).astype(np.longdouble)
    assert (np.abs(out[finite] - truth[finite]) / ulp).max() < 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_of_special_values(dtype):
    x = np.array([0, np.inf, -np.inf, np.nan, 1e4, -1e4], dtype)
    out = np.empty_like(x)
    exp_all(x, out)
    np.testing.assert_array_equal(out, np.array([1, np.inf, 0, np.nan, np.inf, 0], dtype))
