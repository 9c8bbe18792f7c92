"""Answers to analogies, "a is to b as c is to x", from cosines of all words with those of the questions."""

from __future__ import annotations

import numpy as np

_EPSILON = 1e-3


def answer(cosines, first, questions, rows, product, best, answers):
    # (U, N), (Q, 3), (Q, 3), (Q,), (Q,)
    """Improve the best score and the answer of every question by N more words, those from row `first` on.

    The score of a word x is ``cos(x, b) - cos(x, a) + cos(x, c)``; with `product`, where ``(1 + cos) / 2`` is given for
    a cosine, ``cos(x, b) cos(x, c) / (cos(x, a) + 0.001)``. `questions` are the places of a, b and c in `cosines`, and
    `rows` those of the words themselves, which are no answers. Of equal scores the first counts; NaN never does.
    """
    for q, (a, b, c) in enumerate(questions):
        if product:
            scores = cosines[b] * cosines[c] / (cosines[a] + _EPSILON)
        else:
            scores = cosines[b] - cosines[a] + cosines[c]
        own = rows[q] - first
        scores[own[(own >= 0) & (own < scores.size)]] = -np.inf
        scores[np.isnan(scores)] = -np.inf
        at = scores.argmax()
        if scores[at] > best[q]:
            best[q], answers[q] = scores[at], first + at
