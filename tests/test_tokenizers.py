"""From lines to tokens."""

# ruff: noqa: RUF001 (Chinese punctuation is meant)

from __future__ import annotations

import pytest

from fastnlp import build_vocab, encode
from fastnlp.text import tokenizers
from tests.texts import CHINESE, documents


def test_whitespace_is_that_of_unicode():
    assert tokenizers.whitespace(" a\tb\u3000c\u00a0d\r") == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("满纸 荒唐言，", list("满纸荒唐言，")),
        ("用 Python3 写的cats'程序", ["用", "Python3", "写", "的", "cats", "'", "程", "序"]),
        ("々〇カタカナー・ひら", list("々〇カタカナー・ひら")),
        ("한국어 문장", ["한국어", "문장"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("हिन्दी cafe\u0301 ❤\ufe0f!", ["हिन्दी", "cafe\u0301", "❤\ufe0f", "!"]),
        ("", []),
    ],
)
def test_characters(line, tokens):
    assert tokenizers.characters(line) == tokens


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("Don't PANIC!", ["don't", "panic", "!"]),
        ("well-known, o\u2019clock", ["well", "-", "known", ",", "o\u2019clock"]),
        ("1,000.5 costs... $3.", ["1,000.5", "costs", "...", "$", "3", "."]),
        ("'quoted' -- \u201ctwice\u201d", ["'", "quoted", "'", "--", "\u201c", "twice", "\u201d"]),
        ("v1.2b 3.4", ["v1", ".", "2b", "3.4"]),
    ],
)
def test_words(line, tokens):
    assert tokenizers.words(line) == tokens


@pytest.mark.parametrize(
    ("sample", "name"),
    [
        (CHINESE, "characters"),
        ("满纸 荒唐 言 ， 一 把 辛酸 泪", "whitespace"),
        ("关关雎鸠 在河之洲 窈窕淑女 君子好逑", "characters"),
        ("The cat 猫 sat on the mat", "whitespace"),
        ("한국어 문장", "whitespace"),
        ("", "whitespace"),
        ("1 2 3", "whitespace"),
    ],
)
def test_auto_looks_at_the_text(sample, name):
    assert tokenizers.suggest(sample) == name
    if sample:
        assert build_vocab([sample], tokenizer="auto", min_count=1).tokenizer == name


def test_auto_on_real_text(corpus_file):
    assert build_vocab(corpus_file("hongloumeng.txt.xz"), tokenizer="auto").tokenizer == "characters"
    assert build_vocab(corpus_file("hongloumeng-words.txt.xz"), tokenizer="auto").tokenizer == "whitespace"


def test_a_function_as_tokenizer():
    def pairs(line):
        return (line[i : i + 2] for i in range(0, len(line), 2))

    vocab = build_vocab(["abcdab"], tokenizer=pairs, min_count=1)
    assert vocab.tokenizer is pairs
    assert vocab.words == ("ab", "cd")
    assert documents(encode(["cdab"], vocab)) == ["cd ab"]
    for wrong in (str.lower, lambda line: None):
        with pytest.raises(TypeError, match="must return a list of tokens"):
            build_vocab(["abc"], tokenizer=wrong)
