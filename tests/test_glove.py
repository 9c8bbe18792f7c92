"""`GloVe`: the schedule against entry-by-entry training, both backends against each other, and real text."""

from __future__ import annotations

import importlib.util
import lzma
import re
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats

import fastnlp
from fastnlp._dispatch import implementation
from fastnlp.ops import _glove_grid, _glove_state

NAMES = ("word_vectors", "context_vectors", "word_bias", "context_bias")


def random_counts(rng, words, density=0.2):
    """A matrix with a frequent corner and a thin rest, without symmetry, with an empty row and column."""
    scale = 30 / (1 + np.arange(words))
    counts = rng.exponential(size=(words, words)) * np.sqrt(np.outer(scale, scale))
    counts[rng.random((words, words)) > density] = 0
    counts[words // 2] = counts[:, words // 3] = 0
    return sparse.csr_array(counts)


@pytest.fixture
def counts(rng):
    return random_counts(rng, 60)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of at most 7 words in visits of 3 diagonals: small matrices have many, and the last are not full."""
    grid = importlib.import_module("fastnlp.ops._glove_grid")
    monkeypatch.setattr(grid, "_BLOCK", 7)
    monkeypatch.setattr(grid, "_VISIT", 3)


@pytest.fixture
def threads():
    before = fastnlp.get_num_threads()
    yield fastnlp.set_num_threads
    fastnlp.set_num_threads(before)


def arranged(backend, matrix, blocks, rng):
    """Deal the words to blocks in any way and arrange the entries; outputs are filled with garbage first."""
    size = -(-matrix.shape[0] // blocks)
    label = rng.permutation(blocks * size)[: matrix.shape[0]].astype(np.int32)
    block, place = np.divmod(label, np.int32(size))
    words = np.full((blocks, size), -1, np.int32)
    words[block, place] = np.arange(matrix.shape[0])
    starts = np.full(blocks * blocks * size + 1, -7)
    places = np.full((matrix.nnz, 2), 999, np.uint16)
    values = np.full((matrix.nnz, 2), np.nan, np.float32)
    csr = matrix.indptr.astype(np.int64), matrix.indices, matrix.data
    implementation("glove", backend).arrange(*csr, block, place, words, 10.0, 0.75, starts, places, values)
    return label, starts, places.astype(np.int64), values


@pytest.mark.parametrize("blocks", [1, 2, 5, 60])
def test_arranged_entries_can_run_at_once(blocks, counts, backend, rng):
    label, starts, places, values = arranged(backend, counts, blocks, rng)
    size = -(-60 // blocks)
    assert starts[0] == 0
    assert starts[-1] == counts.nnz
    s, b, k = np.unravel_index(np.repeat(np.arange(starts.size - 1), np.diff(starts)), (blocks, blocks, size))
    rows, cols = b * size + places[:, 0], (b + s) % blocks * size + places[:, 1]
    everything = sparse.csr_array((np.exp(values[:, 0]), (rows, cols)), shape=(blocks * size, blocks * size)).toarray()
    assert_allclose(everything[np.ix_(label, label)], counts.toarray(), rtol=1e-5)
    assert_allclose(values[:, 1], np.minimum(1, np.exp(values[:, 0].astype(float)) / 10) ** 0.75, rtol=1e-5)
    assert_array_equal((places[:, 1] - places[:, 0]) % size, k)
    for begin, end in pairwise(starts):
        assert (np.diff(places[begin:end, 0]) > 0).all()
        assert np.unique(places[begin:end, 1]).size == end - begin


def by_the_original_program(parameters, squares, entries, rate, bias_rate, clip):
    """Its loop over entries (row, column, count), in float64, in place; return the loss of each."""
    (w, v, b, c), (gw, gv, gb, gc) = parameters, squares
    losses = []
    for i, j, count in entries:
        error = w[i] @ v[j] + b[i] + c[j] - np.log(count)
        slope = min(1, count / 10) ** 0.75 * error
        losses.append(0.5 * slope * error)
        dw, dv = rate * np.clip(slope * v[j], -clip, clip), rate * np.clip(slope * w[i], -clip, clip)
        bias = bias_rate * slope
        for z, g, at, t in (w, gw, i, dw), (v, gv, j, dv), (b, gb, i, bias), (c, gc, j, bias):
            z[at] -= t / np.sqrt(g[at])
            g[at] += t**2
    return losses


@pytest.mark.parametrize(
    ("blocks", "clip", "bias_rate"), [(1, 100, 0.05), (4, 100, 1.0), (4, 0.1, 0.05), (5, inf, 0.3)]
)
def test_visits_are_the_loop_of_the_original_program(blocks, clip, bias_rate, counts, backend, rng):
    """Biases apart from the vectors, with a rate of their own, and only gradients of vectors clipped."""
    _, starts, places, values = arranged(backend, counts, blocks, rng)
    size, dim, rate = -(-60 // blocks), 5, 0.05
    words = blocks * size
    z = [rng.standard_normal(shape) / 5 for shape in ((words, dim), (words, dim), words, words)]
    squares = [np.ones_like(each) for each in z]
    x, y = np.zeros((2, words, 8), np.float32)
    x[:, :dim], x[:, dim], x[:, dim + 1] = z[0], z[2], 1
    y[:, :dim], y[:, dim], y[:, dim + 1] = z[1], 1, z[3]
    gx, gy = np.ones((2, words, 8), np.float32)
    gx[:, dim + 1] = gy[:, dim] = 1e38
    gx[:, dim] = gy[:, dim + 1] = (rate / bias_rate) ** 2
    limits = np.where(np.arange(8) < dim, clip, inf).astype(np.float32)
    train = implementation("glove", backend).train
    for s in rng.permutation(blocks):
        diagonals = rng.permutation(size)[: size - 1].astype(np.int32)  # one is left out
        cost, failed = np.full(blocks, np.nan), np.full(blocks, 7)
        packed = places.astype(np.uint16), values, starts
        train(*packed, int(s), diagonals, x, y, gx, gy, limits, rate, cost, failed)
        assert_array_equal(failed, -1)
        for block in range(blocks):
            entries = [
                (block * size + places[e, 0], (block + s) % blocks * size + places[e, 1], np.exp(float(values[e, 0])))
                for k in diagonals
                for e in range(*starts[(s * blocks + block) * size + k :][:2])
            ]
            losses = by_the_original_program(z, squares, entries, rate, bias_rate, clip)
            assert_allclose(cost[block], sum(losses), rtol=2e-5)
    ones, zeros = np.ones(words), np.zeros(words)
    assert_allclose(x, np.column_stack([z[0], z[2], ones, zeros]), atol=4e-6)
    assert_allclose(y, np.column_stack([z[1], ones, z[3], zeros]), atol=4e-6)
    assert_allclose(gx[:, :dim], squares[0], rtol=2e-5)
    assert_allclose(gy[:, :dim], squares[1], rtol=2e-5)


def test_a_block_stops_at_a_loss_that_is_not_finite(counts, backend, rng):
    _, starts, places, values = arranged(backend, counts, 3, rng)
    x, y, gx, gy = np.ones((4, 60, 8), np.float32)
    x[25, 0] = np.nan  # in block 1
    cost, failed = np.full(3, np.nan), np.full(3, 7)
    diagonals, limits = np.arange(20, dtype=np.int32), np.full(8, 100, np.float32)
    packed = places.astype(np.uint16), values, starts
    implementation("glove", backend).train(*packed, 1, diagonals, x, y, gx, gy, limits, 0.05, cost, failed)
    assert np.isfinite(cost).all()
    assert_array_equal(failed < 0, [True, False, True])
    at = failed[1]
    assert places[at, 0] == 5
    assert starts[(3 + 1) * 20] <= at < starts[(3 + 2) * 20]


def test_one_step_by_hand(backend):
    """Two words that met once each way, of weight 1: each parameter steps by the rate times its gradient."""
    counts = sparse.csr_array(np.array([[0.0, 20.0], [30.0, 0.0]]))
    model = fastnlp.GloVe(3, x_max=10, epochs=1, lr=0.1, bias_lr=0.5, seed=3).fit(counts, backend=backend)
    state = _start(counts, model)[1]
    before = state.take()
    error = [
        before["word_vectors"][i] @ before["context_vectors"][1 - i]
        + before["word_bias"][i]
        + before["context_bias"][1 - i]
        - np.log(count)
        for i, count in ((0, 20.0), (1, 30.0))
    ]
    assert_allclose(model.loss_, [(error[0] ** 2 + error[1] ** 2) / 4], rtol=1e-6)
    for i in (0, 1):
        step = 0.1 * error[i] * before["context_vectors"][1 - i]
        assert_allclose(model.word_vectors[i], before["word_vectors"][i] - step, rtol=1e-5)
        assert_allclose(model.word_bias[i], before["word_bias"][i] - 0.5 * error[i], rtol=1e-5)
        step = 0.1 * error[i] * before["word_vectors"][i]
        assert_allclose(model.context_vectors[1 - i], before["context_vectors"][1 - i] - step, rtol=1e-5)
        assert_allclose(model.context_bias[1 - i], before["context_bias"][1 - i] - 0.5 * error[i], rtol=1e-5)


def test_the_start_is_that_of_the_original_program():
    counts = sparse.csr_array(np.ones((500, 500)))
    state = _start(counts, fastnlp.GloVe(20))[1]
    for name, values in state.take().items():
        assert np.abs(values).max() <= 0.5 / 20, name
        assert_allclose(values.std(), 1 / 20 / np.sqrt(12), rtol=0.1)
        assert abs(values.mean()) < 0.005
    for name, squares in state.take_squares().items():  # those of biases stand for their own rate, 1, beside 0.05
        assert (squares == np.float32(0.0025 if "bias" in name else 1)).all(), name


def _start(counts, model):
    """What `model` begins from."""
    grid = _glove_grid.Grid.deal(counts, model._random(0))
    return grid, _glove_state.State(grid, model.dim, model._random(1), (model.lr / (model.bias_lr or model.lr)) ** 2)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dim", [1, 6, 7, 50])
def test_backends_agree(dim, counts):
    if importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    models = [fastnlp.GloVe(dim, epochs=2, x_max=10).fit(counts, backend=name) for name in ("reference", "cpu")]
    assert_allclose(models[0].loss_, models[1].loss_, rtol=1e-5)
    for name in NAMES:
        assert_allclose(getattr(models[0], name), getattr(models[1], name), atol=2e-5)


@pytest.mark.usefixtures("small_blocks")
def test_same_bits_for_any_number_of_threads(threads, backend, rng):
    counts = random_counts(rng, 200, density=0.5)
    models = []
    for n in (1, 2, 3, 8, 8):
        threads(n)
        models.append(fastnlp.GloVe(20, epochs=3).fit(counts, backend=backend))
    for model in models[1:]:
        assert model.loss_ == models[0].loss_
        for name in NAMES:
            assert_array_equal(getattr(model, name), getattr(models[0], name))


@pytest.mark.parametrize("words", [1, 2, 1030])
def test_any_vocabulary(words, backend, rng):
    counts = sparse.random_array((words, words), density=max(0.01, 1 / words), rng=rng) * 9 + sparse.eye_array(words)
    model = fastnlp.GloVe(4, epochs=3).fit(counts, backend=backend)
    assert model.vectors.shape == (words, 4)
    for name in NAMES:
        assert getattr(model, name).dtype == np.float32
        assert len(getattr(model, name)) == words
    assert_array_equal(model.vectors, model.word_vectors + model.context_vectors)


def test_it_explains_the_counts(backend, rng):
    # Counts of rank one and two in their logarithms: the model holds them exactly.
    a, b = rng.standard_normal((2, 40))
    logs = np.add.outer(a, b) + np.outer(b, a)
    model = fastnlp.GloVe(8, x_max=0.01, epochs=60, lr=0.1).fit(sparse.csr_array(np.exp(logs)), backend=backend)
    assert len(model.loss_) == 60
    assert model.loss_[-1] < 0.01 * model.loss_[0]
    fitted = model.word_vectors @ model.context_vectors.T + model.word_bias[:, None] + model.context_bias
    assert np.abs(fitted - logs).mean() < 0.1


def test_words_without_counts_keep_their_start(counts, backend):
    early, late = (fastnlp.GloVe(8, epochs=n).fit(counts, backend=backend) for n in (1, 4))
    moved = np.abs(late.word_vectors - early.word_vectors).max(axis=1) > 0
    assert_array_equal(np.flatnonzero(~moved), [30])  # the empty row
    moved = np.abs(late.context_vectors - early.context_vectors).max(axis=1) > 0
    assert_array_equal(np.flatnonzero(~moved), [20])  # the empty column


def test_seed(counts, backend):
    first, again, other = (fastnlp.GloVe(4, epochs=1, seed=s).fit(counts, backend=backend).vectors for s in (1, 1, 2))
    assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_any_sparse_format_is_read_and_left_alone(counts, backend):
    expected = fastnlp.GloVe(4, epochs=1).fit(counts, backend=backend).vectors
    coo = counts.tocoo()
    twice = [np.concatenate([half, half]) for half in (coo.data / 2, coo.row, coo.col)]
    duplicates = sparse.coo_array((twice[0], (twice[1], twice[2])), shape=coo.shape)
    unsorted = sparse.csr_array(
        (counts.data[::-1], counts.indices[::-1], counts.nnz - counts.indptr[::-1]), counts.shape
    )
    frozen = counts.copy()
    for array in (frozen.data, frozen.indices, frozen.indptr):
        array.flags.writeable = False
    for given in (coo, duplicates, counts.tocsc(), sparse.csr_matrix(counts), frozen):
        kept = given.copy()
        assert_array_equal(fastnlp.GloVe(4, epochs=1).fit(given, backend=backend).vectors, expected)
        assert_array_equal(given.data, kept.data)
    backwards = fastnlp.GloVe(4, epochs=1).fit(unsorted, backend=backend).vectors
    flipped = fastnlp.GloVe(4, epochs=1).fit(sparse.csr_array(counts.toarray()[::-1]), backend=backend).vectors
    assert_array_equal(backwards, flipped)
    integers = sparse.csr_array(np.ceil(counts.toarray()).astype(np.int32))
    assert_array_equal(
        fastnlp.GloVe(4, epochs=1).fit(integers, backend=backend).vectors,
        fastnlp.GloVe(4, epochs=1).fit(integers.astype(np.float64), backend=backend).vectors,
    )


def test_progress_and_interruption(counts, backend):
    seen = []

    def stop(done, epochs, loss):
        seen.append((done, epochs, loss))
        if done == 3:
            raise KeyboardInterrupt

    model = fastnlp.GloVe(4, epochs=9)
    with pytest.raises(KeyboardInterrupt):
        model.fit(counts, progress=stop, backend=backend)
    assert seen == [(i + 1, 9, loss) for i, loss in enumerate(model.loss_)]
    assert len(seen) == 3
    three = fastnlp.GloVe(4, epochs=3).fit(counts, backend=backend)
    assert model.loss_ == three.loss_
    assert_array_equal(model.vectors, three.vectors)


def test_divergence_is_an_error_and_the_last_epoch_stays(counts, backend):
    words = [f"w{i}" for i in range(60)]
    model = fastnlp.GloVe(4, epochs=9, lr=1e30, bias_lr=None, grad_clip=None)
    message = (
        r"diverged in epoch 1 of 9 at the pair 'w\d+', 'w\d+' \(row \d+, column \d+\): use a smaller lr than 1e\+30"
    )
    with pytest.raises(FloatingPointError, match=message + ".*grad_clip=100; the vectors of epoch 0 are kept") as error:
        model.fit(counts, words, backend=backend)
    row, column = map(int, re.findall(r"(?:row|column) (\d+)", str(error.value)))
    assert counts[row, column] > 0
    assert model.loss_ == []
    assert np.isfinite(model.vectors.vectors).all()


@pytest.mark.parametrize("where", ["loss", "vector"])
def test_the_pair_that_broke_is_named(where, counts, backend, monkeypatch):
    """In the third epoch a bias, or a vector after its last step, is made infinite."""
    kernels = implementation("glove", backend)
    visits = len(_start(counts, fastnlp.GloVe(4))[0].order(np.random.default_rng(0)))
    kernels_train, calls = kernels.train, 0

    def break_third(*arguments):
        nonlocal calls
        calls += 1
        if where == "loss" and calls == 2 * visits + 1:
            arguments[5][:, 4] = np.inf
        kernels_train(*arguments)
        if where == "vector" and calls == 3 * visits:
            arguments[5][0, 0] = np.nan

    monkeypatch.setattr(kernels, "train", break_third)
    model = fastnlp.GloVe(4, epochs=9, bias_lr=1.0)
    message = "epoch 3 of 9 at the pair" if where == "loss" else "epoch 3 of 9: use a smaller lr"
    with pytest.raises(FloatingPointError, match=message + ".* or bias_lr than 1.0"):
        model.fit(counts, backend=backend)
    monkeypatch.undo()
    two = fastnlp.GloVe(4, epochs=2, bias_lr=1.0).fit(counts, backend=backend)
    assert model.loss_ == two.loss_
    assert_array_equal(model.vectors, two.vectors)


@pytest.mark.usefixtures("small_blocks")
def test_orders_of_epochs(counts, backend):
    grid = _start(counts, fastnlp.GloVe(4))[0]
    seen = [(s, k) for s, diagonals in grid.order(np.random.default_rng(0)) for k in diagonals.tolist()]
    blocks, size = grid.words.shape
    assert sorted(seen) == [(s, k) for s in range(blocks) for k in range(size)]
    once, each = (fastnlp.GloVe(4, epochs=3, shuffle=name).fit(counts, backend=backend) for name in ("once", "epoch"))
    assert once.loss_[0] == each.loss_[0]
    assert once.loss_[1] != each.loss_[1]


def test_early_stop(counts, backend):
    whole = fastnlp.GloVe(4, epochs=30).fit(counts, backend=backend).loss_
    gains = [(a - b) / a for a, b in pairwise(whole)]
    tol = gains[5] * 1.0001
    below = [gain < tol for gain in gains]
    first = below.index(True) + 2
    early = fastnlp.GloVe(4, epochs=30, tol=tol).fit(counts, backend=backend)
    assert early.loss_ == whole[:first]
    three = next(i for i in range(len(below)) if all(below[i : i + 3])) + 4
    patient = fastnlp.GloVe(4, epochs=30, tol=tol, patience=3).fit(counts, backend=backend)
    assert patient.loss_ == whole[:three]
    assert three > first


def test_outputs_of_the_original_program(counts, backend, tmp_path):
    model = fastnlp.GloVe(4, epochs=1).fit(counts, [f"w{i}" for i in range(60)], backend=backend)
    w, v, b, c = (getattr(model, name) for name in NAMES)
    expected = {
        "sum": w + v,
        "word": w,
        "context": v,
        "concat": np.hstack([w, v]),
        "all": np.hstack([w, b[:, None], v, c[:, None]]),
    }
    for which, vectors in expected.items():
        assert_array_equal(model.vectors_of(which).vectors, vectors)
        model.save(tmp_path / "v.npz", which=which)
        assert_array_equal(fastnlp.KeyedVectors.load(tmp_path / "v.npz").vectors, vectors)
    with pytest.raises(ValueError, match="which must be one of sum, word, context, concat, all, got 'both'"):
        model.vectors_of("both")


def test_words(counts, backend, tmp_path):
    words = [f"w{i}" for i in range(60)]
    model = fastnlp.GloVe(4, epochs=1).fit(counts, words, backend=backend)
    assert isinstance(model.vectors, fastnlp.KeyedVectors)
    assert model.vectors is model.vectors
    assert_array_equal(model.vectors["w7"], model.word_vectors[7] + model.context_vectors[7])
    model.save(tmp_path / "vectors.txt")
    assert_allclose(fastnlp.KeyedVectors.load(tmp_path / "vectors.txt")["w7"], model.vectors["w7"], atol=1e-5)
    vocabulary = fastnlp.build_vocab([" ".join(words)], min_count=1)
    assert list(fastnlp.GloVe(4, epochs=1).fit(counts, vocabulary, backend=backend).vectors) == list(vocabulary.words)


def test_without_words_or_fit(counts, backend, tmp_path):
    model = fastnlp.GloVe(4, epochs=1)
    with pytest.raises(AttributeError, match="call fit"):
        _ = model.vectors
    with pytest.raises(ValueError, match="save needs the words"):
        model.fit(counts, backend=backend).save(tmp_path / "vectors.txt")
    assert repr(model) == (
        "GloVe(dim=4, x_max=100.0, alpha=0.75, lr=0.05, epochs=1, seed=0, bias_lr=1.0, grad_clip=100.0, "
        "shuffle='once', tol=None, patience=1)"
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"dim": 0}, ValueError),
        ({"dim": 2.5}, TypeError),
        ({"epochs": 0}, ValueError),
        ({"seed": -1}, ValueError),
        ({"x_max": 0}, ValueError),
        ({"x_max": np.inf}, ValueError),
        ({"lr": 0.0}, ValueError),
        ({"lr": np.nan}, ValueError),
        ({"alpha": -1}, ValueError),
        ({"alpha": "1"}, TypeError),
        ({"x_max": None}, TypeError),
        ({"bias_lr": 0}, ValueError),
        ({"bias_lr": 1e-20}, ValueError),
        ({"grad_clip": np.inf}, ValueError),
        ({"grad_clip": -1}, ValueError),
        ({"shuffle": "never"}, ValueError),
        ({"tol": -0.1}, ValueError),
        ({"patience": 0}, ValueError),
    ],
)
def test_bad_options(change, error):
    with pytest.raises(error, match=f"^{next(iter(change))} must be"):
        fastnlp.GloVe(**change)


@pytest.mark.parametrize(
    ("counts", "vocab", "error", "message"),
    [
        (np.eye(2), None, TypeError, "counts must be a SciPy sparse matrix.*got ndarray"),
        (sparse.eye_array(2, 3), None, ValueError, r"counts must be square.*\(2, 3\)"),
        (sparse.eye_array(2) * 1j, None, TypeError, "real numbers, got complex128"),
        (sparse.csr_array((2, 2)), None, ValueError, "counts holds no entry"),
        (sparse.csr_array((0, 0)), None, ValueError, "counts holds no entry"),
        (sparse.eye_array(2) * np.nan, None, ValueError, "positive finite numbers, found nan"),
        (sparse.eye_array(2) * np.inf, None, ValueError, "found inf"),
        (sparse.eye_array(2) * -1.0, None, ValueError, "found -1.0"),
        (sparse.csr_array(([1.0, 0.0], [0, 1], [0, 2, 2])), None, ValueError, "found 0.0.*eliminate_zeros"),
        (
            sparse.csr_array(([1.0, 1.0], [0, 7], [0, 1, 2]), (2, 2)),
            None,
            ValueError,
            "no valid sparse matrix: indices",
        ),
        (sparse.csr_array(([1.0], [0], [0, 9, 1]), (2, 2)), None, ValueError, "no valid sparse matrix: indptr"),
        (sparse.eye_array(2), ["a"], ValueError, "vocab has 1 words, counts has 2 rows"),
        (sparse.eye_array(2), ["a", "a"], ValueError, "vocab must hold each word once"),
        (sparse.eye_array(2), ["a", 1], TypeError, "vocab must hold str, word 1 is int"),
        (sparse.eye_array(2), "ab", TypeError, "vocab must be a list of str"),
    ],
)
def test_bad_input(counts, vocab, error, message):
    with pytest.raises(error, match=message):
        fastnlp.GloVe(2).fit(counts, vocab)


def test_counts_with_duplicates_are_added_up_and_left_alone(backend):
    arrays = np.array([1.0, 2.0, 3.0]), np.array([1, 0, 0]), np.array([0, 3, 3])
    before = [array.copy() for array in arrays]
    counts = sparse.csr_array(arrays, shape=(2, 2))
    once = sparse.csr_array(np.array([[5.0, 1.0], [0.0, 0.0]]))
    fits = [fastnlp.GloVe(3, epochs=2).fit(matrix, backend=backend) for matrix in (counts, once)]
    assert_array_equal(*(fit.word_vectors for fit in fits))
    for array, kept in zip(arrays, before, strict=True):
        assert_array_equal(array, kept)


def test_exact_counts(backend, rng):
    ids = rng.integers(0, 20, 300)
    counts = [fastnlp.cooccurrence(ids, vocab_size=20, window=3, format=name) for name in ("csr", "counts")]
    fits = [fastnlp.GloVe(4, epochs=2).fit(given, backend=backend) for given in counts]
    assert_array_equal(fits[0].vectors, fits[1].vectors)


@pytest.mark.usefixtures("small_blocks")
def test_counts_in_mapped_files(counts, backend, tmp_path):
    for name in ("data", "indices", "indptr"):
        np.save(tmp_path / f"{name}.npy", getattr(counts, name))
    parts = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("data", "indices", "indptr"))
    mapped = sparse.csr_array(tuple(parts), shape=counts.shape, copy=False)
    fits = [fastnlp.GloVe(4, epochs=2).fit(matrix, backend=backend) for matrix in (mapped, counts)]
    assert_array_equal(fits[0].vectors, fits[1].vectors)


def test_cost_and_quality_on_text(corpus_file):
    """WikiText-2, against the original program's cost, mean of seeds 1 to 3, and people's judgement of similarity."""
    if importlib.util.find_spec("numba") is None:
        pytest.skip("training on a whole corpus needs numba")
    with lzma.open(corpus_file("wikitext-2.txt.xz"), "rt", encoding="utf-8") as file:
        lines = file.readlines()
    vocab = fastnlp.build_vocab(lines, tokenizer="whitespace", min_count=5)
    counts = fastnlp.cooccurrence(fastnlp.encode(lines, vocab), window=10, backend="cpu")
    assert counts.nnz == 8_008_090
    model = fastnlp.GloVe(50, x_max=10, epochs=4).fit(counts, vocab, backend="cpu")
    assert_allclose([model.loss_[1], model.loss_[3]], [0.054566, 0.042725], rtol=0.01)
    pairs = [line.split() for line in corpus_file("eval/EN-MEN-TR-3k.txt").read_text("utf-8").splitlines()]
    known = [(model.vectors.similarity(a, b), float(score)) for a, b, score in pairs if a in vocab and b in vocab]
    assert len(known) > 1500
    assert stats.spearmanr(*zip(*known, strict=True)).statistic >= 0.1


def test_duplicates_of_small_integers_are_added_without_overflow(backend):
    places = [0, 0, 0, 1], [0, 0, 0, 1]
    small = sparse.coo_array((np.full(4, 100, np.int8), places), shape=(2, 2))
    exact = sparse.csr_array([[300.0, 0], [0, 100]])
    fitted = [fastnlp.GloVe(3, epochs=2).fit(counts, backend=backend).loss_ for counts in (small, exact)]
    assert fitted[0] == fitted[1]


def test_a_clip_beyond_float32_is_none(counts, backend):
    fitted = [fastnlp.GloVe(3, epochs=2, grad_clip=clip).fit(counts, backend=backend) for clip in (1e300, None)]
    assert_array_equal(*(model.vectors for model in fitted))
