"""Rows and batches as groups of items: slices, shards for ranks, files."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastnlp
from fastnlp.ops._ranks import Stretches, remaining


@pytest.fixture
def lengths(rng):
    return np.exp(rng.normal(np.log(200), 1, 5000)).clip(1, 2048).astype(np.int32)


@pytest.fixture(params=["batches", "static", "rows", "pieces"])
def groups(request, lengths):
    """Batches and rows, shuffled; batches with boundaries; rows with pieces of items."""
    if request.param == "batches":
        return fastnlp.bucket_batches(lengths, max_tokens=16384)
    if request.param == "static":
        return fastnlp.bucket_batches(lengths, batch_size=16, boundaries=4, drop_last=True)
    if request.param == "rows":
        return fastnlp.pack(lengths, 2048, seed=3)
    return fastnlp.pack(lengths, 512, overlong="split", item_multiple=8)


def arrays_of(groups):
    return {name: value for name, value in vars(groups).items() if isinstance(value, np.ndarray)}


def assert_same(a, b):
    assert type(a) is type(b)
    assert vars(a).keys() == vars(b).keys()
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            assert getattr(b, name).dtype == value.dtype, name
            assert np.array_equal(getattr(b, name), value), name
        else:
            assert getattr(b, name) == value, name


def pieces(groups):
    """Every placed piece as (item, start, length)."""
    starts = getattr(groups, "starts", None)
    starts = np.zeros_like(groups.items) if starts is None else starts
    return list(zip(groups.items.tolist(), starts.tolist(), groups.lengths.tolist(), strict=True))


def dealt(n, world_size, done=(), sizes=None, **options):
    """Return the groups, as (group, begin, end), that `remaining` deals from n groups of 4 items."""
    sizes = np.full(n, 4) if sizes is None else np.array(sizes)
    end = np.cumsum(sizes)
    options = {"drop_last": False, "cost": None, "shuffle": None, **options}
    rest = remaining(Stretches(np.arange(n), end - sizes, end), done, world_size, **options)
    return list(zip(rest.group.tolist(), rest.begin.tolist(), rest.end.tolist(), strict=True))


def cost_of(costs):
    return lambda some: np.array(costs)[some.group]


def test_ranks_take_turns():
    assert [group for group, _, _ in dealt(6, 3)] == list(range(6))
    assert dealt(0, 3) == []


def test_the_largest_groups_are_halved_until_the_number_divides():
    assert dealt(4, 3, sizes=[3, 8, 2, 5]) == [(0, 0, 3), (1, 3, 7), (1, 7, 11), (2, 11, 13), (3, 13, 16), (3, 16, 18)]
    assert dealt(1, 4, sizes=[9]) == [(0, 0, 3), (0, 3, 5), (0, 5, 7), (0, 7, 9)]
    assert dealt(2, 5, sizes=[1, 4]) == [(0, 0, 1), *((1, k, k + 1) for k in range(1, 5))]
    with pytest.raises(
        ValueError, match="5 items cannot be dealt to 6 places, one each: use fewer ranks, or drop_last"
    ):
        dealt(2, 6, sizes=[1, 4])


def test_drop_last_leaves_out_the_last_groups():
    assert [group for group, _, _ in dealt(8, 3, drop_last=True)] == list(range(6))
    assert dealt(2, 3, drop_last=True) == []


def test_balanced_steps_have_groups_of_like_cost():
    costs = [5, 80, 7, 78, 6, 79, 40]
    order = [group for group, _, _ in dealt(7, 3, drop_last=True, cost=cost_of(costs))]
    assert order == [1, 5, 3, 0, 4, 2]  # from much to little; every other step the other way round
    shuffled = dealt(6, 3, cost=cost_of(costs[:6]), shuffle=lambda n: np.arange(n)[::-1])
    assert [group for group, _, _ in shuffled] == [2, 4, 0, 3, 5, 1]
    assert [group for group, _, _ in dealt(6, 1, cost=cost_of(costs[:6]))] == list(range(6))


def test_groups_of_equal_cost_keep_their_order():
    order = np.array([group for group, _, _ in dealt(4000, 2, cost=cost_of(np.arange(4000) // 1000))]).reshape(-1, 2)
    order[1::2] = order[1::2, ::-1].copy()
    assert order.ravel().tolist() == [group for k in (3, 2, 1, 0) for group in range(1000 * k, 1000 * k + 1000)]


def test_what_is_done_is_not_dealt_again():
    assert [group for group, _, _ in dealt(12, 3, [(4, 1), (2, 1)])] == list(range(6, 12))
    assert [group for group, _, _ in dealt(12, 4, [(4, 1), (4, 1)])] == list(range(8, 12))
    assert [group for group, _, _ in dealt(10, 3, [(2, 2)])] == list(range(4, 10))
    whole = dealt(12, 3, cost=cost_of(range(12)), shuffle=lambda n: np.random.default_rng(n).permutation(n))
    rest = dealt(
        12, 3, [(3, 1), (3, 1)], cost=cost_of(range(12)), shuffle=lambda n: np.random.default_rng(n).permutation(n)
    )
    assert rest == whole[6:]
    with pytest.raises(ValueError, match="4 steps of 4 ranks are said to be done, but there are 3"):
        dealt(12, 4, [(4, 4)])
    with pytest.raises(ValueError, match="2 steps of 4 ranks are said to be done, but there are 1"):
        dealt(12, 4, [(4, 2), (4, 2)])


@pytest.mark.parametrize("balance", [None, "tokens", "squares"])
@pytest.mark.parametrize("world_size", [1, 3, 8, 40])
def test_shards_are_disjoint_complete_and_equally_many(groups, world_size, balance):
    for drop_last in (False, True):
        shards = [groups.shard(r, world_size, balance=balance, drop_last=drop_last) for r in range(world_size)]
        assert len({len(shard) for shard in shards}) == 1
        together = [piece for shard in shards for piece in pieces(shard)]
        if drop_last:
            assert set(together) <= set(pieces(groups))
            assert len(together) == len(set(together))
            assert {shard.n_dropped for shard in shards} == {groups.n_dropped + groups.items.size - len(together)}
            assert len(shards[0]) == len(groups) // world_size
        else:
            assert sorted(together) == sorted(pieces(groups))
            assert shards[0].n_dropped == groups.n_dropped
            assert len(shards[0]) == -(-len(groups) // world_size)
    assert_same(groups.shard(0, 1, balance=balance), groups)


def test_figures_of_a_shard_are_those_of_its_items(groups):
    for shard in (groups.shard(1, 40, balance="squares"), groups[3:9], groups[[5, 0, -1]]):
        by_row = [shard.lengths[a:b].astype(np.int64) for a, b in zip(shard._ptr, shard._ptr[1:], strict=False)]
        tokens = [int(row.sum()) for row in by_row]
        if isinstance(shard, fastnlp.Packing):
            assert shard.row_tokens.tolist() == tokens
            assert shard.row_squares.tolist() == [int((row**2).sum()) for row in by_row]
            assert max(tokens) <= shard.capacity
            assert 1 <= shard.lower_bound <= len(shard)
        else:
            assert shard.batch_tokens.tolist() == tokens
            assert all(row.max() <= n for row, n in zip(by_row, shard.padded_lengths, strict=True))
        assert 0 < shard.efficiency <= 1
        assert len(shard.report().splitlines()) >= 8


@pytest.mark.parametrize("kind", ["rows", "batches"])
def test_balanced_ranks_have_equal_work(rng, kind):
    lengths = np.exp(rng.normal(np.log(200), 1, 50_000)).clip(1, 2048).astype(np.int32)
    if kind == "rows":
        groups = fastnlp.pack(lengths, 2048, seed=0)
    else:
        groups = fastnlp.bucket_batches(lengths, max_tokens=16384)
    imbalance = {}
    for balance in (None, "tokens", "squares"):
        work = np.array([groups.shard(r, 8, balance=balance)._cost("squares") for r in range(8)])  # (ranks, steps)
        imbalance[balance] = float((work.max(axis=0) / work.mean(axis=0)).mean())
        totals = work.sum(axis=1)
        assert balance != "squares" or totals.max() / totals.mean() < 1.01
    assert imbalance["squares"] <= 1.05 < 1.3 < imbalance[None]
    steps = groups.shard(0, 8, balance="squares")._cost("squares")
    assert np.abs(np.corrcoef(steps, np.arange(steps.size))[0, 1]) < 0.2  # steps come in random order


def test_halves_count_as_what_they_are():
    lengths = [1] * 2 + [10] * 8 + [11] * 6
    batches = fastnlp.bucket_batches(lengths, batch_size=8, boundaries=[1, 10], shuffle=False)
    assert batches._cost("tokens").tolist() == [2, 80, 66]
    steps = [batches.shard(rank, 2, balance="tokens")._cost("tokens").tolist() for rank in (0, 1)]
    assert steps == [[66, 2], [40, 40]]


def test_balanced_steps_are_shuffled_by_seed_and_epoch(lengths):
    def steps(**options):
        batches = fastnlp.bucket_batches(lengths, batch_size=16, **options)
        return batches.shard(0, 4, balance="tokens").padded_lengths.tolist()

    assert steps() == steps()
    assert steps() != steps(epoch=1) != steps(seed=1)
    in_order = steps(shuffle=False)
    assert in_order == sorted(in_order, reverse=True)


def test_what_is_done_may_have_been_done_by_other_ranks(groups):
    done, seen = [], []
    for world_size, steps in ((4, 5), (3, 2), (3, 1), (2, None)):
        shards = [groups.shard(rank, world_size, balance="squares", done=done) for rank in range(world_size)]
        seen += [piece for shard in shards for piece in pieces(shard[:steps])]
        done.append((world_size, len(shards[0]) if steps is None else steps))
    assert sorted(seen) == sorted(pieces(groups))
    assert len(groups.shard(0, 2, balance="squares", done=done)) == 0
    assert groups.shard(0, 3, done=[(3, 1)], drop_last=True).n_dropped == groups.n_dropped
    none = groups.shard(0, len(groups) - 1, done=iter([]), drop_last=True)  # an iterator is read once
    assert none.n_dropped == groups.n_dropped + groups[-1].size
    with pytest.raises(ValueError, match="the state belongs to other data or options"):
        groups.shard(0, 2, balance="squares", done=[*done, (2, 1)])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rank": 2}, ValueError, "rank must be below world_size, got rank 2 of 2: ranks count from 0"),
        ({"rank": -1}, ValueError, "rank must be at least 0"),
        ({"rank": 0.5}, TypeError, "rank must be an integer"),
        ({"world_size": 0}, ValueError, "world_size must be at least 1"),
        ({"world_size": 10**5}, ValueError, "cannot be dealt"),
        ({"balance": "items"}, ValueError, "balance must be one of 'tokens', 'squares' or None, got 'items'"),
        ({"drop_last": 1}, TypeError, "drop_last must be True or False"),
        ({"done": [(0, 1)]}, ValueError, "world_size in done must be at least 1"),
        ({"done": (2, 1)}, TypeError, "done must hold pairs"),
        ({"done": [(2, 1, 1)]}, TypeError, "done must hold pairs"),
        ({"done": [(2, 1.5)]}, TypeError, "steps in done must be an integer"),
        ({"done": [(2, -1)]}, ValueError, "done must be at least 0"),
        ({"done": [(2, 10**6)]}, ValueError, "are said to be done"),
    ],
)
def test_bad_shards(groups, options, error, message):
    with pytest.raises(error, match=message):
        groups.shard(**{"rank": 0, "world_size": 2, **options})


@pytest.mark.parametrize(
    "k", [slice(None), slice(3, 9), slice(None, None, -2), slice(5, 5), [4, 4, -1], [], np.array([0, 2], np.uint8)]
)
def test_slices_are_groups_of_the_same_kind(groups, k):
    chosen = groups[k]
    assert type(chosen) is type(groups)
    wanted = [groups[int(i)].tolist() for i in np.arange(len(groups))[k if isinstance(k, slice) else np.array(k, int)]]
    assert [group.tolist() for group in chosen] == wanted
    assert chosen.lengths.size == chosen.items.size == chosen._ptr[-1]
    whole = dict(zip(pieces(groups), range(groups.items.size), strict=True))
    assert all(piece in whole for piece in pieces(chosen))
    assert not chosen.items.flags.writeable
    if isinstance(k, slice) and k == slice(None):
        assert_same(chosen, groups)


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (10**6, IndexError, "index 1000000 is out of range"),
        (-(10**6), IndexError, "index -1000000 is out of range"),
        ([0, 10**6], IndexError, "index 1000000 is out of range"),
        ([0, -(10**6)], IndexError, "index -1000000 is out of range"),
        (1.0, TypeError, "cannot be interpreted as an integer"),
        ([0.5], TypeError, "are chosen by integers, got an array of float64"),
        (np.array([True, False]), TypeError, "are chosen by integers, got an array of bool"),
        ([[1]], TypeError, "are chosen by integers"),
    ],
)
def test_bad_indices(groups, k, error, message):
    with pytest.raises(error, match=message):
        groups[k]


def test_a_single_group_is_a_view(groups):
    assert groups[2].base is not None
    assert np.shares_memory(groups[-1], groups.items)
    assert groups[-1].tolist() == list(groups)[-1].tolist()


def test_files_hold_all(groups, tmp_path):
    path = tmp_path / "groups.npz"
    groups.save(path)
    assert_same(type(groups).load(str(path)), groups)
    assert not type(groups).load(path).items.flags.writeable
    assert_same(type(groups).load(path).shard(1, 3), groups.shard(1, 3))
    groups[:0].save(path)
    assert_same(type(groups).load(path), groups[:0])
    assert [file.name for file in tmp_path.iterdir()] == ["groups.npz"]


def test_files_of_other_kinds_are_refused(groups, tmp_path):
    path = tmp_path / "groups.npz"
    groups.save(path)
    other = fastnlp.Packing if isinstance(groups, fastnlp.Batches) else fastnlp.Batches
    with pytest.raises(ValueError, match=f"holds no {other.__name__} but a {type(groups).__name__}"):
        other.load(path)
    np.savez(path, items=groups.items)
    with pytest.raises(ValueError, match=r"holds no .*, or is damaged"):
        type(groups).load(path)
    np.save(tmp_path / "array.npy", groups.items)
    with pytest.raises(ValueError, match=r"holds no .*, or is damaged"):
        type(groups).load(tmp_path / "array.npy")
    with pytest.raises(FileNotFoundError):
        type(groups).load(tmp_path / "nothing.npz")
    with pytest.raises(FileNotFoundError):
        groups.save(tmp_path / "nowhere" / "groups.npz")


@pytest.mark.parametrize(
    "facts", [[], {}, {"kind": 3}, {"kind": "Batches", "arrays": ["items"]}, {"epoch": "x", "odd": 1}]
)
def test_files_of_other_versions_are_refused(facts, tmp_path):
    batches, path = fastnlp.bucket_batches([3, 1, 2], batch_size=2), tmp_path / "batches.npz"
    if isinstance(facts, dict) and "odd" in facts:
        facts = {"kind": "Batches", "arrays": list(arrays_of(batches)), "n_dropped": 0, **facts}
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez(path, facts=text, **arrays_of(batches))
    with pytest.raises(ValueError, match=r"damaged|another version|holds no"):
        fastnlp.Batches.load(path)


def test_arrays_that_do_not_fit_together_are_refused(tmp_path):
    batches, path = fastnlp.bucket_batches([3, 1, 2], batch_size=2, shuffle=False), tmp_path / "batches.npz"
    for changes in (
        {"batch_ptr": np.array([0, 2, 2])},
        {"batch_ptr": np.array([1, 2, 3])},
        {"batch_ptr": np.array([0, 4, 3])},
        {"batch_ptr": np.array([], np.int64)},
        {"lengths": batches.lengths[:2]},
    ):
        batches._with(**changes).save(path)
        with pytest.raises(ValueError, match="do not fit together"):
            fastnlp.Batches.load(path)


def test_damage_anywhere_is_told_or_does_not_matter(tmp_path):
    batches = fastnlp.bucket_batches([5, 3, 8, 2, 9, 1], batch_size=2, boundaries=[4])
    path = tmp_path / "batches.npz"
    batches.save(path)
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 3):
        for damaged in (whole[:at], bytes([*whole[:at], whole[at] ^ 0x81, *whole[at + 1 :]])):
            path.write_bytes(damaged)
            try:
                loaded = fastnlp.Batches.load(path)
            except ValueError:
                refused += 1
            else:
                assert_same(loaded, batches)
    assert refused > len(whole) // 3
