"""Compare what a contestant computed with what is expected: arrays, scalars, sparse matrices, and nests of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def assert_matches(got: Any, expect: Any, *, rtol: float, atol: float) -> None:
    """Raise AssertionError unless `got` is `expect` within the tolerances of ``numpy.testing.assert_allclose``.

    Parameters
    ----------
    got
        A scalar, array, torch tensor, sparse matrix, text, None, or a mapping or sequence of such.
    expect
        The same, or a function of `got` that raises AssertionError or returns False if it is wrong. Sequences are
        compared item by item whatever their type, sparse matrices by their non-zero entries.
    """
    if callable(expect):
        assert expect(got) is not False, "the case's own check returned False"
    else:
        _compare(got, expect, rtol, atol, "result")


def _compare(got: Any, want: Any, rtol: float, atol: float, where: str) -> None:
    if want is None or isinstance(want, str):
        assert got == want, f"{where} is {got!r}, wanted {want!r}"
    elif isinstance(want, Mapping):
        assert isinstance(got, Mapping), f"{where} is a {type(got).__name__}, wanted a mapping"
        assert got.keys() == want.keys(), f"{where} has keys {sorted(got)}, wanted {sorted(want)}"
        for key in want:
            _compare(got[key], want[key], rtol, atol, f"{where}[{key!r}]")
    elif isinstance(want, (tuple, list)):
        assert isinstance(got, (tuple, list)), f"{where} is a {type(got).__name__}, wanted a sequence"
        assert len(got) == len(want), f"{where} has {len(got)} items, wanted {len(want)}"
        for i, (one, other) in enumerate(zip(got, want, strict=True)):
            _compare(one, other, rtol, atol, f"{where}[{i}]")
    elif _is_sparse(want):
        assert _is_sparse(got), f"{where} is a {type(got).__name__}, wanted a sparse matrix"
        assert got.shape == want.shape, f"{where} has shape {got.shape}, wanted {want.shape}"
        one, other = _canonical(got), _canonical(want)
        np.testing.assert_array_equal(one.indptr, other.indptr, err_msg=f"{where}: non-zero entries a row")
        np.testing.assert_array_equal(one.indices, other.indices, err_msg=f"{where}: columns")
        np.testing.assert_allclose(one.data, other.data, rtol, atol, err_msg=f"{where}: values")
    else:
        one, other = _array(got), _array(want)
        assert one.shape == other.shape, f"{where} has shape {one.shape}, wanted {other.shape}"
        np.testing.assert_allclose(one, other, rtol, atol, err_msg=where)


def _is_sparse(x: Any) -> bool:
    return hasattr(x, "tocsr")


def _canonical(x: Any) -> Any:
    csr = x.tocsr(copy=True)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def _array(x: Any) -> np.ndarray:
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
