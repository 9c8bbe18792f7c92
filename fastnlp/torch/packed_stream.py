"""`PackedIterableDataset`: rows packed from a stream of sequences, for a DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from fastnlp._checks import flag, integer
from fastnlp.ops.stream_packer import StreamPacker
from fastnlp.torch._row_stream import Piece, RowStream, packing_of_one_row
from fastnlp.torch._rows import Row, RowFormat
from fastnlp.torch.samplers import this_rank


class PackedIterableDataset(IterableDataset[Row]):
    """Rows packed from a stream of sequences by a `fastnlp.StreamPacker`, each a dictionary of tensors.

    The rows are those of the one stream, however many ranks and workers there are: in step s the ranks take W rows, in
    order, and on each rank the step is made by worker ``s % workers``. So ranks and workers have different rows,
    together they have all, and all ranks have equally many, without talking to each other. For that each worker goes
    through the whole stream and packs its lengths; tokens are assembled only for its own rows. Where going through the
    stream is dear, divide the source among the ranks before, and pass ``rank=0, world_size=1``: the ranks may then have
    different numbers of rows. At the end of the stream the number of rows is made to divide, see `drop_last`.

    Parameters
    ----------
    sequences
        The stream: a list, a dataset, a streaming dataset of Hugging Face, or a function without arguments that returns
        an iterator. It is gone through from its beginning in each epoch and in each worker, and must give the same
        there. A sequence is its tokens (a list, an array, a tensor), or a mapping with "input_ids" and perhaps
        "labels".
    capacity, buffer, max_wait, max_per_bin, item_multiple, overlong
        As for `fastnlp.StreamPacker`.
    drop_last
        Leave out the last rows that do not make a whole step. Otherwise rows of the end of the stream are halved until
        they do; where each has one sequence left, the longest of these are cut in two.
    rank, world_size
        Which rank of how many this is. None: as `torch.distributed` says, where it is initialised; else 0 of 1.
    layout, fields, pad, ignore_index, position_start
        As for `PackedDataset`, whose notes on attention apply.

    Raises
    ------
    TypeError
        `sequences` is an iterator, which can be gone through only once; a tuple; a column of a streaming dataset; or
        nothing to iterate over.
    ValueError
        As `fastnlp.StreamPacker` and `PackedDataset`; only one of `rank` and `world_size`; when it is iterated, a
        sequence that `overlong` does not allow, or fewer tokens than ranks.

    Notes
    -----
    Resuming: `state_dict` stands where the last row was handed out, and holds the tokens of the buffer. It is that of
    this process: with workers, use ``num_workers=0``, or a loader that asks the workers for their states (torchdata's
    `StatefulDataLoader`). The sequences that were read are gone through again, unless the source has a `state_dict` of
    its own, as streaming datasets of Hugging Face do. (Where these have a shuffle buffer, what it held is lost when
    they go on, as they warn.) The number of ranks may be another then. With workers that are not persistent call
    `set_epoch` before the epoch after that: they begin with what was loaded.

    Examples
    --------
    >>> from fastnlp.torch import PackedIterableDataset
    >>> dataset = PackedIterableDataset([[5, 6, 7], [8, 9, 4, 3], [2]], capacity=4)
    >>> [row["input_ids"].tolist() for row in dataset]
    [[5, 6, 7, 2], [8, 9, 4, 3]]
    """

    def __init__(
        self,
        sequences: Iterable[Any] | Callable[[], Iterator[Any]],
        capacity: int,
        buffer: int = 1000,
        max_wait: int | None = None,
        *,
        max_per_bin: int | None = None,
        item_multiple: int = 1,
        overlong: str = "error",
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        layout: str = "rows",
        fields: Sequence[str] = ("input_ids", "position_ids", "labels"),
        pad: int = 0,
        ignore_index: int = -100,
        position_start: int = 0,
    ) -> None:
        if isinstance(sequences, Iterator):
            raise TypeError(
                f"sequences is a {type(sequences).__name__}, which can be gone through only once: "
                "pass a function that returns it, or a list"
            )
        if isinstance(sequences, tuple):
            raise TypeError(
                "sequences is a tuple, (tokens, offsets) elsewhere: pass a function that returns an iterator over the "
                "sequences, or a list"
            )
        if type(sequences).__name__ == "IterableColumn":  # whose iterator leaves shards to the other workers
            raise TypeError("sequences is a column of a streaming dataset: pass the dataset, with a column 'input_ids'")
        if not callable(sequences) and not hasattr(sequences, "__iter__") and not hasattr(sequences, "__getitem__"):
            raise TypeError(f"sequences must be something to iterate over, got {type(sequences).__name__}")
        self._source = sequences
        self._packer_options: dict[str, Any] = {
            "capacity": capacity,
            "buffer": buffer,
            "max_wait": max_wait,
            "max_per_bin": max_per_bin,
            "item_multiple": item_multiple,
            "overlong": overlong,
        }
        self.drop_last = flag("drop_last", drop_last)
        self.rank, self.world_size = this_rank(rank, world_size)
        self.epoch = 0
        self._format = RowFormat.checked(layout, fields, pad, ignore_index, position_start)
        self._pass = self._new_pass()
        self._source_moved = False

    def __iter__(self) -> Iterator[Row]:
        """Go through this rank's and this worker's rows."""
        if self._pass.begun:
            self._pass = self._new_pass()
        at = self._pass
        at.begun = True
        if not at.ended:
            yield from self._steps_ready(at)
            for example in self._rest_of_source(at):
                at.source, at.reading = None, True
                at.stream.add(example)
                yield from self._steps_ready(at)
            at.stream.finish()
            at.ended = True
        if not self.drop_last:
            at.stream.fill_up(self.world_size)
        yield from self._steps_ready(at)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, also that of the source if it has one. Another one than the present begins anew."""
        epoch = integer("epoch", epoch, least=0)
        if epoch != self.epoch:
            self.epoch, self._pass = epoch, self._new_pass()
        if hasattr(self._source, "set_epoch"):
            self._source.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where this process stands, as plain numbers and lists."""
        at = self._pass
        state = {"stream": at.stream.state_dict(), "steps": at.steps, "ended": at.ended, "epoch": self.epoch}
        if at.source is not None:
            state["source"] = at.source
        elif at.reading and self._source_resumes():
            state["source"] = self._source.state_dict()  # type: ignore[union-attr]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was called, when this is iterated next.

        Raises
        ------
        ValueError
            The state is of a stream with other settings, or is none.
        """
        at = self._new_pass()
        try:
            at.steps, at.ended, epoch = int(state["steps"]), bool(state["ended"]), int(state["epoch"])
            at.stream.load_state_dict(state["stream"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"state is not one of a PackedIterableDataset: {error!r}") from error
        if self._source_resumes():
            at.source = state.get("source")
        self.set_epoch(epoch)
        self._pass = at

    def _new_pass(self) -> _Pass:
        packer = StreamPacker(**self._packer_options)
        return _Pass(RowStream(packer, packer.limit))

    def _steps_ready(self, at: _Pass) -> Iterator[Row]:
        """Hand out the steps that are ready: of each the row of this rank, if this worker makes it."""
        worker = get_worker_info()
        while len(at.stream.ready) >= self.world_size:
            row = at.stream.take(self.world_size)[self.rank]
            mine = worker is None or at.steps % worker.num_workers == worker.id
            at.steps += 1
            if mine:
                yield self._row(row)

    def _row(self, pieces: list[Piece]) -> Row:
        packing = packing_of_one_row(pieces, self._packer_options["capacity"], self._packer_options["item_multiple"])
        labels = None
        if any(piece.labels is not None for piece in pieces):
            labels = [piece.tokens if piece.labels is None else piece.labels for piece in pieces]
        return self._format.rows([piece.tokens for piece in pieces], packing, labels)[0]

    def _source_resumes(self) -> bool:
        return hasattr(self._source, "state_dict") and hasattr(self._source, "load_state_dict")

    def _rest_of_source(self, at: _Pass) -> Iterator[Any]:
        """Go through the source, without the sequences that were read."""
        source, streaming = self._source, _is_streaming(self._source)
        if at.source is not None:
            source.load_state_dict(at.source)  # type: ignore[union-attr]
        elif self._source_moved and streaming:  # would go on from what was loaded in every pass of that epoch
            source.load_state_dict({})  # type: ignore[union-attr]
        self._source_moved = at.source is not None
        if streaming:
            # iter(source) would leave shards to the other workers
            examples: Iterable[Any] = map(_first, source.iter(batch_size=1))  # type: ignore[union-attr]
        else:
            examples = source() if callable(source) else iter(source)
        return islice(examples, 0 if self._source_moved else at.stream.n_read, None)


@dataclass
class _Pass:
    """Where a pass over the stream stands."""

    stream: RowStream
    steps: int = 0  # that were handed out
    ended: bool = False  # there is no more to read
    source: Any = None  # the state of the source to go on from, until something is read
    reading: bool = False
    begun: bool = False


def _is_streaming(source: Any) -> bool:
    """Tell whether the source is a streaming dataset of Hugging Face."""
    return hasattr(source, "num_shards") and hasattr(source, "iter")


def _first(batch: Any) -> dict[str, Any]:
    if not isinstance(batch, Mapping):
        raise TypeError(f"sequences gives a {type(batch).__name__}: pass sequences.with_format(None)")
    return {name: values[0] for name, values in batch.items()}
