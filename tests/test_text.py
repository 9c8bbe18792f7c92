"""From files to the ids of words: sources, tokenizers, `Vocabulary`, `Corpus`."""

# ruff: noqa: RUF001 (Chinese punctuation is meant)

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fastnlp
from fastnlp import Corpus, Vocabulary, build_vocab, encode
from fastnlp._files import atomic_write
from fastnlp.text import corpus as corpus_module
from fastnlp.text import reading, tokenizers

TEXT = "the cat sat\non the mat\n\nthe end\n"
CHINESE = "满纸荒唐言，一把辛酸泪！\n都云作者痴，谁解其中味？\n"


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few bytes, so that short texts are cut."""
    monkeypatch.setattr(reading, "BLOCK", 16)


def text_file(folder: Path, text: str | bytes = TEXT, name: str = "text.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def documents(corpus: Corpus) -> list[str]:
    return [" ".join(corpus.vocab.words[i] for i in ids) for ids in corpus.documents()]


# Vocabularies


def test_counts_order_and_ties():
    vocab = build_vocab(["b a c", "b a é z", "b 中"], min_count=1)
    assert vocab.words == ("b", "a", "c", "z", "é", "中")  # by count, then by the bytes of UTF-8
    assert sorted(vocab.words[2:], key=str.encode) == list(vocab.words[2:])
    np.testing.assert_array_equal(vocab.counts, [3, 2, 1, 1, 1, 1])
    assert vocab.counts.dtype == np.int64
    assert not vocab.counts.flags.writeable
    assert vocab.id("c") == 2
    assert vocab.index["é"] == 4
    assert "c" in vocab
    assert "d" not in vocab
    assert list(vocab) == list(vocab.words)
    assert len(vocab) == 6


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
    assert dict(zip(ours.words, ours.counts, strict=True)) == dict(zip(theirs.words, theirs.counts, strict=True))
    np.testing.assert_array_equal(ours.counts, theirs.counts)
    corpus = encode(folder / "corpus.txt", theirs)
    assert len(corpus) == theirs.counts.sum()
    assert corpus.n_documents == 1500
    np.testing.assert_array_equal(np.bincount(corpus.ids), theirs.counts)


# Corpora


def test_encode_closes_gaps_and_keeps_lines():
    vocab = build_vocab(TEXT.splitlines(), min_count=1)
    small = Vocabulary(["the", "mat", "cat"], [3, 1, 1])
    corpus = encode(TEXT.splitlines(), small)
    assert documents(corpus) == ["the cat", "the mat", "", "the"]
    assert corpus.n_oov == 3
    assert len(corpus) == 5
    assert corpus.ids.dtype == np.int32
    assert corpus.offsets.dtype == np.int64
    np.testing.assert_array_equal(corpus.offsets, [0, 2, 4, 4, 5])
    np.testing.assert_array_equal(corpus.document(1), [0, 1])
    np.testing.assert_array_equal(corpus.document(-1), [0])
    assert corpus.nbytes == 5 * 4 + 5 * 8
    assert "5 tokens, 4 documents, 3 tokens not" in repr(corpus)
    with pytest.raises(IndexError, match="document 4"):
        corpus.document(4)
    assert documents(encode(TEXT.splitlines(), vocab)) == TEXT.splitlines()


def test_a_text_without_a_known_word_is_empty_documents(tmp_path):
    vocab = Vocabulary(["x"], [1])
    for out in (None, tmp_path / "ids"):
        corpus = encode(["a b", "c"], vocab, out=out)
        assert len(corpus) == 0
        assert corpus.n_documents == 2
        assert corpus.n_oov == 3


def test_encode_takes_up_the_tokenizer_of_the_vocabulary(tmp_path):
    vocab = build_vocab([CHINESE], tokenizer="auto", min_count=1)
    assert vocab.tokenizer == "characters"
    assert encode([CHINESE], vocab).n_oov == 0
    assert len(encode([CHINESE], vocab, tokenizer="whitespace")) == 0
    vocab.save(tmp_path / "vocab.txt")
    loaded = Vocabulary.load(tmp_path / "vocab.txt")
    assert encode([CHINESE], loaded).n_oov == 2  # the tokenizer is not in the file: lines between white space


@pytest.mark.parametrize("limit", [0, 40, 1 << 30])
def test_ids_on_disk_are_the_same_ids(monkeypatch, tmp_path, small_blocks, limit):
    monkeypatch.setattr(corpus_module, "_IN_MEMORY", limit)
    lines = [f"w{i % 7} w{i % 3}" for i in range(50)]
    vocab = build_vocab(lines, min_count=1)
    expected = [vocab.index[word] for line in lines for word in line.split()]
    corpus = encode(lines, vocab)
    assert isinstance(corpus.ids, np.memmap) == (limit < 400)
    np.testing.assert_array_equal(corpus.ids, expected)
    kept = encode(lines, vocab, out=tmp_path / "ids.bin")
    assert isinstance(kept.ids, np.memmap)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "ids.bin", np.int32), expected)
    np.testing.assert_array_equal(kept.offsets, corpus.offsets)
    assert os.listdir(tmp_path) == ["ids.bin"]


def test_a_full_temporary_folder(monkeypatch, tmp_path):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(corpus_module, "_IN_MEMORY", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    vocab = Vocabulary(["a"], [1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written to .* set TMPDIR") as raised:
            encode(["a " * 5000], vocab)
        with pytest.raises(OSError, match=r"could not be written .*ids"):
            encode(["a " * 5000], vocab, out=tmp_path / "ids")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path)
    assert os.listdir(tmp_path) == []


def test_encode_checks_its_arguments():
    vocab = Vocabulary(["a"], [1])
    with pytest.raises(TypeError, match="make one with build_vocab"):
        encode(["a"], {"a": 0})
    with pytest.raises(ValueError, match="tokenizer must be one of"):
        encode(["a"], vocab, tokenizer="x")
    with pytest.raises(ValueError, match="rise from 0"):
        Corpus(np.zeros(3, np.int32), np.array([0, 2], np.int64), vocab)
    with pytest.raises(ValueError, match="rise from 0"):
        Corpus(np.zeros(3, np.int32), np.array([0, 2, 1, 3], np.int64), vocab)
    with pytest.raises(TypeError, match="ids must be an array of one axis of int32"):
        Corpus(np.zeros(3), np.array([0, 3], np.int64), vocab)
    with pytest.raises(TypeError, match="vocab"):
        Corpus(np.zeros(3, np.int32), np.array([0, 3], np.int64), ["a"])


def test_a_generator_that_was_read_is_an_error_that_says_so():
    lines = (line for line in ["a b", "b a"])
    vocab = build_vocab(lines, min_count=1)
    with pytest.raises(ValueError, match="used up"):
        encode(lines, vocab)


# Sources


@pytest.mark.parametrize("blocks", ["whole", "small"])
@pytest.mark.parametrize("suffix", [".txt", ".gz", ".xz", ".bz2"])
@pytest.mark.parametrize("style", ["lf", "crlf", "bom", "no-end"])
def test_files_of_all_kinds_give_the_same(tmp_path, monkeypatch, suffix, style, blocks):
    if blocks == "small":
        monkeypatch.setattr(reading, "BLOCK", 16)
    pack = {".txt": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[suffix]
    text = {"lf": TEXT, "crlf": TEXT.replace("\n", "\r\n"), "bom": "\ufeff" + TEXT, "no-end": TEXT.removesuffix("\n")}
    for name in ("text" + suffix, "text"):  # packing is told by the bytes, too
        path = text_file(tmp_path, pack(text[style].encode()), name)
        vocab = build_vocab(path, min_count=1)
        assert vocab == build_vocab(TEXT.splitlines(), min_count=1)
        assert documents(encode(str(path), vocab)) == TEXT.splitlines()
        assert documents(encode(path, vocab, tokenizer=lambda line: line.split(" "))) == TEXT.splitlines()


def test_lines_longer_than_a_block_stay_one_document(tmp_path, small_blocks):
    words = [f"word{i}" for i in range(40)]
    text = " ".join(words) + "\n" + "短" * 30 + "\n\nend"
    path = text_file(tmp_path, text)
    assert {len(block.data) <= 32 for block in reading.blocks(path)} == {True}
    assert b"".join(block.data for block in reading.blocks(path)) == text.encode()
    vocab = build_vocab(path, tokenizer="characters", min_count=1)
    corpus = encode(path, vocab)
    assert corpus.n_oov == 0
    assert documents(corpus) == [" ".join(words), " ".join("短" * 30), "", "end"]


@pytest.mark.parametrize("text", ["a" * 16, "a" * 16 + "\nb", "a" * 15 + "\n", "\n" * 40, "a " * 8, "é" * 8, "é" * 40])
def test_ends_of_blocks_and_files(tmp_path, small_blocks, text):
    path = text_file(tmp_path, text)
    lines = text.removesuffix("\n").split("\n")
    vocab = build_vocab([text + " x"], tokenizer="characters", min_count=1)
    corpus = encode(path, vocab, tokenizer=list)
    assert corpus.n_documents == len(lines)
    ids = encode(lines, Vocabulary(sorted(set(text)), [1] * len(set(text))), tokenizer=list)
    again = encode(path, ids.vocab, tokenizer=list)
    np.testing.assert_array_equal(again.ids, ids.ids)
    np.testing.assert_array_equal(again.offsets, ids.offsets)


def test_several_files(tmp_path):
    paths = [text_file(tmp_path, "a b", "1.txt"), text_file(tmp_path, "a\nc\n", "2.txt")]
    names = [str(path) for path in paths]
    vocab = build_vocab(paths, min_count=1)
    assert vocab.words == ("a", "b", "c")
    for source in (paths, iter(paths), names, tuple(names)):
        assert documents(encode(source, vocab)) == ["a b", "a", "c"]
    assert build_vocab(iter(names), min_count=1).words == tuple(sorted(names))  # an iterator of str is lines


def test_a_list_of_str_is_files_only_if_all_name_files(tmp_path):
    path = str(text_file(tmp_path, "a b"))
    assert build_vocab([path], min_count=1).words == ("a", "b")
    assert build_vocab(iter([path]), min_count=1).words == (path,)
    for lines in ([path, "missing.txt"], ("missing.txt", path), [path, path, "missing.txt"]):
        with pytest.warns(
            UserWarning, match=r"lines of text: '.*text\.txt' names a file, but 'missing\.txt' does not"
        ) as w:
            vocab = build_vocab(lines, min_count=1)
        assert w[0].filename == __file__
        assert set(vocab.words) == {path, "missing.txt"}
        with pytest.warns(UserWarning, match="names a file"):
            assert encode(lines, vocab).n_documents == len(lines)
        assert encode(iter(lines), vocab).n_documents == len(lines)


def test_names_of_files_that_are_missing(tmp_path):
    path = str(text_file(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        build_vocab([Path(path), Path("missing.txt")])
    with pytest.raises(ValueError, match="strings that do not name existing files are lines of text"):
        build_vocab(["missing.txt"])
    with pytest.raises(ValueError, match="no word occurs") as raised:
        build_vocab(iter(["x" * 1000]))
    assert "files" not in str(raised.value)  # an iterator cannot be names
    assert len(str(raised.value)) < 200


def test_lines_with_ends_and_several_lines_in_one_str(tmp_path):
    vocab = build_vocab([TEXT], min_count=1)
    assert documents(encode([TEXT], vocab)) == TEXT.splitlines()
    assert documents(encode(TEXT.splitlines(keepends=True), vocab)) == TEXT.splitlines()
    with open(text_file(tmp_path)) as file:
        assert documents(encode(file, vocab)) == TEXT.splitlines()


def test_tokens_as_they_are(small_blocks):
    tokens = [["new york", "is"], [], ("is", "new york", "is")]
    vocab = build_vocab(tokens, min_count=1)
    assert vocab.words == ("is", "new york")
    assert vocab.tokenizer is None
    np.testing.assert_array_equal(encode(tokens, vocab).offsets, [0, 2, 2, 5])
    words = build_vocab(["Is it"], tokenizer="words", min_count=1)
    assert encode(tokens, words).n_oov == 2  # the vocabulary's tokenizer is not applied to tokens
    with pytest.raises(ValueError, match="are tokens already"):
        build_vocab(tokens, tokenizer="words")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "got int"),
        (b"text", "got bytes"),
        ([b"text"], "text mode"),
        ([1, 2], "first item is int"),
        ([None], "first item is NoneType"),
        (["a", ["b"]], "item 1 is list"),
        ([["a"], "b"], "item 1 is str"),
        ([["a", 1]], "tokens must be str, got 1"),
        ([Path("."), 1], "mixes|folder"),
    ],
)
def test_other_sources_are_refused(source, message):
    with pytest.raises((TypeError, IsADirectoryError), match=message):
        build_vocab(source, min_count=1)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "a.txt", "is empty"),
        (gzip.compress(b""), "a.gz", "is empty"),
        (b"text\0text", "a.txt", "NUL bytes"),
        ("text".encode("utf-16"), "a.txt", "UTF-16"),
        (b"plain", "a.gz", "not packed that way"),
        (gzip.compress(os.urandom(99).hex().encode())[:-20], "a.gz", "truncated or corrupt"),
        (lzma.compress(b"some text")[:-20], "a.xz", "truncated or corrupt"),
        (bz2.compress(b"some text")[:-8], "a.bz2", "truncated or corrupt"),
        (gzip.compress(b"some text" * 99)[:12] + b"\xff" * 60, "a.gz", "truncated or corrupt"),
    ],
)
def test_bad_files_are_found_before_any_is_read(tmp_path, content, name, message):
    good = text_file(tmp_path)
    bad = text_file(tmp_path, content, name)
    calls = []
    with pytest.raises(ValueError, match=message) as raised:
        build_vocab([good, bad], progress=lambda *done: calls.append(done))
    assert str(bad) in str(raised.value)
    assert calls == []


def test_a_file_that_is_damaged_further_on(tmp_path):
    packed = gzip.compress(os.urandom(200_000).hex().encode())
    with pytest.raises(ValueError, match=r"a\.gz is truncated or corrupt .* again"):
        build_vocab(text_file(tmp_path, packed[:-1000], "a.gz"))


def test_missing_folder_and_closed_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file .*a list of lines.*none\.txt") as raised:
        build_vocab(tmp_path / "none.txt")
    assert raised.value.errno == errno.ENOENT
    with pytest.raises(IsADirectoryError, match="is a folder"):
        build_vocab(tmp_path)
    if os.name == "posix" and os.geteuid() != 0:
        path = text_file(tmp_path)
        path.chmod(0)
        with pytest.raises(PermissionError, match=r"change its permissions.*text\.txt"):
            build_vocab(path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def closed(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    path = text_file(tmp_path)
    monkeypatch.setattr(reading.io, "FileIO", closed)
    with pytest.raises(PermissionError, match=r"change its permissions.*text\.txt"):
        build_vocab(path)


def test_invalid_utf8_is_replaced_and_said_once(tmp_path, small_blocks):
    text = "gut \ufffd ".encode() + b"f\xfcr dich\n" * 5 + b"\xe4"
    paths = [text_file(tmp_path, text, "1.txt"), text_file(tmp_path, text, "2.txt")]
    with pytest.warns(UserWarning, match=r"1\.txt: 6 byte sequences .*, and 6 in 1 other files") as caught:
        vocab = build_vocab(paths, min_count=1)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert vocab.words[:2] == ("dich", "f\ufffdr")
    with pytest.warns(UserWarning, match="6 byte sequences"):
        encode(paths[0], vocab)


def test_a_pipe_is_read_once(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'w').write({TEXT!r})"]):
        calls = []
        vocab = build_vocab(pipe, min_count=1, progress=lambda *done: calls.append(done))
    assert vocab == build_vocab([TEXT], min_count=1)
    assert calls[-1] == (len(TEXT), None)


def test_progress_counts_packed_bytes_or_lines(tmp_path, small_blocks):
    paths = [text_file(tmp_path, gzip.compress(TEXT.encode() * 9), "1.gz"), text_file(tmp_path)]
    total = sum(path.stat().st_size for path in paths)
    calls = []
    vocab = build_vocab(paths, min_count=1, progress=lambda *done: calls.append(done))
    assert len(calls) > 4
    assert calls == sorted(calls)
    assert {of for _, of in calls} == {total}
    assert calls[-1] == (total, total)
    calls.clear()
    encode(TEXT.splitlines() * 3, vocab, progress=lambda *done: calls.append(done))
    assert calls[-1] == (12, 12)
    assert len(calls) > 1
    encode(iter(TEXT.splitlines()), vocab, progress=lambda *done: calls.append(done))
    assert calls[-1] == (4, None)


def test_text_is_not_held_whole(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(reading, "BLOCK", 1 << 14)
    path = text_file(tmp_path, b"some words on one line and no other\n" * 50_000)
    tracemalloc.start()
    try:
        vocab = build_vocab(path)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 100 * reading.BLOCK
    assert held < 25 * reading.BLOCK
    assert vocab.n_tokens == 400_000


# Tokenizers


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


def test_against_a_count_by_hand(rng):
    lines = [" ".join(f"w{int(i)}" for i in rng.zipf(1.5, size) if i < 100) for size in rng.integers(0, 30, 300)]
    counter = Counter(word for line in lines for word in line.split())
    vocab = build_vocab(lines, min_count=3)
    expected = sorted(((w, c) for w, c in counter.items() if c >= 3), key=lambda item: (-item[1], item[0].encode()))
    assert 10 < len(expected) < len(counter)
    assert list(zip(vocab.words, vocab.counts.tolist(), strict=True)) == expected
    corpus = encode(lines, vocab)
    assert documents(corpus) == [" ".join(w for w in line.split() if counter[w] >= 3) for line in lines]
    assert corpus.n_oov == counter.total() - vocab.counts.sum() > 0


# Files that are written whole or not at all


def test_atomic_write_replaces_and_keeps_permissions_and_links(tmp_path):
    path = text_file(tmp_path)
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    with atomic_write(link) as file:
        file.write(b"new")
        assert path.read_text() == TEXT
    assert path.read_bytes() == b"new"
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link", "text.txt"]


@pytest.mark.parametrize("step", ["body", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = text_file(tmp_path)
    if step != "body":
        monkeypatch.setattr(os, step, full)
    failing = pytest.raises(OSError, match=r"could not be written \(No space left on device\).*text\.txt")
    with failing as raised, atomic_write(path) as file:
        file.write(b"new")
        if step == "body":
            full()
    assert raised.value.errno == errno.ENOSPC
    assert path.read_text() == TEXT
    assert os.listdir(tmp_path) == ["text.txt"]


def test_other_errors_pass_through_a_failed_write(tmp_path):
    path = text_file(tmp_path)
    with pytest.raises(KeyboardInterrupt), atomic_write(path):
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError, match=r"'other\.txt'"), atomic_write(path):
        os.stat("other.txt")
    assert os.listdir(tmp_path) == ["text.txt"]


def test_places_that_cannot_be_written_to(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"), atomic_write(tmp_path):
        pass
    with pytest.raises(FileNotFoundError, match=r"folder .*none does not exist"), atomic_write(tmp_path / "none" / "a"):
        pass
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError, match=r"No space left on device.*'/dev/full'"):
            build_vocab([TEXT], min_count=1).save("/dev/full")
        build_vocab([TEXT], min_count=1).save("/dev/null")
        assert not os.path.isfile("/dev/null")


def test_nothing_heavy_is_imported():
    heavy = ["numba", "scipy", "lzma", "bz2", "gzip", "tempfile", "difflib", "unicodedata"]
    code = f"import sys, fastnlp; print(*set({heavy}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert fastnlp.build_vocab is build_vocab
