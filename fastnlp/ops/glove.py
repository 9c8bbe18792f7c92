"""`GloVe`: word vectors from co-occurrence counts.

A backend provides ``arrange``, which sorts the entries of the matrix into blocks and diagonals, and ``train``, which
trains on some diagonals of the blocks of a round. The schedule is told in ``kernels/reference/glove.py``. Beside this
file, `_glove_checks` reads what `fit` is given, `_glove_grid` cuts the matrix into blocks and orders an epoch,
`_glove_state` holds the parameters, `_glove_training` and `_glove_device` make the visits of an epoch on the CPU and on
a GPU, and `_glove_checkpoint` writes and reads the state.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import inf, isfinite
from typing import Any

import numpy as np

from fastnlp._arrays import Array
from fastnlp._checks import flag, integer, positive
from fastnlp._dispatch import implementation, kernels_for, why_missing
from fastnlp.ops._glove_checkpoint import Checkpoints, Position, Saved, fingerprint
from fastnlp.ops._glove_checks import checked_counts, checked_frozen, checked_initial, checked_words, csr_arrays
from fastnlp.ops._glove_grid import Grid
from fastnlp.ops._glove_state import NAMES, State
from fastnlp.ops._glove_training import Training

_SETTINGS = ("dim", "x_max", "alpha", "lr", "bias_lr", "grad_clip", "shuffle", "seed")  # on which the vectors depend
_TELL = 1.0  # seconds between two reports within an epoch
_KINDS = ("sum", "word", "context", "concat", "all")


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
    bias_lr
        The learning rate of the biases. 1.0 is what the original program does since 2020, when its biases lost the
        rate, and gives the better vectors: on 14 million words of novels (dim 50, x_max 10, 10 epochs, three seeds) the
        rank correlation with human judgements was 0.34 on average over four sets, against 0.32 with None: `lr`, as in
        the paper and in version 1.2.
    grad_clip
        The largest absolute value of an element of the gradient of a vector, before the rate; None: not clipped.
        Biases are not clipped.
    shuffle
        "once": all epochs go through the counts in one random order, as in the original program. "epoch": each has an
        order of its own.
    tol, patience
        Stop early when the loss of `patience` epochs in a row was lower by less than the fraction `tol` than that of
        the epoch before. None: do not.

    Attributes
    ----------
    word_vectors, context_vectors : arrays ``(V, dim)`` of float32
        w and v.
    word_bias, context_bias : arrays ``(V,)`` of float32
        b and c.
    words : list of str, or None
        The words of the rows, if there was a vocabulary.
    loss_ : list of float
        For each epoch the mean over all counts of ``f(X_ij) / 2 error^2``, each taken just before it was trained on:
        what the original program prints as cost.

    Raises
    ------
    TypeError
        `dim`, `epochs`, `seed` or `patience` is not an integer, or another is not a number.
    ValueError
        `dim`, `x_max`, `lr`, `epochs`, `bias_lr`, `grad_clip` or `patience` is not positive, `alpha`, `seed` or `tol`
        is negative, one is not finite, `lr` and `bias_lr` are 1e12 apart, or `shuffle` is another word.

    Notes
    -----
    The step of a parameter z with gradient grad is that of the original program, with the rate inside the accumulator:
    ``t = lr grad; z -= t / sqrt(G); G += t^2``, G from 1. Vectors start uniform in ``(-0.5, 0.5) / dim``.

    Training runs in float32, on blocks of the matrix that share neither rows nor columns, so the result is the same
    for any number of threads, bit for bit on one kind of processor. It needs 12 bytes for each stored count beside the
    counts, and about ``24 dim`` bytes for each word. The counts may lie in mapped files.

    On text, "epoch" prints a loss that is about 1 % lower after 15 epochs than "once": mostly because some counts come
    round soon after they were last trained on.

    References
    ----------
    Pennington, Socher, Manning: GloVe: Global Vectors for Word Representation (2014), and their implementation.
    Gemulla and others: Large-scale matrix factorization with distributed stochastic gradient descent (2011), for the
    blocks. Dingwall, Potts: Mittens: an extension of GloVe for learning domain-specialized representations (2018), for
    the pull.

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
        bias_lr: float | None = 1.0,
        grad_clip: float | None = 100.0,
        shuffle: str = "once",
        tol: float | None = None,
        patience: int = 1,
    ) -> None:
        self.dim = integer("dim", dim, least=1)
        self.epochs = integer("epochs", epochs, least=1)
        self.seed = integer("seed", seed, least=0, most=None)
        self.x_max, self.lr = positive("x_max", x_max), positive("lr", lr)
        self.alpha = positive("alpha", alpha, or_zero=True)
        self.bias_lr = None if bias_lr is None else positive("bias_lr", bias_lr)
        if self.bias_lr is not None and not 1e-12 < self.bias_lr / self.lr < 1e12:
            raise ValueError(f"bias_lr must be within a factor of 1e12 of lr={lr}, got {bias_lr}")
        self.grad_clip = None if grad_clip is None else positive("grad_clip", grad_clip)
        if shuffle not in ("once", "epoch"):
            raise ValueError(f"shuffle must be 'once' or 'epoch', got {shuffle!r}")
        self.shuffle = shuffle
        self.tol = None if tol is None else positive("tol", tol, or_zero=True)
        self.patience = integer("patience", patience, least=1)
        self.words: list[str] | None = None
        self._vectors: Any = None

    def __repr__(self) -> str:
        names = ("x_max", "alpha", "lr", "epochs", "seed", "bias_lr", "grad_clip", "shuffle", "tol", "patience")
        return f"GloVe(dim={self.dim}, {', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def fit(
        self,
        counts: Any,
        vocab: Any = None,
        *,
        initial: Any = None,
        pull: float = 0.0,
        frozen: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        checkpoint_seconds: float | None = None,
        resume: bool | str | os.PathLike[str] = False,
        progress: Callable[[float, int, float], object] | None = None,
        hogwild: bool = False,
        backend: str | None = None,
    ) -> GloVe:
        """Train on co-occurrence counts, from the beginning, from given vectors, or from a checkpoint.

        Parameters
        ----------
        counts
            A square SciPy sparse matrix or array of positive numbers, such as `cooccurrence` returns, or
            `CooccurrenceCounts`.
        vocab
            The V words, in order: a `Vocabulary` or a sequence of str.
        initial
            Vectors to begin with instead of random ones: `KeyedVectors`, a dict from words to vectors, or a fitted
            `GloVe`. Words of `vocab` that it lacks begin at random: so words are added to an old vocabulary. A `GloVe`
            gives w, v and the biases; other vectors u give ``w = u / 2 + r`` and ``v = u / 2 - r`` with the random
            start r. Accumulated gradients begin anew.
        pull
            The strength mu of ``mu |w + v - u|^2``, added to the loss for each word that `initial` gives as u; it is
            not part of `loss_`. After each epoch one implicit AdaGrad step is taken: with ``a = 2 mu lr / sqrt(G)`` of
            w and b likewise of v, ``D = (w + v - u) / (1 + a + b); w -= a D; v -= b D``.
        frozen
            Words whose vectors w and v stay as they begin; their biases are trained. An iterable of words, an array of
            bool ``(V,)``, or True: all words that `initial` gives.
        checkpoint
            A file to which all that is needed to go on is written, after each epoch and at the end. It is only
            replaced when all is written.
        checkpoint_every, checkpoint_seconds
            Write it after every so many epochs, or (also within an epoch) when so many seconds have passed since the
            last; and at the end.
        resume
            True: go on from the file `checkpoint` if it is there. A path: go on from this file. The result is the same,
            bit for bit, as of an unbroken run. The counts, the settings and `initial`, `pull` and `frozen` must be the
            same; `epochs`, `tol` and `patience` may differ, so more epochs can be added.
        progress
            Called after each epoch as ``progress(done, epochs, loss)``, and within a long one every second: `done` is
            then not whole, and the loss that of the part of the epoch. If it raises, a checkpoint is written first.
        hogwild
            With backend "cuda", train the counts of a visit to the blocks all at once, with atomic additions: faster
            where there are few counts a word, or few words. The vectors then differ from run to run.
        backend
            "reference", "cpu" or "cuda"; default: "cpu" where its packages are installed. "cuda" copies the counts and
            the vectors to CuPy's current GPU, trains there, and brings the vectors back at the end: `progress` does not
            see them before. It needs about 40 bytes there for each stored count while they are sorted, then 12, and
            ``24 dim`` for each word. The steps are those of the CPU in the same order, and repeat bit for bit.

        Returns
        -------
        GloVe
            This object. If training is interrupted, from the keyboard or by an exception of `progress`, it keeps the
            vectors and losses of the epochs that were finished, and the last checkpoint stays.

        Raises
        ------
        TypeError
            `counts` is not a sparse matrix of real numbers, `vocab` does not hold str, or `initial`, `frozen`,
            `progress` or the name of a file is of another kind.
        ValueError
            `counts` is not square, is empty, or stores a value that is not positive and finite; `vocab` has another
            length or a word twice; `initial` shares no word with it or has vectors of another length; `frozen` names
            other words; or the checkpoint is damaged, or of other counts or settings.
        OSError
            A checkpoint cannot be written or read.
        FloatingPointError
            The training diverged: the message names the epoch, the pair and what to change. The object keeps the last
            epoch before.
        """
        checkpoints = Checkpoints(checkpoint, checkpoint_every, checkpoint_seconds)
        resumed = _resumed(resume, checkpoint)
        if progress is not None and not callable(progress):
            raise TypeError(f"progress must be a function of (done, epochs, loss) or None, got {progress!r}")
        matrix = checked_counts(counts)
        words = checked_words(vocab, matrix.shape[0])
        given = checked_initial(initial, words, matrix.shape[0], self.dim)
        still = checked_frozen(frozen, words, given, matrix.shape[0])
        strength = positive("pull", pull, or_zero=True)
        if strength and given is None:
            raise ValueError("pull draws the vectors to those of initial: give initial")
        on_gpu = (backend or os.environ.get("FASTNLP_BACKEND")) == "cuda"
        if flag("hogwild", hogwild) and not on_gpu:
            raise ValueError(f"hogwild=True is for backend='cuda', got backend={backend!r}")
        prepare = _on_gpu(hogwild) if on_gpu else partial(Training, kernels_for("glove", backend))

        grid = Grid.deal(matrix, self._random(0))
        state = State(grid, self.dim, self._random(1), (self.lr / (self.bias_lr or self.lr)) ** 2)
        if given is not None:
            state.begin_from(given)
        if still is not None:
            state.freeze(still)
        source = ""
        if checkpoint is not None or resumed is not None:
            source = fingerprint(*csr_arrays(matrix), *(given or ()), still, np.array(strength))
        losses, position = [], Position()
        if resumed is not None:
            saved = Saved.read(resumed)
            saved.check(resumed, self._settings(), source, words, self.epochs)
            state.put(saved.values, saved.squares)
            losses, position = saved.losses, saved.position
        self.words, self.loss_ = words, losses
        self._keep(state)
        limits = state.limits(inf if self.grad_clip is None else self.grad_clip)
        training = prepare(matrix, grid, state, self.x_max, self.alpha, limits, self.lr)

        def now() -> Saved:
            training.bring()
            values, squares = state.take(), state.take_squares()
            return Saved(self._settings(), source, words, self.loss_, position, values, squares)

        told = time.monotonic()

        def tell(done: float, loss: float) -> None:
            nonlocal told
            if progress is not None:
                try:
                    progress(done, self.epochs, loss)
                except BaseException:
                    checkpoints.at_break(now)
                    raise
            told = time.monotonic()

        def between_visits(part: float) -> None:
            checkpoints.after_visit(now)
            if time.monotonic() - told >= _TELL:
                tell(len(self.loss_) + part, position.total / (part * matrix.nnz))

        pull_back = partial(state.pull, given.rows, given.sums, strength, self.lr) if given and strength else None
        try:
            while len(self.loss_) < self.epochs and not self._settled():
                self._epoch(training, grid, position, between_visits)
                loss = position.total / matrix.nnz
                if not (training.end_epoch(pull_back) and isfinite(loss)):
                    self._diverged(None)
                training.keep(partial(self._keep, state))
                self.loss_.append(loss)
                position = Position()
                done = len(self.loss_)
                checkpoints.after_epoch(done, done == self.epochs or self._settled(), now)
                tell(done, loss)
        finally:
            training.close()
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GloVe:
        """Return the model that a checkpoint holds, with its vectors, biases and losses.

        To go on training, pass the file to `fit` as `resume`; to add words, pass the model as `initial`.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It is no checkpoint, or not a whole one.
        """
        saved = Saved.read(path)
        model = cls(**saved.settings, epochs=max(1, len(saved.losses)))
        model.words, model.loss_ = saved.words, saved.losses
        for name in NAMES:
            setattr(model, name, saved.values[name])
        return model

    @property
    def vectors(self) -> Any:
        """The sums w + v, as KeyedVectors, or as an array ``(V, dim)`` if fitted without a vocabulary.

        Raises
        ------
        AttributeError
            Nothing was fitted yet.
        """
        if self._vectors is None:
            self._vectors = self.vectors_of("sum")
        return self._vectors

    def vectors_of(self, which: str = "sum") -> Any:
        """Return one of the outputs of the original program, as KeyedVectors, or as an array if there are no words.

        Parameters
        ----------
        which
            "sum": w + v (its ``-model 2``). "word": w (1). "context": v. "concat": w, then v (3). "all": w, b, v, c,
            one after the other (0).

        Raises
        ------
        AttributeError
            Nothing was fitted yet.
        ValueError
            `which` is another word.
        """
        if which not in _KINDS:
            raise ValueError(f"which must be one of {', '.join(_KINDS)}, got {which!r}")
        if not hasattr(self, "word_vectors"):
            raise AttributeError("there are no vectors yet: call fit(counts, vocab) first")
        w, v = self.word_vectors, self.context_vectors
        if which == "sum":
            vectors = w + v
        elif which in ("word", "context"):
            vectors = w if which == "word" else v
        elif which == "concat":
            vectors = np.concatenate([w, v], axis=1)
        else:
            vectors = np.concatenate([w, self.word_bias[:, None], v, self.context_bias[:, None]], axis=1)
        if self.words is None:
            return vectors
        from fastnlp.text.vectors import KeyedVectors

        return KeyedVectors(self.words, vectors)

    def save(self, path: str | os.PathLike[str], *, which: str = "sum", **options: Any) -> None:
        """Write vectors to a file; `which` is that of `vectors_of`, options are those of `KeyedVectors.save`.

        Raises
        ------
        ValueError
            There is no vocabulary.
        """
        vectors = self.vectors_of(which)
        if self.words is None:
            raise ValueError("save needs the words: call fit(counts, vocab), or write the array with np.save")
        vectors.save(path, **options)

    def _epoch(self, training: Any, grid: Grid, position: Position, between_visits: Callable[[float], None]) -> None:
        """Make the visits of an epoch that are left, and move `position` along.

        After some visits a function is called with the part of the epoch that is done.
        """
        order = grid.order(self._random(2, len(self.loss_) if self.shuffle == "epoch" else 0))
        for cost, failed in training.visits(order[position.visits :]):
            if failed.max() >= 0:
                visit, block = np.argwhere(failed >= 0)[0].tolist()
                s = order[position.visits + visit][0]
                self._diverged(grid.pair(s, block, training.places(failed[visit, block])))
            for losses in cost:
                position.visits += 1
                position.total += float(losses.sum())
            if position.visits < len(order):
                between_visits(position.visits / len(order))

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS}

    def _random(self, *use: int) -> np.random.Generator:
        """Return a generator of its own for one use of the seed: so no use depends on what was drawn for others."""
        return np.random.default_rng((self.seed, *use))

    def _settled(self) -> bool:
        """Tell whether the loss has stopped falling."""
        last = self.loss_[-self.patience - 1 :]
        if self.tol is None or len(last) <= self.patience:
            return False
        return all(before - after < self.tol * before for before, after in pairwise(last))

    def _keep(self, state: State) -> None:
        """Take the vectors and biases over from the parameters of training."""
        for name, values in state.take().items():
            setattr(self, name, values)
        self._vectors = None

    def _diverged(self, pair: tuple[int, int] | None) -> None:
        """Raise; the vectors and losses are still those of the last epoch that went well."""
        done = len(self.loss_)
        at = ""
        if pair is not None:
            names = [row if self.words is None else self.words[row] for row in pair]
            at = f" at the pair {names[0]!r}, {names[1]!r} (row {pair[0]}, column {pair[1]})"
        lower = f"a smaller lr than {self.lr}"
        if self.bias_lr is not None and self.bias_lr > self.lr:
            lower += f" or bias_lr than {self.bias_lr}"
        if self.grad_clip is None:
            lower += ", or grad_clip=100"
        raise FloatingPointError(
            f"the training diverged in epoch {done + 1} of {self.epochs}{at}: use {lower}; "
            f"the vectors of epoch {done} are kept"
        )


def _on_gpu(hogwild: bool) -> Callable[..., Any]:
    """Return what makes a training on the GPU."""
    reason = why_missing("cuda")
    if reason is not None:
        raise ImportError(f"backend 'cuda' cannot run: {reason}")
    from fastnlp.ops import _glove_device

    library = _glove_device.cupy_library()
    return partial(_glove_device.DeviceTraining, library, implementation("glove", "cuda"), hogwild=hogwild)


def _resumed(resume: Any, checkpoint: Any) -> Any:
    """Return the file to go on from, or None."""
    if resume is True:
        if checkpoint is None:
            raise ValueError("resume=True goes on from the file checkpoint: give it, or give the file to resume")
        return checkpoint if os.path.exists(checkpoint) else None
    return None if resume is False or resume is None else os.fspath(resume)
