"""Words between white space, numbered from bytes: against `str.split`, for any bytes, blocks and threads."""

from __future__ import annotations

import sys
import warnings
from collections import Counter

import numpy as np
import pytest

from fastnlp import build_corpus, build_vocab, encode, get_num_threads, set_num_threads
from fastnlp._dispatch import implementation
from fastnlp.kernels.reference.tokens import DONE, FULL, NOT_UTF8
from fastnlp.text import reading, tokens
from tests.texts import text_file

SPACES = [chr(i) for i in range(1, sys.maxunicode + 1) if chr(i).isspace()]
LONG = "a-word-of-more-than-sixteen-bytes"
ALPHABET = [
    *SPACES, " ", " ", " ", "\n", "\n", "a", "b", "ab", "a", "b", "é", "中", "𠮷", "\x01", "\x1b", "\x7f", "\u200b",
    "\u2010", "\u2060", "\ufeff", "\u180e", "\u3001", "\u1681", "12345678", "1234567", "123456789", LONG,
    LONG + "é", "😀",
]  # fmt: skip
WRONG = [
    b"\xff",
    b"\x80",
    b"\xc2",
    b"\xe2\x80",
    b"\xe3\x80",
    b"\xf0\x9f\x98",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
]


class Table:
    """The arguments of the kernels, with rubbish in all that they are to fill."""

    def __init__(self, backend, text, words=8, grow=True):
        self.kernels = implementation("tokens", backend)
        self.text = np.frombuffer(bytearray(text + b" " * 8), np.uint8)
        self.slots = np.zeros((2 * words, 2), np.uint64)
        self.arena = np.full(len(text) + 99, 255, np.uint8)
        self.starts = np.full(words + 1, -7)
        self.starts[0] = 0
        self.counts = np.full(words, -7)
        self.ids = np.full(len(text) + 1, -7, np.int32)
        self.ends = np.full(len(text) + 1, -7)
        self.state = np.zeros(5, np.int64)

    def number(self, grow=True):
        names = ("text", "slots", "arena", "starts", "counts", "ids", "ends", "state")
        self.kernels.number(*(getattr(self, name) for name in names), grow)
        return self.state[4]

    @property
    def found(self):
        _, words, ids, ends, _ = self.state.tolist()
        return (
            self.arena[: self.starts[words]].tobytes(),
            self.counts[:words].tolist(),
            self.ids[:ids].tolist(),
            self.ends[:ends].tolist(),
        )


def test_kernels_number_words(backend):
    table = Table(backend, b"b a\na  c\n\n d")
    assert table.number() == DONE
    assert table.found == (b"b a c d ", [1, 2, 1, 1], [0, 1, 1, 2, 3], [2, 4, 4])
    assert table.arena[8] == 255
    assert table.starts[5] == table.counts[4] == table.ids[5] == table.ends[3] == -7
    assert not table.slots[: 0 if backend == "cpu" else None].any()


def test_kernels_go_on_from_another_text(backend):
    table = Table(backend, b"b a\n")
    table.number()
    table.text = np.frombuffer(bytearray(b"a c\n" + b" " * 8), np.uint8)
    table.state[0] = 0
    assert table.number() == DONE
    assert table.found == (b"b a c ", [1, 2, 1], [0, 1, 1, 2], [2, 4])
    table.text = np.frombuffer(bytearray(b"x c\nb" + b" " * 8), np.uint8)
    table.state[:4] = 0, 3, 0, 0
    assert table.number(grow=False) == DONE
    assert table.found == (b"b a c ", [1, 2, 1], [3, 2, 0], [2])


def test_kernels_stop_where_a_table_is_full(backend):
    table = Table(backend, b"a b a c d", words=2)
    assert table.number() == FULL
    assert table.state[0] <= 6
    assert b"c" not in table.found[0]


@pytest.mark.parametrize("wrong", WRONG)
def test_kernels_stop_before_what_is_not_utf8(backend, wrong):
    for text in (b"a b" + wrong, b"a b" + wrong + b" c", b"a " + wrong):
        table = Table(backend, text)
        assert table.number() == NOT_UTF8
        assert text[table.state[0] :].split()[-1:] != [b"a"]
        assert set(table.found[0]) <= set(b"a ")


@pytest.mark.parametrize("gaps", [False, True])
def test_kernels_renumber(backend, gaps):
    ids, ends, sizes = np.array([0, 1, 2, 1, 3], np.int32), np.array([0, 2, 2, 4]), np.full(2, -7)
    implementation("tokens", backend).renumber(ids, ends, np.array([7, -1, 5, -1], np.int32), gaps, sizes)
    assert sizes.tolist() == ([5, 2] if gaps else [2, 2])
    assert ids[: sizes[0]].tolist() == ([7, -1, 5, -1, -1] if gaps else [7, 5])
    assert ends.tolist() == ([0, 2, 2, 4] if gaps else [0, 1, 1, 2])


def expected(data):
    """Lines of tokens, by Python alone."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    return [line.split() for line in text.removesuffix("\n").split("\n")]


def check(path, lines):
    """Build a corpus of a file, encode the file by its vocabulary, and compare both with the lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        corpus = build_corpus(path, min_count=1)
        again = encode(path, corpus.vocab)
    words = corpus.vocab.words
    for result in (corpus, again):
        assert [[words[i] for i in document] for document in result.documents()] == lines
        assert result.n_oov == 0
    assert dict(zip(words, corpus.vocab.counts.tolist(), strict=True)) == Counter(
        word for line in lines for word in line
    )


@pytest.mark.usefixtures("either_backend")
@pytest.mark.parametrize("seed", range(8))
def test_any_text_in_any_blocks(tmp_path, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(reading, "_LONGEST", 10_000)
    pieces = [piece.encode() for piece in ALPHABET] + (WRONG if seed % 2 else [])
    data = b"".join(pieces[i] for i in rng.integers(0, len(pieces), 1500)) + b"a"
    path = text_file(tmp_path, data)
    lines = expected(data)
    for block in (3, 4, 7, 8, 33, 1000, 1 << 20):
        monkeypatch.setattr(reading, "BLOCK", block)
        check(path, lines)


@pytest.mark.usefixtures("either_backend")
def test_borders_of_blocks_at_every_place(tmp_path, monkeypatch):
    data = "ab\u3000cé \r\n\n \u2028d𠮷\u00a0 e\x1c\x85f\u0085g \n".encode()
    lines = expected(data)
    path = text_file(tmp_path, data)
    monkeypatch.setattr(reading, "_LONGEST", 100)
    for block in range(1, len(data) + 2):
        monkeypatch.setattr(reading, "BLOCK", block)
        check(path, lines)


@pytest.mark.usefixtures("either_backend")
def test_every_character(tmp_path, either_backend):
    codes = [i for i in range(1, sys.maxunicode + 1) if not 0xD800 <= i < 0xE000 and i != 10]
    if either_backend == "reference":
        codes = [i for i in codes if i % 50 == 0 or chr(i).isspace()]
    text = "\n".join(f"a{chr(i)}b" for i in codes)
    corpus = build_corpus(text_file(tmp_path, text), min_count=1)
    np.testing.assert_array_equal(np.diff(corpus.offsets), [1 + chr(i).isspace() for i in codes])
    assert corpus.vocab.counts[0] == sum(chr(i).isspace() for i in codes) > 0


@pytest.mark.usefixtures("either_backend")
def test_every_wrong_sequence_is_found(tmp_path, rng):
    for length in (2, 3, 4):
        data = rng.integers(0x80, 256, (2000, length)).astype(np.uint8)
        data[:, 0] = rng.choice([0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5], 2000)
        data[:, 1:] = np.where(rng.random((2000, length - 1)) < 0.8, data[:, 1:] & 0xBF, data[:, 1:])
        text = b"\n".join(row.tobytes() + b"x" for row in data)
        path = text_file(tmp_path, text)
        replaced = text.decode(errors="replace").count("\ufffd") - text.count("\ufffd".encode())
        with pytest.warns(UserWarning, match=f"{replaced} byte sequences that are not UTF-8"):
            build_vocab(path, min_count=1)
        check(path, expected(text))


@pytest.mark.usefixtures("either_backend")
def test_words_of_any_length(tmp_path, monkeypatch):
    lengths = [*range(1, 40), 1000, (1 << 20) - 1, 1 << 20, (2 << 20) + 5]
    words = [c * n for n in lengths for c in "ab"] + ["a" * n + "b" for n in lengths]
    check(text_file(tmp_path, " ".join(words + words)), [words + words])


@pytest.mark.usefixtures("either_backend")
def test_a_line_without_spaces_is_cut_between_characters(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", 1 << 12)
    text = "中é" * 20_000
    corpus = build_corpus(text_file(tmp_path, text), min_count=1, tokenizer="characters")
    assert corpus.vocab.words == ("é", "中") or corpus.vocab.counts.tolist() == [20_000, 20_000]
    assert corpus.n_documents == 1
    whole = build_corpus(text_file(tmp_path, text), min_count=1)
    assert sum(len(word) * int(n) for word, n in zip(whole.vocab.words, whole.vocab.counts, strict=True)) == len(text)


def test_both_backends_and_all_thread_counts_give_the_same(tmp_path, monkeypatch, rng):
    pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setattr(reading, "BLOCK", 1 << 10)
    text = " ".join(f"w{i}" + "\n" * (int(i) % 11 == 0) for i in rng.zipf(1.4, 30_000).clip(max=10**9))
    path = text_file(tmp_path, text)
    before, results = get_num_threads(), []
    try:
        for backend, threads in (("reference", 2), ("cpu", 1), ("cpu", 2), ("cpu", 3), ("cpu", 8)):
            monkeypatch.setenv("FASTNLP_BACKEND", backend)
            set_num_threads(threads)
            results.append(build_corpus(path, min_count=2, oov="gap", documents="file"))
            results.append(encode(path, results[-1].vocab, oov="gap"))
    finally:
        set_num_threads(before)
    for result in results[1:]:
        assert result.vocab == results[0].vocab
        np.testing.assert_array_equal(result.ids, results[0].ids)
        np.testing.assert_array_equal(result.sentences, results[0].sentences)


def test_a_little_text_needs_no_compiler(monkeypatch):
    monkeypatch.delenv("FASTNLP_BACKEND", raising=False)
    assert tokens._kernels(100).__name__.endswith("reference.tokens")
    monkeypatch.setenv("FASTNLP_BACKEND", "cuda")  # text is never on a GPU
    assert tokens._kernels(100).__name__.endswith("reference.tokens")
    monkeypatch.setattr(tokens, "why_missing", lambda backend: "numba is not installed")
    assert tokens._kernels(None).__name__.endswith("reference.tokens")
    monkeypatch.undo()
    if tokens.why_missing("cpu") is None:
        monkeypatch.delenv("FASTNLP_BACKEND", raising=False)
        assert tokens._kernels(None).__name__.endswith("cpu.tokens")
        monkeypatch.setenv("FASTNLP_BACKEND", "cpu")
        assert tokens._kernels(1).__name__.endswith("cpu.tokens")


@pytest.mark.parametrize(
    ("token", "error", "message"),
    [
        (1, TypeError, "tokens must be str, got 1"),
        (["a"], TypeError, "tokens must be str, one is not: unhashable type: 'list'"),
        ("a\0", ValueError, "holds a NUL character"),
        ("\ud800", ValueError, "half of a surrogate pair"),
    ],
)
def test_tokens_that_are_no_words(token, error, message):
    with pytest.raises(error, match=message):
        build_vocab([["a", token]], min_count=1)
    if error is TypeError:
        with pytest.raises(error, match=message):
            encode([["a", token]], build_vocab(["a"], min_count=1))
