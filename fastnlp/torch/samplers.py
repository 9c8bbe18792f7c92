"""`BucketBatchSampler`: batches of like length for a DataLoader, on one process or many, resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from fastnlp._checks import integer
from fastnlp.ops._lengths import checked_lengths
from fastnlp.ops._ranks import checked_done
from fastnlp.ops.bucket_batches import Batches, bucket_batches

_PLAN = 1
"""Goes up when equal arguments give other batches than before: older states are then refused."""


class BucketBatchSampler(Sampler[list[int]]):
    """Batches of items of like length, as lists of indices, for ``DataLoader(dataset, batch_sampler=...)``.

    The batches of an epoch are those of `fastnlp.bucket_batches`, planned when they are first asked for (a fraction of
    a second for millions of items). Each rank of a distributed job finds its own batches from the plan alone, without
    talking to the others: all ranks have equally many, and together they have all items.

    Call ``set_epoch(epoch)`` before each epoch, as with torch's `DistributedSampler`; else all epochs are the same.

    Parameters
    ----------
    lengths
        Tokens of each item of the dataset, ``(N,)`` integers.
    batch_size, max_tokens, max_sentences, boundaries, window, shuffle, seed, drop_last, batch_multiple
        As for `fastnlp.bucket_batches`.
    pad_to_multiple, pad_to_boundary, balance, backend
        As for `fastnlp.bucket_batches`. How batches are padded is up to the collator, which can be given the same
        numbers; here they decide how many items fit.
    rank, world_size
        Which rank of how many this is. None: as `torch.distributed` says, where it is initialised; else 0 of 1.

    Raises
    ------
    TypeError, ValueError
        As `fastnlp.bucket_batches`; or only one of `rank` and `world_size` is given.

    Notes
    -----
    Resuming: keep ``state_dict()`` with the checkpoint and pass it to `load_state_dict` of a sampler of the same
    lengths and options; iteration then begins with the first batch that was not done, without going through those that
    were. The number of ranks may be another: the rest of the epoch is dealt anew, no item is lost or repeated.

    Hugging Face: with accelerate on one process, ``accelerator.prepare(loader)`` works as usual. On several, leave the
    loader out of it and move the batches to ``accelerator.device``: the sampler has dealt them to the ranks, and
    accelerate would deal them a second time. For a ``Trainer``, on any number of processes::

        class BucketTrainer(Trainer):
            def get_train_dataloader(self):
                sampler = BucketBatchSampler(lengths, max_tokens=16384)
                loader = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)
                loader.set_epoch = sampler.set_epoch  # the Trainer calls it
                return loader

    Examples
    --------
    >>> from fastnlp.torch import BucketBatchSampler
    >>> list(BucketBatchSampler([5, 1, 6, 2], batch_size=2, shuffle=False))
    [[1, 3], [0, 2]]
    """

    def __init__(
        self,
        lengths: Any,
        *,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        boundaries: Any = None,
        window: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        batch_multiple: int = 1,
        pad_to_multiple: int = 1,
        pad_to_boundary: bool | None = None,
        balance: str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        backend: str | None = None,
    ) -> None:
        self.rank, self.world_size = this_rank(rank, world_size)
        self.epoch = 0
        self._lengths = checked_lengths(lengths)
        # No attributes of their own: accelerate takes a `batch_size` to mean that all batches have it.
        self._options: dict[str, Any] = {
            "batch_size": batch_size,
            "max_tokens": max_tokens,
            "max_sentences": max_sentences,
            "boundaries": boundaries,
            "window": window,
            "shuffle": shuffle,
            "drop_last": drop_last,
            "batch_multiple": batch_multiple,
            "pad_to_multiple": pad_to_multiple,
            "pad_to_boundary": pad_to_boundary,
        }
        self._deal: dict[str, Any] = {"balance": balance, "drop_last": drop_last}
        self._seed, self._backend = integer("seed", seed, least=0, most=None), backend
        self._before: list[tuple[int, int]] = []  # (world_size, steps) of this epoch that are done
        self._yielded = 0
        self._exhausted = False
        self._batches: Batches | None = None
        self._plan()  # bad arguments are told here
        for options in (self._options, self._deal):  # as Python has them: the same fingerprint from any integers
            options.update((name, np.array(x).tolist()) for name, x in options.items() if x is not None)

    def _plan(self) -> Batches:
        """Return this rank's batches of the epoch that are not done."""
        if self._batches is None:
            batches = bucket_batches(
                self._lengths, **self._options, seed=self._seed, epoch=self.epoch, backend=self._backend
            )
            self._batches = batches.shard(self.rank, self.world_size, **self._deal, done=self._before)
        return self._batches

    def __len__(self) -> int:
        """Return the number of this rank's batches in the epoch; where it was resumed, of those that were left."""
        return len(self._plan())

    def __iter__(self) -> Iterator[list[int]]:
        if self._exhausted and self._before:  # a resumed epoch came to its end: from now on whole ones
            self._before, self._batches = [], None
        self._yielded, self._exhausted = 0, False
        for batch in self._plan():
            self._yielded += 1
            yield batch.tolist()
        self._exhausted = True

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. Another one than the present one begins with its first batch.

        Raises
        ------
        TypeError, ValueError
            `epoch` is no integer, or negative.
        """
        epoch = integer("epoch", epoch, least=0, most=None)
        if epoch != self.epoch:
            self._go_to(epoch, [])

    def state_dict(self, batches_done: int | None = None) -> dict[str, Any]:
        """Return where the epoch stands, as numbers and strings that JSON can hold; the same on all ranks.

        Parameters
        ----------
        batches_done
            How many batches of the latest iteration training is done with: ``step + 1`` in ``for step, batch in
            enumerate(loader)``. None: all that the sampler has given out, which is right without workers; a DataLoader
            with workers asks for ``prefetch_factor * num_workers`` batches ahead.

        Raises
        ------
        TypeError, ValueError
            `batches_done` is no integer, or more than were given out.
        """
        steps = self._yielded
        if batches_done is not None:
            steps = integer("batches_done", batches_done, least=0)
            if steps > self._yielded:
                raise ValueError(f"batches_done is {steps}, but the latest iteration gave out {self._yielded}")
        done = [*self._before, (self.world_size, steps)] if steps else self._before
        return {
            "fingerprint": self._fingerprint(),
            "seed": self._seed,
            "epoch": self.epoch,
            "done": [list(pair) for pair in done],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` stands: seed and epoch are taken from it, and the next iteration has what was not done.

        Raises
        ------
        ValueError
            The state is of other lengths or options, or is none; or fewer items are left than there are ranks.
        """
        try:
            fingerprint, done = state["fingerprint"], checked_done(state["done"])
            seed, epoch = (integer(name, state[name], least=0, most=None) for name in ("seed", "epoch"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no state of a BucketBatchSampler: {error!r}") from error
        if fingerprint != self._fingerprint():
            raise ValueError(
                "the state is of other lengths or options (or of another version of fastnlp): make the sampler with "
                "those of the run that is resumed, or call set_epoch to begin an epoch anew"
            )
        old = self._seed, self.epoch, self._before
        self._seed = seed
        try:
            self._go_to(epoch, done)
            self._plan()
        except ValueError:
            self._seed = old[0]
            self._go_to(*old[1:])
            raise

    def _go_to(self, epoch: int, done: list[tuple[int, int]]) -> None:
        self.epoch, self._before = epoch, done
        self._batches, self._yielded, self._exhausted = None, 0, False

    def _fingerprint(self) -> str:
        """Hash what decides the batches, beside seed and epoch."""
        options = {**self._options, **self._deal}
        digest = hashlib.blake2b(self._lengths.astype("<i4").tobytes(), digest_size=16)
        digest.update(repr((_PLAN, self._lengths.size, sorted(options.items()))).encode())
        return digest.hexdigest()


def this_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return the rank and the number of ranks, from `torch.distributed` where neither is given."""
    if (rank is None) != (world_size is None):
        raise ValueError(f"pass both rank and world_size or neither, got {rank} and {world_size}")
    if rank is not None and world_size is not None:
        rank, world_size = integer("rank", rank, least=0), integer("world_size", world_size, least=1)
        if rank >= world_size:
            raise ValueError(f"rank must be below world_size, got rank {rank} of {world_size}: ranks count from 0")
        return rank, world_size
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
