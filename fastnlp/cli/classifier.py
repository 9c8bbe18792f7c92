"""Which part did this passage come from? A linear classifier on the mean of a passage's word vectors.

It stands in for what vectors are used for. The vectors stay as they are; only the linear layer is trained, on the
passages of some documents, and judged on those of others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnlp import bucket_batches, linear_cross_entropy, value_and_grad

if TYPE_CHECKING:
    from fastnlp.cli.demo_corpus import Passages
    from fastnlp.text import Corpus

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_SHORTEST, _LONGEST = 8, 256  # tokens of a passage: fewer tell nothing, more are cut off
_MOST_PASSAGES = 60_000
_HELD_OUT = 0.2
_SMOOTHING = 1e-3  # a of the weight a / (a + p)
_POOL_BATCH, _TRAIN_BATCH = 512, 128


class Task(NamedTuple):
    """N passages of a corpus, the class of each, and which of them are held out."""

    begin: Integers  # (N,), where the passage begins in the ids of the corpus
    length: Integers  # (N,)
    label: Integers  # (N,)
    test: NDArray[np.bool_]  # (N,)
    classes: list[str]

    @property
    def majority(self) -> float:
        """The held-out accuracy of always naming the class that is most frequent in training."""
        most = np.bincount(self.label[~self.test]).argmax()
        return float((self.label[self.test] == most).mean())


class Curve(NamedTuple):
    """How training went: the mean loss of each epoch, the held-out accuracy after it, the last predictions (N,)."""

    loss: list[float]
    accuracy: list[float]
    predicted: Integers


class Comparison(NamedTuple):
    """The classifier on the vectors, and on the same vectors dealt to the words at random."""

    task: Task
    real: Curve
    shuffled: Curve

    def by_part(self) -> list[tuple[str, int, float]]:
        """Return name, held-out passages and share of them found for each class, the largest first."""
        parts = []
        for i, name in enumerate(self.task.classes):
            held_out = self.task.test & (self.task.label == i)
            parts.append((name, int(held_out.sum()), float((self.real.predicted[held_out] == i).mean())))
        return sorted(parts, key=lambda part: -part[1])


def task_of(passages: Passages, corpus: Corpus, seed: int) -> Task | None:
    """Return the task on passages that have a part and enough words; None where that leaves fewer than two classes.

    Parameters
    ----------
    passages
        The text, one passage a document of `corpus`.
    corpus
        Its ids.
    seed
        Of what is held out.
    """
    lengths = np.diff(corpus.offsets)
    rows = np.flatnonzero((lengths >= _SHORTEST) & np.array([part != "" for part in passages.part]))
    rng = np.random.default_rng(seed)
    if len(rows) > _MOST_PASSAGES:
        rows = np.sort(rng.choice(rows, _MOST_PASSAGES, replace=False))
    part = [passages.part[i] for i in rows]
    test = hold_out(part, [passages.document[i] for i in rows], rng)
    # A class that has nothing to train on or nothing to test on is none.
    both = Counter(set(zip(part, test.tolist(), strict=True)))
    classes = sorted({name for name, _ in both if both[name, True] and both[name, False]})
    if len(classes) < 2:
        return None
    index = {name: i for i, name in enumerate(classes)}
    kept = np.array([name in index for name in part])
    label = np.array([index[name] for name in part if name in index], dtype=np.int64)
    rows = rows[kept]
    return Task(corpus.offsets[rows], np.minimum(lengths[rows], _LONGEST), label, test[kept], classes)


def hold_out(part: Sequence[str], document: Sequence[str], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose whole documents at random, about a fifth of the passages of each part and never more than three tenths."""
    rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (name, where) in enumerate(zip(part, document, strict=True)):
        rows[name][where].append(i)
    test = np.zeros(len(part), dtype=bool)
    for _, documents in sorted(rows.items()):
        total = sum(map(len, documents.values()))
        held = 0
        names = sorted(documents)
        for k in rng.permutation(len(names)):
            chosen = documents[names[k]]
            if held < _HELD_OUT * total and held + len(chosen) <= 1.5 * _HELD_OUT * total:
                test[chosen] = True
                held += len(chosen)
    return test


def pooled(task: Task, ids: NDArray[Any], vectors: Floats, counts: NDArray[Any]) -> Floats:
    """Return the features of the passages ``(N, D)``: weighted means of vectors, standardized by the training ones.

    A word of relative frequency p has the weight a / (a + p), so that stop words do not drown the others (Arora, Liang,
    Ma, "A simple but tough-to-beat baseline for sentence embeddings", 2017). Passages of like length are averaged
    together, so that little is padded.
    """
    weight = (_SMOOTHING / (_SMOOTHING + counts / counts.sum())).astype(np.float32)
    features = np.empty((len(task.label), vectors.shape[1]), np.float32)
    for rows in bucket_batches(task.length, batch_size=_POOL_BATCH, shuffle=False):
        column = np.arange(task.length[rows].max())
        inside = column < task.length[rows, None]
        words = ids[task.begin[rows, None] + np.where(inside, column, 0)]  # (B, T), padded with the first word
        share = weight[words] * inside
        share /= share.sum(axis=1, keepdims=True)
        features[rows] = np.matmul(share[:, None, :], vectors[words])[:, 0]
    seen = features[~task.test]
    return (features - seen.mean(axis=0)) / np.maximum(seen.std(axis=0), np.float32(1e-6))


def train(
    task: Task,
    features: Floats,
    *,
    epochs: int,
    seed: int,
    lr: float = 0.003,
    progress: Callable[[int, int], object] | None = None,
) -> Curve:
    """Train the linear layer on the passages that are not held out, by Adam on the fused loss."""
    N, D = features.shape
    weight, bias = np.zeros((len(task.classes), D), np.float32), np.zeros(len(task.classes), np.float32)
    adam = _Adam([weight, bias], lr)
    loss_and_gradients = value_and_grad(linear_cross_entropy, wrt=("linear_weight", "linear_bias"))
    rng = np.random.default_rng(seed)
    seen = np.flatnonzero(~task.test)
    curve = Curve([], [], np.empty(N, np.int64))
    for epoch in range(1, epochs + 1):
        total = 0.0
        for rows in np.array_split(rng.permutation(seen), -(-len(seen) // _TRAIN_BATCH)):
            loss, grads = loss_and_gradients(features[rows], weight, task.label[rows], linear_bias=bias)
            adam.step(grads)
            total += float(loss) * len(rows)
        curve.predicted[:] = (features @ weight.T + bias).argmax(axis=1)
        curve.loss.append(total / len(seen))
        curve.accuracy.append(float((curve.predicted == task.label)[task.test].mean()))
        if progress is not None:
            progress(epoch, epochs)
    return curve


class _Adam:
    """Adam (D. Kingma and J. Ba, 2015): steps of the running mean gradient over its running root mean square."""

    def __init__(self, parameters: Sequence[Floats], lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self._parameters = parameters
        self._lr = lr
        self._betas = betas
        self._means = [np.zeros_like(p) for p in parameters]
        self._squares = [np.zeros_like(p) for p in parameters]
        self._steps = 0

    def step(self, gradients: Sequence[Floats]) -> None:
        """Move the parameters against their gradients, in place."""
        self._steps += 1
        beta1, beta2 = self._betas
        lr = self._lr * (1 - beta2**self._steps) ** 0.5 / (1 - beta1**self._steps)
        for p, gradient, mean, square in zip(self._parameters, gradients, self._means, self._squares, strict=True):
            mean += (1 - beta1) * (gradient - mean)
            square += (1 - beta2) * (gradient * gradient - square)
            p -= lr * mean / (np.sqrt(square) + 1e-8)
