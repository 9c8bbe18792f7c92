"""How well word vectors agree with people's judgements."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from fastnlp.text import reading
from fastnlp.text.vectors import KeyedVectors


class Similarity(NamedTuple):
    """What `evaluate_similarity` returns."""

    spearman: float  # rank correlation, NaN where it is not defined
    pairs: int  # in the file
    covered: int  # of these, pairs whose words both have vectors


def evaluate_similarity(vectors: KeyedVectors, file: str | os.PathLike[str]) -> Similarity:
    """Return Spearman's rank correlation of cosines with the scores of a word-similarity file.

    A line is two words and a score, divided by tabs, commas or spaces; further fields are not looked at. Empty lines,
    lines that start with ``#`` and a heading are skipped. A word that has no vector is looked up in lower case. Pairs
    that are not covered are left out. With fewer than two pairs, or where all cosines or all scores are the same, the
    correlation is NaN.

    Parameters
    ----------
    vectors
        The word vectors.
    file
        UTF-8 text, such as WS-353, MEN or SimLex-999.

    Raises
    ------
    OSError
        The file cannot be opened.
    TypeError
        `vectors` are not `KeyedVectors`.
    ValueError
        A line is malformed, or there are no pairs. The message names the path and the line.
    """
    if not isinstance(vectors, KeyedVectors):
        raise TypeError(f"vectors must be KeyedVectors, got {type(vectors).__name__}")
    judged = _read(file)
    covered = [(vectors.similarity(a, b), score) for a, b, score in _with_vectors(vectors, judged)]
    spearman = float("nan")
    if len({cosine for cosine, _ in covered}) > 1 and len({score for _, score in covered}) > 1:
        from scipy.stats import spearmanr

        spearman = float(spearmanr([cosine for cosine, _ in covered], [score for _, score in covered]).statistic)
    return Similarity(spearman, len(judged), len(covered))


def _read(file: str | os.PathLike[str]) -> list[tuple[str, str, float]]:
    name = os.fspath(file)
    reading.check(file)
    judged = []
    with reading.open_bytes(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if not text or text.startswith("#"):
                    continue
                a, b, score, *_ = _fields(text)
            except ValueError:
                raise ValueError(f"{name}, line {number}: two words and a score are wanted, got {line!r:.80}") from None
            try:
                judged.append((a, b, float(score)))
            except ValueError:
                if number > 1:
                    raise ValueError(f"{name}, line {number}: a score is wanted, got {score!r:.80}") from None
    if not judged:
        raise ValueError(f"{name} holds no pairs of words")
    return judged


def _fields(line: str) -> list[str]:
    for divider in ("\t", ","):
        if line.count(divider) >= 2:
            return [field.strip() for field in line.split(divider)]
    return re.split("[ \t]+", line)


def _with_vectors(vectors: KeyedVectors, judged: list[tuple[str, str, float]]) -> list[tuple[str, str, float]]:
    def known(word: str) -> str:
        return word if word in vectors else word.lower()

    pairs = [(known(a), known(b), score) for a, b, score in judged]
    return [(a, b, score) for a, b, score in pairs if a in vectors and b in vectors]
