"""`CooccurrenceCounts`: exact integers that add up, and their division."""

from __future__ import annotations

import importlib
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from math import lcm

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastnlp
from fastnlp.ops._cooccurrence_weights import divide
from tests.cooccurrences import assert_same_bits, zipf_text

result = importlib.import_module("fastnlp.ops._cooccurrence_result")


@pytest.fixture
def text(rng):
    ids, boundaries = zipf_text(rng, 20_000, 500)
    return ids, boundaries, {"vocab_size": 500, "window": 7}


def shards(text, n, **options):
    """The counts of the text in `n` parts that end where documents do."""
    ids, boundaries, common = text
    cuts = [int(cut) for cut in np.linspace(0, boundaries.size - 1, n + 1)]
    for first, last in pairwise(cuts):
        ends = boundaries[first : last + 1]
        yield fastnlp.cooccurrence(
            ids[ends[0] : ends[-1]], boundaries=ends - ends[0], format="counts", **common, **options
        )


@pytest.mark.parametrize("weighting", ["harmonic", [1.0, 0.3, 0.2, 0.7, 0.1, 0, 0.9]])
def test_shards_add_up_to_the_whole(weighting, text, monkeypatch):
    ids, boundaries, common = text
    whole = fastnlp.cooccurrence(ids, boundaries=boundaries, weighting=weighting, **common)
    for scratch in (1 << 20, 2000):
        monkeypatch.setattr(result, "_SCRATCH", scratch)
        first, *others = shards(text, 5, weighting=weighting)
        total = first
        for other in others:
            total = total + other
        assert_same_bits(total.matrix(), whole)
        assert first.nnz < total.nnz == whole.nnz
    assert_same_bits(sum(others, first).matrix(), whole)


def test_formats_are_those_of_cooccurrence(text):
    ids, boundaries, common = text
    counts = fastnlp.cooccurrence(ids, boundaries=boundaries, format="counts", **common)
    for format in ("csr", "upper"):
        expected = fastnlp.cooccurrence(ids, boundaries=boundaries, format=format, **common)
        assert_same_bits(counts.matrix(format), expected)
    assert_array_equal(counts.matrix("coo").toarray(), counts.matrix().toarray())
    with pytest.raises(ValueError, match="format must be one of csr, coo, upper"):
        counts.matrix("csc")
    matrix = counts.matrix()
    matrix.data[:], matrix.indices[:] = -1, 0  # the counts do not notice
    assert counts.matrix().sum() > 0
    assert counts.matrix().has_sorted_indices
    one_side = fastnlp.cooccurrence(ids, symmetric=False, format="counts", **common)
    with pytest.raises(ValueError, match="'upper' needs symmetric counts"):
        one_side.matrix("upper")
    assert "500 x 500" in repr(counts)


def test_only_like_counts_are_added(text):
    ids, _, common = text

    def count(**options):
        return fastnlp.cooccurrence(ids, format="counts", **{**common, **options})

    counts = count()
    for options, name in [
        ({"window": 6}, "their window"),
        ({"weighting": "uniform"}, "their weighting"),
        ({"weighting": [60, 30, 20, 15, 12, 10, 60]}, "their weighting"),
        ({"symmetric": False}, "their left"),
        ({"rows": [1, 2]}, "their words"),
        ({"vocab_size": 501}, "their vocab_size"),
    ]:
        with pytest.raises(ValueError, match=f"counts of different options cannot be added: {name}"):
            counts + count(**options)
    with pytest.raises(TypeError):
        counts + counts.matrix()


def test_documents_of_any_length_add_up():
    # No document of the first part is as long as the window.
    first, second = (
        fastnlp.cooccurrence(ids, vocab_size=3, window=5, format="counts") for ids in ([0, 1], [0, 1, 2, 0, 1, 2])
    )
    both = fastnlp.cooccurrence([0, 1, 0, 1, 2, 0, 1, 2], vocab_size=3, window=5, boundaries=[0, 2, 8])
    assert_same_bits((first + second).matrix(), both)


def test_a_sum_that_overflows_is_refused():
    counts = fastnlp.cooccurrence([0, 1, 0], vocab_size=2, format="counts")
    counts.counts[-1] = 2**64 - 1
    with pytest.raises(OverflowError, match="reached 2\\^64"):
        counts + counts


def test_saved_counts_come_back(text, tmp_path):
    ids, _, common = text
    counts = fastnlp.cooccurrence(ids, rows=[3, 1], format="counts", **common)
    counts.save(tmp_path / "a.counts")
    loaded = fastnlp.CooccurrenceCounts.load(tmp_path / "a.counts")
    assert_same_bits(loaded.matrix(), counts.matrix())
    assert_same_bits((loaded + counts).matrix(), (counts + counts).matrix())


def test_any_damage_is_one_error(text, rng, tmp_path):
    path = tmp_path / "a.counts"
    ids, _, common = text
    counts = fastnlp.cooccurrence(ids[:50], format="counts", **{**common, "boundaries": None})
    counts.save(path)
    whole = path.read_bytes()
    for _ in range(300):
        broken = bytearray(whole)
        broken[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(broken)
        with suppress(ValueError):  # no other
            loaded = fastnlp.CooccurrenceCounts.load(path)
            assert_same_bits(loaded.matrix(), counts.matrix())


@pytest.mark.parametrize(
    "change",
    [
        {"words": np.full(50, 99)},
        {"weights": np.ones(3)},
        {"divisor": 0.0},
        {"indptr": np.arange(1, 52)},
        {"width": -1},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, tmp_path):
    counts = fastnlp.cooccurrence(np.arange(50), vocab_size=50, window=2, format="counts")
    counts.save(tmp_path / "a.counts")
    with np.load(tmp_path / "a.counts") as stored, (tmp_path / "b.counts").open("wb") as file:
        np.savez(file, **{**stored, **change})
    with pytest.raises(ValueError, match="do not fit together"):
        fastnlp.CooccurrenceCounts.load(tmp_path / "b.counts")


def test_files_that_hold_no_counts_are_refused(text, tmp_path):
    path = tmp_path / "a.counts"
    ids, _, common = text
    fastnlp.cooccurrence(ids, format="counts", **common).save(path)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"words and words", whole[:1000] + bytes(500) + whole[1500:]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"holds no co-occurrence counts|do not fit together"):
            fastnlp.CooccurrenceCounts.load(path)
    with path.open("wb") as file:
        np.savez(file, words=np.arange(3))
    with pytest.raises(ValueError, match="holds no co-occurrence counts"):
        fastnlp.CooccurrenceCounts.load(path)
    with pytest.raises(FileNotFoundError):
        fastnlp.CooccurrenceCounts.load(tmp_path / "none")


@pytest.mark.parametrize("divisor", [1, 6, 2520, 360_360, lcm(*range(1, 21)), 2**31, 2.0**-40, 2.0**300])
def test_quotients_are_rounded_once(divisor, rng):
    near = [2**53 + k for k in range(-40, 40)] + [2**64 - 1 - k for k in range(40)]
    # Counts whose quotient is half way between two floats, or next to it.
    halves = (
        [int(divisor) * (2**54 + 2 * k + 1) // 2 + j for k in range(50) for j in (-1, 0, 1)]
        if 1 <= divisor < 500
        else []
    )
    wide = (rng.integers(0, 2**63, 3000, np.uint64) >> rng.integers(0, 60, 3000).astype(np.uint64)).tolist()
    counts = np.array([c for c in near + halves + wide if c < 2**64], np.uint64)
    out = np.full(counts.size, np.nan)
    divide(counts, float(divisor), out)
    exact = Fraction(divisor)
    assert out.tolist() == [float(Fraction(int(count)) / exact) for count in counts]
    if divisor == 2520:  # the test can fail: to round twice is not good enough
        assert (counts / divisor != out).any()
