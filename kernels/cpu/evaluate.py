"""Answers to analogies from cosines of all words with those of the questions (scores: ``reference/evaluate.py``).

Schedule: some questions are a task. Questions share words, so a cosine is a product of its own once and is read from
cache for each question; three reads a word and question, where the product of each question with all words would be D
multiply-adds.
"""

from __future__ import annotations

from fastnlp._threads import run
from fastnlp.kernels.cpu._jit import jit, kernel_part

_EPSILON = 1e-3
_SCORES_A_TASK = 1 << 20


def answer(cosines, first, questions, rows, product, best, answers):
    # (U, N), (Q, 3), (Q, 3), (Q,), (Q,)
    """Improve the best score and the answer of every question by N more words, those from row `first` on."""
    grain = max(1, _SCORES_A_TASK // cosines.shape[1])
    run(_answer, len(questions), cosines, first, questions, rows, product, best, answers, grain=grain)


@jit("(int64, int64, float64[:, ::1], int64, int64[:, ::1], int64[:, ::1], boolean, float64[::1], int64[::1])")
def _answer(begin, end, cosines, first, questions, rows, product, best, answers):
    for q in range(begin, end):
        a, b, c = cosines[questions[q, 0]], cosines[questions[q, 1]], cosines[questions[q, 2]]
        top, at = best[q], answers[q]
        if product:
            for i in range(a.size):
                score = b[i] * c[i] / (a[i] + _EPSILON)
                if score > top and _is_other(first + i, rows[q]):
                    top, at = score, first + i
        else:
            for i in range(a.size):
                score = b[i] - a[i] + c[i]
                if score > top and _is_other(first + i, rows[q]):
                    top, at = score, first + i
        best[q], answers[q] = top, at


@kernel_part
def _is_other(row, own):
    return row != own[0] and row != own[1] and row != own[2]
