"""The parts of the demo: text from sources, the words to show, the classifier, the pictures and the page."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastnlp

pytest.importorskip("click")
pytest.importorskip("matplotlib")

from fastnlp.cli import classifier, demo_corpus, pictures, titles, vectors_page, words
from fastnlp.cli.demo import joined
from tests.commands import PageChecker

DOCSTRING = """
    Solve the banded system of linear equations.

    This is the *second* paragraph, about :func:`solve` and ``x``. It goes on
    over two lines.

    Parameters
    ----------
    x : array_like
        The right hand side of all the equations.

    Examples
    --------
    >>> solve(all the words of this example)
    and this is what the example prints

    .. math:: these words are all of a formula

    .. [1] A. Author, "The title of an article", 1970.
    """


LION = """
class Lion:
    "The lion is a large cat."
    def roar(self):
        "Roar as loud as you can."
"""

TOPICS = """
topics = {
    "if": "The if statement is used for conditions.",
    "while": "The while statement is used for loops.",
}
"""


def package(folder, modules):
    for name, source in modules.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return folder


def test_sentences_leave_out_examples_formulas_references_and_headings():
    assert list(demo_corpus.sentences(ast.get_docstring(ast.parse(f"'''{DOCSTRING}'''")))) == [
        "Solve the banded system of linear equations.",
        "This is the second paragraph, about solve and x.",
        "It goes on over two lines.",
        "The right hand side of all the equations.",
    ]


@pytest.mark.parametrize(
    "text", ["", "Short one.", "a = b + c - d / e (f, g) {h}", r"Where \alpha goes to the limit of it."]
)
def test_what_is_no_prose_gives_no_sentence(text):
    assert list(demo_corpus.sentences(text)) == []


def test_documentation_of_a_package_tree(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_corpus, "SMALLEST_PART", 2)
    monkeypatch.setattr(demo_corpus, "FEWEST_DOCUMENTS", 2)
    library = package(
        tmp_path / "lib",
        {
            "zoo/__init__.py": '"""Animals live in this zoo of ours."""\nraise SystemExit("imported!")',
            "zoo/lion.py": LION,
            "zoo/twice.py": '"""The lion is a large cat."""',  # said before
            "zoo/tests/test_lion.py": '"""Nobody wants to read this test."""',
            "zoo/broken.py": "def (",
            "zoo/binary.py": b"\0\xff\xfe\0",
            "zoo/escape.py": '"""An escape that \\is not one, in words."""',
            "alone.py": '"""A module that stands all alone here."""',
            "pydoc_data/topics.py": TOPICS,
            "site-packages/other.py": '"""This is the text of other people."""',
        },
    )
    science = package(tmp_path / "numpy", {"linalg/solve.py": '"""Solve a system of equations here."""'})
    calls = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        passages = demo_corpus.documentation({"": library, "numpy": science}, lambda *call: calls.append(call))
    assert passages.note.startswith("The parts are packages")
    assert list(zip(*passages[:3], strict=True)) == [
        ("A module that stands all alone here.", "", "alone"),
        ("The if statement is used for conditions.", "language reference", "language reference: 'if'"),
        ("The while statement is used for loops.", "language reference", "language reference: 'while'"),
        ("Animals live in this zoo of ours.", "zoo", "zoo"),
        ("The lion is a large cat.", "zoo", "zoo.lion"),
        ("Roar as loud as you can.", "zoo", "zoo.lion"),
        ("Solve a system of equations here.", "", "numpy.linalg.solve"),
    ]
    assert calls[-1] == (calls[-1][1], calls[-1][1])


def test_no_documentation_at_all_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="--corpus"):
        demo_corpus.documentation({"": tmp_path})


def test_package_folders_are_found_without_import():
    folders = demo_corpus.package_folders()
    assert (folders[""] / "ast.py").is_file()
    assert (folders["numpy"] / "__init__.py").is_file()


def test_lines_of_one_file_fall_into_parts_and_blocks(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"Line {i}\n  " for i in range(800)), encoding="utf-8")
    passages = demo_corpus.user_text([str(path)])
    assert passages.text == [f"line {i}" for i in range(800)]
    assert passages.part == [f"part {i // 100 + 1}" for i in range(800)]
    assert len(set(passages.document)) == 8 * demo_corpus.BLOCKS
    assert list(dict.fromkeys(passages.document))[1] == "text.txt: block 2"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (" = Valkyria Chronicles III = ", (1, "Valkyria Chronicles III")),
        (" = = Game play = = ", (2, "Game play")),
        ("=== History ===", (3, "History")),
        ("# A title", (1, "A title")),
        ("### Three ###", (3, "Three")),
        ("CHAPTER IV", (2, "CHAPTER IV")),
        ("Chapter 12. In which", (2, "Chapter 12. In which")),
        ("chapter i .", (2, "chapter i .")),
        ("BOOK THE FIRST: SOWING", (1, "BOOK THE FIRST: SOWING")),
        ("第1章甄士隐梦幻识通灵", (2, "第1章甄士隐梦幻识通灵")),
        ("第一百二十回 甄士隐详说太虚情", (2, "第一百二十回 甄士隐详说太虚情")),
        ("卷", None),
        ("第四回中既将薛家母子在荣府中寄居等事略已表明。", None),
        ("Chapter four of the story begins here", None),
        ("part of the house", None),
        ("#hashtag", None),
        ("= 5", None),
        ("= = =", None),
        ("# " + "word " * 50, None),
        ("", None),
    ],
)
def test_titles(line, found):
    assert titles.level_and_title(line) == found


def test_pieces_are_those_of_the_highest_level_that_has_enough():
    lines = ["# Book", "preface", *["## One", *["text"] * 4, "### inner"] * 3, "# Notes", "## Two", "text"]
    assert titles.pieces(lines, shortest=5, fewest=3) == [
        ("One", 2, 8),
        ("One (2)", 8, 14),
        ("One (3)", 14, 20),
        ("Two", 21, 23),
    ]
    assert [piece.title for piece in titles.pieces(lines, shortest=2, fewest=2)] == ["Book", "Notes"]
    assert titles.pieces(lines, shortest=5, fewest=4) == []
    assert titles.pieces(["text"], shortest=1, fewest=1) == []


def test_one_file_with_titles_has_the_longest_pieces_as_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_corpus, "TITLED_PARTS", 4)
    path = tmp_path / "book.txt"
    text = ["A preface."]
    for i in range(6):
        text += [f"CHAPTER {i + 1}", *(f"Line {k}" for k in range(30 if i else 10))]
    path.write_text("\n\n".join(text), encoding="utf-8")
    passages = demo_corpus.user_text([str(path)])
    assert list(dict.fromkeys(passages.part)) == ["", *(f"CHAPTER {i}" for i in (2, 3, 4, 5))]
    assert passages.text == [line.lower() for line in text]
    assert passages.document[:2] == ["book.txt", "CHAPTER 1: block 1"]
    for part in ("CHAPTER 2", "CHAPTER 5"):
        blocks = [document for name, document in zip(*passages[1:3], strict=True) if name == part]
        assert len(set(blocks)) == 31 // demo_corpus.SHORTEST_BLOCK
    assert "4 longest of 6 titled pieces" in passages.note


def test_several_files_are_parts_and_long_lines_are_cut(tmp_path):
    paths = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "same.txt").write_text("word " * 1000 + "\n" + "字" * 2500, encoding="utf-8")
        paths.append(str(folder / "same.txt"))
    passages = demo_corpus.user_text(paths)
    assert set(passages.part) == set(paths)
    assert max(map(len, passages.text)) == 1000
    assert sum(text.count("word") for text in passages.text) == 2000
    assert sum(text.count("字") for text in passages.text) == 5000


def test_tokenizer_of():
    assert demo_corpus.tokenizer_of(["此开卷第一回也。作者自云"]) == "characters"
    assert demo_corpus.tokenizer_of(["The season , he said , was long ."]) == "whitespace"
    assert demo_corpus.tokenizer_of(["The season, he said, was long."]) == "words"


def test_content_words_come_in_bursts(rng):
    vocabulary = ["the", ",", "of", "lion", "tiger", "mouse"]
    blocks = [rng.choice([0, 1, 2, 3 + i % 3], p=[0.4, 0.2, 0.3, 0.1], size=1000) for i in range(30)]
    ids = np.concatenate([*blocks, [-1, -1]])
    assert {vocabulary[i] for i in words.content_words(ids, vocabulary, 2)} < {"lion", "tiger", "mouse"}
    assert words.content_words(ids[:0], vocabulary, 2) == []


def test_is_word():
    assert all(map(words.is_word, ["lion", "字", "été"]))
    assert not any(map(words.is_word, ["", "a", "of", ",", "12", "x1y", "。", "x" * 1000]))


def test_plane_keeps_the_two_widest_directions(rng):
    points = rng.standard_normal((200, 10)) * 1e-3
    points[:, 4] += 1
    points[:100, 7] += 1
    found = words.plane(points.astype(np.float32))
    assert found.shape == (200, 2)
    assert abs(found[:100, 0].mean() - found[100:, 0].mean()) > 0.5
    assert words.plane(np.ones((1, 3), np.float32)).shape == (1, 2)
    assert words.plane(np.ones((0, 3), np.float32)).shape == (0, 2)


@pytest.fixture
def corpus_and_passages(rng):
    """Four parts, each with words of its own among common ones, in documents of ten passages."""
    text, part, document = [], [], []
    for i in range(1200):
        k = i // 300
        own = [f"own{k}_{j}" for j in rng.integers(0, 10, 6)]
        common = [f"common{j}" for j in rng.integers(0, 10, 6)]
        text.append(" ".join(rng.permutation(own + common)))
        part.append("" if i % 50 == 0 else f"part {k}")
        document.append(f"document {i // 10}")
    vocab = fastnlp.build_vocab(iter(text), min_count=1)
    return fastnlp.encode(iter(text), vocab), demo_corpus.Passages(text, part, document)


def test_held_out_passages_are_of_other_documents(corpus_and_passages, rng):
    _, passages = corpus_and_passages
    part = [f"part {i // 300}" for i in range(1200)]
    test = classifier.hold_out(part, passages.document, rng)
    documents = np.array(passages.document)
    assert not set(documents[test]) & set(documents[~test])
    assert 0.15 < test.mean() < 0.3


def test_classifier_learns_what_vectors_tell_and_nothing_from_shuffled_ones(corpus_and_passages, rng):
    corpus, passages = corpus_and_passages
    task = classifier.task_of(passages, corpus, seed=0)
    assert task.classes == [f"part {k}" for k in range(4)]
    assert len(task.label) == sum(part != "" for part in passages.part)
    vectors = rng.standard_normal((len(corpus.vocab), 8)).astype(np.float32) * np.float32(0.1)
    for word, i in corpus.vocab.index.items():
        if word.startswith("own"):
            vectors[i, int(word[3])] += 1
    before = vectors.copy()
    curves = []
    for rows in (vectors, np.roll(vectors, 5, axis=0)[rng.permutation(len(vectors))]):
        features = classifier.pooled(task, corpus.ids, rows, corpus.vocab.counts)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features[~task.test].std(axis=0), 1, rtol=1e-3)
        curves.append(classifier.train(task, features, epochs=10, seed=0))
    real, shuffled = curves
    assert real.loss[-1] < real.loss[0] < np.log(4)
    assert real.accuracy[-1] > 0.97
    assert real.accuracy[-1] > shuffled.accuracy[-1]
    assert 0.15 < task.majority < 0.35
    assert [n for _, n, _ in classifier.Comparison(task, *curves).by_part()] == sorted(
        np.bincount(task.label[task.test]), reverse=True
    )
    np.testing.assert_array_equal(vectors, before)


def test_pooled_is_the_weighted_mean_whatever_the_padding(corpus_and_passages, rng):
    corpus, passages = corpus_and_passages
    task = classifier.task_of(passages, corpus, seed=0)
    task = task._replace(length=task.length - np.arange(len(task.length)) % 5)
    vectors = rng.standard_normal((len(corpus.vocab), 3)).astype(np.float32)
    counts = corpus.vocab.counts
    weight = 1e-3 / (1e-3 + counts / counts.sum())
    expected = []
    for begin, length in zip(task.begin, task.length, strict=True):
        ids = corpus.ids[begin : begin + length]
        expected.append(np.average(vectors[ids], axis=0, weights=weight[ids]))
    expected = np.array(expected)
    seen = expected[~task.test]
    expected = (expected - seen.mean(axis=0)) / seen.std(axis=0)
    np.testing.assert_allclose(classifier.pooled(task, corpus.ids, vectors, counts), expected, atol=2e-4)


def test_no_task_without_two_classes(corpus_and_passages):
    corpus, passages = corpus_and_passages
    assert classifier.task_of(passages._replace(part=["one"] * len(passages.part)), corpus, 0) is None
    assert classifier.task_of(passages._replace(part=[""] * len(passages.part)), corpus, 0) is None
    assert classifier.task_of(passages._replace(document=passages.part), corpus, 0) is None


def test_joined_passages_are_documents(corpus_and_passages):
    corpus, passages = corpus_and_passages
    whole = joined(corpus, passages.document)
    assert whole.n_documents == 120
    assert len(whole) == len(corpus)
    np.testing.assert_array_equal(whole.document(1), corpus.ids[corpus.offsets[10] : corpus.offsets[20]])


def a_report(comparison):
    return vectors_page.Report(
        title="fastnlp <demo>",
        source="A <text> & more.",
        figures=[("tokens", "1,234")],
        neighbours=[("<unk>", [("宝", 0.5), ("&", 0.25)])],
        words=["<unk>", "宝玉", "lion"],
        points=np.array([[0.0, 0.0], [1.0, 1.0], [0.5, -1.0]]),
        training_loss=[0.3, 0.2, 0.1],
        comparison=comparison,
        note="The parts are files.",
        seconds={"counting": 1.25, "nothing": 0.0},
        command="fastnlp demo --corpus '<a b>'",
    )


def test_page_has_all_parts_and_is_well_formed():
    task = classifier.Task(
        np.zeros(4, np.int64),
        np.full(4, 9),
        np.array([0, 1, 0, 1]),
        np.array([False, False, True, True]),
        ["x", "y & z"],
    )
    curve = classifier.Curve([1.0, 0.5], [0.5, 1.0], np.array([0, 1, 0, 1]))
    checker = PageChecker()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of glyphs that a font lacks
        written = vectors_page.page(a_report(classifier.Comparison(task, curve, curve)))
    checker.feed(written)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    text = " ".join(checker.text)
    for heading in ("Neighbours", "Words in a plane", "GloVe loss", "Held-out accuracy, %", "Where the time went"):
        assert heading in text, heading
    for shown in ("宝玉", "1,234", "y & z", "100.0 %", "50.0 %", "1.2 s", "The parts are files.", "'<a b>'", "<unk>"):
        assert shown in text, shown
    assert written.count("<svg") == 4
    assert "<script" not in written
    assert not re.search(r"(src|href)=\"http", written.replace('xmlns:xlink="http', ""))
    assert written == vectors_page.page(a_report(classifier.Comparison(task, curve, curve)))


def test_page_without_classifier_or_words():
    empty = a_report(None)._replace(words=[], points=np.zeros((0, 2)), neighbours=[])
    written = vectors_page.page(empty)
    assert "no classifier" in written
    assert written.count("<svg") == 1
    assert "What the vectors know" not in vectors_page.page(empty._replace(note=None))


def test_pictures_take_the_colours_and_the_font_of_the_page():
    svg = pictures.curves("name", {"one": [1.0, 2.0], "two": [2.0, 1.0]}, "label", level=("level", 1.5))
    colours = set(re.findall(r"(?:stroke|fill): (#[0-9a-f]+)", svg))
    assert colours <= {"#000000", "#ffffff"}, colours
    assert "var(--accent)" in svg
    assert "var(--font)" in svg
    assert all(f">{text}<" in svg for text in ("one", "two", "level", "label", "epoch"))


def test_pictures_are_silent_without_a_home():
    draw = "from fastnlp.cli import pictures; pictures.curves('name', {'one': [1.0, 2.0]}, 'label')"
    homeless = {key: value for key, value in os.environ.items() if key not in ("MPLCONFIGDIR", "XDG_CONFIG_HOME")}
    homeless["HOME"] = os.devnull
    done = subprocess.run(
        [sys.executable, "-c", draw], env=homeless, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""


def test_labels_do_not_cover_each_other():
    points = np.array([[0.0, 0.0], [1.0, 1.0], [100.0, 0.0], [0.0, 30.0]])
    assert pictures._readable(["first", "covered", "far", "above"], points) == [0, 2, 3]
