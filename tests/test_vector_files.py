"""Files of word vectors: what is read is what is written, and what Python's float makes of it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

import fastnlp
from fastnlp import KeyedVectors
from fastnlp._dispatch import implementation
from fastnlp.text import _vector_arrays, _vector_text

NAMES = {"glove": "v.txt", "word2vec": "v.vec", "word2vec-binary": "v.bin", "npz": "v.npz", "npy": "v.npy"}


@pytest.fixture
def keyed(rng) -> KeyedVectors:
    return KeyedVectors([f"w{i}" for i in range(500)], rng.standard_normal((500, 20)).astype(np.float32))


def float32(text: str) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(float(text))


def same_bits(a, b) -> bool:
    return np.array_equal(np.asarray(a, np.float32).view(np.uint32), np.asarray(b, np.float32).view(np.uint32))


# The kernels


def parse(backend, text: bytes, dim: int, segments: int = 1):
    """Rows, words and odd lines of a text, which is cut into segments of lines."""
    kernels = implementation("vector_files", backend)
    lines = [line + b"\n" for line in text.split(b"\n")[:-1]]
    parts = np.array_split(np.arange(len(lines)), segments)
    cuts = np.cumsum([0, *(sum(len(lines[i]) for i in part) for part in parts)])
    counts = np.full(segments, -1)
    kernels.count_lines(np.frombuffer(bytearray(text), np.uint8), cuts, counts)
    assert counts.tolist() == [len(part) for part in parts]
    rows = np.full((len(lines), dim), np.nan, np.float32)
    words, word_bytes = np.full(len(text), 255, np.uint8), np.full(segments, -1)
    odd = np.ones(len(lines), np.bool_)
    kernels.parse(np.frombuffer(bytearray(text), np.uint8), cuts, np.cumsum([0, *counts]), rows, words, word_bytes, odd)
    found = b"".join(words[cut : cut + n].tobytes() for cut, n in zip(cuts, word_bytes, strict=False)).split(b"\n")
    assert found.pop() == b""
    return rows, found, odd


def decimals(rng, n: int) -> list[str]:
    """Numbers as files have them, and as hard as they come."""
    bits = rng.integers(0, 1 << 32, n, dtype=np.uint32).view(np.float32)
    bits = bits[np.isfinite(bits) & (bits != 0)].astype(np.float64)
    upper = np.nextafter(bits.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    middle = [x for x in ((bits + upper) / 2).tolist() if math.isfinite(x)]  # halfway between two float32
    normal = rng.standard_normal(n).tolist()
    random = ["".join(rng.choice(list("0123456789"), rng.integers(1, 25))) for _ in range(n)]
    exponents = rng.integers(-60, 50, n).tolist()
    return [
        *(f"{x:.5g}" for x in normal),
        *(f"{x:.6f}" for x in normal),
        *(f"{x:.9g}" for x in bits.tolist()),
        *map(repr, bits.tolist()),
        *map(repr, normal),
        *(f"{x:.18e}" for x in normal),
        *(f"{x:.50g}" for x in middle),
        *(f"{x:.17g}" for x in middle),
        *(f"{math.nextafter(x, 0):.17g}" for x in middle),
        *(f"{math.nextafter(x, math.inf):.17g}" for x in middle),
        *(f"{math.nextafter(x, math.inf):.40g}" for x in middle),
        *(f"{x}e{e}" for x, e in zip(random, exponents, strict=True)),
        *(f"-{x[:3]}.{x[3:]}E+{abs(e)}" for x, e in zip(random, exponents, strict=True)),
        *(f"+.{x}e-{abs(e)}" for x, e in zip(random, exponents, strict=True)),
        *(f"00000{x}.000000000000" for x in random),
        *(f"0.00000000000{x}" for x in random),
    ]


PLAIN = ["0", "-0", "+0.0", "-.0", "0e400", "0e-400", "5.", ".5", "-.5e1", "1E5", "1e+05", "1e-05", "007", "16777217"]
EXTREME = [
    "1e38", "3.4028234e38", "3.4028235e38", "3.4028236e38", "3.40282356779733661637e38", "1e39", "1e308", "1e309",
    "1e400", "1.17549435e-38", "1.17549428e-38", "1e-38", "1e-44", "1.4e-45", "7.006492321624085e-46", "7.1e-46",
    "1e-46", "1e-400", "1e9999999999999999999", "1e-9999999999999999999", "0." + "0" * 400 + "1", "1" + "0" * 400,
    "1" * 39, "0" * 999 + "1", "1.00000005960464477539062500001", "16777217.0000000000000000000000001",
    "18446744073709551615", "18446744073709551616", "99999999999999999999e-20", "9999999999999999999e-19",
    "10000000000000000000e-19",
]  # fmt: skip
NO_NUMBERS = [
    "", "-", "+", ".", "-.", "e5", ".e5", "1e", "1e+", "1e-", "--1", "+-1", "1.2.3", "0x10", "1_0", "1,5", "1f", "1d5",
    "1e5.0", "\u0661", "\t1", "1\t", "1\r", "\x001", "1\x00", "1e1e1", "infinit", "nan(1)", "1 ",
]  # fmt: skip


def test_numbers_are_those_of_python_float(backend, rng):
    tokens = decimals(rng, 300) + PLAIN + EXTREME
    rows, words, odd = parse(backend, "".join(f"w {token}\n" for token in tokens).encode(), 1, segments=7)
    expected = np.array([float32(token) for token in tokens])
    assert same_bits(rows[~odd, 0], expected[~odd])
    assert all(word == (b"" if skipped else b"w") for word, skipped in zip(words, odd, strict=True))
    easy = np.array([len(token) < 15 and "e" not in token.lower() for token in tokens]) & (np.abs(expected) < 1e6)
    assert easy.sum() > 600
    assert not odd[easy].any()  # what files are made of is not left to Python


def test_a_file_of_numbers_gives_what_python_float_gives(backend, rng, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTNLP_BACKEND", backend)
    tokens = decimals(rng, 100) + PLAIN + EXTREME + ["nan", "-NaN", "inf", "+Infinity", "-INF"]
    (tmp_path / "v.txt").write_text("".join(f"w{i} {token} 1\n" for i, token in enumerate(tokens)))
    loaded = KeyedVectors.load(tmp_path / "v.txt").vectors[:, 0]
    expected = np.array([float32(token) for token in tokens])
    np.testing.assert_array_equal(np.isnan(loaded), np.isnan(expected))
    assert same_bits(loaded[~np.isnan(expected)], expected[~np.isnan(expected)])


@pytest.mark.parametrize("token", NO_NUMBERS)
def test_what_is_no_number(backend, token, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTNLP_BACKEND", backend)
    path = tmp_path / "v.txt"
    for line in (f"b 3 {token} 4", f"b {token} 4", f"b 4 {token}x"):
        path.write_bytes(f"a 1 2\n{line}\nc 5 6\n".encode())
        with pytest.raises(ValueError, match=r"v\.txt, line 2: a word and 2 numbers are wanted"):
            KeyedVectors.load(path)


def test_lines(backend):
    text = "a 1 2\na\u00a0b 3 4 \r\n\u0085 5 6  \r \n\n 1 2\nb 1\nc 1 2 3\nd  1 2\ne 1 x\nf g 1 2\nlast 7 -8\n".encode()
    rows, words, odd = parse(backend, text, 2)
    assert odd.tolist() == [False] * 3 + [True] * 7 + [False]
    assert words == [b"a", "a\u00a0b".encode(), "\u0085".encode(), *[b""] * 7, b"last"]
    np.testing.assert_array_equal(rows[~odd], [[1, 2], [3, 4], [5, 6], [7, -8]])


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads_reads_and_writes_the_same(rng, threads):
    pytest.importorskip("numba", reason="numba is not installed")
    x = rng.standard_normal((300, 7)).astype(np.float32)
    text = "".join(" ".join([f"w{i}", *(f"{v:.9g}" for v in row)]) + "\n" for i, row in enumerate(x)).encode()
    before = fastnlp.get_num_threads()
    fastnlp.set_num_threads(threads)
    try:
        rows, words, odd = parse("cpu", text, 7, segments=40)
        written = formatted("cpu", x)
    finally:
        fastnlp.set_num_threads(before)
    assert not odd.any()
    assert same_bits(rows, x)
    assert words == [f"w{i}".encode() for i in range(300)]
    assert b"".join(word + line + b"\n" for word, line in zip(words, written, strict=True)) == text


def formatted(backend, x: np.ndarray, digits: int = 9) -> list[bytes | None]:
    """The text of each row, None for those that are left to Python."""
    text, ends = np.full((len(x), 16 * x.shape[1]), 255, np.uint8), np.full(len(x), -1)
    odd = np.ones(len(x), np.bool_)
    implementation("vector_files", backend).format(x, digits, text, ends, odd)
    return [None if odd[r] else text[r, : ends[r]].tobytes() for r in range(len(x))]


def test_numbers_are_written_as_by_percent(backend, rng):
    bits = rng.integers(0, 1 << 32, 4000, dtype=np.uint32).view(np.float32)
    powers = np.float32(10.0) ** np.arange(-37, 39, dtype=np.float32)
    usual = rng.standard_normal(4000) * 0.4
    ties = [*(rng.integers(-(10**9), 10**9, 500) / 2), *(rng.integers(-999, 999, 500) / 64), 0.5**14, 999999999.5]
    edges = [0.0, -0.0, 0.0001, 0.00001, 9.9999999e-5, 123456.0, 1e9, 1e8, np.inf, -np.inf, np.nan]
    near = [np.nextafter(powers, np.float32(0)), powers, -powers, np.nextafter(powers, np.float32(np.inf))]
    x = np.concatenate([np.array(part, np.float32) for part in (usual, bits, *near, ties, edges)])[:, None]
    for digits in (9, 8, 6, 5, 2, 1):
        lines = formatted(backend, x, digits)
        expected = [b" %.*g" % (digits, value) for value in x[:, 0].tolist()]
        assert all(line in (None, wanted) for line, wanted in zip(lines, expected, strict=True))
        assert sum(line is None for line in lines[: len(usual)]) < 5


def test_records(backend):
    kernels = implementation("vector_files", backend)
    x = np.arange(6, dtype="<f4").reshape(3, 2)
    whole = b"a " + x[0].tobytes() + b"\nbc " + x[1].tobytes() + b"d " + x[2].tobytes() + b"\n"
    for size, records, used, words in (
        (len(whole), 3, len(whole) - 1, b"abcd"),
        (len(whole) - 2, 2, 22, b"abc"),
        (9, 0, 0, b""),
    ):
        data = np.frombuffer(bytearray(whole[:size]), np.uint8)
        rows, text = np.full((3, 2), np.nan, np.float32), np.zeros(size, np.uint8)
        ends, counts = np.full(3, -1), np.full(2, -1)
        kernels.parse_records(data, rows.view(np.uint8), text, ends, counts)
        assert counts.tolist() == [records, used]
        assert text.tobytes().rstrip(b"\0") == words
        assert ends[:records].tolist() == [1, 3, 4][:records]
        np.testing.assert_array_equal(rows[:records], x[:records])


# Files


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (1500, 3)])
def test_files_give_back_every_bit(tmp_path, rng, format, shape):
    bits = rng.integers(0, 1 << 32, shape, dtype=np.uint32).view(np.float32)
    bits = np.where(np.isfinite(bits), bits, np.float32(-0.0))
    bits.flat[:1] = np.float32(0.1)
    words = ["a\u00a0b", "\u0085", "中文", *map(str, range(shape[0]))][: shape[0]]
    keyed = KeyedVectors(words, bits)
    path = tmp_path / NAMES[format]
    keyed.save(path)
    for loaded in (KeyedVectors.load(path), KeyedVectors.load(str(path), format=format)):
        assert loaded.words == keyed.words
        np.testing.assert_array_equal(loaded.vectors.view(np.uint32), keyed.vectors.view(np.uint32))
    assert os.listdir(tmp_path) == [path.name]


def test_what_the_files_hold(tmp_path):
    keyed = KeyedVectors(["a", "é"], [[1, -0.5], [0.1, 2]])
    text = "a 1 -0.5\né 0.100000001 2\n".encode()
    for name, content in (
        ("v.txt", text),
        ("v.vec", b"2 2\n" + text),
        ("v.bin", b"2 2\na " + struct.pack("<2f", 1, -0.5) + "\né ".encode() + struct.pack("<2f", 0.1, 2) + b"\n"),
    ):
        keyed.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    keyed.save(tmp_path / "other", format="word2vec")
    assert (tmp_path / "other").read_bytes() == b"2 2\n" + text


def test_fewer_digits(tmp_path):
    keyed = KeyedVectors(["a"], [[1 / 3, -123456.7, 1e-7, 2**-20, math.inf]])
    keyed.save(tmp_path / "v.txt", digits=5)
    assert (tmp_path / "v.txt").read_text() == "a 0.33333 -1.2346e+05 1e-07 9.5367e-07 inf\n"
    for digits, error in ((0, ValueError), (10, ValueError), (5.5, TypeError)):
        with pytest.raises(error, match="digits must be"):
            keyed.save(tmp_path / "v.txt", digits=digits)


@pytest.mark.parametrize("format", ["glove", "word2vec"])
def test_not_a_number_survives_text(tmp_path, format):
    keyed = KeyedVectors(["a", "b"], [[math.nan, 1], [math.inf, -math.inf]])
    keyed.save(tmp_path / "v", format=format)
    np.testing.assert_array_equal(KeyedVectors.load(tmp_path / "v", format=format).vectors, keyed.vectors)


def test_files_of_other_programs(tmp_path):
    path = tmp_path / "v.txt"
    for content in (
        b"3 2\na 1 2\n. . 3 4\nc 5 6",
        b"a 1 2 \r\n. . 3 4 \r\nc 5 6 \r\n",
        b"3 2\r\na 1 2\n. . 3 4\nc 5 6\n",
    ):
        path.write_bytes(content)
        loaded = KeyedVectors.load(path)
        assert loaded.words == ("a", ". .", "c")
        np.testing.assert_array_equal(loaded.vectors, [[1, 2], [3, 4], [5, 6]])
        (tmp_path / "v.txt.gz").write_bytes(gzip.compress(content))
        assert KeyedVectors.load(tmp_path / "v.txt.gz").words == loaded.words
    (tmp_path / "v.vec").write_bytes(b"2 2\na 1 2\nb 3 4\n<unk> 5 6\n")  # GloVe's header does not count <unk>
    assert KeyedVectors.load(tmp_path / "v.vec").words == ("a", "b", "<unk>")
    (tmp_path / "v.bin").write_bytes(b"2 1\na " + struct.pack("<f", 1) + b"b " + struct.pack("<f", 2))  # no line ends
    assert KeyedVectors.load(tmp_path / "v.bin").words == ("a", "b")


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.bin"])
def test_small_blocks_give_the_same(tmp_path, keyed, monkeypatch, name, size):
    few = KeyedVectors(keyed.words[:90], keyed.vectors[:90])
    few.save(tmp_path / name)
    for module in (_vector_text, _vector_arrays):
        monkeypatch.setattr(module, "_BLOCK", size)
    monkeypatch.setattr(_vector_text, "_SEGMENT", 3 * size)
    monkeypatch.setattr(_vector_text, "_WRITTEN_BLOCK", size)
    loaded = KeyedVectors.load(tmp_path / name)
    assert loaded.words == few.words
    assert same_bits(loaded.vectors, few.vectors)
    few.save(tmp_path / f"again-{name}")
    assert (tmp_path / f"again-{name}").read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.bin"])
@pytest.mark.parametrize(("suffix", "packed"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_packed_files_and_pipes(tmp_path, keyed, name, suffix, packed):
    keyed.save(tmp_path / name)
    path = tmp_path / (name + suffix)
    path.write_bytes(packed.compress((tmp_path / name).read_bytes()))
    loaded = KeyedVectors.load(path)
    assert loaded.words == keyed.words
    assert same_bits(loaded.vectors, keyed.vectors)


def test_text_from_standard_input(tmp_path):
    code = "from fastnlp import KeyedVectors; print(KeyedVectors.load('/dev/stdin', format='glove'))"
    if not os.path.exists("/dev/stdin"):
        pytest.skip("there is no /dev/stdin here")
    run = subprocess.run([sys.executable, "-c", code], input=b"a 1 2\nb 3 4\n", capture_output=True, check=True)
    assert run.stdout.strip() == b"KeyedVectors(2 words, 2 features)"


# Mapped files


def test_a_mapped_file_is_not_read(tmp_path, keyed):
    path = tmp_path / "v.npy"
    keyed.save(path)
    mapped = KeyedVectors.load(path, mmap=True)
    base = mapped.vectors
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert mapped.words == keyed.words
    assert same_bits(mapped.vectors, keyed.vectors)
    assert mapped.most_similar("w1") == keyed.most_similar("w1")
    with pytest.raises(ValueError, match="read-only"):
        mapped.vectors[0, 0] = 1


def test_numpy_alone_reads_a_npy(tmp_path, keyed):
    path = tmp_path / "v.npy"
    keyed.save(path)
    np.testing.assert_array_equal(np.load(path), keyed.vectors)
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), keyed.vectors)
    with open(path, "rb") as file:
        _, words, ends = (np.load(file) for _ in range(3))
    assert words.tobytes()[: ends[10]].decode() == "".join(keyed.words[:11])


@pytest.mark.parametrize("mmap", [False, True])
def test_malformed_npy_files(tmp_path, keyed, mmap):
    path = tmp_path / "v.npy"
    keyed.save(path)
    whole = path.read_bytes()
    for size in (0, 5, 100, 1000, 128 + 500 * 80, 128 + 500 * 80 + 60, len(whole) - 5):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"v\.npy is not an npy file of word vectors, or is damaged"):
            KeyedVectors.load(path, mmap=mmap)
    np.save(path, keyed.vectors)
    with pytest.raises(ValueError, match="an array and no words"):
        KeyedVectors.load(path, mmap=mmap)
    for vectors, data, ends in (
        (np.zeros(3), np.zeros(2, np.uint8), np.array([1, 2])),
        (np.zeros((2, 3)), np.zeros(2, np.uint8), np.array([1])),
        (np.zeros((2, 3)), np.zeros(2, np.uint8), np.array([1, 3])),
        (np.zeros((2, 3)), np.zeros(2, np.uint8), np.array([2, 1])),
        (np.zeros((2, 3)), np.zeros(2, np.uint8), np.array([-1, 2])),
        (np.zeros((2, 3)), np.zeros(2), np.array([1, 2])),
        (np.array([["a", "b"]]), np.zeros(1, np.uint8), np.array([1])),
    ):
        with open(path, "wb") as file:
            for array in (vectors, data, ends):
                np.save(file, array)
        with pytest.raises(ValueError, match=r"v\.npy is malformed"):
            KeyedVectors.load(path, mmap=mmap)


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.bin", "v.npz"])
def test_only_npy_is_mapped(tmp_path, keyed, name):
    keyed.save(tmp_path / name)
    with pytest.raises(ValueError, match=r"cannot be mapped into memory as .* save it as \.npy first"):
        KeyedVectors.load(tmp_path / name, mmap=True)
    with pytest.raises(TypeError, match="mmap must be True or False"):
        KeyedVectors.load(tmp_path / name, mmap="r")


# Bad files


def test_words_that_stand_there_twice_or_are_not_utf8(tmp_path):
    path = tmp_path / "v.txt"
    path.write_bytes(b"a 1 2\nb 3 4\na 5 6\nf\xfc 7 8\n")
    with pytest.warns(UserWarning, match="1 words stand there twice .*, 1 are not UTF-8") as caught:
        loaded = KeyedVectors.load(path)
    assert len(caught) == 1
    assert loaded.words == ("a", "b", "f\ufffd")
    np.testing.assert_array_equal(loaded.vectors, [[1, 2], [3, 4], [7, 8]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.txt", b"", "is empty"),
        ("v.txt", b"a 1 2\nb 3\n", "line 2"),
        ("v.txt", b"a 1 2\nb 3 x\n", "line 2"),
        ("v.txt", b"a 1 2\nb 3 4\nc 5 6 7\n", "line 3"),
        ("v.txt", b"a 1 2\n\nb 3 4\n", "line 2"),
        ("v.txt", b"a\nb\n", "line 1"),
        ("v.txt", b"a\t1\t2\nb\t3\t4\n", "line 1"),
        ("v.txt", b" 1 2\na 1 2\nb 1 2\n", "line 1"),
        ("v.txt", b"5 2\na 1 2\nb 3 4\n", "is truncated: its header says 5 words, it holds 2"),
        ("v.txt", b"2 3\na 1 2\nb 3 4\n", "the header says 3 numbers a word, the lines hold 2"),
        ("v.vec", b"a 1 2\nb 3 4\n", r'header "V D"'),
        ("v.txt", b"99999999999 2\na 1 2\nb 3 4\n", "is truncated: its header says 99999999999 words, it holds 2"),
        ("v.txt", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00 \x02\x58", "line 1"),
        ("v.txt", b"a 1 2\n" * 99 + b"\x00\x01 \x02\n", "line 100: .*it is not text"),
        ("v.txt", b"a 1 2\n" * 70 + b"b 1", "line 71: a word and 2 numbers are wanted, got b'b 1'"),
        ("v.bin", b"", "is empty"),
        ("v.bin", b"2 1\na 1234 5678", "word 2: it is empty"),
        ("v.bin", b"2 99999999999999999999\na 1234", "is this a word2vec binary file"),
        ("v.bin", b"a 1 2\n", "is this a word2vec binary file"),
        ("v.bin", b"3 2\na 12345678", "is truncated: its header says 3 words, it holds 1"),
        ("v.bin", b"99999999999 300\na 12345678", "is truncated"),
        ("v.bin", b"0 3\n", "holds no words"),
        ("v.vec", b"0 3\n", "v.vec"),
        ("v.npz", b"PK\3\4rest", "is not an npz file"),
        ("v.npz", b"text", "is not an npz file"),
        ("v.npz", b"", "is not an npz file"),
        ("v.txt.gz", gzip.compress(b"a 1 2\n" * 99, mtime=0)[:-9], "truncated or corrupt"),
    ],
)
def test_malformed_files_name_the_path_and_the_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        KeyedVectors.load(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("suffix", ["txt", "vec", "bin", "npz", "npy"])
def test_very_long_words_come_back(tmp_path, suffix):
    words = KeyedVectors(["x" * 3_000_000, "b"], np.eye(2))
    words.save(tmp_path / f"v.{suffix}")
    assert KeyedVectors.load(tmp_path / f"v.{suffix}").words == words.words


def test_an_npz_of_other_things(tmp_path):
    np.savez(tmp_path / "v.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="is not an npz file of word vectors"):
        KeyedVectors.load(tmp_path / "v.npz")


@pytest.mark.parametrize(("field", "value"), [(6, 200), (10, 99), (42, 255)])
def test_an_npz_whose_directory_is_damaged(tmp_path, keyed, field, value):
    path = tmp_path / "v.npz"
    keyed.save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + field] = value  # the version, the method, and where the first array stands
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"v\.npz is not an npz file of word vectors, or is damaged"):
        KeyedVectors.load(path)


def test_names_and_formats_are_checked(tmp_path, keyed):
    for path, format, message in (
        ("v.csv", None, r"suffix of .*v\.csv is none of \.txt"),
        ("v.txt", "text", "format must be one of 'glove'"),
        ("v.txt.gz", None, "would not be packed"),
    ):
        with pytest.raises(ValueError, match=message):
            keyed.save(tmp_path / path, format=format)
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        KeyedVectors.load(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        KeyedVectors.load(tmp_path / "none.txt")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("word", ["new york", "a\nb", ""])
def test_npz_and_npy_take_any_word(tmp_path, word):
    keyed = KeyedVectors([word, "x"], [[1], [2]])
    for name in ("v.npz", "v.npy"):
        keyed.save(tmp_path / name)
        assert KeyedVectors.load(tmp_path / name).words == (word, "x")
    for name in ("v.txt", "v.vec", "v.bin"):
        with pytest.raises(ValueError, match=r"cannot hold the word .*npz"):
            keyed.save(tmp_path / name)


@pytest.mark.parametrize("format", NAMES)
def test_half_a_character_cannot_be_written(tmp_path, format):
    with pytest.raises(ValueError, match=r"cannot hold the word 'a\\ud800': surrogates not allowed"):
        KeyedVectors(["b", "a\ud800"], np.eye(2)).save(tmp_path / NAMES[format])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", NAMES)
def test_a_full_disk_leaves_the_old_file(tmp_path, keyed, format):
    resource = pytest.importorskip("resource")
    path = tmp_path / NAMES[format]
    path.write_text("old 1 2\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written .*v\."):
            keyed.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old 1 2\n"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("format", NAMES)
def test_an_interrupted_save_leaves_the_old_file(tmp_path, keyed, monkeypatch, format):
    path = tmp_path / NAMES[format]
    path.write_text("old 1 2\n")

    def interrupted(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keyed.save(path)
    assert path.read_text() == "old 1 2\n"
    assert os.listdir(tmp_path) == [path.name]
