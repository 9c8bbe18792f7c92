"""Words and batches on a GPU: the very integers of the CPU, and vectors that are trained as there.

Skipped without a GPU; ``python -m bench.gpu`` runs them where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import fastnlp
from tests import cuda_device

cuda_device.skip_without()


@pytest.fixture(params=cuda_device.LIBRARIES)
def lib(request):
    """CUDA tensors and CuPy arrays in turn."""
    return cuda_device.library(request.param)


@pytest.fixture
def cupy_arrays():
    """CuPy arrays."""
    return cuda_device.library("CuPy arrays")


def assert_same_counts(got, true):
    got, true = (x.tocsr() for x in (got, true))
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(got, name), getattr(true, name), err_msg=name)


@pytest.mark.parametrize("memory", [None, "1MB"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 1},
        {"window": 40, "weighting": "uniform"},
        {"symmetric": False, "side": "left"},
        {"boundaries": [0, 0, 5, 3000, 20_000]},
        {"rows": [3, 1, 499]},
        {"format": "upper"},
    ],
    ids=str,
)
def test_cooccurrence(lib, rng, options, memory):
    ids = np.minimum((np.exp(rng.random(20_000) * np.log(501)) - 1).astype(np.int32), 499)
    got = fastnlp.cooccurrence(lib.put(ids), vocab_size=500, memory=memory, **options)
    assert_same_counts(got, fastnlp.cooccurrence(ids, vocab_size=500, backend="reference", **options))


def counts(rng, words=300, nnz=20_000):
    i, j = (rng.integers(0, words, nnz) for _ in range(2))
    matrix = sparse.coo_array((rng.integers(1, 50, nnz).astype(np.float64), (i, j)), shape=(words, words)).tocsr()
    matrix.sum_duplicates()
    return matrix


@pytest.mark.parametrize("dim", [50, 300, 7])
def test_glove_learns_as_on_the_cpu(cupy_arrays, rng, dim):
    matrix = counts(rng)
    models = [fastnlp.GloVe(dim, epochs=3, seed=5).fit(matrix, backend=b) for b in ("cuda", "cuda", "cpu")]
    first, again, cpu = models
    np.testing.assert_array_equal(first.word_vectors, again.word_vectors)
    np.testing.assert_allclose(first.loss_, cpu.loss_, rtol=1e-3)
    np.testing.assert_allclose(first.word_vectors, cpu.word_vectors, rtol=0, atol=2e-3 * np.abs(cpu.word_vectors).max())


def test_glove_with_atomics_learns_as_well(cupy_arrays, rng):
    matrix = counts(rng)
    careful, hogwild = (
        fastnlp.GloVe(64, epochs=5).fit(matrix, backend="cuda", hogwild=hogwild) for hogwild in (False, True)
    )
    assert hogwild.loss_[-1] < hogwild.loss_[0]
    assert hogwild.loss_[-1] == pytest.approx(careful.loss_[-1], rel=0.1)


def tokens_of(rng, longest, dtype):
    lengths = rng.integers(0, longest + 1, 50)
    offsets = np.concatenate([[0], lengths.cumsum()])
    return rng.integers(0, 30_000, offsets[-1]).astype(dtype), offsets


def assert_same_fields(lib, got, true):
    for name, one, want in zip(true._fields, got, true, strict=True):
        if isinstance(want, np.ndarray):
            there = isinstance(one, np.ndarray)
            np.testing.assert_array_equal(one if there else lib.get(one), want, err_msg=name)
        else:
            assert one == want, name


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"side": "left", "pad": 9},
        {"pad_to_multiple": 8},
        {"length": 11, "overlong": "truncate"},
        {"dtype": np.int32},
        {"items": [3, 3, 49, 0]},
    ],
    ids=str,
)
def test_pad_arrays(cupy_arrays, rng, dtype, options):
    tokens, offsets = tokens_of(rng, 37, dtype)
    got = fastnlp.pad_arrays((cupy_arrays.put(tokens), offsets), **options)
    assert_same_fields(cupy_arrays, got, fastnlp.pad_arrays((tokens, offsets), backend="reference", **options))


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize(
    "options",
    [{}, {"ignore_first": False, "position_start": 2}, {"items": [3, 3, 49, 0]}, {"dtype": np.int32}],
    ids=str,
)
@pytest.mark.parametrize("layout", ["flat", "rows"])
def test_pack_arrays(cupy_arrays, rng, dtype, options, layout):
    tokens, offsets = tokens_of(rng, 37, dtype)
    if layout == "rows":
        if "items" in options:
            options = {"pad": 7}
        options = {"packing": fastnlp.pack(np.diff(offsets)[1:] + 1, 64), "layout": "rows", **options}
        offsets = np.concatenate([[0], (np.diff(offsets)[1:] + 1).cumsum()])
        tokens = rng.integers(0, 30_000, offsets[-1]).astype(dtype)
    got = fastnlp.pack_arrays((cupy_arrays.put(tokens), offsets), **options)
    assert_same_fields(cupy_arrays, got, fastnlp.pack_arrays((tokens, offsets), backend="reference", **options))
