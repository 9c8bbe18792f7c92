"""`GloVe`: word vectors from co-occurrence counts.

A backend provides ``arrange(indptr, indices, counts, block, place, words, starts, rows, cols, values)``, which sorts
the entries of the matrix into the order of training, and ``epoch(rows, cols, logs, weights, starts, rounds, diagonals,
x, y, gx, gy, rate, cost)``, which trains on each of them once. The schedule is told in ``kernels/reference/glove.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isfinite
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnlp._arrays import Array, kernel_ready
from fastnlp._checks import integer, positive
from fastnlp._dispatch import kernels_for

if TYPE_CHECKING:
    from scipy import sparse

_BLOCK = 1024  # words of a block: at 50 features its four arrays take 1 MB, and stay near the core
_MOST_BLOCKS = 64  # no more threads than that can work at once
_LANES = 8  # vectors are padded to a multiple of it, so that loops over them have no remainder
_UNMOVED = np.float32(1e38)  # an accumulated gradient beside which every step vanishes


class GloVe:
    """Word vectors that explain co-occurrence counts: ``w_i . v_j + b_i + c_j ~ log X_ij``.

    `fit` minimises the sum over the counts X_ij > 0 of ``f(X_ij) / 2 (w_i . v_j + b_i + c_j - log X_ij)^2`` with
    ``f(x) = min(1, (x / x_max)^alpha)``, by AdaGrad on one entry at a time. The vectors are the sums w + v.

    Parameters
    ----------
    dim
        Features of a vector.
    x_max, alpha
        The weight f of a count: from `x_max` on it is 1. 100 is for a corpus of billions of words, 10 suits millions.
    lr
        The learning rate.
    epochs
        How often each count is trained on.
    seed
        Of the initial vectors and of the order of training.

    Attributes
    ----------
    word_vectors, context_vectors : arrays ``(V, dim)`` of float32
        w and v.
    word_bias, context_bias : arrays ``(V,)`` of float32
        b and c.
    loss_ : list of float
        For each epoch the mean over all counts of ``f(X_ij) / 2 error^2``, each taken just before it was trained on:
        what the original program prints as cost.

    Raises
    ------
    TypeError
        `dim`, `epochs` or `seed` is not an integer, or another is not a number.
    ValueError
        `dim`, `x_max`, `lr` or `epochs` is not positive, `alpha` or `seed` is negative, or one is not finite.

    Notes
    -----
    The step of a parameter z with gradient grad is that of the original program, with the rate inside the accumulator:
    ``t = lr grad; z -= t / sqrt(G); G += t^2``, G from 1. Biases take the same step. So it was in version 1.2 and in
    the paper; the program has since lost `lr` in the step of the biases. Gradients are not clipped; a loss that is not
    finite stops the training. Vectors start uniform in ``(-0.5, 0.5) / dim``.

    Training runs in float32, on blocks of the matrix that share neither rows nor columns, so the result is the same
    for any number of threads, bit for bit on one kind of processor.

    References
    ----------
    Pennington, Socher, Manning: GloVe: Global Vectors for Word Representation (2014), and their implementation.
    Gemulla and others: Large-scale matrix factorization with distributed stochastic gradient descent (2011), for the
    blocks.

    Examples
    --------
    >>> import numpy as np, fastnlp
    >>> counts = fastnlp.cooccurrence(np.array([0, 1, 2, 0, 1]), vocab_size=3)
    >>> fastnlp.GloVe(dim=4, epochs=2).fit(counts).vectors.shape
    (3, 4)
    """

    loss_: list[float]
    word_vectors: Array
    context_vectors: Array
    word_bias: Array
    context_bias: Array

    def __init__(
        self,
        dim: int = 100,
        *,
        x_max: float = 100.0,
        alpha: float = 0.75,
        lr: float = 0.05,
        epochs: int = 25,
        seed: int = 0,
    ) -> None:
        self.dim = integer("dim", dim, least=1)
        self.epochs = integer("epochs", epochs, least=1)
        self.seed = integer("seed", seed, least=0, most=None)
        self.x_max, self.lr = positive("x_max", x_max), positive("lr", lr)
        self.alpha = positive("alpha", alpha, or_zero=True)
        self._words: list[str] | None = None
        self._vectors: Any = None

    def __repr__(self) -> str:
        names = ("x_max", "alpha", "lr", "epochs", "seed")
        return f"GloVe(dim={self.dim}, {', '.join(f'{name}={getattr(self, name)}' for name in names)})"

    def fit(
        self,
        counts: Any,
        vocab: Any = None,
        *,
        progress: Callable[[int, int, float], object] | None = None,
        backend: str | None = None,
    ) -> GloVe:
        """Train on co-occurrence counts, from the beginning.

        Parameters
        ----------
        counts
            A square SciPy sparse matrix or array of positive numbers, such as `cooccurrence` returns.
        vocab
            The V words, in order: a `Vocabulary` or a sequence of str.
        progress
            Called after each epoch as ``progress(done, epochs, loss)``.
        backend
            "reference" or "cpu"; default: "cpu" where its packages are installed.

        Returns
        -------
        GloVe
            This object. If training is interrupted, from the keyboard or by an exception of `progress`, it keeps the
            vectors and losses of the epochs that were finished.

        Raises
        ------
        TypeError
            `counts` is not a sparse matrix of real numbers, or `vocab` does not hold str.
        ValueError
            `counts` is not square, is empty, or stores a value that is not positive and finite; `vocab` has another
            length or a word twice.
        FloatingPointError
            The training diverged. The object keeps the last epoch before.
        """
        matrix = _checked(counts)
        words = _checked_words(vocab, matrix.shape[0])
        kernels = kernels_for("glove", backend, matrix.data)
        rng = np.random.default_rng(self.seed)

        grid = _Grid.deal(matrix, rng)
        entries = self._entries(kernels, matrix, grid)
        parameters = self._parameters(grid, rng)
        self._words, self.loss_ = words, []
        self._keep(*parameters[:2], grid)
        blocks, size = grid.words.shape
        cost = np.empty((blocks, blocks))
        for done in range(1, self.epochs + 1):
            rounds = rng.permutation(blocks)
            diagonals = rng.permuted(np.tile(np.arange(size, dtype=np.int32), (blocks, 1)), axis=1)
            kernels.epoch(*entries, rounds, diagonals, *parameters, np.float32(self.lr), cost)
            loss = float(cost.sum()) / matrix.nnz
            if not (isfinite(loss) and all(np.isfinite(z).all() for z in parameters[:2])):
                raise FloatingPointError(
                    f"the training diverged in epoch {done} of {self.epochs} (loss {loss}): use a smaller lr than "
                    f"{self.lr}; the vectors of epoch {done - 1} are kept"
                )
            self._keep(*parameters[:2], grid)
            self.loss_.append(loss)
            if progress is not None:
                progress(done, self.epochs, loss)
        return self

    @property
    def vectors(self) -> Any:
        """The sums w + v, as KeyedVectors, or as an array ``(V, dim)`` if fitted without a vocabulary.

        Raises
        ------
        AttributeError
            Nothing was fitted yet.
        """
        if not hasattr(self, "word_vectors"):
            raise AttributeError("there are no vectors yet: call fit(counts, vocab) first")
        if self._vectors is None:
            self._vectors = self.word_vectors + self.context_vectors
            if self._words is not None:
                from fastnlp.text.vectors import KeyedVectors

                self._vectors = KeyedVectors(self._words, self._vectors)
        return self._vectors

    def save(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write the vectors to a file; options are those of `KeyedVectors.save`.

        Raises
        ------
        ValueError
            There is no vocabulary.
        """
        vectors = self.vectors
        if self._words is None:
            raise ValueError("save needs the words: call fit(counts, vocab), or write the array with np.save")
        vectors.save(path, **options)

    def _entries(self, kernels: ModuleType, matrix: sparse.csr_array, grid: _Grid) -> tuple[Array, ...]:
        """Return ``(rows, cols, logs, weights, starts)`` of the entries in the order of training."""
        starts = np.empty(grid.words.shape[0] * grid.words.size + 1, np.int64)
        rows, cols = np.empty(matrix.nnz, np.int32), np.empty(matrix.nnz, np.int32)
        values = np.empty(matrix.nnz)
        csr = (
            kernel_ready(matrix.indptr.astype(np.int64, copy=False)),
            kernel_ready(matrix.indices.astype(np.int32, copy=False)),
            kernel_ready(matrix.data),
        )
        kernels.arrange(*csr, *grid, starts, rows, cols, values)
        np.log(values, out=values)
        logs = values.astype(np.float32)
        values -= np.log(self.x_max)
        values *= self.alpha
        np.minimum(values, 0, out=values)
        return rows, cols, logs, np.exp(values, out=values).astype(np.float32), starts

    def _parameters(self, grid: _Grid, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
        """Return x = (w, b, 1), y = (v, 1, c), padded with zeros, and their accumulated gradients."""
        dim = self.dim
        shape = (grid.words.size, -(-(dim + 2) // _LANES) * _LANES)
        x, y = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for z, bias in ((x, dim), (y, dim + 1)):
            initial = (rng.random((grid.block.size, dim + 1), np.float32) - np.float32(0.5)) / np.float32(dim)
            z[grid.label, :dim] = initial[:, :dim]
            z[grid.label, bias] = initial[:, dim]
        gx, gy = np.ones_like(x), np.ones_like(y)
        for z, g, one in ((x, gx, dim + 1), (y, gy, dim)):
            z[:, one] = 1
            g[:, one] = _UNMOVED
        return x, y, gx, gy

    def _keep(self, x: Array, y: Array, grid: _Grid) -> None:
        """Take the vectors and biases over from the parameters of training."""
        label, dim = grid.label, self.dim
        kept = x[label, :dim], y[label, :dim], x[label, dim], y[label, dim + 1]
        self.word_vectors, self.context_vectors, self.word_bias, self.context_bias = kept
        self._vectors = None


class _Grid(NamedTuple):
    """The words cut into B blocks of S: word v is number ``place[v]`` of block ``block[v]``."""

    block: Array  # (V,)
    place: Array  # (V,)
    words: Array  # (B, S), the inverse; -1 where a block has no word

    @property
    def label(self) -> Array:
        """The number of each word in training: its row of the parameters."""
        return self.block * np.int32(self.words.shape[1]) + self.place

    @classmethod
    def deal(cls, matrix: sparse.csr_array, rng: np.random.Generator) -> _Grid:
        """Deal the words to blocks at random, so that each gets its share of those with many entries and with few."""
        vocabulary = matrix.shape[0]
        blocks = min(_MOST_BLOCKS, -(-vocabulary // _BLOCK))
        size = -(-vocabulary // blocks)
        entries = np.diff(matrix.indptr) + np.bincount(matrix.indices, minlength=vocabulary)
        order = np.argsort(-entries, kind="stable")
        hands = rng.permuted(np.tile(np.arange(blocks, dtype=np.int32), (size, 1)), axis=1).reshape(-1)[:vocabulary]
        places = rng.permuted(np.tile(np.arange(size, dtype=np.int32), (blocks, 1)), axis=1)
        block, place = np.empty(vocabulary, np.int32), np.empty(vocabulary, np.int32)
        block[order] = hands
        place[order] = places[hands, np.arange(vocabulary) // blocks]
        words = np.full((blocks, size), -1, np.int32)
        words[block, place] = np.arange(vocabulary)
        return cls(block, place, words)


def _checked(counts: Any) -> sparse.csr_array:
    """Return `counts` as a CSR matrix of float64 without duplicates, after checking it."""
    from scipy import sparse

    if not sparse.issparse(counts):
        raise TypeError(
            f"counts must be a SciPy sparse matrix, as cooccurrence returns, got {type(counts).__name__}: "
            "scipy.sparse.csr_array(counts) makes one of a dense array"
        )
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"counts must be square, words by words, got shape {counts.shape}")
    if counts.dtype.kind not in "fiu":
        raise TypeError(f"counts must be real numbers, got {counts.dtype.name}")
    matrix = sparse.csr_array(counts)
    try:
        matrix.check_format()  # kernels go where the indices point
    except ValueError as error:
        raise ValueError(f"counts is no valid sparse matrix: {error}") from error
    if not matrix.nnz:
        raise ValueError("counts holds no entry: the text is too short, or no word of it is in the vocabulary")
    if not (np.isfinite(matrix.data).all() and (matrix.data > 0).all()):
        wrong = matrix.data[~(np.isfinite(matrix.data) & (matrix.data > 0))][0]
        remedy = ": call counts.eliminate_zeros() first" if wrong == 0 else ""
        raise ValueError(f"counts must store positive finite numbers, found {wrong}{remedy}")
    matrix = matrix.astype(np.float64, copy=False)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def _checked_words(vocab: Any, expected: int) -> list[str] | None:
    if vocab is None:
        return None
    from fastnlp.text._words import index_of

    words = list(index_of(vocab, "vocab"))
    if len(words) != expected:
        raise ValueError(
            f"vocab has {len(words)} words, counts has {expected} rows: they must come from one vocabulary"
        )
    return words
