"""`block_diagonal_mask`: against its definition, and what attention makes of it."""

from __future__ import annotations

import numpy as np
import pytest

import fastnlp


def brute_force(ids, causal):
    n = len(ids)
    return [[ids[i] == ids[j] and (j <= i or not causal) for j in range(n)] for i in range(n)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[], [0], [1], [3, 0, 2], [5, 1, 1, 7, 0]])
def test_sequences_one_after_another(lengths, causal, backend):
    ids = [i for i, n in enumerate(lengths) for _ in range(n)]
    want = brute_force(ids, causal)
    for how in ({"lengths": lengths}, {"cu_seqlens": np.cumsum([0, *lengths])}, {"sequence_ids": ids}):
        mask = fastnlp.block_diagonal_mask(**how, causal=causal, backend=backend)
        assert mask.dtype == bool
        assert mask.shape == (len(ids), len(ids))
        assert mask.tolist() == want


@pytest.mark.parametrize("causal", [False, True])
def test_rows(causal, backend, rng):
    for shape in ((0, 3), (2, 0), (3, 17)):
        ids = rng.integers(0, 3, shape)
        for x in (ids, ids.astype(np.int32), np.asfortranarray(ids)):
            mask = fastnlp.block_diagonal_mask(sequence_ids=x, causal=causal, backend=backend)
            assert mask.shape == (*shape, shape[1])
            assert mask.tolist() == [brute_force(row, causal) for row in ids.tolist()]


def test_rows_of_a_packing(backend):
    rows = [[1, 2, 3], [4], [5, 6]]
    packed = fastnlp.pack_arrays(rows, fastnlp.pack([3, 1, 2], 4), layout="rows", backend=backend)
    flat = fastnlp.block_diagonal_mask(packed.cu_seqlens, causal=True, backend=backend)
    in_rows = fastnlp.block_diagonal_mask(sequence_ids=packed.sequence_ids, causal=True, backend=backend)
    for r in range(2):
        assert np.array_equal(flat[4 * r : 4 * r + 4, 4 * r : 4 * r + 4], in_rows[r])
    assert int(flat.sum()) == int(in_rows.sum())
    assert in_rows.any(axis=2).all()  # no softmax over nothing


def test_out(backend):
    out = np.ones((3, 3), bool)
    got = fastnlp.block_diagonal_mask(lengths=[2, 1], causal=True, out=out, backend=backend)
    assert got is out
    assert out.astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    for bad, error in ((np.ones((3, 3)), TypeError), (np.ones((2, 3), bool), ValueError), (out.T[:, ::-1], ValueError)):
        with pytest.raises(error, match="out"):
            fastnlp.block_diagonal_mask(lengths=[2, 1], out=bad, backend=backend)


def test_threads_do_not_change_a_bit(rng):
    pytest.importorskip("numba", reason="numba is not installed")
    ids = rng.integers(0, 4, (3, 700))
    want = fastnlp.block_diagonal_mask(sequence_ids=ids, causal=True, backend="reference")
    before = fastnlp.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            assert np.array_equal(fastnlp.block_diagonal_mask(sequence_ids=ids, causal=True, backend="cpu"), want)
    finally:
        fastnlp.set_num_threads(before)


def test_packed_attention_is_the_attention_of_each_sequence_alone(rng):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    attention = torch.nn.functional.scaled_dot_product_attention
    lengths = [5, 1, 9]
    q, k, v = (torch.from_numpy(rng.standard_normal((1, sum(lengths), 4))) for _ in range(3))
    for causal in (False, True):
        mask = torch.from_numpy(fastnlp.block_diagonal_mask(lengths=lengths, causal=causal))
        packed = attention(q, k, v, attn_mask=mask)
        begin = 0
        for n in lengths:
            alone = attention(*(x[:, begin : begin + n] for x in (q, k, v)), is_causal=causal)
            torch.testing.assert_close(packed[:, begin : begin + n], alone)
            begin += n


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({}, ValueError, "pass one of"),
        ({"lengths": [1], "cu_seqlens": [0, 1]}, ValueError, "pass one of"),
        ({"lengths": [1, -1]}, ValueError, "lengths must not be negative, got -1 at index 1"),
        ({"lengths": [1.5]}, TypeError, "lengths must be integers"),
        ({"cu_seqlens": [1, 2]}, ValueError, "cu_seqlens must begin with 0"),
        ({"cu_seqlens": []}, ValueError, "cu_seqlens must begin with 0"),
        ({"cu_seqlens": [0, 2, 1]}, ValueError, "cu_seqlens must not fall, as they do at index 2"),
        ({"sequence_ids": [[[1]]]}, ValueError, "sequence_ids must have shape"),
        ({"sequence_ids": [0.5]}, TypeError, "sequence_ids must be integers"),
        ({"sequence_ids": [2**31]}, ValueError, "beyond int32"),
        ({"lengths": [1], "causal": 1}, TypeError, "causal must be True or False"),
    ],
)
def test_bad_input(how, error, words):
    with pytest.raises(error, match=words):
        fastnlp.block_diagonal_mask(**how)
