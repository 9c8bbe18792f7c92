"""What text may come from: files of all kinds, streams, lines and tokens."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastnlp import Vocabulary, build_corpus, build_vocab, encode
from fastnlp.text import reading
from tests.texts import TEXT, documents, text_file

pytestmark = pytest.mark.usefixtures("either_backend")


def zstd(data: bytes) -> bytes:
    """Pack with zstd, in two frames."""
    pack = pytest.importorskip("zstandard", reason="zstandard is not installed").ZstdCompressor().compress
    return pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :])


@pytest.mark.parametrize("blocks", ["whole", "small"])
@pytest.mark.parametrize("suffix", [".txt", ".gz", ".xz", ".bz2", ".zst"])
@pytest.mark.parametrize("style", ["lf", "crlf", "bom", "no-end"])
def test_files_of_all_kinds_give_the_same(tmp_path, monkeypatch, suffix, style, blocks):
    if blocks == "small":
        monkeypatch.setattr(reading, "BLOCK", 16)
    pack = {".txt": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstd}[suffix]
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
    assert {len(block.data) <= 64 + 16 for block in reading.blocks(path)} == {True}
    assert b"".join(block.data for block in reading.blocks(path)) == text.encode() + b"\n"
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


def test_patterns_of_names(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, text in {"b2.txt": "two", "b10.txt": "ten", "a.txt": "a", "c.md": "md", "deep/d.txt": "deep"}.items():
        text_file(tmp_path, text, name)
    vocab = build_vocab(sorted(tmp_path.rglob("*.*")), min_count=1)
    for pattern, texts in {
        "*.txt": ["a", "ten", "two"],  # in the order of their names
        "b?.txt": ["two"],
        "[ac].*": ["a", "md"],
        "**/*.txt": ["a", "ten", "two", "deep"],
        "*": ["a", "ten", "two", "md"],  # without folders
    }.items():
        assert documents(encode(str(tmp_path / pattern), vocab)) == texts
        assert documents(encode([tmp_path / pattern, tmp_path / "c.md"], vocab)) == [*texts, "md"]
    with pytest.raises(FileNotFoundError, match=r"no file matches this pattern.*x\*"):
        build_vocab(tmp_path / "x*")
    text_file(tmp_path, "literally", "[ac].txt")
    assert build_vocab(str(tmp_path / "[ac].txt"), min_count=1).words == ("literally",)


class Reader:
    """Something that can be read and is no file of Python's; it gives a few bytes at a time."""

    def __init__(self, data):
        self.data = data

    def read(self, size):
        part, self.data = self.data[: min(size, 5)], self.data[min(size, 5) :]
        return part


@pytest.mark.parametrize("text", [TEXT, "é\u3000" * 30 + "x", TEXT.replace("\n", "\r\n")])
def test_open_files_and_standard_input(tmp_path, monkeypatch, small_blocks, text):
    path = text_file(tmp_path, text)
    whole = build_corpus(path, min_count=1)
    packed = gzip.compress(text.encode(), mtime=0)

    def corpus(file):
        found = build_corpus(file, min_count=1)
        assert not getattr(file, "closed", False)  # it is the caller's
        return documents(found)

    with path.open("rb") as file, path.open("rb", buffering=0) as raw, path.open(newline="") as lines:
        streams = [file, raw, lines, io.BytesIO(packed), io.StringIO(text), Reader(text.encode()), Reader(text)]
        for stream in streams:
            assert corpus(stream) == documents(whole)
            with pytest.raises(ValueError, match=r"is empty: give text, and read a stream once \(build_corpus"):
                build_vocab(stream)
    for data in (text.encode(), packed, bz2.compress(text.encode())):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert corpus("-") == documents(whole)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert corpus("-") == documents(whole)
    assert build_vocab(["-"], min_count=1).words == ("-",)  # a line


def test_a_stream_goes_on_from_where_it_stands():
    stream = io.BytesIO(b"skipped\na b\n")
    stream.readline()
    assert build_vocab(stream, min_count=1).words == ("a", "b")


def test_half_of_a_surrogate_pair_in_a_line():
    with pytest.warns(UserWarning, match="files_or_lines: 3 byte sequences that are not UTF-8"):
        assert build_vocab(["a\ud800b"], min_count=1).words == ("a\ufffd\ufffd\ufffdb",)


@pytest.mark.parametrize("tokenizer", [None, "words", str.split])
def test_a_nul_byte_further_on_is_found_with_its_line(tmp_path, small_blocks, tokenizer):
    good = text_file(tmp_path, "good\n" * 50, "good.txt")
    bad = text_file(tmp_path, "line\n" * 5000 + "x " * 30 + "\0\n", "bad.txt")
    with bad.open("rb") as file:
        for source in ([good, bad], file):
            with pytest.raises(ValueError, match=r"bad\.txt is not text, line 5001 holds a NUL byte: give UTF-8 text"):
                build_vocab(source, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="files_or_lines is not text, line 4001 holds a NUL byte"):
        build_vocab(iter(["line"] * 4000 + ["\0"]), tokenizer=tokenizer)


def test_zstd_without_a_package(tmp_path, monkeypatch):
    if sys.version_info >= (3, 14):
        pytest.skip("this Python can unpack zstd")
    path = text_file(tmp_path, b"\x28\xb5\x2f\xfd" + b"x" * 20, "a.zst")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"a\.zst is packed with zstd, .* pip install zstandard"):
        build_vocab(path)


def test_a_large_zstd_file(tmp_path, rng):
    text = " ".join(map(str, rng.integers(0, 1000, 200_000)))
    path = text_file(tmp_path, zstd(text.encode()), "a.zst")
    assert build_vocab(path) == build_vocab(text_file(tmp_path, text))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.zst is truncated or corrupt"):
        build_vocab(path)


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
    for call in (build_vocab, build_corpus):
        with pytest.raises((TypeError, IsADirectoryError), match=message):
            call(source, min_count=1)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "a.txt", "is empty"),
        (gzip.compress(b"", mtime=0), "a.gz", "is empty"),
        (b"line\ntext\0text", "a.txt", "a.txt is not text, line 2 holds a NUL byte"),
        ("text".encode("utf-16"), "a.txt", "UTF-16"),
        (b"plain", "a.gz", "not packed that way"),
        (b"plain", "a.zst", "not packed that way"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 20, "a.zst", "truncated or corrupt"),
        (gzip.compress(os.urandom(99).hex().encode(), mtime=0)[:-20], "a.gz", "truncated or corrupt"),
        (lzma.compress(b"some text")[:-20], "a.xz", "truncated or corrupt"),
        (bz2.compress(b"some text")[:-8], "a.bz2", "truncated or corrupt"),
        (gzip.compress(b"some text" * 99, mtime=0)[:12] + b"\xff" * 60, "a.gz", "truncated or corrupt"),
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
    packed = gzip.compress(os.urandom(200_000).hex().encode(), mtime=0)
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
    paths = [text_file(tmp_path, gzip.compress(TEXT.encode() * 9, mtime=0), "1.gz"), text_file(tmp_path)]
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


@pytest.mark.parametrize("end", [b"\n", b" ", "\u3000".encode()])
def test_text_is_not_held_whole(tmp_path, monkeypatch, end):
    import tracemalloc

    monkeypatch.setattr(reading, "BLOCK", 1 << 11)
    path = text_file(tmp_path, (b"some words on one line and no other" + end) * 240_000)
    build_vocab([TEXT], min_count=1)  # compiles
    tracemalloc.start()
    try:
        vocab = build_vocab(path)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < path.stat().st_size / 2  # about 2 MB, however long the text
    assert vocab.n_tokens == 1_920_000
