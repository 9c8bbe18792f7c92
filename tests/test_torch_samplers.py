"""`BucketBatchSampler`: the batches of `bucket_batches` for a DataLoader, on any number of ranks, resumable."""

from __future__ import annotations

import inspect
import json
import pickle
from itertools import islice

import numpy as np
import pytest

import fastnlp

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.data import DataLoader, Dataset  # noqa: E402

from fastnlp.torch import BucketBatchSampler  # noqa: E402

KINDS = [
    {"batch_size": 8},
    {"batch_size": 8, "balance": "squares", "seed": 5},
    {"max_tokens": 500, "balance": "tokens"},
    {"max_tokens": 500, "boundaries": 4, "shuffle": False},
    {"max_tokens": 500, "drop_last": True, "window": 100, "balance": "squares"},
]


@pytest.fixture
def lengths(rng):
    return rng.integers(1, 100, 1003)


class Items(Dataset):
    """Items that are their own indices."""

    def __len__(self):
        return 1003

    def __getitem__(self, i):
        return i


def items_of(batches):
    return [item for batch in batches for item in batch]


def samplers(lengths, world_size, state=None, **options):
    made = [BucketBatchSampler(lengths, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    for sampler in made:
        if state is not None:
            sampler.load_state_dict(json.loads(json.dumps(state)))
    return made


def go(ranks, steps=None):
    """Return the batches of some steps of each rank, and the state after them."""
    batches = [list(islice(iter(sampler), steps)) for sampler in ranks]
    states = [sampler.state_dict() for sampler in ranks]
    assert all(state == states[0] for state in states)
    assert len({len(one) for one in batches}) == 1
    return batches, states[0]


def test_its_options_are_those_of_bucket_batches():
    ours = inspect.signature(BucketBatchSampler).parameters
    theirs = dict(inspect.signature(fastnlp.bucket_batches).parameters)
    del theirs["epoch"]  # set_epoch
    assert list(ours) == list(theirs)
    for name in set(ours) - {"rank", "world_size"}:
        assert ours[name].default == theirs[name].default


@pytest.mark.parametrize("options", KINDS)
def test_batches_are_those_of_bucket_batches(lengths, options):
    sampler = BucketBatchSampler(lengths, **options)
    for epoch in (0, 1, 4):
        sampler.set_epoch(epoch)
        wanted = fastnlp.bucket_batches(lengths, **options, epoch=epoch)
        assert len(sampler) == len(wanted)
        assert list(sampler) == list(sampler) == [batch.tolist() for batch in wanted]
    assert all(type(item) is int for item in items_of(sampler))


def test_padding_decides_how_many_items_fit(lengths):
    options = {"max_tokens": 600, "pad_to_multiple": 64}
    wanted = fastnlp.bucket_batches(lengths, **options)
    assert list(BucketBatchSampler(lengths, **options)) == [batch.tolist() for batch in wanted]


def test_lengths_of_other_kinds(lengths):
    wanted = list(BucketBatchSampler(lengths, batch_size=8))
    for same in (lengths.tolist(), torch.from_numpy(lengths), lengths.astype(np.uint8)):
        assert list(BucketBatchSampler(same, batch_size=8)) == wanted


def test_numbers_of_numpy_make_the_same_state(lengths):
    def state(rank, world_size, epoch, seed, **options):
        sampler = BucketBatchSampler(lengths, rank=rank, world_size=world_size, seed=seed, **options)
        sampler.set_epoch(epoch)
        list(sampler)
        return json.dumps(sampler.state_dict())

    bounds = [9, 30]
    plain = state(0, 2, 3, 5, batch_size=8, drop_last=True, boundaries=bounds)
    numbers = map(np.int64, (0, 2, 3, 5))
    assert state(*numbers, batch_size=np.int16(8), drop_last=np.True_, boundaries=np.array(bounds)) == plain


def test_the_callers_arrays_may_change(lengths):
    bounds, given = [9, 30], lengths.astype(np.int32)
    sampler = BucketBatchSampler(given, batch_size=8, boundaries=bounds)
    bounds[0], given[:] = 2, 1
    wanted = BucketBatchSampler(lengths, batch_size=8, boundaries=[9, 30])
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        wanted.set_epoch(epoch)
        assert list(sampler) == list(wanted)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_are_disjoint_complete_and_equally_long(lengths, options, world_size):
    batches, _ = go(samplers(lengths, world_size, **options))
    items = items_of(items_of(batches))
    assert len(items) == len(set(items))
    if not options.get("drop_last"):
        assert len(items) == lengths.size
    assert all(len(sampler) == len(batches[0]) for sampler in samplers(lengths, world_size, **options))


@pytest.mark.parametrize("options", KINDS)
def test_a_resumed_run_is_the_uninterrupted_one(lengths, options):
    whole, end = go(samplers(lengths, 4, **options))
    state, parts = None, [[] for _ in range(4)]
    for steps in (5, 0, 3, 1, None):
        batches, state = go(samplers(lengths, 4, state, **options), steps)
        parts = [a + b for a, b in zip(parts, batches, strict=True)]
    assert parts == whole
    left, _ = go(samplers(lengths, 4, state, **options))
    assert left == [[]] * 4
    ended, _ = go(samplers(lengths, 4, end, **options))
    assert ended == [[]] * 4


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("worlds", [(4, 3, 1), (1, 4), (2, 2, 5), (3, 8, 2, 3)])
def test_resuming_on_other_numbers_of_ranks_loses_and_repeats_nothing(lengths, options, worlds):
    state, items = None, []
    for world_size in worlds:
        steps = None if world_size == worlds[-1] else 6
        batches, state = go(samplers(lengths, world_size, state, **options), steps)
        items += items_of(items_of(batches))
        if steps is None:
            break
    assert len(items) == len(set(items))
    if not options.get("drop_last"):
        assert len(items) == lengths.size
    assert state["done"][0][0] == worlds[0]


def test_after_a_resumed_epoch_come_whole_ones(lengths):
    first = BucketBatchSampler(lengths, batch_size=8)
    epochs = []
    for epoch in (3, 4):
        first.set_epoch(epoch)
        epochs.append(list(first))
    first.set_epoch(3)
    list(islice(iter(first), 10))
    resumed = BucketBatchSampler(lengths, batch_size=8)
    resumed.load_state_dict(first.state_dict())
    assert (resumed.epoch, len(resumed)) == (3, len(epochs[0]) - 10)
    resumed.set_epoch(3)  # as loops do at the beginning of an epoch
    assert list(resumed) == epochs[0][10:]
    assert list(resumed) == epochs[0]
    resumed.set_epoch(4)
    assert list(resumed) == epochs[1]


def test_an_epoch_begun_anew_begins_where_it_was_resumed(lengths):
    sampler = BucketBatchSampler(lengths, batch_size=8)
    whole = list(sampler)
    list(islice(iter(sampler), 10))
    assert list(islice(iter(sampler), 3)) == whole[:3]
    assert sampler.state_dict()["done"] == [[1, 3]]
    sampler.load_state_dict(sampler.state_dict())
    list(islice(iter(sampler), 2))
    assert list(islice(iter(sampler), 4)) == whole[3:7]
    assert sampler.state_dict()["done"] == [[1, 3], [1, 4]]


def test_batches_done_tells_what_a_loader_has_fetched_ahead(lengths):
    sampler = BucketBatchSampler(lengths, batch_size=8)
    whole = list(sampler)
    done = []
    for step, batch in enumerate(DataLoader(Items(), batch_sampler=sampler, num_workers=2)):
        done.append(batch.tolist())
        if step == 6:
            break
    assert sampler.state_dict()["done"][0][1] > 7
    state = sampler.state_dict(batches_done=step + 1)
    resumed = BucketBatchSampler(lengths, batch_size=8)
    resumed.load_state_dict(state)
    assert done + list(resumed) == whole
    with pytest.raises(ValueError, match="batches_done is 9, but the latest iteration gave out 0"):
        BucketBatchSampler(lengths, batch_size=8).state_dict(batches_done=9)


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "persistent_workers": True}])
def test_data_loader(lengths, workers):
    sampler = BucketBatchSampler(lengths, max_tokens=500)
    loader = DataLoader(Items(), batch_sampler=sampler, **workers)
    seen = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert len(loader) == len(sampler)
        seen.append([batch.tolist() for batch in loader])
        wanted = fastnlp.bucket_batches(lengths, max_tokens=500, epoch=epoch)
        assert seen[-1] == [batch.tolist() for batch in wanted]
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 9},
        {"shuffle": False},
        {"boundaries": [9]},
        {"balance": "tokens"},
        {"drop_last": True},
        {"window": 50},
        {"lengths": np.arange(1003)},
        {"lengths": np.arange(10)},
    ],
)
def test_a_state_of_other_data_or_options_is_refused(lengths, other):
    sampler = BucketBatchSampler(lengths, batch_size=8)
    list(islice(iter(sampler), 5))
    state = sampler.state_dict()
    different = BucketBatchSampler(**{"lengths": lengths, "batch_size": 8, **other})
    with pytest.raises(ValueError, match="the state is of other lengths or options"):
        different.load_state_dict(state)
    same = BucketBatchSampler(lengths, batch_size=8, seed=7, backend="reference")
    same.load_state_dict(state)  # the seed is the state's
    assert list(same) == list(BucketBatchSampler(lengths, batch_size=8))[5:]


@pytest.mark.parametrize(
    "damage",
    [
        {"done": None},
        {"done": [[1]]},
        {"done": [[1, 10**6]]},
        {"done": [[0, 3]]},
        {"done": [[1, 1.5]]},
        {"seed": "x"},
        {"seed": -1},
        {"seed": 7, "done": [[1, 10**6]]},
        {"epoch": None},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(lengths, damage):
    sampler = BucketBatchSampler(lengths, batch_size=8)
    assert sampler.state_dict()["done"] == []
    state = {**sampler.state_dict(), "epoch": 3, **damage}
    for wrong in (state, {}, {"fingerprint": 3}):
        with pytest.raises(ValueError, match=r"state|at least 1"):
            sampler.load_state_dict(wrong)
    assert sampler.epoch == 0
    assert list(sampler) == list(BucketBatchSampler(lengths, batch_size=8))


def test_it_can_be_pickled(lengths):
    sampler = BucketBatchSampler(lengths, batch_size=8)
    assert list(pickle.loads(pickle.dumps(sampler))) == list(sampler)


def test_empty_and_few():
    assert list(BucketBatchSampler([], batch_size=8)) == []
    assert list(BucketBatchSampler([3], batch_size=8)) == [[0]]
    with pytest.raises(ValueError, match="cannot be dealt"):
        BucketBatchSampler([3, 4], batch_size=8, rank=0, world_size=3)
    assert list(BucketBatchSampler([3, 4], batch_size=8, rank=0, world_size=3, drop_last=True)) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "batch_size is missing"),
        ({"batch_size": 2, "rank": 0}, ValueError, "pass both rank and world_size or neither, got 0 and None"),
        ({"batch_size": 2, "rank": 2, "world_size": 2}, ValueError, "rank must be below world_size"),
        ({"batch_size": 2, "balance": "items"}, ValueError, "balance must be one of"),
        ({"max_tokens": 2}, ValueError, "the item at index 0 has 3 tokens"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        BucketBatchSampler([3, 4], **options)
    with pytest.raises(ValueError, match="epoch must be at least 0"):
        BucketBatchSampler([3, 4], batch_size=2).set_epoch(-1)


def test_ranks_come_from_torch_distributed(lengths, tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        sampler = BucketBatchSampler(lengths, batch_size=8)
        assert (sampler.rank, sampler.world_size) == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


def test_accelerate_on_one_process(lengths):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    loader = DataLoader(Items(), batch_sampler=BucketBatchSampler(lengths, max_tokens=500))
    prepared = accelerate.Accelerator(cpu=True).prepare(loader)
    for epoch in (0, 1):
        prepared.set_epoch(epoch)
        wanted = [batch.tolist() for batch in fastnlp.bucket_batches(lengths, max_tokens=500, epoch=epoch)]
        assert [batch.tolist() for batch in prepared] == wanted
    rest = accelerate.skip_first_batches(loader, 5)
    assert [batch.tolist() for batch in rest] == wanted[5:]


def test_trainer_sets_the_epoch(lengths, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    sampler, seen = BucketBatchSampler(lengths, max_tokens=5000), []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, items):
            seen.append(items.tolist())
            return {"loss": (self.weight * items.float().mean()).sum() * 0}

    class BucketTrainer(transformers.Trainer):
        def get_train_dataloader(self):
            loader = DataLoader(
                self.train_dataset, batch_sampler=sampler, collate_fn=lambda batch: {"items": torch.tensor(batch)}
            )
            loader.set_epoch = sampler.set_epoch
            return loader

    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=2, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True
    )
    BucketTrainer(Model(), arguments, train_dataset=Items()).train()
    wanted = []
    for epoch in (0, 1):
        wanted += [batch.tolist() for batch in fastnlp.bucket_batches(lengths, max_tokens=5000, epoch=epoch)]
    assert seen == wanted
