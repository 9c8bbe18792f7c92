"""Datasets of packed rows: in loaders with workers, in models and Trainers, on several ranks."""

from __future__ import annotations

import functools
import itertools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.data import DataLoader  # noqa: E402

import fastnlp  # noqa: E402
from fastnlp.torch import FlatteningCollator, PackedDataset, PackedIterableDataset  # noqa: E402

ALL = ("input_ids", "position_ids", "labels", "sequence_ids", "cu_seqlens", "max_seqlen")


@pytest.fixture
def sequences(rng):
    return [rng.integers(1, 100, n).tolist() for n in rng.integers(0, 30, 150)]


def tokens(rows):
    """Return the real tokens of rows, sorted: what no dealing may change."""
    return sorted(t for row in rows for t in row["input_ids"][row["labels"] != -1].tolist() if t)


def equal(rows, others):
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert list(row) == list(other)
        for name, value in row.items():
            assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


@pytest.mark.parametrize("layout", ["rows", "flat"])
@pytest.mark.parametrize("multiple", [1, 4])
def test_rows_are_those_of_pack_arrays(sequences, layout, multiple):
    packing = fastnlp.pack(fastnlp.sequence_lengths(sequences), 26, item_multiple=multiple, overlong="split")
    dataset = PackedDataset(sequences, packing, layout=layout, fields=ALL, pad=7, position_start=2, ignore_index=-1)
    assert len(dataset) == len(packing)
    rows = [dataset[i] for i in range(len(packing))]
    equal(dataset.__getitems__(list(range(len(packing)))), rows)
    equal([dataset[-1]], rows[-1:])
    for i, row in enumerate(rows):
        options = {"layout": layout, "pad": 7, "position_start": 2, "ignore_index": -1}
        packed = fastnlp.pack_arrays(sequences, packing[[i]], **options)
        for name in ALL[:4]:
            assert row[name].dtype == torch.int64
            assert row[name].tolist() == getattr(packed, name).reshape(-1).tolist(), name
        assert row["cu_seqlens"].tolist() == np.unique(packed.cu_seqlens).tolist()
        assert row["cu_seqlens"].dtype == torch.int32
        assert row["max_seqlen"] == packed.max_seqlen
    with pytest.raises(IndexError, match="out of range"):
        dataset[len(packing)]


def test_a_capacity_in_the_place_of_a_packing_and_labels(sequences):
    packing = fastnlp.pack(fastnlp.sequence_lengths(sequences), 32)
    labels = [[-t for t in x] for x in sequences]
    dataset = PackedDataset(sequences, 32, labels=labels)
    equal([dataset[3]], [PackedDataset(sequences, packing, labels=labels)[3]])
    row = dataset[3]
    predicted = row["labels"] != -100
    assert predicted.any()
    assert (row["labels"] == -row["input_ids"])[predicted].all()


def test_rows_are_stacked_to_batches_by_one_call(sequences, monkeypatch):
    from fastnlp.torch import _rows

    calls = []
    real = _rows.pack_arrays
    monkeypatch.setattr(_rows, "pack_arrays", lambda *args, **options: calls.append(1) or real(*args, **options))
    dataset = PackedDataset(sequences, 64)
    batches = list(DataLoader(dataset, batch_size=8))
    assert len(calls) == len(batches) == -(-len(dataset) // 8)
    assert batches[0]["input_ids"].shape == (8, 64)
    assert tokens(batches) == sorted(t for x in sequences for t in x)


def test_columns_of_datasets(sequences):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    data = datasets.Dataset.from_dict({"input_ids": sequences})
    expected = PackedDataset(sequences, 64)
    dataset = PackedDataset(data["input_ids"], 64)
    equal([dataset[i] for i in range(len(dataset))], [expected[i] for i in range(len(expected))])
    equal([pickle.loads(pickle.dumps(dataset))[2]], [expected[2]])
    with pytest.raises(TypeError, match="pass one of its columns"):
        PackedDataset(data, 64)


def saved(folder, sequences):
    flat = np.concatenate([np.array(x, np.int32) for x in sequences])
    np.save(folder / "tokens.npy", flat)
    np.save(folder / "offsets.npy", np.cumsum([0, *map(len, sequences)]))
    return functools.partial(opened, folder)


def opened(folder):
    return np.load(folder / "tokens.npy", mmap_mode="r"), np.load(folder / "offsets.npy")


def test_data_that_is_opened_where_it_is_used(sequences, tmp_path):
    expected = PackedDataset(sequences, 64)
    dataset = PackedDataset(saved(tmp_path, sequences * 20), expected.packing)
    equal([dataset[1]], [expected[1]])
    sent = pickle.dumps(dataset)
    assert len(sent) < 20 * len(dataset.packing.items) + 4096  # the packing, no tokens
    equal([pickle.loads(sent)[1]], [expected[1]])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"layout": "square"}, ValueError, "layout must be of 'flat', 'rows', got"),
        ({"fields": ("input_ids", "mask")}, ValueError, r"fields must be of .*, got \['mask'\]"),
        ({"fields": "input_ids"}, ValueError, "fields must be of"),
        ({"packing": "8"}, TypeError, "capacity must be an integer"),
        ({"packing": 2}, ValueError, "exceed"),
        ({"sequences": torch.zeros(2, 3, device="meta")}, TypeError, "sequences is on meta"),
    ],
)
def test_bad_arguments_of_packed_datasets(options, error, match):
    with pytest.raises(error, match=match):
        PackedDataset(**{"sequences": [[1, 2, 3]], "packing": 8, **options})


def test_rows_are_chosen_by_integers():
    dataset = PackedDataset([[1, 2], [3, 4, 5]], 4)
    assert torch.equal(dataset[torch.tensor(-1)]["input_ids"], dataset[1]["input_ids"])
    for row in (0.5, "0", slice(1)):
        with pytest.raises(TypeError, match="integer"):
            dataset[row]
    with pytest.raises(IndexError, match="index 2 is out of range for 2 rows"):
        dataset[2]


def test_sequences_that_are_not_those_of_the_packing():
    dataset = PackedDataset([[1, 2], [3, 4, 5]], fastnlp.pack([2, 2], 4))
    with pytest.raises(ValueError, match="lengths that were packed"):
        dataset[0]


# ---------------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("overlong", ["split", "truncate", "drop"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_a_stream(sequences, overlong, world_size):
    options = {"buffer": 20, "overlong": overlong, "layout": "flat", "ignore_index": -1}
    capacity = 24
    ranks = [
        list(PackedIterableDataset(sequences, capacity, **options, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert len({len(rows) for rows in ranks}) == 1
    wanted = {"split": sequences, "truncate": [x[:capacity] for x in sequences]}
    wanted = wanted.get(overlong, [x for x in sequences if len(x) <= capacity])
    got = sorted(t for rows in ranks for row in rows for t in row["input_ids"].tolist())
    assert got == sorted(t for x in wanted for t in x)
    assert max(row["input_ids"].numel() for rows in ranks for row in rows) <= capacity
    # in steps, the rows are those of one process, whatever the number of ranks, but for those halved at the end
    alone = list(PackedIterableDataset(sequences, capacity, **options))
    steps = [row for step in zip(*ranks, strict=True) for row in step]
    same = next(i for i, (a, b) in enumerate(zip([*steps, {}], [*alone, None], strict=False)) if _differ(a, b))
    assert same >= len(alone) - 20 - world_size
    dropped = [
        list(PackedIterableDataset(sequences, capacity, **options, rank=rank, world_size=world_size, drop_last=True))
        for rank in range(world_size)
    ]
    equal([row for step in zip(*dropped, strict=True) for row in step], alone[: len(alone) // world_size * world_size])


@pytest.mark.parametrize("overlong", ["split", "drop"])
def test_a_stream_holds_no_more_than_its_buffer(sequences, overlong):
    dataset = PackedIterableDataset(sequences, 16, 20, overlong=overlong)
    for _ in dataset:
        assert len(dataset.state_dict()["stream"]["held"]) <= 20
    assert dataset.state_dict()["stream"]["held"] == []


def _differ(a, b):
    return not a or not b or not torch.equal(a["input_ids"], b["input_ids"])


def test_rows_of_most_sequences_are_halved_first():
    sequences = [[n] * size for n, size in enumerate((8, 2, 2, 1, 1), start=1)]
    rows = [list(PackedIterableDataset(sequences, 8, layout="flat", rank=rank, world_size=3)) for rank in range(3)]
    assert [len(of) for of in rows] == [1, 1, 1]
    assert [of[0]["input_ids"].tolist() for of in rows] == [[1] * 8, [2, 2, 3, 3], [4, 5]]


def test_the_last_sequences_are_cut_where_there_are_fewer_than_ranks():
    ranks = [
        list(PackedIterableDataset([[1, 2, 3, 4, 5], [6]], 6, layout="flat", rank=rank, world_size=3))
        for rank in range(3)
    ]
    assert [[row["input_ids"].tolist() for row in rows] for rows in ranks] == [[[1, 2, 3]], [[4, 5]], [[6]]]
    with pytest.raises(ValueError, match="too few tokens for 3 ranks"):
        list(PackedIterableDataset([[1], [6]], 6, rank=0, world_size=3))
    assert list(PackedIterableDataset([[1], [6]], 6, rank=0, world_size=3, drop_last=True)) == []
    assert list(PackedIterableDataset([], 6, rank=0, world_size=3)) == []


def test_streams_of_examples_with_labels(sequences):
    labels = [[-t for t in x] for x in sequences]
    stream = [{"input_ids": x, "labels": y, "id": 1} for x, y in zip(sequences, labels, strict=True)]
    for row in PackedIterableDataset(lambda: iter(stream), 32, item_multiple=4, fields=ALL):
        predicted = row["labels"] != -100
        assert (row["labels"] == -row["input_ids"])[predicted].all()
        assert row["input_ids"].shape == (32,)
        assert (row["cu_seqlens"][:-1] % 4 == 0).any()
    with pytest.raises(ValueError, match="2 tokens and 1 labels"):
        list(PackedIterableDataset([{"input_ids": [1, 2], "labels": [1]}], 8))
    with pytest.raises(ValueError, match="no 'input_ids', but 'text'"):
        list(PackedIterableDataset([{"text": "a"}], 8))
    with pytest.raises(TypeError, match="input_ids must be integers of one axis"):
        list(PackedIterableDataset([[1.5]], 8))


@pytest.mark.parametrize(
    ("overlong", "before", "after"), [("error", 2, 2), ("split", 2, 2), ("error", 2, 3), ("error", 3, 1)]
)
def test_a_stream_is_resumed_also_on_other_ranks(sequences, overlong, before, after):
    options = {"capacity": 32 if overlong == "error" else 13, "buffer": 20, "overlong": overlong, "layout": "flat"}
    total = sorted(t for x in sequences for t in x)
    for cut in (0, 1, 9, 20, 30):
        seen, states, whole = [], [], []
        for rank in range(before):
            dataset = PackedIterableDataset(sequences, **options, rank=rank, world_size=before)
            whole.append(list(dataset))
            rows = iter(dataset)
            seen += [next(rows) for _ in range(min(cut, len(whole[-1])))]
            states.append(json.loads(json.dumps(dataset.state_dict())))
        assert all(state == states[0] for state in states)
        rest = []
        for rank in range(after):
            dataset = PackedIterableDataset(sequences, **options, rank=rank, world_size=after)
            dataset.load_state_dict(states[0] if cut else dataset.state_dict())
            rest.append(list(dataset))
            if after == before:
                equal(rest[-1], whole[rank][cut:])
            again = PackedIterableDataset(sequences, **options, rank=rank, world_size=after)
            equal(list(dataset), list(again))  # the next epoch is a whole one
        assert len(set(map(len, rest))) == 1
        assert tokens([*seen, *(row for rows in rest for row in rows)]) == total


class Source:
    """Sequences that can be gone on with, as those of torchdata: what was loaded holds for the next pass."""

    def __init__(self, sequences):
        self.sequences, self.first, self.place = sequences, 0, 0

    def __iter__(self):
        self.place, self.first = self.first, 0
        while self.place < len(self.sequences):
            self.place += 1
            yield self.sequences[self.place - 1]

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.first = state["place"]


@pytest.mark.parametrize("kind", [list, Source])
def test_states_of_resumed_streams(sequences, kind):
    options = {"capacity": 8, "buffer": 20, "overlong": "split"}  # a sequence makes several rows at once

    def stream(state=None):
        dataset = PackedIterableDataset(kind(sequences), **options)
        if state is not None:
            dataset.load_state_dict(json.loads(json.dumps(state)))
        return dataset

    whole = list(stream())
    for cut in (0, 1, 2, 50, 51, 52, len(whole)):
        dataset = stream()
        rows = iter(dataset)
        seen = [next(rows) for _ in range(cut)]
        for more in (0, 1, 1, 2):  # saved again at once, and after few rows
            dataset = stream(dataset.state_dict())
            rows = iter(dataset)
            seen += itertools.islice(rows, more)
        dataset = stream(dataset.state_dict())
        equal(seen + list(dataset), whole)
        equal(list(dataset), whole)
        dataset.set_epoch(1)
        dataset = stream(dataset.state_dict())  # of an epoch that has not begun
        assert dataset.epoch == 1
        equal(list(dataset), whole)


def test_setting_the_epoch_ends_no_pass(sequences):
    dataset = PackedIterableDataset(sequences, 32, 20)
    rows = iter(dataset)
    first = next(rows)
    dataset.set_epoch(1)
    equal([first, *rows], list(dataset))


def test_a_source_may_fill_one_buffer_again_and_again():
    def source():
        tokens = np.empty(3, np.int64)
        for n in range(7):
            tokens[:] = n
            yield {"input_ids": tokens, "labels": tokens}

    rows = list(PackedIterableDataset(source, 8, fields=("input_ids", "sequence_ids")))
    found = sorted(t for row in rows for t in row["input_ids"][row["sequence_ids"] > 0].tolist())
    assert found == [n for n in range(7) for _ in range(3)]


def test_states_of_other_streams_are_refused(sequences):
    dataset = PackedIterableDataset(sequences, 32, 20)
    rows = iter(dataset)
    next(rows)
    state = dataset.state_dict()
    with pytest.raises(ValueError, match="make this one with the same settings"):
        PackedIterableDataset(sequences, 33, 20).load_state_dict(state)
    for bad in ({}, {**state, "stream": 3}, {**state, "stream": {}}):
        with pytest.raises(ValueError, match="state is not one of"):
            dataset.load_state_dict(bad)
    dataset.load_state_dict(state)
    dataset.set_epoch(1)  # begins anew
    equal(list(dataset), list(PackedIterableDataset(sequences, 32, 20)))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"sequences": iter([[1]])}, TypeError, "which can be gone through only once"),
        ({"sequences": 3}, TypeError, "sequences must be something to iterate over"),
        ({"sequences": (np.arange(4), [0, 4])}, TypeError, "sequences is a tuple"),
        ({"capacity": 0}, ValueError, "capacity must be at least 1"),
        ({"rank": 1}, ValueError, "both rank and world_size"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank must be below world_size"),
        ({"drop_last": 1}, TypeError, "drop_last must be True or False"),
    ],
)
def test_bad_arguments_of_streams(options, error, match):
    with pytest.raises(error, match=match):
        PackedIterableDataset(**{"sequences": [[1]], "capacity": 8, **options})


# ------------------------------------------------------------------------------------------- loaders and workers


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_workers(sequences, tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    forked = {"num_workers": 2, "multiprocessing_context": "fork", "timeout": 60}
    dataset = PackedDataset(saved(tmp_path, sequences), 64)
    rows = [dataset[i] for i in range(len(dataset))]  # the threads of this process have run
    loader = DataLoader(dataset, batch_size=4, **forked, persistent_workers=True)
    for _ in range(2):
        equal(list(loader), list(DataLoader(dataset, batch_size=4)))
    flat = PackedDataset(sequences, 64, layout="flat")
    collate = FlatteningCollator(return_flash_attn_kwargs=True)
    equal(list(DataLoader(flat, 3, collate_fn=collate, **forked)), list(DataLoader(flat, 3, collate_fn=collate)))
    assert len(rows) == len(flat)
    stream = PackedIterableDataset(sequences, 64, 20, rank=1, world_size=2)
    equal(list(DataLoader(stream, batch_size=None, **forked)), list(stream))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_streaming_datasets_are_read_whole_by_each_worker(sequences):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")

    def streamed():
        return datasets.Dataset.from_dict({"input_ids": sequences}).to_iterable_dataset(num_shards=4)

    expected = list(PackedIterableDataset(sequences, 64, 20))
    equal(list(PackedIterableDataset(datasets.Dataset.from_dict({"input_ids": sequences}), 64, 20)), expected)
    with pytest.raises(TypeError, match="pass the dataset"):
        PackedIterableDataset(streamed()["input_ids"], 64)
    dataset = PackedIterableDataset(streamed(), 64, 20)
    workers = {"num_workers": 2, "multiprocessing_context": "fork", "timeout": 60}
    equal(list(DataLoader(dataset, batch_size=None, **workers)), expected)
    rows = iter(dataset)
    first = [next(rows) for _ in range(9)]
    state = json.loads(json.dumps(dataset.state_dict()))
    resumed = PackedIterableDataset(streamed(), 64, 20)
    resumed.load_state_dict(state)
    equal(first + list(resumed), expected)
    equal(list(resumed), expected)  # not from where the state was
    dataset.load_state_dict(state)
    equal(first + list(dataset), expected)
    beginning = PackedIterableDataset(streamed(), 64, 20).state_dict()
    dataset.load_state_dict(state)
    dataset.load_state_dict(beginning)
    equal(list(dataset), expected)
    of_a_list = PackedIterableDataset(sequences, 64, 20)
    rows = iter(of_a_list)
    first = [next(rows) for _ in range(9)]
    dataset.load_state_dict(of_a_list.state_dict())
    equal(first + list(dataset), expected)
    with pytest.raises(TypeError, match=r"pass sequences\.with_format"):
        list(PackedIterableDataset(streamed().with_format("arrow"), 64))


SPAWNED = """
import functools, sys, numpy as np, torch
from torch.utils.data import DataLoader
from fastnlp.torch import FlatteningCollator, PackedDataset, PackedIterableDataset

def opened(folder):
    return np.load(f"{folder}/tokens.npy", mmap_mode="r"), np.load(f"{folder}/offsets.npy")

def sequences(folder):
    flat, offsets = opened(folder)
    return (flat[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True))

def equal(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b) > 4
    assert all(torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)

if __name__ == "__main__":
    data = functools.partial(opened, sys.argv[1])
    workers = {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True, "timeout": 120}
    collate = FlatteningCollator(return_seq_idx=True)
    for dataset, options in (
        (PackedDataset(data, 64, layout="flat"), {"batch_size": 3, "collate_fn": collate}),
        (PackedIterableDataset(functools.partial(sequences, sys.argv[1]), 64, 20), {"batch_size": None}),
    ):
        loader, expected = DataLoader(dataset, **options, **workers), list(DataLoader(dataset, **options))
        workers["num_workers"] = 1
        for _ in range(2):
            equal(loader, expected)
"""


def test_spawned_workers(sequences, tmp_path):
    saved(tmp_path, sequences)
    script = tmp_path / "script.py"
    script.write_text(SPAWNED)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


RANK = """
import sys, torch, fastnlp
import torch.distributed as dist
from torch.utils.data import DataLoader
from fastnlp.torch import BucketBatchSampler, PackedDataset, PackedIterableDataset
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
sequences = [[k] * (1 + k * 7 % 23) for k in range(1, 102)]
lengths = fastnlp.sequence_lengths(sequences)
packing = fastnlp.pack(lengths, 32, seed=0)
sampler = BucketBatchSampler(lengths, max_tokens=64, balance="tokens")
def joined(items):
    return {"input_ids": torch.cat([x["input_ids"] for x in items])}
class Sequences(torch.utils.data.Dataset):
    def __getitem__(self, i):
        return {"input_ids": torch.tensor(sequences[i])}
for loader in (
    DataLoader(PackedDataset(sequences, packing.shard(rank, 2, balance="squares"))),
    DataLoader(Sequences(), batch_sampler=sampler, collate_fn=joined),
    DataLoader(PackedIterableDataset(sequences, 32, 10), batch_size=None),
):
    steps = 0
    mine = []
    for batch in loader:
        dist.all_reduce(torch.ones(1))  # every rank is at this step, or this would hang
        steps += 1
        mine += batch["input_ids"].reshape(-1).tolist()
    everyone = [None, None]
    dist.all_gather_object(everyone, (steps, mine))
    assert everyone[0][0] == everyone[1][0] > 9, everyone
    assert sorted(t for _, some in everyone for t in some if t) == sorted(t for x in sequences for t in x)
dist.destroy_process_group()
"""


def test_two_ranks_make_the_same_number_of_steps_and_share_everything(tmp_path):
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for process in running:
        errors = process.communicate(timeout=240)[1]
        assert process.returncode == 0, errors


# ------------------------------------------------------------------------------------------------------- models


def tiny(name, attention):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    if name == "llama":
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
        config = transformers.LlamaConfig(vocab_size=100, num_hidden_layers=2, attn_implementation=attention, **sizes)
        return transformers.LlamaForCausalLM(config)
    config = transformers.GPT2Config(
        vocab_size=100, n_embd=32, n_layer=2, n_head=2, attn_implementation=attention, resid_pdrop=0, embd_pdrop=0,
        attn_pdrop=0, loss_type="ForCausalLM",
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def unpacked_loss(model, sequences):
    """Return the mean loss of the tokens of sequences that the model sees one at a time."""
    total = count = 0
    with torch.no_grad():
        for x in sequences:
            if len(x) > 1:
                ids = torch.tensor([x])
                total += float(model(input_ids=ids, labels=ids).loss) * (len(x) - 1)
                count += len(x) - 1
    return total / count


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_loss_of_packed_rows_is_that_of_the_sequences(sequences, name, attention):
    model, sequences = tiny(name, attention), sequences[:40]
    expected = unpacked_loss(model, sequences)
    rows, flat = PackedDataset(sequences, 64), PackedDataset(sequences, 64, layout="flat")
    everything = list(range(len(rows)))
    stacked = next(iter(DataLoader(rows, batch_size=len(rows))))
    joined = FlatteningCollator()(flat.__getitems__(everything))
    masked = FlatteningCollator(return_attention_mask=True)(flat.__getitems__(everything))
    examples = FlatteningCollator(return_attention_mask=True)([{"input_ids": x} for x in sequences])
    with torch.no_grad():
        for batch in (stacked, joined):
            assert float(model(**batch, use_cache=False).loss) == pytest.approx(expected, abs=2e-5)
        for batch in (masked, examples):
            assert float(model(**batch).loss) == pytest.approx(expected, abs=2e-5)


@pytest.mark.filterwarnings("ignore")  # the Trainer's own, of pinned memory and the like
@pytest.mark.parametrize("layout", ["rows", "flat"])
def test_a_trainer_sees_the_loss_of_the_sequences_and_learns(sequences, layout, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    model, sequences = tiny("llama", "sdpa"), sequences[:40]
    expected = unpacked_loss(model, sequences)
    dataset = PackedDataset(sequences, 64, layout=layout)
    arguments = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=len(dataset), max_steps=4, logging_steps=1, learning_rate=0.01,
        lr_scheduler_type="constant", use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    collate = FlatteningCollator() if layout == "flat" else None
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collate)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(expected, abs=1e-4)
    assert losses[-1] < losses[0] - 0.1
    assert losses[-1] > unpacked_loss(model, sequences)


def test_packed_rows_in_a_model_with_a_fused_head(sequences):
    model, sequences = tiny("llama", "sdpa"), sequences[:40]
    expected = unpacked_loss(model, sequences)
    batch = next(iter(DataLoader(PackedDataset(sequences, 64), batch_size=1000)))
    loss = fastnlp.torch.patch_lm_head(model).train()(**batch, use_cache=False).loss
    assert float(loss.detach()) == pytest.approx(expected, abs=2e-5)
