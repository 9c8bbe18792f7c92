"""`Vocabulary` and `build_vocab`: words, their order and their counts."""

from __future__ import annotations

import pickle
from collections import Counter
from functools import cmp_to_key
from unicodedata import normalize

import numpy as np
import pytest

from fastnlp import Vocabulary, build_vocab, encode
from tests.texts import TEXT, documents, text_file

pytestmark = pytest.mark.usefixtures("either_backend")


def test_counts_order_and_ties():
    vocab = build_vocab(["b a c", "b a é z", "b 中"], min_count=1)
    assert vocab.words == ("b", "a", "é", "中", "c", "z")  # by count, then by the signed bytes of UTF-8
    np.testing.assert_array_equal(vocab.counts, [3, 2, 1, 1, 1, 1])
    assert vocab.counts.dtype == np.int64
    assert not vocab.counts.flags.writeable
    assert vocab.id("é") == 2
    assert vocab.index["c"] == 4
    assert "c" in vocab
    assert "d" not in vocab
    assert list(vocab) == list(vocab.words)
    assert len(vocab) == 6


def signed_strcmp(a, b):
    """Compare as strcmp does where char is signed, as the original's vocab_count is built on x86."""
    a, b = (np.frombuffer(word.encode() + b"\0", np.int8).tolist() for word in (a, b))
    return (a > b) - (a < b)


@pytest.mark.parametrize("max_size", [None, 3, 11, 100])
def test_ties_are_broken_as_by_the_original(max_size):
    words = ["é", "e", "z", "中", "zz", "z中", "zé", "~", "\x7f", "z中a", "𠮷", "z𠮷", "ze", "\x01", "zéz", "Z"]
    vocab = build_vocab([" ".join(words), "é e zz"], min_count=1, max_size=max_size)
    ties = sorted(words, key=cmp_to_key(signed_strcmp))
    assert ties.index("z中") < ties.index("z") < ties.index("zz")  # the test can fail
    twice = [word for word in ties if word in ("é", "e", "zz")]
    assert list(vocab.words) == (twice + [word for word in ties if word not in twice])[:max_size]


def test_the_words_the_original_counts_in_a_text_with_unk(tmp_path):
    lines = ["a <unk> b <unk>", "a <unk>"]
    assert build_vocab(lines, min_count=1).words == ("<unk>", "a", "b")  # a word like any other
    vocab = build_vocab(lines, min_count=1, exclude=("<unk>", "never"))
    assert vocab.words == ("a", "b")
    assert vocab.exclude == ("<unk>", "never")
    assert vocab.n_tokens == 6
    corpus = encode(lines, vocab)
    assert corpus.n_oov == 3
    assert build_vocab(iter(lines), min_count=1, max_size=1, exclude=["<unk>"]).words == ("a",)
    with pytest.raises(ValueError, match="all words that occur min_count=3 times are in exclude"):
        build_vocab(lines, min_count=3, exclude=("<unk>",))
    for wrong in ("<unk>", 3, [1]):
        with pytest.raises(TypeError, match="exclude must be a tuple or another iterable of str"):
            build_vocab(lines, exclude=wrong)


@pytest.mark.parametrize("tokenizer", [None, "words", "characters", str.split])
def test_lower_case_and_normal_forms(tokenizer):
    lines = ["Cafe\u0301 CAFÉ \u210colz ΟΔΟΣ", "½ ﬁn straße STRASSE"]
    text = "\n".join(lines)
    for lower in (False, True):
        for form in (None, "NFC", "NFD", "NFKC", "NFKD"):
            vocab = build_vocab(lines, min_count=1, lower=lower, normalize=form, tokenizer=tokenizer)
            expected = normalize(form, text) if form else text
            expected = expected.lower() if lower or tokenizer == "words" else expected
            tokens = build_vocab(expected.split("\n"), min_count=1, tokenizer=tokenizer)
            assert vocab == tokens
            assert (vocab.lower, vocab.normalize) == (lower, form)
            assert encode(lines, vocab).n_oov == 0  # taken up
    assert build_vocab(lines, min_count=1, lower=True, normalize="NFKC").index["café"] == 0
    assert "Holz" in build_vocab(lines, min_count=1, normalize="NFKC").index
    assert "holz" in build_vocab(lines, min_count=1, normalize="NFKC", lower=True).index
    with pytest.raises(ValueError, match="normalize must be one of NFC, NFD, NFKC, NFKD or None, got 'nfc'"):
        build_vocab(lines, normalize="nfc")
    with pytest.raises(TypeError, match="lower must be True or False"):
        build_vocab(lines, lower=1)
    for option in ({"lower": True}, {"normalize": "NFC"}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}=.*are tokens already"):
            build_vocab([["a"]], **option)


def test_min_count_and_max_size_keep_the_number_of_all_tokens():
    lines = ["a a a b b c c d"]
    assert build_vocab(lines, min_count=2).words == ("a", "b", "c")
    vocab = build_vocab(lines, min_count=1, max_size=2)
    assert vocab.words == ("a", "b")
    assert vocab.n_tokens == 8
    assert build_vocab(["x"], min_count=1).words == ("x",)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"min_count": 0}, ValueError, "min_count must be at least 1, got 0"),
        ({"min_count": 1.5}, TypeError, "min_count must be an integer, got 1.5"),
        ({"min_count": True}, TypeError, "min_count must be an integer, got True"),
        ({"max_size": -1}, ValueError, "max_size must be at least 1, got -1"),
        ({"tokenizer": "spaces"}, ValueError, "'whitespace', 'characters', 'words', 'auto'"),
        ({"tokenizer": 3}, TypeError, "tokenizer"),
        ({"min_count": 4}, ValueError, "min_count=4 times among 8 tokens, the most frequent, 'the', 3 times: lower"),
    ],
)
def test_options_of_build_vocab_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        build_vocab(TEXT.splitlines(), **options)


def test_empty_texts_are_refused():
    with pytest.raises(ValueError, match="no tokens, so with min_count=5"):
        build_vocab(["", "  "])
    with pytest.raises(ValueError, match="holds nothing"):
        build_vocab([])


def test_an_unknown_word_names_close_ones_and_can_be_pickled():
    vocab = build_vocab(["Queen king kind"], min_count=1)
    with pytest.raises(KeyError, match="'queen' is not among the 3 words; close to it are 'Queen'") as raised:
        vocab.id("queen")
    assert "Queen" in str(pickle.loads(pickle.dumps(raised.value)))


def test_vocabulary_file_round_trip(tmp_path):
    vocab = build_vocab([["the", "the", "中文", "a\xa0b", "\x85x"]] * 2, min_count=1)
    path = tmp_path / "vocab.txt"
    vocab.save(path)
    assert path.read_bytes().splitlines()[0] == b"the 4"
    loaded = Vocabulary.load(path, tokenizer="words")
    assert loaded == vocab
    assert loaded.index == vocab.index
    assert loaded.tokenizer == "words"
    assert loaded != build_vocab(["the"], min_count=1)
    assert "Vocabulary(4 words, 10 tokens" in repr(loaded)


@pytest.mark.parametrize("word", ["new york", "a\tb", "a\n", ""])
def test_words_that_no_line_can_hold_are_not_saved(tmp_path, word):
    path = text_file(tmp_path, "old 1\n")
    with pytest.raises(ValueError, match="cannot hold the word"):
        build_vocab([[word]], min_count=1).save(path)
    assert path.read_text() == "old 1\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 3\nb\n", "line 2"),
        (b"a 3\nb x\n", "line 2"),
        (b"a 3\n\xff 2\n", "line 2"),
        (b"a -3\n", "line 1"),
        (b" 3\n", "line 1"),
        (b"a 3\na 2\n", "both word 0 and word 1"),
        (b"", "at least one word"),
        (b"a 99999999999999999999\n", "not a vocabulary"),
    ],
)
def test_malformed_vocabulary_files(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        Vocabulary.load(text_file(tmp_path, content))
    assert "text.txt" in str(raised.value)


@pytest.mark.parametrize(
    ("words", "counts", "error"),
    [
        (["a", "a"], [1, 1], ValueError),
        (["a"], [1, 1], ValueError),
        (["a"], [1.5], TypeError),
        (["a"], [-1], ValueError),
        ([], [], ValueError),
        ([1], [1], TypeError),
        ("ab", [1, 1], TypeError),
    ],
)
def test_arguments_of_vocabulary_are_checked(words, counts, error):
    with pytest.raises(error):
        Vocabulary(words, counts)


def test_agrees_with_the_original_vocab_count(corpus_file):
    folder = corpus_file("cooccur")
    ours = build_vocab(folder / "corpus.txt", min_count=2)
    theirs = Vocabulary.load(folder / "vocab.txt")
    assert ours == theirs  # the order included
    corpus = encode(folder / "corpus.txt", theirs)
    assert len(corpus) == theirs.counts.sum()
    assert corpus.n_documents == 1500
    np.testing.assert_array_equal(np.bincount(corpus.ids), theirs.counts)


def test_against_a_count_by_hand(rng):
    lines = [" ".join(f"w{int(i)}" for i in rng.zipf(1.5, size) if i < 100) for size in rng.integers(0, 30, 300)]
    counter = Counter(word for line in lines for word in line.split())
    vocab = build_vocab(lines, min_count=3)
    expected = sorted(((w, c) for w, c in counter.items() if c >= 3), key=lambda item: (-item[1], item[0]))
    assert 10 < len(expected) < len(counter)
    assert list(zip(vocab.words, vocab.counts.tolist(), strict=True)) == expected
    corpus = encode(lines, vocab)
    assert documents(corpus) == [" ".join(w for w in line.split() if counter[w] >= 3) for line in lines]
    assert corpus.n_oov == counter.total() - vocab.counts.sum() > 0
