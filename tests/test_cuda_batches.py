"""Batches on a GPU: padded and packed assembly, and the way back, run by the simulator, against the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastnlp

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")

from fastnlp.kernels.cuda import pack_arrays, pad_arrays
from fastnlp.kernels.reference import pack_arrays as reference_pack
from fastnlp.kernels.reference import pad_arrays as reference_pad
from tests.simulated import SimulatedLibrary, host

LENGTHS = np.array([3, 0, 7, 1, 12, 5])
OFFSETS = np.append(0, np.cumsum(LENGTHS))


@pytest.fixture
def gpu():
    return SimulatedLibrary()


@pytest.fixture
def tokens(rng):
    return rng.integers(5, 1000, OFFSETS[-1])


def assert_same(actual, expected):
    """Assert that all fields are equal, and of the same dtype."""
    for name, a, b in zip(expected._fields, actual, expected, strict=True):
        if b is None:
            assert a is None, name
        else:
            assert_array_equal(a, b, err_msg=name)
            assert np.asarray(a).dtype == np.asarray(b).dtype, name


PADDINGS = [
    {},
    {"side": "left"},
    {"length": 5, "overlong": "truncate", "pad": -3},
    {"pad_to_multiple": 8},
    {"pad_to_multiple": 8, "side": "left"},
    {"items": [2, 2, 5], "pad_to_multiple": 4},
    {"items": [1]},
    {"items": []},
    {"length": 300},
]


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("of_tokens", [np.int64, np.int32, np.int16, np.uint8])
def test_padded(gpu, tokens, dtype, of_tokens):
    tokens = tokens.astype(of_tokens)
    on_gpu = gpu.on_device(tokens, readonly=True, offset=1)
    for options in PADDINGS:
        actual = fastnlp.pad_arrays((on_gpu, OFFSETS), dtype=dtype, **options)
        assert_same(actual, fastnlp.pad_arrays((tokens, OFFSETS), dtype=dtype, **options))
    assert gpu.launches == ["pad_arrays.padded_rows"] * (len(PADDINGS) - 1)  # of no row none
    assert gpu.waits == []


def packings():
    yield (), {}
    yield (), {"items": [3, 3, 1, 0], "position_start": 2}
    packing = fastnlp.pack(LENGTHS, 12, seed=1)
    yield (packing,), {}
    yield (packing[:2],), {"layout": "rows", "pad": 9, "ignore_first": False}
    split = fastnlp.pack(LENGTHS, 8, overlong="split", item_multiple=4)
    yield (split,), {"layout": "rows", "ignore_index": -1}
    yield (split,), {}
    yield (fastnlp.pack(LENGTHS[:0], 8),), {"layout": "rows"}


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("of_tokens", [np.int64, np.int32, np.uint8])
def test_packed(gpu, tokens, rng, dtype, of_tokens):
    tokens, labels = tokens.astype(of_tokens), rng.integers(0, 9, tokens.size)
    on_gpu, there = gpu.on_device(tokens, readonly=True), gpu.on_device(labels, readonly=True)
    for arguments, options in packings():
        options = {**options, "dtype": dtype}
        rows = (OFFSETS[:1] if arguments and not len(arguments[0]) else OFFSETS,)
        expected = fastnlp.pack_arrays((tokens, *rows), *arguments, **options)
        assert_same(fastnlp.pack_arrays((on_gpu, *rows), *arguments, **options), expected)
        options["labels"] = (labels, *rows)
        expected = fastnlp.pack_arrays((tokens, *rows), *arguments, **options)
        options["labels"] = (there, *rows)
        assert_same(fastnlp.pack_arrays((on_gpu, *rows), *arguments, **options), expected)
    assert set(gpu.launches) == {"pack_arrays.packed_places"}
    assert gpu.waits == []


def test_more_places_than_threads(rng):
    gpu = SimulatedLibrary(processors=1, most_threads=32)
    lengths = rng.integers(0, 90, 700)
    sequences = rng.integers(0, 99, lengths.sum()), np.append(0, np.cumsum(lengths))
    on_gpu = gpu.on_device(sequences[0]), sequences[1]
    assert_same(fastnlp.pack_arrays(on_gpu), fastnlp.pack_arrays(sequences))
    items = np.arange(40)
    assert_same(fastnlp.pad_arrays(on_gpu, items, side="left"), fastnlp.pad_arrays(sequences, items, side="left"))


def test_an_array_of_rows_on_the_gpu(gpu, rng):
    rows = rng.integers(0, 99, (5, 6)).astype(np.int32)
    for on_gpu in (gpu.on_device(rows), gpu.on_device(rows, pitch=9)):
        assert_same(fastnlp.pad_arrays(on_gpu, [4, 0]), fastnlp.pad_arrays(rows, [4, 0]))
        assert_same(fastnlp.pack_arrays(on_gpu), fastnlp.pack_arrays(rows))


def test_out_is_filled_where_it_stands(gpu, tokens):
    on_gpu = gpu.on_device(tokens)
    out = [gpu.empty(100, np.int32) for _ in range(4)]
    expected = fastnlp.pack_arrays((tokens, OFFSETS), dtype=np.int32)
    packed = fastnlp.pack_arrays((on_gpu, OFFSETS), dtype=np.int32, out=tuple(out))
    for x, filled, wanted in zip(packed, out, expected[:4], strict=False):
        assert np.shares_memory(x, filled.owner)
        assert_array_equal(host(filled)[: wanted.size], wanted)
        assert (host(filled)[wanted.size :] == np.iinfo(np.int32).max - 77).all()
    misaligned = tuple(gpu.wrap(gpu.allocate(28, np.int64, offset=1)) for _ in range(4))  # no 16-byte stores
    assert_same(fastnlp.pack_arrays((on_gpu, OFFSETS), out=misaligned), fastnlp.pack_arrays((tokens, OFFSETS)))
    padded = tuple(gpu.wrap(gpu.allocate(6 * 16, np.int64, offset=1)) for _ in range(2))
    expected = fastnlp.pad_arrays((tokens, OFFSETS), length=16)
    assert_same(fastnlp.pad_arrays((on_gpu, OFFSETS), length=16, out=padded), expected)


def test_the_steps_of_the_reference(gpu, rng):
    """What the CPU does in several steps a backend has, too."""
    lengths = np.array([2, 0, 5])
    for at_left in (False, True):
        ids, mask = rng.integers(0, 9, (3, 5)), np.full((3, 5), 7)
        on_gpu, its_mask = gpu.on_device(ids), gpu.on_device(mask)
        pad_arrays.pad_rows(gpu.on_device(lengths), at_left, -1, on_gpu, its_mask)
        reference_pad.pad_rows(lengths, at_left, -1, ids, mask)
        assert_array_equal(host(on_gpu), ids)
        assert_array_equal(host(its_mask), mask)
    segments, number = np.array([0, 2, 2, 6, 9]), np.array([1, 2, 0, 3])
    positions, numbers = np.empty(9, np.int32), np.empty(9, np.int32)
    reference_pack.label_segments(segments, number, 4, positions, numbers)
    a, b = gpu.empty(9, np.int32), gpu.empty(9, np.int32)
    pack_arrays.label_segments(gpu.on_device(segments), gpu.on_device(number), 4, a, b)
    assert_array_equal(host(a), positions)
    assert_array_equal(host(b), numbers)


def test_bounds_that_lead_out_of_the_tokens_are_cut(gpu):
    ids, mask = gpu.empty((3, 4), np.int64), gpu.empty((3, 4), np.int64)
    begin, end = gpu.on_device(np.array([-5, 3, 90])), gpu.on_device(np.array([2, 99, 1]))
    pad_arrays.pad_tokens(gpu.on_device(np.arange(1, 6)), begin, end, 4, False, 0, ids, mask, None)
    assert_array_equal(host(ids), [[1, 2, 0, 0], [4, 5, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_offsets_that_only_the_gpu_knows(gpu, tokens, dtype):
    sequences = gpu.on_device(tokens), gpu.on_device(OFFSETS, dtype)
    for options in ({"length": 12}, {"length": 5, "pad_to_multiple": 4, "side": "left", "pad": 7}):
        options = {**options, "overlong": "truncate"}
        actual = fastnlp.pad_arrays(sequences, **options)
        expected = fastnlp.pad_arrays((tokens, OFFSETS), **options)
        assert actual.n_truncated is None
        assert_same(actual._replace(n_truncated=expected.n_truncated), expected)
    assert gpu.waits == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_unpadded(gpu, rng, dtype, shape):
    on_gpu = gpu.on_device(rng.standard_normal((4, 6, *shape)) * 9, dtype)
    values, lengths = host(on_gpu), [2, 0, 6, 3]
    for options in ({"lengths": lengths}, {"lengths": lengths, "side": "left"}, {"mask": rng.random((4, 6)) < 0.5}):
        actual = fastnlp.unpad_arrays(on_gpu, **options)
        for a, b in zip(actual, fastnlp.unpad_arrays(values, **options), strict=True):
            assert_array_equal(a, b)
            assert a.dtype == b.dtype
    assert gpu.waits == []


def test_unpacked(gpu, tokens, rng):
    on_gpu = gpu.on_device(tokens)
    for arguments, options in packings():
        if arguments and not len(arguments[0]):
            continue
        packed = fastnlp.pack_arrays((tokens, OFFSETS), *arguments, **options)
        there = fastnlp.pack_arrays((on_gpu, OFFSETS), *arguments, **options)
        on_device = {name: gpu.on_device(getattr(there, name)) for name in ("input_ids", "cu_seqlens_padded")}
        hidden = rng.standard_normal((*packed.input_ids.shape, 3)).astype(np.float16)
        expected = fastnlp.unpack_arrays(hidden, packed)
        for one in (there._replace(**on_device), packed):  # packed on the GPU, and on the CPU
            for a, b in zip(fastnlp.unpack_arrays(gpu.on_device(hidden), one), expected, strict=True):
                assert_array_equal(a, b)
    assert gpu.waits == []


def test_what_is_refused(gpu, tokens):
    on_gpu, offsets = gpu.on_device(tokens), gpu.on_device(OFFSETS)
    with pytest.raises(TypeError, match="the offsets are on a GPU, but the shape of the result follows from them"):
        fastnlp.pack_arrays((on_gpu, offsets))
    for options in ({}, {"length": 5}, {"overlong": "truncate"}, {"length": 5, "overlong": "truncate", "items": [0]}):
        with pytest.raises(ValueError, match="pass length= and overlong='truncate' and no items"):
            fastnlp.pad_arrays((on_gpu, offsets), **options)
    with pytest.raises(TypeError, match="sequences and labels must both be on the GPU or both on the host"):
        fastnlp.pack_arrays((on_gpu, OFFSETS), labels=(tokens, OFFSETS))
    with pytest.raises(TypeError, match="backend 'cpu' does not run on arrays on the GPU"):
        fastnlp.pad_arrays((on_gpu, OFFSETS), backend="cpu")
    with pytest.raises(TypeError, match="sequences must hold integers, got float32"):
        fastnlp.pad_arrays(gpu.on_device(np.zeros((2, 3), np.float32)))
    with pytest.raises(ValueError, match=r"pass an array of shape \(N, L\), or \(tokens, offsets\)"):
        fastnlp.pad_arrays(on_gpu)
    with pytest.raises(TypeError, match=r"out.input_ids must be an array of int64 beside the tokens, got ndarray"):
        fastnlp.pad_arrays((on_gpu, OFFSETS), out=(np.empty((6, 12), np.int64),) * 2)
    same = gpu.empty((6, 12), np.int64)
    with pytest.raises(ValueError, match=r"out\.attention_mask shares memory with another array of out"):
        fastnlp.pad_arrays((on_gpu, OFFSETS), out=(same, same))
    with pytest.raises(ValueError, match=r"out\.input_ids shares memory with what is read"):
        fastnlp.pad_arrays((same.reshape(72), [0, 72]), out=(same, gpu.empty(72, np.int64)))
    with pytest.raises(ValueError, match="at most the number of tokens, 28"):
        fastnlp.pad_arrays((on_gpu, OFFSETS + 1))
    with pytest.raises(TypeError, match="lengths or mask are on a GPU, but the shape of the result follows"):
        fastnlp.unpad_arrays(gpu.on_device(np.zeros((2, 3))), gpu.on_device(np.ones(2, int)))
    with pytest.raises(NotImplementedError, match="it runs on: reference, cpu"):
        fastnlp.assemble_pairs((on_gpu, OFFSETS), cls=1, sep=2, max_length=20)


def test_tensors_are_assembled_where_they_are(gpu, tokens, monkeypatch):
    """On the simulated device every tensor is a CUDA tensor; lengths and offsets are arrays on the host."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import fastnlp.torch
    from fastnlp import _arrays, _device

    of, on_device = _device.of, _arrays.on_device
    monkeypatch.setattr(_device, "of", lambda x: gpu.wrap(x.numpy()) if isinstance(x, torch.Tensor) else of(x))
    monkeypatch.setattr(_arrays, "on_device", lambda x: isinstance(x, torch.Tensor) or on_device(x))
    sequences = (torch.from_numpy(tokens), OFFSETS)
    padded = fastnlp.torch.pad_arrays(sequences, side="left", dtype=torch.int32)
    assert_same(padded, fastnlp.pad_arrays((tokens, OFFSETS), side="left", dtype=np.int32))
    packed = fastnlp.torch.pack_arrays(sequences)
    assert gpu.launches == ["pad_arrays.padded_rows", "pack_arrays.packed_places"]
    assert all(isinstance(x, torch.Tensor) for x in (*padded[:2], *packed[:5]))
    hidden = torch.arange(6 * 12 * 2.0).reshape(6, 12, 2).requires_grad_()
    flat, _ = fastnlp.torch.unpad_arrays(hidden, LENGTHS)
    assert_array_equal(flat.detach(), fastnlp.unpad_arrays(hidden.detach().numpy().copy(), LENGTHS, backend="cpu")[0])
    flat.sum().backward()
    assert int(hidden.grad.sum()) == 2 * LENGTHS.sum()
    ids, offsets = fastnlp.torch.unpack_arrays(packed.input_ids, packed._replace(lengths=LENGTHS, items=np.arange(6)))
    assert_array_equal(ids, tokens)
    assert_array_equal(offsets, OFFSETS)
    assert gpu.launches[2:] == ["stretches.rows_of_stretches"] * 2
    assert gpu.waits == []


def test_places_on_the_gpu_that_do_not_exist(gpu, rng):
    packed = fastnlp.pack_arrays((rng.integers(0, 9, 6), np.array([0, 2, 6])))
    values = gpu.on_device(rng.standard_normal((6, 3)))
    for places in ([0, 2**40, 6], [-(2**40), 2, 6], [5, 5, 6]):
        wrong = packed._replace(cu_seqlens_padded=gpu.on_device(np.array(places)))
        assert fastnlp.unpack_arrays(values, wrong)[0].shape == (6, 3), "other vectors, but none from elsewhere"
