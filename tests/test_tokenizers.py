"""From lines to tokens."""

# ruff: noqa: RUF001 (Chinese punctuation is meant)

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fastnlp import build_corpus, build_vocab, encode
from fastnlp.text import reading, tokenizers
from tests.texts import CHINESE, documents, text_file

pytestmark = pytest.mark.usefixtures("either_backend")


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


@pytest.mark.parametrize("blocks", [7, 1 << 20])
@pytest.mark.parametrize("name", ["whitespace", "characters", "words"])
def test_names_give_the_tokens_of_their_functions(tmp_path, monkeypatch, name, blocks):
    monkeypatch.setattr(reading, "BLOCK", blocks)
    monkeypatch.setattr(reading, "_LONGEST", 1000)
    lines = [
        CHINESE.replace("\n", ""),
        "",
        "Don't PANIC,\u3000 ok... 1,000.5\x1c\x85x",
        "हिन्दी cafe\u0301 ΟΔΟΣ ΟΔΟΣ\u2028ΣΑ",
        " ",
    ]
    expected = [" ".join(getattr(tokenizers, name)(line)) for line in lines]
    for source in (lines, text_file(tmp_path, "\n".join(lines))):
        corpus = build_corpus(source, tokenizer=name, min_count=1)
        assert documents(corpus) == expected
        assert documents(encode(source, corpus.vocab, tokenizer=getattr(tokenizers, name))) == expected


class Fake:
    """What is used of a tokenizer of Hugging Face's."""

    padding = truncation = None

    def encode_batch(self, lines, *, add_special_tokens):
        assert not add_special_tokens
        return [SimpleNamespace(tokens=line.split("-")) for line in lines]


class Wrapped:
    """What is used of a fast tokenizer of transformers."""

    backend_tokenizer = Fake()

    def __call__(self, line):
        raise AssertionError


@pytest.mark.parametrize("tokenizer", [Fake(), Wrapped()])
def test_tokenizers_of_hugging_face_by_what_they_can(tmp_path, small_blocks, tokenizer):
    path = text_file(tmp_path, "new york-is-A\nnew york-a\n")
    vocab = build_vocab(path, tokenizer=tokenizer, min_count=1, lower=True)
    assert vocab.words == ("a", "new york", "is")
    assert vocab.tokenizer is tokenizer
    np.testing.assert_array_equal(encode(path, vocab).ids, [1, 2, 0, 1, 0])


def test_a_tokenizer_of_hugging_face():
    hugging = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    tokenizer = hugging.Tokenizer(hugging.models.WordLevel({"a": 0, "b": 1, "[UNK]": 2, "[CLS]": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = hugging.pre_tokenizers.Whitespace()
    tokenizer.post_processor = hugging.processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 3)])
    corpus = build_corpus(["a b a", "b"], tokenizer=tokenizer, min_count=1)
    assert documents(corpus) == ["a b a", "b"]
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(2)
    again = encode(["a b a", "b"], corpus.vocab, tokenizer=tokenizer)
    assert documents(again) == ["a b a", "b"]
    assert tokenizer.padding["length"] == 9  # it is the caller's
    assert tokenizer.truncation["max_length"] == 2
