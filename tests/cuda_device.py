"""What the tests on a GPU share: CuPy arrays and CUDA tensors behind one face, and float64 on the CPU as the truth."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

import fastnlp
from fastnlp._detect import driver

LIBRARIES = ("tensors", "CuPy arrays")
TOLERANCE = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1e-2}
"""Of a result of the dtype, relative to its largest entry."""


def skip_without(library: str = "tensors") -> None:
    """Skip where there is no GPU, or not the library."""
    if not driver().gpus:
        pytest.skip("a GPU is not at hand", allow_module_level=True)
    package = {"tensors": "torch", "CuPy arrays": "cupy"}[library]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not at hand")
    if library == "tensors":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("a build of torch for CUDA is not at hand")


class Tensors:
    """CUDA tensors and the functions of `fastnlp.torch`."""

    where = "cuda"

    def put(self, x: Any, dtype: str | None = None) -> Any:
        """Return a tensor on the GPU."""
        import torch

        tensor = torch.as_tensor(np.asarray(x), device=self.where)
        return tensor if dtype is None else tensor.to(getattr(torch, dtype))

    def get(self, x: Any) -> np.ndarray:
        """Return a tensor as an array, floats in float64."""
        x = x.detach()
        return (x.double() if x.is_floating_point() else x).cpu().numpy()

    def dtype(self, x: Any) -> str:
        """Return the name of the dtype."""
        return str(x.dtype).removeprefix("torch.")

    def function(self, name: str) -> Any:
        """Return the function of that name."""
        import fastnlp.torch

        if name in ("softmax", "log_softmax", "logsumexp"):
            return lambda input, *, axis=-1, **more: getattr(fastnlp.torch, name)(input, dim=axis, **more)
        return getattr(fastnlp.torch, name)

    def vjp(self, name: str, arrays: dict[str, Any], wrt: tuple[str, ...], dy: Any, options: dict[str, Any]) -> Any:
        """Return the value and the gradients of the arguments `wrt`; `dy` is a number or of the value's shape."""
        import torch

        given = {k: x.detach().requires_grad_() if k in wrt else x for k, x in arrays.items()}
        value = self.function(name)(**given, **options)
        primal = value[0] if isinstance(value, tuple) else value
        upstream = torch.as_tensor(dy, dtype=primal.dtype, device=primal.device).expand(primal.shape)
        return value, torch.autograd.grad(primal, [given[k] for k in wrt], upstream)


class Arrays:
    """CuPy arrays and the functions of `fastnlp`."""

    def put(self, x: Any, dtype: str | None = None) -> Any:
        """Return an array on the GPU."""
        import cupy

        if dtype == "bfloat16":
            import ml_dtypes

            return cupy.asarray(np.asarray(x).astype(ml_dtypes.bfloat16))
        return cupy.asarray(np.asarray(x), dtype)

    def get(self, x: Any) -> np.ndarray:
        """Return an array of the GPU as one of NumPy, floats in float64."""
        import cupy

        host = cupy.asnumpy(x)
        return host if host.dtype.kind in "iub" else host.astype(np.float64)

    def dtype(self, x: Any) -> str:
        """Return the name of the dtype."""
        return str(x.dtype)

    def function(self, name: str) -> Any:
        """Return the function of that name."""
        return getattr(fastnlp, name)

    def vjp(self, name: str, arrays: dict[str, Any], wrt: tuple[str, ...], dy: Any, options: dict[str, Any]) -> Any:
        """Return the value and the gradients of the arguments `wrt`; `dy` is a number or of the value's shape."""
        value, pullback = fastnlp.vjp(self.function(name), wrt=wrt)(**arrays, **options)
        primal = value[0] if isinstance(value, tuple) else value
        upstream = self.put(np.broadcast_to(dy, primal.shape).astype(np.float32))
        return value, tuple(pullback(upstream))


def library(name: str) -> Any:
    """Return one of the two faces; skips where it is not at hand."""
    skip_without(name)
    return Tensors() if name == "tensors" else Arrays()


def true_vjp(name: str, arrays: dict[str, Any], wrt: tuple[str, ...], dy: Any, options: dict[str, Any]) -> Any:
    """Return value and gradients in float64 from the reference on the CPU."""
    function = fastnlp.vjp(getattr(fastnlp, name), wrt=wrt)
    value, pullback = function(**arrays, **options, backend="reference")
    primal = value[0] if isinstance(value, tuple) else value
    return value, tuple(pullback(np.broadcast_to(dy, np.shape(primal)).astype(np.float64)))


def assert_near(got: Any, true: Any, tolerance: float) -> None:
    """Assert that entries differ by at most the largest of the truth times `tolerance`; NaN and inf must be equal."""
    got, true = np.asarray(got), np.asarray(true)
    assert got.shape == true.shape
    finite = np.isfinite(true)
    np.testing.assert_array_equal(got[~finite], true[~finite])
    assert np.isfinite(got[finite]).all()
    size = np.abs(true[finite]).max(initial=0.0)
    error = np.abs(got[finite] - true[finite]).max(initial=0.0)
    assert error <= tolerance * max(size, 1e-30), f"error {error:.2e}, the largest entry is {size:.2e}"


def compare(
    lib: Any,
    name: str,
    floats: dict[str, np.ndarray],
    others: dict[str, Any] | None = None,
    *,
    dtype: str = "float32",
    wrt: tuple[str, ...] = ("input",),
    dy: Any = 1.7,
    tolerance: float | None = None,
    **options: Any,
) -> None:
    """Compare an operation and its gradients on the GPU with float64 on the CPU, for inputs rounded to `dtype`.

    Parameters
    ----------
    lib
        `Tensors` or `Arrays`.
    floats
        The arguments of the dtype, by name.
    others
        Further arrays: class indices, and weights that stay float32.
    tolerance
        Of everything, for operations whose logits are rounded to `dtype` on the way; else that of each result's dtype.
    options
        Arguments that are not arrays.
    """
    on_gpu = {k: lib.put(x, dtype) for k, x in floats.items()}
    rounded = {k: lib.get(x) for k, x in on_gpu.items()}
    fixed = {k: np.asarray(x, np.float32) if np.asarray(x).dtype.kind == "f" else x for k, x in (others or {}).items()}
    got, grads = lib.vjp(name, on_gpu | {k: lib.put(x) for k, x in fixed.items()}, wrt, dy, options)
    exact = {k: x.astype(np.float64) if x.dtype.kind == "f" else x for k, x in fixed.items()}
    true, true_grads = true_vjp(name, rounded | exact, wrt, dy, options)
    for one, want in zip(_flat(got), _flat(true), strict=True):
        assert_near(lib.get(one), want, TOLERANCE.get(lib.dtype(one), 0) if tolerance is None else tolerance)
    for k, grad, want in zip(wrt, grads, true_grads, strict=True):
        assert lib.dtype(grad) == lib.dtype(on_gpu[k])
        assert_near(lib.get(grad), want, TOLERANCE[lib.dtype(grad)] if tolerance is None else tolerance)


def _flat(value: Any) -> list[Any]:
    """Return a value, or its loss and statistics, as a list."""
    if not isinstance(value, tuple):
        return [value]
    return [one for part in value for one in _flat(part) if one is not None]
