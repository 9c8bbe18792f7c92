"""`assemble_pairs`: against a plain builder and the fast tokenizers of Hugging Face."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastnlp
from fastnlp._dispatch import implementation
from tests.numerics import frozen

CLS, SEP, PAD = 101, 102, 7
SPECIAL = {"cls": CLS, "sep": SEP, "pad": PAD}
TRUNCATIONS = ["longest_first", "only_first", "only_second"]


def row(n, first=0):
    return list(range(first, first + n))


def tokenizer():
    """Return a tokenizer of whole words ``t0 .. t99``, whose ids are 0 to 99, with BERT's post-processor."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    vocabulary = {f"t{i}": i for i in range(100)} | {"[UNK]": 100, "[CLS]": CLS, "[SEP]": SEP}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    return made


def words(ids):
    return [f"t{i}" for i in ids]


def encoded(theirs, a, b):
    """Return what a tokenizer makes of a pair; None where it cannot cut the sequence that it may cut by enough."""
    try:
        return theirs.encode(words(a), None if b is None else words(b), is_pretokenized=True)
    except Exception as error:
        if "too short to respect" in str(error) or "not provided" in str(error):
            return None
        raise


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "single"])
def test_rows_are_those_of_the_fast_tokenizers(pairs, truncation, side, backend):
    theirs, raised, cut = tokenizer(), 0, 0
    for max_length, n1, n2 in product(range(3 if pairs else 2, 13), range(9), range(9) if pairs else [None]):
        a, b = row(n1), None if n2 is None else row(n2, 50)
        theirs.enable_truncation(max_length, strategy=truncation, direction=side)
        options = {**SPECIAL, "max_length": max_length, "truncation": truncation, "truncation_side": side}
        given = ([a], None if b is None else [b])
        want = encoded(theirs, a, b)
        if want is None:
            raised += 1
            with pytest.raises(ValueError, match=rf"pair 0 of the batch has {n1} \+ {n2 or 0} tokens"):
                fastnlp.assemble_pairs(*given, **options, backend=backend)
            continue
        got = fastnlp.assemble_pairs(*given, **options, backend=backend)
        assert got.input_ids.tolist() == [want.ids], (a, b, max_length)
        assert got.token_type_ids.tolist() == [want.type_ids]
        assert got.attention_mask.tolist() == [want.attention_mask]
        kept = n1 + (n2 or 0) - int(got.n_dropped[0])
        assert kept == len(want.ids) - (3 if pairs else 2)
        cut += int(got.n_dropped[0]) > 0
    assert cut > 10 or (raised and not pairs)
    assert bool(raised) == (truncation == "only_second" or (truncation == "only_first" and pairs))


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_padding_is_that_of_the_fast_tokenizers(padding, multiple, backend, rng):
    theirs = tokenizer()
    theirs.enable_truncation(12)
    length = 12 if padding == "max_length" else None
    theirs.enable_padding(pad_id=PAD, pad_token="[PAD]", length=length, pad_to_multiple_of=multiple)
    for most in (3, 14):  # shorter than max_length, and longer
        a, b = ([row(n, f) for n in rng.integers(0, most, 20).tolist()] for f in (0, 50))
        want = theirs.encode_batch([(words(x), words(y)) for x, y in zip(a, b, strict=True)], is_pretokenized=True)
        options = {"max_length": 12, "padding": padding, "pad_to_multiple": multiple}
        got = fastnlp.assemble_pairs(a, b, **SPECIAL, **options, backend=backend)
        assert got.input_ids.tolist() == [one.ids for one in want]
        assert got.token_type_ids.tolist() == [one.type_ids for one in want]
        assert got.attention_mask.tolist() == [one.attention_mask for one in want]


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
@pytest.mark.parametrize("pairs", [True, False], ids=["pairs", "single"])
def test_without_max_length_nothing_is_cut(pairs, dtype, backend, rng):
    a, b = ([rng.integers(0, 99, n).tolist() for n in rng.integers(0, 9, 30)] for _ in range(2))
    got = fastnlp.assemble_pairs(a, b if pairs else None, **SPECIAL, dtype=dtype, backend=backend)
    rows = [[CLS, *x, SEP, *((*y, SEP) if pairs else ())] for x, y in zip(a, b, strict=True)]
    types = [[0] * (len(x) + 2) + [1] * ((len(y) + 1) if pairs else 0) for x, y in zip(a, b, strict=True)]
    width = max(map(len, rows))
    assert got.input_ids.dtype == got.token_type_ids.dtype == got.attention_mask.dtype == dtype
    assert got.input_ids.tolist() == [x + [PAD] * (width - len(x)) for x in rows]
    assert got.token_type_ids.tolist() == [x + [0] * (width - len(x)) for x in types]
    assert got.attention_mask.tolist() == [[1] * len(x) + [0] * (width - len(x)) for x in rows]
    assert not got.n_dropped.any()
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        na = int(got.lengths_a[i])
        assert got.input_ids[i, 1 : 1 + na].tolist() == x
        if pairs:
            assert got.input_ids[i, na + 2 : na + 2 + got.lengths_b[i]].tolist() == y
    assert pairs or got.lengths_b is None


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_what_is_dropped_is_counted(truncation, backend, rng):
    n1, n2 = rng.integers(12, 40, (2, 200))
    a, b = [row(n) for n in n1], [row(n) for n in n2]
    got = fastnlp.assemble_pairs(a, b, **SPECIAL, max_length=56, truncation=truncation, backend=backend)
    assert_array_equal(got.lengths_a + got.lengths_b + got.n_dropped, n1 + n2)
    assert_array_equal(got.attention_mask.sum(axis=1), got.lengths_a + got.lengths_b + 3)
    assert got.n_dropped.any()
    assert_array_equal(got.n_dropped, np.maximum(n1 + n2 + 3 - 56, 0))  # no token is cut that had room


def test_inputs_and_items(backend, rng):
    lengths = rng.integers(0, 9, 30)
    offsets = np.append(0, np.cumsum(lengths))
    tokens = rng.integers(0, 99, offsets[-1])
    a = [tokens[begin:end].tolist() for begin, end in pairwise(offsets)]
    b = a[::-1]
    options = {**SPECIAL, "max_length": 12, "backend": backend}
    want = fastnlp.assemble_pairs(a, b, **options)
    items = np.array([4, 4, 29, 0])
    for first in (
        a,
        [np.array(x, np.int64) for x in a],
        (frozen(tokens), offsets),
        (tokens.astype(np.uint16), offsets),
    ):
        for dtype in (np.int64, np.int32):
            got = fastnlp.assemble_pairs(first, b, **options, dtype=dtype)
            for x, y in zip(got, want, strict=True):
                assert_array_equal(x, y)
            some = fastnlp.assemble_pairs(first, b, items=items, **options, dtype=dtype)
            assert_array_equal(some.n_dropped, want.n_dropped[items])
            assert_array_equal(some.input_ids, want.input_ids[items, : some.input_ids.shape[1]])


def test_arrow_columns(backend):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    a, b = [row(3), [], row(5, 9), row(2)], [row(1), row(7), [], row(4)]
    options = {**SPECIAL, "max_length": 8, "backend": backend}
    want = fastnlp.assemble_pairs(a[1:], b[1:], **options)
    chunked = pa.chunked_array([pa.array(a[:2]), pa.array(a[2:])])
    got = fastnlp.assemble_pairs(chunked[1:], pa.array(b)[1:], **options)
    for x, y in zip(got, want, strict=True):
        assert_array_equal(x, y)


def test_empty(backend):
    none = fastnlp.assemble_pairs([], [], **SPECIAL, backend=backend)
    assert none.input_ids.shape == (0, 0)
    none = fastnlp.assemble_pairs([], **SPECIAL, max_length=5, padding="max_length", backend=backend)
    assert none.input_ids.shape == (0, 5)
    both = fastnlp.assemble_pairs([[], [1]], [[], []], **SPECIAL, max_length=3, backend=backend)
    assert both.input_ids.tolist() == [[CLS, SEP, SEP]] * 2
    assert both.token_type_ids.tolist() == [[0, 0, 1]] * 2
    assert both.n_dropped.tolist() == [0, 1]


def test_out_is_filled_and_nothing_beyond(backend):
    a, b = [row(3), row(1)], [row(2), row(4)]
    want = fastnlp.assemble_pairs(a, b, **SPECIAL, backend=backend)
    room = [np.full(30, -1) for _ in range(3)]
    got = fastnlp.assemble_pairs(a, b, **SPECIAL, out=tuple(room), backend=backend)
    for x, y, buffer in zip(got, want, room, strict=False):
        assert np.shares_memory(x, buffer)
        assert_array_equal(x, y)
        assert (buffer[x.size :] == -1).all()
    again = fastnlp.assemble_pairs(a, b, **SPECIAL, out=got, backend=backend)
    assert np.shares_memory(again.input_ids, room[0])
    with pytest.raises(ValueError, match="input_ids has room for 3 entries, 16 are wanted"):
        fastnlp.assemble_pairs(a, b, **SPECIAL, out=tuple(x[:3] for x in room), backend=backend)
    for k, x in enumerate((a, b)):
        tokens = np.array([t for row in x for t in row] + [0] * room[0].size)
        given = [a, b]
        given[k] = (tokens, np.append(0, np.cumsum([*map(len, x)])))
        with pytest.raises(ValueError, match=r"out\.token_type_ids shares memory with what is read"):
            fastnlp.assemble_pairs(*given, **SPECIAL, out=(room[0], tokens, room[2]), backend=backend)


def test_kernels_write_all_but_the_tokens(backend):
    ids, types, mask = (np.full((3, 6), -1) for _ in range(3))
    middle, end = np.array([1, 2, 3]), np.array([3, 6, 4])
    implementation("assemble_pairs", backend).frame_pairs(middle, end, CLS, SEP, PAD, ids, types, mask)
    assert ids.tolist() == [[CLS, SEP, SEP, PAD, PAD, PAD], [CLS, -1, SEP, -1, -1, SEP], [CLS, -1, -1, SEP, PAD, PAD]]
    assert types.tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0] * 6]
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6, [1, 1, 1, 1, 0, 0]]


def test_same_bits_for_any_number_of_threads(rng):
    pytest.importorskip("numba", reason="numba is not installed")
    a, b = ((rng.integers(0, 999, 60 * 3000), np.arange(3001) * 60) for _ in range(2))
    before, results = fastnlp.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            fastnlp.set_num_threads(threads)
            results.append(fastnlp.assemble_pairs(a, b, **SPECIAL, max_length=100, backend="cpu"))
    finally:
        fastnlp.set_num_threads(before)
    want = fastnlp.assemble_pairs(a, b, **SPECIAL, max_length=100, backend="reference")
    for got in results:
        for x, y in zip(got, want, strict=True):
            assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"max_length": 2},
            ValueError,
            r"max_length must be at least 3, the special ids of \[CLS\] A \[SEP\] B \[SEP\]",
        ),
        (
            {"b": None, "max_length": 1},
            ValueError,
            r"max_length must be at least 2, the special ids of \[CLS\] A \[SEP\], ",
        ),
        ({"max_length": 5.0}, TypeError, "max_length must be an integer"),
        ({"max_length": 6, "truncation": "error"}, ValueError, r"pair 1 of the batch has 2 \+ 3 tokens: max_length=6"),
        ({"max_length": 3, "truncation": "error"}, ValueError, "leaves room for 0 beside 3 special ids"),
        ({"max_length": 6, "truncation": "only_first"}, ValueError, "pair 1 .*'only_first' cannot cut enough of one"),
        ({"max_length": 6, "truncation": "only_first"}, ValueError, "raise max_length, or pass truncation='longest_f"),
        ({"b": None, "max_length": 3, "truncation": "only_second"}, ValueError, r"pair 1 of the batch has 2 \+ 0"),
        ({"truncation": "longest"}, ValueError, "truncation must be one of"),
        ({"truncation_side": "both"}, ValueError, "truncation_side must be one of 'right', 'left', got 'both'"),
        ({"padding": "batch"}, ValueError, "padding must be one of"),
        ({"padding": "max_length"}, ValueError, "padding='max_length' needs a max_length"),
        ({"pad_to_multiple": 0}, ValueError, "pad_to_multiple must be at least 1"),
        ({"b": [[1]]}, ValueError, "a has 2 sequences and b 1"),
        ({"cls": "[CLS]"}, TypeError, "cls must be an integer"),
        ({"sep": 2**31, "dtype": np.int32}, ValueError, "sep must be at most"),
        ({"a": [[1], [2**40]], "dtype": np.int32}, ValueError, "a holds tokens .* beyond int32"),
        ({"b": [[1], [0.5]]}, TypeError, r"b\[1\]"),
        ({"dtype": np.float32}, TypeError, "dtype must be int64 or int32"),
        ({"items": [0, 2]}, ValueError, "items holds 2"),
    ],
)
def test_bad_input(given, error, message, backend):
    given = {"a": [[1], [2, 3]], "b": [[4], [5, 6, 7]], **SPECIAL, **given}
    with pytest.raises(error, match=message):
        fastnlp.assemble_pairs(**given, backend=backend)
