"""How good word vectors are: agreement with people's judgements, and answers to analogies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from fastnlp._checks import integer
from fastnlp._dispatch import kernels_for
from fastnlp.text._judgements import Path, holds_analogies, read_pairs, read_questions
from fastnlp.text.vectors import KeyedVectors, check_method

__all__ = [
    "Analogies",
    "Section",
    "Similarity",
    "evaluate_analogies",
    "evaluate_similarity",
    "holds_analogies",
]

_CELLS = 1 << 21  # cosines that are held at a time
_UNKNOWN = "<unk>"  # in GloVe's files the mean of rare words; no answer
_SYNTACTIC = "gram"  # how the names of the syntactic sections start


class Similarity(NamedTuple):
    """What `evaluate_similarity` returns."""

    spearman: float  # rank correlation, NaN where it is not defined
    pairs: int  # in the file
    covered: int  # of these, pairs whose words both have vectors


class Section(NamedTuple):
    """A part of a file of analogies, or all of it."""

    name: str
    correct: int  # questions that were answered as the file says
    covered: int  # questions whose four words have vectors
    questions: int  # in the file

    @property
    def accuracy(self) -> float:
        """`correct` by `covered`; NaN where no question is covered."""
        return self.correct / self.covered if self.covered else float("nan")


class Analogies(NamedTuple):
    """What `evaluate_analogies` returns."""

    total: Section
    semantic: Section
    syntactic: Section  # of the sections whose names start with "gram"
    sections: tuple[Section, ...]


@overload
def evaluate_similarity(vectors: KeyedVectors, file: Path, *, lower: bool | None = None) -> Similarity: ...  # type: ignore[overload-overlap]
@overload
def evaluate_similarity(
    vectors: KeyedVectors, file: Iterable[Path], *, lower: bool | None = None
) -> dict[str, Similarity]: ...
def evaluate_similarity(
    vectors: KeyedVectors, file: Path | Iterable[Path], *, lower: bool | None = None
) -> Similarity | dict[str, Similarity]:
    """Return Spearman's rank correlation of cosines with the scores of a word-similarity file.

    A line is two words and a score, divided by tabs, commas or spaces; further fields are not looked at. Empty lines,
    lines that start with ``#`` and a heading are skipped. Pairs that are not covered are left out. With fewer than two
    pairs, or where all cosines or all scores are the same, the correlation is NaN.

    Parameters
    ----------
    vectors
        The word vectors.
    file
        UTF-8 text, such as WS-353, MEN or SimLex-999. Of several files, a dict by their names is returned.
    lower
        Look words up in lower case; None: those that have no vector as they stand.

    Raises
    ------
    OSError
        The file cannot be opened.
    TypeError
        `vectors` are not `KeyedVectors`.
    ValueError
        A line is malformed, or there are no pairs. The message names the path and the line.
    """
    rows = _lookup(vectors, lower, len(_checked(vectors)))
    if not isinstance(file, str | os.PathLike):
        return {os.fspath(one): evaluate_similarity(vectors, one, lower=lower) for one in file}
    judged = read_pairs(file)
    found = [(rows(a), rows(b), score) for a, b, score in judged]
    covered = [(a, b, score) for a, b, score in found if a is not None and b is not None]
    scores = [score for _, _, score in covered]
    cosines = vectors.similarities(
        [vectors.vectors[a] for a, _, _ in covered], [vectors.vectors[b] for _, b, _ in covered]
    )
    spearman = float("nan")
    if len(set(cosines.tolist())) > 1 and len(set(scores)) > 1:
        from scipy.stats import spearmanr

        spearman = float(spearmanr(cosines, scores).statistic)
    return Similarity(spearman, len(judged), len(covered))


def evaluate_analogies(
    vectors: KeyedVectors,
    file: Path,
    *,
    method: str = "3CosAdd",
    restrict: int | None = None,
    lower: bool | None = None,
    progress: Callable[[int, int], object] | None = None,
    backend: str | None = None,
) -> Analogies:
    """Return how many analogies of a file, "a is to b as c is to d", word vectors answer with d.

    The answer is the word x, none of the question's own and not ``<unk>``, that has the largest
    ``cos(x, b) - cos(x, a) + cos(x, c)`` ("3CosAdd"), or ``c(x, b) c(x, c) / (c(x, a) + 0.001)`` with
    ``c = (1 + cos) / 2`` ("3CosMul"). These are the rules of GloVe's own evaluate.py and of Levy and Goldberg, CoNLL
    2014. Questions with a word that has no vector are not covered, and not counted as wrong. All is in float64.

    Parameters
    ----------
    vectors
        The word vectors, V of D features.
    file
        UTF-8 text such as Google's questions-words.txt: four words a line, divided by spaces or tabs, and lines
        ``: name`` before each section. Empty lines and lines that start with ``#`` or ``//`` are skipped.
    method
        "3CosAdd" or "3CosMul".
    restrict
        Know only the first so many words, as answers and in questions.
    lower
        Look words up in lower case; None: those that have no vector as they stand.
    progress
        Called as ``progress(done, total)``, with words of the vocabulary that were compared.
    backend
        "reference" or "cpu"; default: cpu.

    Returns
    -------
    Analogies
        Counts of each section, of the semantic ones, of the syntactic ones (``gram...``) and of all. The cosines of U
        different question words and their V candidates take ``2 U V D`` flops, the questions ``3 Q V`` more; at most
        16 MB of them are held.

    Raises
    ------
    OSError
        The file cannot be opened.
    TypeError
        `vectors` are not `KeyedVectors`.
    ValueError
        A line is malformed, there are no questions, or an option is not valid. The message names the path and the line.
    """
    check_method(method)
    known = len(_checked(vectors))
    if restrict is not None:
        known = min(known, integer("restrict", restrict, least=1, most=None))
    look_up = _lookup(vectors, lower, known)
    sections = read_questions(file)
    rows, places = [], []
    for place, (_, questions) in enumerate(sections):
        for question in questions:
            found = [row for word in question if (row := look_up(word)) is not None]
            if len(found) == len(question):
                rows.append(found)
                places.append(place)
    covered, correct = np.zeros(len(sections), np.int64), np.zeros(len(sections), np.int64)
    if rows:
        asked = np.array(rows)
        answers = _answers(vectors, asked[:, :3], known, method == "3CosMul", progress, backend)
        np.add.at(covered, places, 1)
        np.add.at(correct, places, answers == asked[:, 3])
    counted = tuple(
        Section(name, int(correct[i]), int(covered[i]), len(questions)) for i, (name, questions) in enumerate(sections)
    )
    syntactic = [section for section in counted if section.name.startswith(_SYNTACTIC)]
    semantic = [section for section in counted if section not in syntactic]
    return Analogies(_sum("total", counted), _sum("semantic", semantic), _sum("syntactic", syntactic), counted)


def _answers(
    vectors: KeyedVectors,
    questions: NDArray[np.int64],
    known: int,
    product: bool,
    progress: Callable[[int, int], object] | None,
    backend: str | None,
) -> NDArray[np.int64]:
    """Return the row that answers each of the questions ``(Q, 3)``, -1 where none does."""
    kernels = kernels_for("evaluate", backend)
    asked, places = np.unique(questions, return_inverse=True)
    places = np.ascontiguousarray(places.reshape(questions.shape))
    questions = np.ascontiguousarray(questions)
    terms = _units(vectors.vectors[asked])
    best, answers = np.full(len(questions), -np.inf), np.full(len(questions), -1)
    step = max(1, _CELLS // len(asked))
    for begin in range(0, known, step):
        units = _units(vectors.vectors[begin : min(begin + step, known)])
        unknown = vectors.index.get(_UNKNOWN, -1) - begin
        if 0 <= unknown < len(units):
            units[unknown] = np.nan
        cosines = terms @ units.T  # (U, step)
        if product:
            cosines += 1
            cosines /= 2
        kernels.answer(cosines, begin, places, questions, product, best, answers)
        if progress is not None:
            progress(begin + len(units), known)
    return answers


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return vectors divided by their lengths; zeros stay, what is not finite becomes NaN."""
    wide = vectors.astype(np.float64)
    with np.errstate(invalid="ignore"):
        lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        lengths[lengths == 0] = 1
        return wide / lengths


def _sum(name: str, sections: Iterable[Section]) -> Section:
    counts = [section[1:] for section in sections]
    return Section(name, *(sum(column) for column in zip((0, 0, 0), *counts, strict=True)))


def _checked(vectors: KeyedVectors) -> KeyedVectors:
    if not isinstance(vectors, KeyedVectors):
        raise TypeError(f"vectors must be KeyedVectors, got {type(vectors).__name__}")
    return vectors


def _lookup(vectors: KeyedVectors, lower: bool | None, known: int) -> Callable[[str], int | None]:
    """Return a function from a word to its row, None where that is not among the first `known`."""
    if lower is not None and not isinstance(lower, bool):
        raise TypeError(f"lower must be True, False or None, got {lower!r}")

    def row_of(word: str) -> int | None:
        row = None if lower else vectors.index.get(word)
        if row is None and lower is not False:
            row = vectors.index.get(word.lower())
        return row if row is not None and row < known else None

    return row_of
