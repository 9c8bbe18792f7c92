"""``fastnlp pack``: how tightly sequences pack, by algorithm and capacity, and how little their batches are padded."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fastnlp.cli.options import PACKING, options, take
from fastnlp.cli.packing_table import Packed, cells

if TYPE_CHECKING:
    from fastnlp import Batches
    from fastnlp._arrays import Array
    from fastnlp.cli.console import Stages

_BATCH = 64
_MEGA_BATCH = 50  # batches whose items are sorted together


@click.command(short_help="Show how tightly sequences pack into rows and batches.")
@click.argument("dataset", nargs=-1, required=True, metavar="LENGTHS|DATASET...")
@options(
    "capacity", "algorithm", *PACKING, "batch_size", "max_tokens", "column", "tokenizer", "seed", "threads", "report"
)
@click.option("-o", "--output", type=click.Path(), help="Save the packing (.npz), of one --capacity and --algorithm.")
def pack(dataset: tuple[str, ...], output: str | None, **given: Any) -> None:
    """Pack the sequences of a DATASET, or of given LENGTHS, and print a table of rows and efficiency.

    \b
    Read are: integers, one a line (- for standard input); .npy and .npz with lengths or offsets; .parquet, .arrow and
    .jsonl; a dataset that was saved to disk; a corpus of fastnlp; text, where a line is a sequence.

    \b
    Examples:
      fastnlp pack lengths.txt --capacity 2048 --report packing.html
      fastnlp pack train.parquet --column input_ids --capacity 4096 --algorithm optimal -o packing.npz
    """
    from fastnlp.cli import lengths as reader
    from fastnlp.cli import packing_page, paths
    from fastnlp.cli.console import Stages, use_threads

    if output is not None and (len(given["capacity"]) > 1 or len(given["algorithm"]) > 1):
        raise click.ClickException("--output is for one packing: give one --capacity and one --algorithm")
    if given["batch_size"] is not None and given["max_tokens"] is not None:
        raise click.ClickException("--batch-size and --max-tokens are two rules for the size of a batch: give one")
    for written in filter(None, (output, given["report"])):
        paths.check_writable(written, [name for name in dataset if name != paths.STANDARD_INPUT])
    if output is not None and given["report"] is not None:
        paths.check_distinct(output, given["report"])
    use_threads(given["threads"])
    stages = Stages()
    with stages.stage("reading lengths") as update:
        lengths, what = reader.read(dataset, column=given["column"], tokenizer=given["tokenizer"], progress=update)
    if not lengths.size:
        raise click.ClickException("there are no sequences: nothing to pack")
    batches = _batches(lengths, given, stages)  # the shorter work first: it may be refused
    packed = _packings(lengths, given, stages)
    _print(lengths, what, packed, batches)
    if output is not None:
        packed[0].packing.save(output)
        click.echo(f"\n{output}: {packed[0].packing!r}")
    if given["report"] is not None:
        source = f"{lengths.size:,} {what} of {', '.join(map(os.path.basename, dataset))}."
        with stages.stage("report"):
            packing_page.write(given["report"], lengths, source, packed, batches, dict(stages.seconds))
        click.echo(f"\nthe report is {given['report']}")


def _packings(lengths: Array, given: dict[str, Any], stages: Stages) -> list[Packed]:
    from fastnlp import pack as run

    chosen = {"seed": given["seed"], **take(given, PACKING)}
    packed = []
    with stages.stage("packing") as update:
        cases = [(capacity, algorithm) for capacity in given["capacity"] for algorithm in given["algorithm"]]
        for done, (capacity, algorithm) in enumerate(cases):
            update(done, len(cases), f"{algorithm} {capacity:,}")
            times = []
            for _ in range(1 if algorithm == "optimal" else 2):  # the first may load or compile what it calls
                begin = time.perf_counter()
                packing = run(lengths, capacity, algorithm=algorithm, **chosen)
                times.append(time.perf_counter() - begin)
            packed.append(Packed(capacity, algorithm, packing, min(times)))
        update(len(cases), len(cases), "")
    return packed


def _batches(lengths: Array, given: dict[str, Any], stages: Stages) -> dict[str, Batches]:
    """Return batches by how many items are sorted together: a batch's (that is random ones), many batches', all."""
    from fastnlp import bucket_batches

    if given["max_tokens"] is None:
        size = given["batch_size"] or _BATCH
        rule: dict[str, Any] = {"batch_size": size}
    else:
        size = max(1, int(given["max_tokens"] / max(1.0, float(lengths.mean()))))
        rule = {"max_tokens": given["max_tokens"]}
    size = min(size, lengths.size)
    windows = {"random": size, f"sorted within {_MEGA_BATCH} batches": _MEGA_BATCH * size, "sorted": None}
    with stages.stage("batches"):
        return {
            name: bucket_batches(lengths, **rule, window=window, seed=given["seed"]) for name, window in windows.items()
        }


def _print(lengths: Array, what: str, packed: Sequence[Packed], batches: dict[str, Batches]) -> None:
    import numpy as np

    from fastnlp.cli.console import print_table

    low, middle, high = np.quantile(lengths, [0.05, 0.5, 0.95]).astype(int)
    click.echo(
        f"{lengths.size:,} {what}, {int(lengths.sum()):,} tokens; lengths {int(lengths.min()):,} to "
        f"{int(lengths.max()):,}, median {middle:,}, nine tenths from {low:,} to {high:,}"
    )
    head = ("capacity", "algorithm", "rows", "fewest possible", "real tokens", "overlong", "time")
    print_table([head, *map(cells, packed)], title="Rows", numeric=(0, 2, 3, 4, 5, 6))
    lines = []
    for name, b in batches.items():
        longest = int(b.padded_lengths.max(initial=0))
        lines.append((name, f"{len(b):,}", f"{b.efficiency:.2%}", f"{b.padded_tokens:,}", f"{longest:,}"))
    heads = ("batches", "number", "real tokens", "tokens with padding", "longest")
    print_table([heads, *lines], title="Batches", numeric=(1, 2, 3, 4))
