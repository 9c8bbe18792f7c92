"""The same bits from run to run, and for any number of threads of the library and of the BLAS."""

from __future__ import annotations

import contextlib
import importlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastnlp
from fastnlp import _blas, _determinism

THREADS = ((1, 1), (2, 2), (3, 3), (8, 8), (8, 1), (1, 8))  # of the library, of the BLAS


@contextlib.contextmanager
def threads(library, blas):
    """Run with so many threads of the library, of NumPy's and SciPy's BLAS and of torch."""
    limits = [limit for limit in map(_blas._process_limit, _linked()) if limit is not None]
    before = fastnlp.get_num_threads(), [limit._get() for limit in limits]
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    torch_before = torch.get_num_threads() if torch else None
    try:
        fastnlp.set_num_threads(library)
        for limit in limits:
            limit._set(blas)
        if torch:
            torch.set_num_threads(blas)
        yield
        assert [limit._get() for limit in limits] == [blas] * len(limits)
        assert not torch or torch.get_num_threads() == blas
    finally:
        fastnlp.set_num_threads(before[0])
        for limit, n in zip(limits, before[1], strict=True):
            limit._set(n)
        if torch:
            torch.set_num_threads(torch_before)


def _linked():
    from numpy._core import _multiarray_umath
    from scipy.linalg import cython_blas

    return _multiarray_umath.__file__, cython_blas.__file__


def operands(rng, n, features, classes):
    x = rng.normal(size=(n, features)).astype(np.float32)
    w = (rng.normal(size=(classes, features)) / features**0.5).astype(np.float32)
    target = rng.integers(0, classes, n)
    target[::7] = -100
    return x, w, target


def results(x, w, target, **options):
    loss, grads = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)(x, w, target, **options)
    alone = fastnlp.linear_cross_entropy(x, w, target, **options)
    return loss, grads.input, grads.linear_weight, alone


@pytest.mark.parametrize("features", [64, 256, 768])
def test_same_bits_for_any_number_of_threads(features, backend, rng):
    x, w, target = operands(rng, 90, features, 32_000)
    options = {"backend": backend, "deterministic": backend == "reference" or None, "workspace": 12 << 20}
    expected = results(x, w, target, **options)
    for library, blas in THREADS:
        with threads(library, blas):
            for got, want in zip(results(x, w, target, **options), expected, strict=True):
                assert_array_equal(got, want)


@pytest.mark.parametrize("features", [64, 256, 768])
def test_same_bits_for_tensors(features, rng):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fastnlp.torch import linear_cross_entropy

    x, w, target = (torch.from_numpy(array) for array in operands(rng, 90, features, 32_000))

    def run():
        leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
        loss = linear_cross_entropy(*leaves, target, deterministic=True)
        loss.backward()
        return loss.detach(), leaves[0].grad, leaves[1].grad

    expected = run()
    for library, blas in THREADS:
        with threads(library, blas):
            for got, want in zip(run(), expected, strict=True):
                assert torch.equal(got, want)


@pytest.mark.parametrize("deterministic", [False, True])
def test_same_bits_from_run_to_run(deterministic, backend, rng):
    x, w, target = operands(rng, 300, 64, 5000)
    options = {"backend": backend, "deterministic": deterministic, "workspace": 4 << 20}
    expected = results(x, w, target, **options)
    for shift in (1, 3):  # other places in memory
        moved = np.empty(x.size + shift, x.dtype)[shift:].reshape(x.shape)
        moved[...] = x
        for got, want in zip(results(moved, w.copy(), target, **options), expected, strict=True):
            assert_array_equal(got, want)


def test_the_switch_is_for_the_process(rng):
    x, w, _ = operands(rng, 40, 256, 9000)
    assert not fastnlp.deterministic()
    fastnlp.use_deterministic(True)
    try:
        assert fastnlp.deterministic()
        for function, args in ((fastnlp.linear, (x, w)), (fastnlp.linear_softmax, (x, w))):
            outputs = []
            for library, blas in ((1, 1), (2, 2), (3, 3)):
                with threads(library, blas):
                    y, pullback = fastnlp.vjp(function)(*args)
                    outputs.append((y, *pullback(y[::-1].copy())[:2]))
            for other in outputs[1:]:
                for got, want in zip(other, outputs[0], strict=True):
                    assert_array_equal(got, want)
    finally:
        fastnlp.use_deterministic(False)


@pytest.mark.parametrize("wrong", [1, "yes"])
def test_a_flag_is_true_or_false(wrong):
    with pytest.raises(TypeError, match="must be True or False"):
        fastnlp.use_deterministic(wrong)
    with pytest.raises(TypeError, match="deterministic must be"):
        _determinism.resolved(wrong)


def test_limits_are_counted_and_set_back():
    limit = next(limit for limit in map(_blas._process_limit, _linked()) if limit is not None)
    before = limit._get()
    limit._set(2)
    try:
        limit.take()
        limit.take()
        assert limit._get() == 1
        limit.give_back()
        assert limit._get() == 1
        limit.give_back()
        assert limit._get() == 2
        limit.take()
        limit._set(3)  # the user's own word, meanwhile
        limit.give_back()
        assert limit._get() == 3
    finally:
        limit._set(before)


def test_a_limit_that_somebody_set_meanwhile_is_forgotten():
    now = [2]
    limit = _blas._ProcessLimit(lambda: now[0], lambda n: now.__setitem__(0, n))
    limit.take()
    now[0] = 4
    limit.give_back()
    assert now == [4]
    now[0] = 1
    limit.take()
    limit.give_back()
    assert now == [1]
    now[0] = 3
    limit.take()
    assert now == [1]
    limit.give_back()
    assert now == [3]
