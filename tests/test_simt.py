"""The simulator of CUDA blocks: it finds each defect that is planted, and none where there is none."""

import inspect

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

from numba import cuda

from fastnlp.kernels.cuda import _labels, prims
from fastnlp.kernels.cuda.prims import (
    block,
    block_first,
    block_max,
    block_rank,
    block_sum,
    block_sums,
    exp2,
    given,
    load1,
    load8,
    log,
    scratch,
    scratch_pairs,
    scratch_places,
    shared_ints,
    store1,
    store8,
    syncthreads,
    thread,
    threads,
    warp_max,
    warp_sum,
)
from tests import simt
from tests.simt import SimtError
from tests.simulated import SimulatedLibrary, host

ZERO, ONE, HALF = np.float32(0), np.float32(1), 0.5


def run(function, signature, *args, blocks=1, threads=64, float64=False, **options):
    """Launch a plain function as a kernel."""
    kernel = prims.Kernel(function, signature, 1024, 64, 0, 0, float64)
    simt.launch(kernel, blocks, threads, args, **options)


def caught(what, function, signature, *args, **options):
    with pytest.raises(SimtError, match=what):
        run(function, signature, *args, **options)


@pytest.fixture
def x(rng):
    return rng.standard_normal(64).astype(np.float32)


@pytest.fixture
def out():
    return np.full(64, np.nan, np.float32)


# --- what is right goes through


def mirrored(x, out):
    shared = scratch()
    if thread() < 32:
        shared[thread()] = load1(x, thread())
    syncthreads()
    store1(out, thread(), shared[31 - (thread() & 31)])


def test_a_barrier_orders_what_threads_share(x, out):
    run(mirrored, "f32* f32*", x, out)
    np.testing.assert_array_equal(out, np.tile(x[31::-1], 2))


def reduced(x, out):
    shared = scratch()
    v = load1(x, thread())
    total = block_sum(v, shared)
    top = block_max(v, shared)
    store1(out, thread(), total if thread() & 1 else top)


def test_reductions_have_the_same_bits_by_their_source(x, out):
    found = []
    for shortcuts in (True, False):
        for seed in range(3):
            run(reduced, "f32* f32*", x, out, shortcuts=shortcuts, seed=seed)
            found.append(out.reshape(32, 2).copy())
    assert np.unique(np.reshape(found, (-1, 2)), axis=0).shape == (1, 2)
    np.testing.assert_allclose(found[0][0], [x.max(), x.astype(float).sum()], atol=1e-5)


def copied(x, out, n):
    i = thread() * 8
    while i + 8 <= n:
        store8(out, i, load8(x, i))
        i = np.int32(i + threads() * 8)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_wide_accesses(rng, dtype):
    gpu = SimulatedLibrary()
    x = gpu.on_device(rng.standard_normal(1024), dtype)
    out = gpu.empty(1024, x.dtype)
    gpu.launch(prims.Kernel(copied, "x* x* i64", 256, 64, 0, 0, False), 1, 32, x, out, 1024)
    np.testing.assert_array_equal(host(out), host(x))


def rounded(x, out):
    store1(out, thread(), load1(x, thread()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_stores_round_to_nearest_even(dtype):
    gpu = SimulatedLibrary()
    values = np.zeros(32, np.float32)
    values[:8] = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11, 65504, 1e6, np.inf, np.nan]
    x, out = gpu.on_device(values), gpu.empty(32, gpu.on_device(values, dtype).dtype)
    gpu.launch(prims.Kernel(rounded, f"f32* {out.word}", 256, 64, 0, 0, False), 1, 32, x, out)
    with np.errstate(over="ignore"):
        wanted = values.astype(out.dtype).astype(np.float32)
    np.testing.assert_array_equal(host(out).astype(np.float32), wanted)


def arithmetic(out, words):
    words[0] = np.int32(2147483647 + thread() + 1)
    words[1] = np.uint32(-1) >> 28
    words[2] = np.int64(np.int32(7)) * 1000000007
    out[0] = exp2(np.float32(-127))  # subnormal: flushed
    out[1] = exp2(np.float32(-126))
    out[2] = max(np.float32(np.nan), ONE)
    out[3] = min(ONE, np.float32(np.nan))
    out[4] = log(np.float32(0))
    out[5] = ONE / np.float32(0)


def test_numbers_are_those_of_the_device(out):
    words = np.zeros(3, np.int64)
    run(lambda out, words: arithmetic(out, words) if thread() == 0 else None, "f32* i64*", out, words, threads=32)
    assert words.tolist() == [-(2**31), 15, 7 * 1000000007]
    np.testing.assert_array_equal(out[:6], np.float32([0, 2.0**-126, 1, 1, -np.inf, np.inf]))


def converted(out):
    out[0] = np.int32(np.float32(np.nan))
    out[1] = np.int32(np.float32(1e20))
    out[2] = np.int32(np.float32(-1.75))
    out[3] = np.uint8(300)


def test_floats_become_ints_as_on_the_device():
    out = np.ones(4, np.int64)
    run(lambda out: converted(out) if thread() == 0 else None, "i64*", out, threads=32)
    assert out.tolist() == [0, 2**31 - 1, -1, 44]


def absent(x, out):
    store1(out, thread(), load1(x, thread()) if given(x) else ONE)


def test_a_pointer_may_be_none(out):
    run(absent, "f32* f32*", None, out)
    np.testing.assert_array_equal(out, 1)


def narrowed(x, out, pitch, wide):
    for row in range(3):
        at = row * pitch if wide else np.int32(row * pitch)
        if thread() < 7:
            store1(out, at + thread(), load1(x, at + thread()))


def test_rows_that_are_gigabytes_apart(rng):
    """Only their addresses are: an offset of 32 bits does not reach the last one."""
    gpu = SimulatedLibrary()
    kernel = prims.Kernel(narrowed, "x* x* i64 i64", 1024, 64, 0, 0, False)
    x = gpu.on_device(rng.standard_normal((3, 7)), "float16", pitch=2**30 + 8)
    out = gpu.on_device(np.zeros((3, 7)), "float16", pitch=2**30 + 8)
    gpu.launch(kernel, 1, 32, x, out, x.pitch, 1)
    np.testing.assert_array_equal(host(out), host(x))
    with pytest.raises(SimtError, match="out of range"):
        gpu.launch(kernel, 1, 32, x, out, x.pitch, 0)


# --- what is wrong is found


REDUCTIONS = [block_sum, block_max, block_sums, block_rank, block_first]


def without_barrier(part, gone):
    """Return the name of a part of prims, and the part without one of its two barriers."""
    barrier = "    cuda.syncthreads()\n"
    pieces = inspect.getsource(part.py_func).replace("@part\n", "").split(barrier)
    assert len(pieces) == 3
    scope = dict(vars(prims))
    exec("".join(piece + barrier * (k not in (gone, 2)) for k, piece in enumerate(pieces)), scope)
    name = part.py_func.__name__
    return {name: scope[name]}


def twice(x, out, which):
    """Each reduction, two times in a row."""
    shared, pairs, places, ints = scratch(), scratch_pairs(), scratch_places(), shared_ints()
    v = load1(x, thread())
    for _ in range(2):
        if which == 0:
            v = block_sum(v, shared)
        elif which == 1:
            v = block_max(v, shared)
        elif which == 2:
            v, _b = block_sums(v, v, pairs)
        elif which == 3:
            before, all_of_them = block_rank(v > ZERO, ints)
            v = np.float32(before + all_of_them)
        else:
            v, _at = block_first(v, thread(), shared, places)
    store1(out, thread(), v)


@pytest.mark.parametrize("part", REDUCTIONS, ids=lambda part: part.py_func.__name__)
@pytest.mark.parametrize("gone", [0, 1])
def test_each_barrier_of_a_block_reduction_is_needed(x, out, part, gone):
    which = REDUCTIONS.index(part)
    run(twice, "f32* f32* i64", x, out, which)
    assert not np.isnan(out).any()
    found = r"a race on shared|is read before it is written"
    caught(found, twice, "f32* f32* i64", x, out, which, replace=without_barrier(part, gone))


@pytest.mark.parametrize("part", [block_sum, block_max], ids=lambda part: part.py_func.__name__)
@pytest.mark.parametrize("gone", [0, 1])
def test_a_real_kernel_without_one_barrier(rng, part, gone):
    n, classes = 3, 24
    loss, lse, scale = (np.ones(n, np.float32) for _ in range(3))
    x = rng.standard_normal((n, classes)).astype(np.float32)
    label = np.arange(n)
    args = [x, classes, label, None, scale, None, classes, 0, n, 1.0, loss, lse, x, classes]
    simt.launch(_labels.label_rows, 1, 64, args)
    with pytest.raises(SimtError, match=r"a race on shared|is read before it is written"):
        simt.launch(_labels.label_rows, 1, 64, args, replace=without_barrier(part, gone))


def test_no_barrier(x, out):
    caught(
        "a race on shared|is read before it is written",
        mirrored,
        "f32* f32*",
        x,
        out,
        replace={"syncthreads": lambda: None},
    )


def neighbours(x):
    store1(x, thread(), load1(x, (thread() + 1) & 63))


def test_a_race_on_global_memory(x):
    caught(r"a race on x\[\d+\]: thread \d+ (reads|writes)", neighbours, "f32*", x)


def one_counter(count):
    count[0] = count[0] + 1


def test_a_race_on_one_element():
    caught(r"a race on count\[0\]", one_counter, "i64*", np.zeros(1, np.int64), threads=32)


def test_races_are_not_looked_for_where_not_asked(x):
    run(neighbours, "f32*", x, races=False)


def through_a_warp(x, between):
    i = thread()
    v = load1(x, i ^ 1)
    if between == 1:
        cuda.syncwarp()
    if between == 2:
        v = warp_sum(v)
    store1(x, i, v)


def test_a_warp_barrier_orders_memory_and_a_shuffle_does_not(x):
    run(through_a_warp, "f32* i64", x, 1)
    for between in (0, 2):
        caught("a race on x", through_a_warp, "f32* i64", x, between)


def first_element(x, out, write):
    if thread() == 0:
        if write == 0 or (write == 1 and block() == 1):
            store1(out, 0, ONE)
        else:
            store1(out, 1 + block(), load1(out, 0))


@pytest.mark.parametrize("write", [0, 1])
def test_a_race_between_blocks(x, out, write):
    for seed in range(4):
        caught(r"between blocks on out\[0\]", first_element, "f32* f32* i64", x, out, write, blocks=3, seed=seed)
    run(first_element, "f32* f32* i64", x, out, 2, blocks=3)  # all read


def counted(count):
    cuda.atomic.add(count, 0, 1)


def test_atomics_do_not_race():
    count = np.zeros(1, np.int64)
    run(counted, "i64*", count, blocks=3)
    assert count[0] == 3 * 64


def shifted(x, out, by):
    store1(out, thread(), load1(x, thread() + by))


@pytest.mark.parametrize("by", [1, -1, 64, -64, 2**31])
def test_out_of_range(x, out, by):
    caught(r"x\[-?\d+\] is out of range", shifted, "f32* f32* i64", x, out, by)


def test_a_store_out_of_range(x, out):
    caught(r"out\[\d+\] is out of range", shifted, "f32* f32* i64", x, out[:63], 0)


def test_between_the_rows_of_a_view(out):
    wide = np.zeros((8, 9), np.float32)
    caught("between the rows", shifted, "f32* f32* i64", wide[:, :8], out, 0)


def wide_at(x, out, at):
    if thread() == 0:
        store8(out, 0, load8(x, at))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_misaligned(dtype):
    gpu = SimulatedLibrary()
    out = gpu.empty(8, np.float32)
    for offset, at in ((0, 4), (1, 0), (4, 0), (1, 7), (8, 8), (12, 4), (3, 1)):
        x = gpu.on_device(np.arange(16), dtype, offset=offset)
        right = (offset + at) * x.itemsize % 16 == 0
        if right:
            run(wide_at, f"{x.word} f32* i64", x.owner, out.owner, at, threads=32)
            np.testing.assert_array_equal(host(out), np.arange(at, at + 8))
        else:
            caught("misaligned", wide_at, f"{x.word} f32* i64", x.owner, out.owner, at, threads=32)


def test_a_wide_load_beyond_the_end():
    x, out = SimulatedLibrary().on_device(np.zeros(12, np.float32)).owner, SimulatedLibrary().empty(8, "float32").owner
    caught("8 wanted", wide_at, "f32* f32* i64", x, out, 8, threads=32)


def half_wait(x, out):
    if thread() < 40:
        syncthreads()
    store1(out, thread(), ONE)


def test_a_divergent_barrier(x, out):
    caught("divergent barrier: 40 of 64 threads wait", half_wait, "f32* f32*", x, out)


def some_lanes(x, out, lanes):
    v = load1(x, thread())
    if (thread() & 31) < lanes:
        v = warp_max(v)
    store1(out, thread(), v)


@pytest.mark.parametrize("shortcuts", [True, False])
def test_a_shuffle_without_all_its_lanes(x, out, shortcuts):
    run(some_lanes, "f32* f32* i64", x, out, 32, shortcuts=shortcuts)
    caught("lanes .* are in the mask", some_lanes, "f32* f32* i64", x, out, 31, shortcuts=shortcuts)


def half_mask(x, out, bits):
    if (thread() & 31) < 16:
        store1(out, thread(), cuda.shfl_xor_sync(0xFFFF, load1(x, thread()), bits))


def test_a_shuffle_from_a_lane_outside_the_mask(x, out):
    run(half_mask, "f32* f32* i64", x, out, 8)
    caught("lane 16, which is not active|reads lane", half_mask, "f32* f32* i64", x, out, 16)


def unwritten(x, out):
    store1(out, thread(), scratch()[thread() & 31])


def test_shared_memory_that_nobody_wrote(x, out):
    caught("read before it is written", unwritten, "f32* f32*", x, out)


def two_arrays(x, out):
    a, b = scratch(), scratch()
    if thread() < 32:
        a[thread()] = load1(x, thread())
        b[thread()] = ONE
    syncthreads()
    store1(out, thread(), a[thread() & 31])


def test_two_calls_are_two_arrays(x, out):
    run(two_arrays, "f32* f32*", x, out)
    np.testing.assert_array_equal(out, np.tile(x[:32], 2))


def test_read_only(x, out):
    out.flags.writeable = False
    caught("out.* is read only", shifted, "f32* f32* i64", x, out, 0)


def times_literal(x, out):
    store1(out, thread(), load1(x, thread()) * 0.5)


def times_global(x, out):
    store1(out, thread(), load1(x, thread()) * HALF)


def times_double(x, out):
    store1(out, thread(), load1(x, thread()) * np.float64(thread()))


def exp2_of_double(x, out):
    store1(out, thread(), exp2(np.float64(load1(x, thread()))))


@pytest.mark.parametrize("function", [times_literal, times_global, times_double, exp2_of_double])
def test_float64_in_a_float32_kernel(x, out, function):
    caught("float64", function, "f32* f32*", x, out)


def test_float64_where_it_is_meant(x, out):
    run(times_double, "f32* f32*", x, out, float64=True)
    np.testing.assert_array_equal(out, (x * np.arange(64.0)).astype(np.float32))


def overlapping(x, y):
    store1(x, thread(), ONE)


def test_views_that_overlap_are_one_memory(x):
    def moved(x, y):
        if thread() == 0:
            store1(x, 1, ONE)
            store1(y, 1, load1(y, 0))

    run(moved, "f32* f32*", x, x[1:], threads=32)
    assert x[1] == x[2] == 1
    caught("differ in dtype", overlapping, "f32* i32*", x, x.view(np.int32))


def test_arguments_must_fit_the_declaration(x):
    with pytest.raises(TypeError, match="takes"):
        run(overlapping, "f32* i64*", x, x)


def test_threads_must_be_whole_warps(x, out):
    caught("threads a block", mirrored, "f32* f32*", x, out, threads=48)


def test_every_primitive_is_simulated():
    """An intrinsic has no Python source: it needs a version of the simulator's."""
    from tests.simt_prims import SIMULATED

    intrinsics = {name for name, x in vars(prims).items() if type(x).__name__ == "_Intrinsic"}
    assert intrinsics <= set(SIMULATED)


# --- the library


def test_waits_are_seen():
    gpu = SimulatedLibrary()
    assert host(gpu.nonzero(gpu.on_device([0, 1, 1]))).tolist() == [1, 2]
    assert gpu.waits == ["nonzero"]
    gpu.in_capture = True
    with pytest.raises(AssertionError, match="captured"):
        gpu.synchronize()


def test_views_of_device_arrays(rng):
    gpu = SimulatedLibrary()
    values = rng.standard_normal((4, 6)).astype(np.float32)
    x = gpu.on_device(values, offset=1, pitch=9)
    assert x.pitch == 9
    assert x.address % 16 == 4
    assert not x.contiguous
    np.testing.assert_array_equal(host(x[1:3].T), values[1:3].T)
    assert np.isnan(host(gpu.empty((2, 3), np.float16))).all()


def test_matrices_are_multiplied_in_float32(rng):
    gpu = SimulatedLibrary()
    a, b = (gpu.on_device(rng.standard_normal((5, 5)), "bfloat16") for _ in range(2))
    out = gpu.zeros((5, 5), np.float32)
    for times in (1, 2):
        gpu.matmul(a, b.T, out, accumulate=True)
        wanted = times * (host(a).astype(np.float32) @ host(b).astype(np.float32).T)
        np.testing.assert_allclose(host(out), wanted, rtol=1e-6, atol=1e-6)
