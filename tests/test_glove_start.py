"""`GloVe.fit` from given vectors: new words beside old ones, the pull towards what was given, frozen words."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

import fastnlp
from fastnlp.ops import _glove_grid, _glove_state
from fastnlp.ops._glove_checks import checked_initial

DIM = 6
WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture
def counts(rng):
    return sparse.csr_array(rng.exponential(size=(40, 40)) * (rng.random((40, 40)) < 0.4))


@pytest.fixture
def given(rng):
    """Vectors of every second word and of one that the counts do not know."""
    words = [*WORDS[::2], "unknown"]
    return fastnlp.KeyedVectors(words, rng.standard_normal((len(words), DIM)).astype(np.float32))


def model(epochs=2, **options):
    return fastnlp.GloVe(DIM, x_max=10, epochs=epochs, **options)


def untrained(counts, backend, **options):
    """What training begins from: a rate so small that nothing moves."""
    return model(1, lr=1e-30, bias_lr=None).fit(counts, WORDS, backend=backend, **options)


def test_given_vectors_are_halved_and_their_halves_differ(counts, given, backend):
    plain, begun = untrained(counts, backend), untrained(counts, backend, initial=given)
    assert_allclose(begun.vectors.vectors[::2], given.vectors[:-1], atol=1e-6)
    apart = (begun.word_vectors - begun.context_vectors)[::2] / 2
    assert_allclose(apart, plain.word_vectors[::2], atol=1e-6)
    for name in ("word_vectors", "context_vectors", "word_bias", "context_bias"):
        assert_array_equal(getattr(begun, name)[1::2], getattr(plain, name)[1::2])


def test_a_mapping_gives_the_same_as_vectors(counts, given, backend):
    mapping = {word: given[word].tolist() for word in given}
    fits = [model().fit(counts, WORDS, initial=initial, backend=backend) for initial in (given, mapping)]
    assert_array_equal(fits[0].vectors.vectors, fits[1].vectors.vectors)


def test_new_words_beside_those_of_a_model(counts, backend):
    counts = counts * 30
    old = model(5).fit(counts[:30, :30][::-1, ::-1], WORDS[:30][::-1], backend=backend)
    begun = untrained(counts, backend, initial=old)
    for name in ("word_vectors", "context_vectors", "word_bias", "context_bias"):
        assert_array_equal(getattr(begun, name)[:30], getattr(old, name)[::-1])
        assert (np.abs(getattr(begun, name)[30:]) <= 0.5 / DIM).all()
    further = model(1).fit(counts, WORDS, initial=old, backend=backend)
    assert further.loss_[0] < model(1).fit(counts, WORDS, backend=backend).loss_[0]
    without_words = model(1).fit(counts, initial=model(1).fit(counts, backend=backend), backend=backend)
    assert without_words.word_vectors.shape == (40, DIM)


@pytest.mark.parametrize("frozen", [True, WORDS[::2], np.arange(40) % 2 == 0])
def test_frozen_words_do_not_move_by_a_bit(frozen, counts, given, backend):
    given.vectors.flags.writeable = True
    given.vectors[0] = 0  # a step that rounding would lose elsewhere shows beside zero
    begun = untrained(counts, backend, initial=given)
    fitted = model(3).fit(counts, WORDS, initial=given, frozen=frozen, backend=backend)
    for name in ("word_vectors", "context_vectors"):
        assert_array_equal(getattr(fitted, name)[::2], getattr(begun, name)[::2])
        assert (getattr(fitted, name)[1::2] != getattr(begun, name)[1::2]).any(axis=1).all()
    assert (fitted.word_bias[::2] != begun.word_bias[::2]).all()


def test_frozen_words_are_those_of_a_random_start_without_given_vectors(counts, backend):
    begun = untrained(counts, backend)
    fitted = model(2).fit(counts, WORDS, frozen=["w3"], backend=backend)
    assert_array_equal(fitted.word_vectors[3], begun.word_vectors[3])
    assert not np.array_equal(fitted.word_vectors[4], begun.word_vectors[4])


def test_pull_is_the_implicit_step(counts, given, rng):
    """It is where mu |w + v - u|^2 and the distance in the metric of AdaGrad are least together, so never too far."""
    matrix = sparse.csr_array(counts)
    grid = _glove_grid.Grid.deal(matrix, rng)
    state = _glove_state.State(grid, DIM, rng, 1.0)
    state.gx[:, :DIM], state.gy[:, :DIM] = rng.exponential(size=(2, len(state.gx), DIM)) + 1
    rows = np.arange(0, 40, 2)
    before, squares = state.take(), state.take_squares()
    mu, lr, u = 0.7, 0.3, given.vectors[:-1]
    state.pull(rows, u, mu, lr)
    after = state.take()
    w, v = after["word_vectors"][rows], after["context_vectors"][rows]
    for z, name in (w, "word_vectors"), (v, "context_vectors"):
        slope = 2 * mu * (w + v - u) + np.sqrt(squares[name][rows]) / lr * (z - before[name][rows])
        assert_allclose(slope, 0, atol=2e-5)
        assert_array_equal(after[name][1::2], before[name][1::2])
    state.pull(rows, u, 1e9, lr)
    assert_allclose(state.take()["word_vectors"][rows] + state.take()["context_vectors"][rows], u, atol=1e-5)


def test_the_stronger_the_pull_the_nearer(counts, given, backend):
    off = []
    for pull in (0.0, 0.1, 10.0, 1e6):
        fitted = model(4).fit(counts, WORDS, initial=given, pull=pull, backend=backend)
        off.append(np.abs(fitted.vectors.vectors[::2] - given.vectors[:-1]).mean())
    assert off == sorted(off, reverse=True)
    assert off[3] < 1e-4 < off[0] / 10


def test_a_start_is_left_alone_and_repeats(counts, given, backend, threads):
    kept = given.vectors.copy()
    fits = []
    for n in (1, 3):
        threads(n)
        fits.append(model().fit(counts, WORDS, initial=given, pull=1.0, frozen=["w1"], backend=backend))
    assert_array_equal(fits[0].vectors.vectors, fits[1].vectors.vectors)
    assert_array_equal(given.vectors, kept)


@pytest.fixture
def threads():
    before = fastnlp.get_num_threads()
    yield fastnlp.set_num_threads
    fastnlp.set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"initial": 3}, TypeError, "initial must be KeyedVectors, a dict .* or a fitted GloVe, got int"),
        ({"initial": {"x": [0.0] * DIM}}, ValueError, "initial has no word of vocab"),
        ({"initial": {"w1": [0.0]}}, ValueError, r"initial has vectors of shape \(1,\), wanted are \(6,\)"),
        ({"initial": {"w1": [0.0], "w2": [0.0, 1.0]}}, ValueError, "initial must map words to vectors of one length"),
        ({"initial": {"w1": [np.nan] * DIM}}, ValueError, "initial must hold finite numbers: the vector of 'w1'"),
        ({"initial": {"w1": [0.0] * DIM}, "vocab": None}, ValueError, "give the words of the counts with vocab"),
        ({"pull": 1.0}, ValueError, "pull draws the vectors to those of initial: give initial"),
        ({"pull": -1.0}, ValueError, "pull must be"),
        ({"frozen": True}, ValueError, "frozen=True keeps the vectors of initial: give initial"),
        ({"frozen": ["no"]}, ValueError, "frozen names 'no', which is not in vocab"),
        ({"frozen": "w1"}, TypeError, "frozen must be True, words or an array of bool, got 'w1'"),
        ({"frozen": np.zeros(3, bool)}, ValueError, r"frozen must have shape \(40,\), one bool a word, got \(3,\)"),
        ({"frozen": ["w1"], "vocab": None}, ValueError, "frozen names words: give the words"),
    ],
)
def test_bad_start(options, error, message, counts):
    with pytest.raises(error, match=message):
        model().fit(counts, **({"vocab": WORDS} | options))


def test_a_model_that_was_not_fitted_or_of_other_words(counts):
    with pytest.raises(TypeError, match="a fitted GloVe, got GloVe"):
        model().fit(counts, WORDS, initial=model())
    old = model(1).fit(counts[:30, :30], backend="reference")
    with pytest.raises(ValueError, match="initial has 30 words, counts has 40 rows: fit both with a vocabulary"):
        checked_initial(old, WORDS, 40, DIM)
