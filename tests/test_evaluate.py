"""Agreement of word vectors with people's judgements, and answers to analogies."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnlp
from fastnlp import KeyedVectors
from fastnlp._dispatch import implementation
from fastnlp.text import evaluate, evaluate_analogies, evaluate_similarity
from fastnlp.text.evaluate import Section, holds_analogies

# Word similarity


def test_evaluate_similarity(tmp_path):
    keyed = KeyedVectors(["a", "b", "c", "d"], [[1, 0], [1, 0.1], [1, 1], [0, 1]])
    path = tmp_path / "pairs.txt"
    for content in (
        "a\tb\t9\nA\tc\t5.5\na\td\t1\na\tnone\t3\n",
        "word 1,word 2,mean\na,b,9\nA, c,5.5\na,d,1\n\na,none,3\n",
        "# of people\r\na b 9 n\r\nA  c 5.5 n\r\na d 1 n\r\na none 3 n\r\n",
        "\ufeffa b 9\nA c 5.5\na d 1\na none 3\n",
    ):
        path.write_text(content, newline="")
        result = evaluate_similarity(keyed, path)
        assert result == (pytest.approx(1.0), 4, 3)
    path.write_text("a b 1\na c 5.5\na d 9\n")
    assert evaluate_similarity(keyed, path).spearman == pytest.approx(-1.0)
    for content in ("a b 1\na none 2\n", "a b 1\na c 1\n", "x y 1\n"):
        path.write_text(content)
        assert math.isnan(evaluate_similarity(keyed, path).spearman)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a b 1\na b\n", "line 2"), ("a b 1\na b x\n", "line 2"), ("# none\n", "holds no pairs"), ("", "is empty")],
)
def test_malformed_similarity_files(tmp_path, content, message):
    path = tmp_path / "pairs.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        evaluate_similarity(KeyedVectors(["a"], [[1]]), path)
    assert "pairs.txt" in str(raised.value)


def test_evaluate_similarity_wants_keyed_vectors(tmp_path):
    with pytest.raises(TypeError, match="KeyedVectors"):
        evaluate_similarity({"a": [1]}, tmp_path / "pairs.txt")


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("EN-MEN-TR-3k.txt", 3000),
        ("EN-MTurk-771.txt", 771),
        ("EN-RG-65.txt", 65),
        ("EN-SIMLEX-999.txt", 999),
        ("EN-WS-353-ALL.txt", 353),
        ("zh/similarity.txt", None),
    ],
)
def test_real_similarity_files(corpus_file, rng, name, pairs):
    path = corpus_file("eval") / name
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    words = sorted({word.strip() for line in lines for word in line[:2]})
    keyed = KeyedVectors(words, rng.standard_normal((len(words), 50)))
    result = evaluate_similarity(keyed, path)
    assert result.pairs == result.covered == len(lines) == (pairs or len(lines))
    assert abs(result.spearman) < 0.4


def test_several_similarity_files(tmp_path):
    keyed = KeyedVectors(["a", "b", "c"], [[1, 0], [1, 1], [0, 1]])
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("a b 1\na c 0\n")
    two.write_text("a b 0\na c 1\n")
    found = evaluate_similarity(keyed, [one, str(two)])
    assert list(found) == [str(one), str(two)]
    assert [result.spearman for result in found.values()] == [pytest.approx(1), pytest.approx(-1)]
    assert evaluate_similarity(keyed, []) == {}


def test_case_of_words_in_pairs(tmp_path):
    keyed = KeyedVectors(["A", "a", "b", "c"], [[1, 0], [0, 1], [1, 0.1], [0.5, 1]])
    path = tmp_path / "pairs.txt"
    path.write_text("A b 1\nA c 0\nB c 2\n")
    assert evaluate_similarity(keyed, path) == (pytest.approx(0.5), 3, 3)  # A as it stands, B as b
    assert evaluate_similarity(keyed, path, lower=True) == (pytest.approx(-0.5), 3, 3)
    assert evaluate_similarity(keyed, path, lower=False) == (pytest.approx(1), 3, 2)
    with pytest.raises(TypeError, match="lower must be True, False or None, got 'yes'"):
        evaluate_similarity(keyed, path, lower="yes")


# Analogies


def brute_force(keyed: KeyedVectors, questions, product=False) -> list[int]:
    """The rows that answer, one question after the other."""
    x = keyed.vectors.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1)
    unit = x / np.where(lengths == 0, 1, lengths)[:, None]
    answers = []
    for question in questions:
        a, b, c = (unit @ unit[keyed.index[word]] for word in question[:3])
        scores = (1 + b) / 2 * (1 + c) / 2 / ((1 + a) / 2 + 1e-3) if product else b - a + c
        scores[[keyed.index[word] for word in question[:3]]] = -np.inf
        if "<unk>" in keyed:
            scores[keyed.index["<unk>"]] = -np.inf
        answers.append(int(np.nanargmax(scores)))
    return answers


def write_questions(path, sections) -> None:
    path.write_text("".join(f": {name}\n" + "".join(" ".join(q) + "\n" for q in qs) for name, qs in sections.items()))


@pytest.fixture
def keyed(rng) -> KeyedVectors:
    return KeyedVectors([f"w{i}" for i in range(400)], rng.standard_normal((400, 12)).astype(np.float32))


@pytest.fixture
def questions(rng):
    return [[f"w{i}" for i in rng.choice(60, 4, replace=False)] for _ in range(300)]


@pytest.mark.parametrize("method", ["3CosAdd", "3CosMul"])
@pytest.mark.parametrize("cells", [500, 3000, 1 << 21])
def test_analogies_against_brute_force(backend, keyed, questions, tmp_path, monkeypatch, method, cells):
    monkeypatch.setattr(evaluate, "_CELLS", cells)
    answers = brute_force(keyed, questions, method == "3CosMul")
    right = [
        [*q[:3], keyed.words[row]] if i % 3 else q for i, (q, row) in enumerate(zip(questions, answers, strict=True))
    ]
    sections = {"capitals": right[:100], "gram1": right[100:150], "gram2 of more": right[150:], "none": []}
    path = tmp_path / "questions.txt"
    write_questions(path, sections)
    result = evaluate_analogies(keyed, path, method=method, backend=backend)
    expected = [
        sum(keyed.words[row] == q[3] for q, row in zip(part, part_answers, strict=True))
        for part, part_answers in zip(
            (right[:100], right[100:150], right[150:], []),
            (answers[:100], answers[100:150], answers[150:], []),
            strict=True,
        )
    ]
    assert sum(expected) >= 200
    assert result.sections == tuple(
        Section(name, n, len(qs), len(qs)) for (name, qs), n in zip(sections.items(), expected, strict=True)
    )
    assert result.total == Section("total", sum(expected), 300, 300)
    assert result.semantic == Section("semantic", expected[0], 100, 100)
    assert result.syntactic == Section("syntactic", expected[1] + expected[2], 200, 200)
    assert result.total.accuracy == sum(expected) / 300
    assert math.isnan(result.sections[3].accuracy)


@pytest.mark.parametrize("method", ["3CosAdd", "3CosMul"])
def test_answers_are_those_of_analogy(keyed, questions, tmp_path, method):
    path = tmp_path / "questions.txt"
    right = [[*q[:3], keyed.analogy(*q[:3], topn=1, method=method)[0][0]] for q in questions]
    write_questions(path, {"all": right})
    assert evaluate_analogies(keyed, path, method=method).total.accuracy == 1


def test_coverage_case_and_restriction(tmp_path):
    words = ["man", "king", "woman", "queen", "King", "far"]
    keyed = KeyedVectors(words, [[1, 0], [1, 1], [-1, 0], [-1, 1], [0, -1], [-0.5, 1]])
    path = tmp_path / "questions.txt"
    path.write_text(
        "\ufeff// of people\n: family\nMan king Woman queen\nman king woman none\n\nman KING woman Queen\r\n"
        ": gram\n# more\nman King woman far\n"
    )
    result = evaluate_analogies(keyed, path)
    assert result.sections == (Section("family", 2, 2, 3), Section("gram", 0, 1, 1))
    assert evaluate_analogies(keyed, path, lower=True).total == Section("total", 2, 3, 4)
    assert evaluate_analogies(keyed, path, lower=False).total == Section("total", 0, 1, 4)
    assert evaluate_analogies(keyed, path, restrict=4).total == Section("total", 2, 2, 4)
    assert evaluate_analogies(keyed, path, restrict=3).total == Section("total", 0, 0, 4)
    path.write_text("man king woman queen\n")  # no sections
    assert evaluate_analogies(keyed, path).sections == (Section("", 1, 1, 1),)


def test_words_that_are_no_answers(backend, tmp_path):
    path = tmp_path / "questions.txt"
    path.write_text("man king woman queen\n")
    words = ["<unk>", "nan", "man", "king", "woman", "zero", "queen", "again"]
    vectors = [[-1, 1.01], [math.nan, 1], [1, 0], [1, 1], [-1, 0], [0, 0], [-1, 1], [-1, 1]]
    for method in ("3CosAdd", "3CosMul"):
        result = evaluate_analogies(KeyedVectors(words, vectors), path, method=method, backend=backend)
        assert result.total == Section("total", 1, 1, 1)
    only_own = KeyedVectors(["man", "king", "woman", "<unk>"], [[1, 0], [1, 1], [-1, 0], [-1, 1]])
    path.write_text("man king woman <unk>\n")
    assert evaluate_analogies(only_own, path, backend=backend).total == Section("total", 0, 1, 1)


def test_lengths_of_vectors_do_not_matter(backend, keyed, questions, tmp_path, rng):
    path = tmp_path / "questions.txt"
    write_questions(path, {"all": questions})
    scaled = KeyedVectors(keyed.words, keyed.vectors * 2.0 ** rng.integers(-60, 60, (400, 1)))
    assert evaluate_analogies(scaled, path, backend=backend) == evaluate_analogies(keyed, path, backend=backend)


@pytest.mark.parametrize("product", [False, True])
def test_the_kernel_keeps_what_is_better(backend, rng, product):
    kernels = implementation("evaluate", backend)
    cosines = rng.uniform(0.1, 1, (5, 33))
    places, rows = rng.integers(0, 5, (70, 3)), rng.integers(0, 60, (70, 3))
    best, answers = rng.uniform(-2, 2, 70), np.full(70, 7)
    expected_best, expected = best.copy(), answers.copy()
    for q in range(70):
        a, b, c = cosines[places[q]]
        scores = b * c / (a + 1e-3) if product else b - a + c
        scores[[i for i in range(33) if 20 + i in rows[q]]] = -np.inf
        if scores.max() > best[q]:
            expected_best[q], expected[q] = scores.max(), 20 + scores.argmax()
    kernels.answer(cosines, 20, places, rows, product, best, answers)
    np.testing.assert_allclose(best, expected_best, rtol=1e-14)
    np.testing.assert_array_equal(answers, expected)
    assert 10 < (answers != 7).sum() < 70


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads_answers_the_same(keyed, questions, tmp_path, monkeypatch, threads):
    path = tmp_path / "questions.txt"
    write_questions(path, {"all": [[*q[:3], keyed.analogy(*q[:3], topn=1)[0][0]] for q in questions]})
    if fastnlp._dispatch.why_missing("cpu") is None:
        from fastnlp.kernels.cpu import evaluate as kernels

        monkeypatch.setattr(kernels, "_SCORES_A_TASK", 4000)
    before = fastnlp.get_num_threads()
    fastnlp.set_num_threads(threads)
    try:
        assert evaluate_analogies(keyed, path).total.correct == 300
    finally:
        fastnlp.set_num_threads(before)


def test_progress_of_analogies(keyed, questions, tmp_path, monkeypatch):
    path = tmp_path / "questions.txt"
    write_questions(path, {"all": questions})
    monkeypatch.setattr(evaluate, "_CELLS", 10_000)
    calls = []
    evaluate_analogies(keyed, path, progress=lambda *call: calls.append(call))
    assert len(calls) > 2
    assert calls == sorted(calls)
    assert calls[-1] == (400, 400)
    assert {total for _, total in calls} == {400}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b": x\na b c d\na b c\n", r"line 3: four words are wanted, or `: section`, got 'a b c'"),
        (b": x\n\n", "holds no analogies"),
        (b"", "is empty"),
        (b"a b c d\n\xff b c d\n", "line 2: UTF-8 is wanted"),
    ],
)
def test_malformed_analogy_files(tmp_path, keyed, content, message):
    path = tmp_path / "questions.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        evaluate_analogies(keyed, path)
    assert "questions.txt" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "cos"}, ValueError, "method must be one of '3CosAdd', '3CosMul', got 'cos'"),
        ({"restrict": 0}, ValueError, "restrict must be at least 1"),
        ({"restrict": 1.5}, TypeError, "restrict must be an integer"),
        ({"lower": 1}, TypeError, "lower must be"),
        ({"backend": "gpu"}, ValueError, "backend must be one of"),
    ],
)
def test_options_of_analogies_are_checked(tmp_path, keyed, options, error, message):
    path = tmp_path / "questions.txt"
    path.write_text("w1 w2 w3 w4\n")
    with pytest.raises(error, match=message):
        evaluate_analogies(keyed, path, **options)
    with pytest.raises(TypeError, match="KeyedVectors"):
        evaluate_analogies(keyed.vectors, path)
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        evaluate_analogies(keyed, tmp_path / "none.txt")


def test_files_are_told_apart(tmp_path):
    path = tmp_path / "file.txt"
    for content, analogies in (
        (": x\na b c d\n", True),
        ("a b c d\na b c d\n", True),
        ("\n# x\n: x\n", True),
        ("a b 1\n", False),
        ("a b 1.5 2\na b 3 4\n", False),
        ("word 1,word 2,mean\na,b,9\n", False),
        ("word1 word2 score sd\na b 1 2\n", False),
        ("a\tb\t9\n", False),
    ):
        path.write_text(content)
        assert holds_analogies(path) is analogies, content


def test_real_files_are_told_apart(corpus_file):
    folder = corpus_file("eval")
    analogies = {path.name for path in [*folder.glob("*.txt"), *folder.glob("zh/*.txt")] if holds_analogies(path)}
    assert analogies == {"questions-words.txt", "analogy.txt"}


def test_real_analogies_are_all_read(corpus_file, rng):
    path = corpus_file("eval") / "questions-words.txt"
    words = sorted({word for line in path.read_text().splitlines() for word in line.split() if line[0] != ":"})
    result = evaluate_analogies(KeyedVectors(words, rng.standard_normal((len(words), 10))), path)
    assert result.total.covered == result.total.questions == 19_544
    assert (result.semantic.questions, result.syntactic.questions) == (8_869, 10_675)
    assert len(result.sections) == 14
    assert result.total.correct < 500
