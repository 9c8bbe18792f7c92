"""`GloVe`: the schedule against entry-by-entry training, both backends against each other, and real text."""

from __future__ import annotations

import importlib.util
import lzma

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats

import fastnlp
from fastnlp._dispatch import implementation

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
    """Blocks of at most 7 words, so that small matrices have many, and the last are not full."""
    monkeypatch.setattr(importlib.import_module("fastnlp.ops.glove"), "_BLOCK", 7)


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
    rows, cols = np.full((2, matrix.nnz), -7, np.int32)
    values = np.full(matrix.nnz, np.nan)
    csr = matrix.indptr.astype(np.int64), matrix.indices, matrix.data
    implementation("glove", backend).arrange(*csr, block, place, words, starts, rows, cols, values)
    return label, starts, rows, cols, values


@pytest.mark.parametrize("blocks", [1, 2, 5, 60])
def test_arranged_entries_can_run_at_once(blocks, counts, backend, rng):
    label, starts, rows, cols, values = arranged(backend, counts, blocks, rng)
    size = -(-60 // blocks)
    assert starts[0] == 0
    assert starts[-1] == counts.nnz
    everything = sparse.csr_array((values, (rows, cols)), shape=(blocks * size, blocks * size)).toarray()
    assert_array_equal(everything[np.ix_(label, label)], counts.toarray())
    for s in range(blocks):
        for b in range(blocks):
            for k in range(size):
                part = slice(*starts[(s * blocks + b) * size + k :][:2])
                assert (rows[part] // size == b).all()
                assert (cols[part] // size == (b + s) % blocks).all()
                assert ((cols[part] - rows[part]) % size == k % size).all()
                assert (np.diff(rows[part]) > 0).all()
                assert np.unique(cols[part]).size == cols[part].size


@pytest.mark.parametrize("blocks", [1, 4])
def test_an_epoch_is_entry_by_entry_training(blocks, counts, backend, rng):
    """Against the rule of the original program, one entry after the other, biases apart from the vectors."""
    _, starts, rows, cols, values = arranged(backend, counts, blocks, rng)
    size, dim, rate = -(-60 // blocks), 5, 0.05
    logs, weights = np.log(values), np.minimum(1, values / 10) ** 0.75
    words = blocks * size
    w, v, b, c = (rng.standard_normal(shape) / 5 for shape in ((words, dim), (words, dim), words, words))
    x, y = np.zeros((2, words, 8), np.float32)
    x[:, :dim], x[:, dim], x[:, dim + 1] = w, b, 1
    y[:, :dim], y[:, dim], y[:, dim + 1] = v, 1, c
    gx, gy = np.ones((2, words, 8), np.float32)
    gx[:, dim + 1] = gy[:, dim] = 1e38
    rounds = rng.permutation(blocks)
    diagonals = rng.permuted(np.tile(np.arange(size, dtype=np.int32), (blocks, 1)), axis=1)
    cost = np.full((blocks, blocks), np.nan)
    entries = rows, cols, logs.astype(np.float32), weights.astype(np.float32), starts
    implementation("glove", backend).epoch(*entries, rounds, diagonals, x, y, gx, gy, np.float32(rate), cost)

    gw, gv, gb, gc = (np.ones_like(z) for z in (w, v, b, c))
    expected = np.zeros((blocks, blocks))
    for s in rounds:
        for block in range(blocks):
            for k in diagonals[s]:
                for e in range(*starts[(s * blocks + block) * size + k :][:2]):
                    i, j = rows[e], cols[e]
                    error = w[i] @ v[j] + b[i] + c[j] - logs[e]
                    expected[s, block] += 0.5 * weights[e] * error**2
                    slope = rate * weights[e] * error
                    steps = (w, gw, i, slope * v[j]), (v, gv, j, slope * w[i]), (b, gb, i, slope), (c, gc, j, slope)
                    for z, g, at, t in steps:
                        z[at] -= t / np.sqrt(g[at])
                        g[at] += t**2
    assert (expected > 0).sum() == blocks**2
    assert_allclose(cost, expected, rtol=1e-5)
    assert_allclose(x, np.column_stack([w, b, np.ones(words), np.zeros(words)]), atol=2e-6)
    assert_allclose(y, np.column_stack([v, np.ones(words), c, np.zeros(words)]), atol=2e-6)
    assert_allclose(gx[:, :dim], gw, rtol=1e-5)


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
    kernels = implementation("glove", backend)
    model = fastnlp.GloVe(4, epochs=9, lr=1e30)
    with pytest.raises(FloatingPointError, match=r"diverged in epoch 1 of 9 .*smaller lr than 1e\+30.*epoch 0"):
        model.fit(counts, backend=backend)
    assert model.loss_ == []
    assert np.isfinite(model.vectors).all()

    done = 0

    def break_third(*arguments):
        nonlocal done
        kernels_epoch(*arguments)
        done += 1
        if done == 3:
            arguments[7][0, 0] = np.nan  # in x, after a finite cost

    kernels_epoch = kernels.epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "epoch", break_third)
        model = fastnlp.GloVe(4, epochs=9)
        with pytest.raises(FloatingPointError, match="epoch 3 of 9"):
            model.fit(counts, backend=backend)
    two = fastnlp.GloVe(4, epochs=2).fit(counts, backend=backend)
    assert model.loss_ == two.loss_
    assert_array_equal(model.vectors, two.vectors)


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
    assert repr(model) == "GloVe(dim=4, x_max=100.0, alpha=0.75, lr=0.05, epochs=1, seed=0)"


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


def test_quality_on_text(corpus_file):
    """WikiText-2: the original program's cost after two epochs is 0.0545; people agree with the similarities."""
    if importlib.util.find_spec("numba") is None:
        pytest.skip("training on a whole corpus needs numba")
    with lzma.open(corpus_file("wikitext-2.txt.xz"), "rt", encoding="utf-8") as file:
        lines = file.readlines()
    vocab = fastnlp.build_vocab(lines, tokenizer="whitespace", min_count=5)
    counts = fastnlp.cooccurrence(fastnlp.encode(lines, vocab), window=10, backend="cpu")
    assert counts.nnz == 8_008_090
    model = fastnlp.GloVe(50, x_max=10, epochs=4).fit(counts, vocab, backend="cpu")
    assert 0.048 < model.loss_[1] < 0.0545
    pairs = [line.split() for line in corpus_file("eval/EN-MEN-TR-3k.txt").read_text("utf-8").splitlines()]
    known = [(model.vectors.similarity(a, b), float(score)) for a, b, score in pairs if a in vocab and b in vocab]
    assert len(known) > 1500
    assert stats.spearmanr(*zip(*known, strict=True)).statistic >= 0.15
