"""Threads and processes: same bits for any number of threads, callers side by side, forked children."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastnlp
from fastnlp import _threads

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture(autouse=True)
def _threads_restored():
    before = fastnlp.get_num_threads()
    yield
    fastnlp.set_num_threads(before)


def run_linear_cross_entropy(seed=0):
    """Forward and backward on NumPy arrays, large enough for several chunks and tasks."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((300, 16)).astype(np.float32)
    w = rng.standard_normal((5000, 16)).astype(np.float32)
    target = rng.integers(0, 5000, 300)
    run = fastnlp.value_and_grad(fastnlp.linear_cross_entropy)
    loss, grads = run(x, w, target, workspace=4 << 20)
    return float(loss), float(grads.linear_weight.sum(dtype=np.float64)), grads.input.copy()


def rowwise_results():
    """Everything without a GEMM, on enough rows for many tasks."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 700)).astype(np.float32)
    target = rng.integers(0, 700, 1000)
    loss, grads = fastnlp.value_and_grad(fastnlp.cross_entropy)(x, target)
    softmax, pullback = fastnlp.vjp(fastnlp.softmax)(x)
    ids = rng.zipf(1.3, 20_000) % 300
    batches = fastnlp.bucket_batches(rng.integers(1, 500, 5000), batch_size=32)
    return [
        softmax,
        pullback(x).input,
        fastnlp.log_softmax(x),
        fastnlp.logsumexp(x),
        np.asarray(loss),
        grads.input,
        fastnlp.cooccurrence(ids, vocab_size=300, window=5).data,
        batches.items,
        fastnlp.pack(rng.integers(1, 500, 5000), 512).items,
    ]


def test_same_bits_for_any_number_of_threads():
    fastnlp.set_num_threads(1)
    expected = rowwise_results()
    for n in (2, 3, 8):
        fastnlp.set_num_threads(n)
        for one, other in zip(expected, rowwise_results(), strict=True):
            assert_array_equal(one, other)


def test_ranges_cover_the_rows_once_whatever_the_threads():
    for threads in (1, 2, 8):
        fastnlp.set_num_threads(threads)
        for n, grain in [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 7)]:
            seen = np.zeros(n, int)

            def count(begin, end, seen=seen):
                seen[begin:end] += 1

            _threads.run(count, n, grain=grain)
            assert_array_equal(seen, np.ones(n, int))


def test_run_within_run():
    fastnlp.set_num_threads(4)
    seen = np.zeros((50, 50), int)

    def inner(begin, end, row):
        row[begin:end] += 1

    def outer(begin, end):
        for row in seen[begin:end]:
            _threads.run(inner, 50, row, grain=3)

    _threads.run(outer, 50, grain=2)
    assert_array_equal(seen, np.ones((50, 50), int))


@pytest.mark.parametrize("threads", [1, 4])
def test_an_exception_reaches_the_caller_and_the_pool_lives_on(threads):
    fastnlp.set_num_threads(threads)

    def fails(begin, end):
        if begin >= 8:
            raise RuntimeError(f"range {begin}")

    with pytest.raises(RuntimeError, match="range"):
        _threads.run(fails, 100, grain=4)
    done = []
    _threads.run(lambda begin, end: done.append(begin), 10, grain=1)
    assert sorted(done) == list(range(10))


def test_a_system_without_more_threads_is_no_error(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    fastnlp.set_num_threads(4)
    monkeypatch.setattr(_threads, "_pool", _threads._Pool())
    monkeypatch.setattr(threading.Thread, "start", start)
    seen = np.zeros(100, int)

    def count(begin, end):
        seen[begin:end] += 1

    _threads.run(count, 100, grain=3)
    assert_array_equal(seen, np.ones(100, int))


@pytest.mark.parametrize("before", [1, 1000], ids=["no pool yet", "a pool"])
def test_calls_at_exit_of_the_interpreter(before):
    code = (
        "import atexit, numpy as np, fastnlp; fastnlp.set_num_threads(4); x = np.ones((1000, 1000))\n"
        f"fastnlp.softmax(x[:{before}])\n"
        "atexit.register(lambda: print(fastnlp.softmax(x)[0, 0]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout.strip(), run.stderr) == ("0.001", "")


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_starts_a_pool_of_its_own():
    fastnlp.set_num_threads(4)
    _threads.run(lambda begin, end: None, 100, grain=1)
    pool, threads = _threads._pool, list(_threads._pool.threads)
    assert threads
    child = os.fork()
    if child == 0:
        os._exit(bool(_threads._pool.threads))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _threads._pool is pool
    assert pool.threads == threads


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="cannot fork: no timers of POSIX here")
def test_interruptions_at_any_instruction_leave_the_pool_usable():
    """Timers fire in the middle of calls; afterwards no range of an interrupted call runs, and the next is complete."""
    fastnlp.set_num_threads(4)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    try:
        for turn in range(300):
            seen = np.zeros(64, int)

            def count(begin, end, seen=seen):
                seen[begin:end] += 1
                time.sleep(0)

            try:
                signal.setitimer(signal.ITIMER_REAL, 2e-5 * (1 + turn % 23))
                _threads.run(count, 64, grain=1)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            after = seen.copy()
            whole = np.zeros(64, int)
            _threads.run(lambda begin, end, whole=whole: np.add.at(whole, slice(begin, end), 1), 64, grain=1)
            assert_array_equal(whole, np.ones(64, int))
            assert_array_equal(seen, after)
            assert seen.max() <= 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 20


def blas_limits():
    """The thread limit of every BLAS and OpenMP that is loaded, and torch's own."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    limits = {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    if "torch" in sys.modules:
        limits["torch"] = sys.modules["torch"].get_num_threads()
    return limits


def test_eight_callers_at_once_leave_thread_limits_as_they_were():
    fastnlp.set_num_threads(4)
    expected = run_linear_cross_entropy()
    before = blas_limits()
    results, errors = [None] * 8, []

    def call(i):
        try:
            for _ in range(3):
                rowwise_results()
                results[i] = run_linear_cross_entropy()
        except BaseException as error:
            errors.append(error)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
        assert not caller.is_alive()
    assert not errors
    for loss, total, dx in results:
        np.testing.assert_allclose([loss, total], expected[:2], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(dx, expected[2], rtol=1e-4, atol=1e-7)
    assert blas_limits() == before
    with pytest.raises(ValueError, match="target"):
        fastnlp.linear_cross_entropy(np.ones((2, 3)), np.ones((4, 3)), [0, 9])
    assert blas_limits() == before


def test_eight_callers_at_once_with_tensors():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import fastnlp.torch

    before = blas_limits()
    x, w = torch.randn(200, 16), torch.randn(3000, 16)
    target = torch.randint(0, 3000, (200,))
    expected = torch.nn.functional.cross_entropy(x @ w.T, target)
    failures = []

    def call():
        mine = w.clone().requires_grad_()
        loss = fastnlp.torch.linear_cross_entropy(x, mine, target)
        loss.backward()
        if not torch.allclose(loss.detach(), expected, rtol=1e-5) or not mine.grad.isfinite().all():
            failures.append(loss)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
        assert not caller.is_alive()
    assert not failures
    assert blas_limits() == before


def _in_child(queue):
    queue.put(run_linear_cross_entropy()[:2])


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_computes_after_its_parent_did():
    fastnlp.set_num_threads(4)
    expected = run_linear_cross_entropy()[:2]
    rowwise_results()
    assert _threads._pool.threads or os.environ.get("FASTNLP_BACKEND") == "reference"
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    try:
        result = queue.get(timeout=30)
    finally:
        child.join(5)
        if child.is_alive():
            child.kill()
    assert child.exitcode == 0
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


def _compile_in_child(queue):
    import numba

    queue.put(numba.njit(lambda x: x + 1)(1))


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_compiles_can_compile():
    numba = pytest.importorskip("numba", reason="numba is not installed")
    lock = pytest.importorskip("numba.core.compiler_lock").global_compiler_lock
    fastnlp.softmax(np.ones(3), backend="cpu")
    taken = threading.Event()

    def compiles():
        with lock:  # as the compiler does, for longer than a fork takes
            taken.set()
            threading.Event().wait(0.5)

    compiler = threading.Thread(target=compiles)
    compiler.start()
    taken.wait(10)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_compile_in_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=30) == 2
    finally:
        compiler.join()
        child.join(5)
        if child.is_alive():
            child.kill()
    assert numba.njit(lambda x: x + 1)(1) == 2


class Losses:
    """A map-style dataset whose items are computed by the library, on tensors, in the loader's workers."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        import torch

        import fastnlp.torch

        generator = torch.Generator().manual_seed(i)
        x = torch.randn(50, 8, generator=generator)
        w = torch.randn(900, 8, generator=generator, requires_grad=True)
        loss = fastnlp.torch.linear_cross_entropy(x, w, torch.arange(50))
        loss.backward()
        return torch.stack([loss.detach(), w.grad.abs().sum()])


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_data_loader_workers_compute_after_their_parent_did():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    dataset = Losses()
    expected = torch.stack([dataset[i] for i in range(len(dataset))])
    run_linear_cross_entropy()
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=30
    )
    torch.testing.assert_close(torch.cat(list(loader)), expected, rtol=1e-5, atol=1e-6)


def test_thread_count_settings():
    fastnlp.set_num_threads(3)
    assert fastnlp.get_num_threads() == 3
    for wrong in (0, -1, 1.5, float("inf"), "many", None):
        with pytest.raises(ValueError, match="positive integer"):
            fastnlp.set_num_threads(wrong)
    assert fastnlp.get_num_threads() == 3


@pytest.mark.parametrize(("setting", "expected"), [("5", "5"), ("", str(_threads.available_cpus())), ("x", "error")])
def test_thread_count_from_the_environment(setting, expected):
    code = "import fastnlp\ntry: print(fastnlp.get_num_threads())\nexcept ValueError: print('error')"
    environment = os.environ | {"FASTNLP_NUM_THREADS": setting}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == expected
