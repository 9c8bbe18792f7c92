"""What the commands show while they work, and tables on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Update = Callable[..., None]
"""Called with (done, total) and perhaps a note to show; the total is None where it is not known."""

_PLAIN_WIDTH = 120  # columns, where stdout is no terminal


class Stages:
    """Long steps one after the other, each with a progress bar on stderr, or one line where that is no terminal.

    Attributes
    ----------
    seconds
        How long each step took, by its label.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self.seconds: dict[str, float] = {}
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)

    @contextmanager
    def stage(self, label: str) -> Iterator[Update]:
        """Time the block and show its progress; the block may call what is yielded."""
        begin = time.perf_counter()
        last = [""]  # the last note
        with self._bar(label) if self._console.is_terminal else _silent(last) as update:
            yield update
        self.seconds[label] = seconds = time.perf_counter() - begin
        if not self._console.is_terminal:
            note = f" ({last[0]})" if last[0] else ""
            self._console.print(f"{label}: {seconds:.1f} s{note}", soft_wrap=True)

    @contextmanager
    def _bar(self, label: str) -> Iterator[Update]:
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        label_column, note_column = TextColumn("{task.description:<20}"), TextColumn("{task.fields[note]}")
        times = TimeElapsedColumn(), TimeRemainingColumn()
        with Progress(
            label_column, BarColumn(None), TaskProgressColumn(), *times, note_column, console=self._console
        ) as bar:
            task = bar.add_task(label, total=None, note="")

            def update(done: float, total: float | None = None, note: str = "") -> None:
                bar.update(task, completed=done, total=total, note=note)

            yield update
            total = bar.tasks[0].total or 1
            bar.update(task, completed=total, total=total)


@contextmanager
def _silent(last: list[str]) -> Iterator[Update]:
    def update(done: float, total: float | None = None, note: str = "") -> None:
        last[0] = note

    yield update


def use_threads(threads: int | None) -> None:
    """Run kernels on so many threads, if a number is given."""
    if threads is not None:
        from fastnlp import set_num_threads

        set_num_threads(threads)


def output() -> Console:
    """Return the console of results: stdout, where markup in words is text like any other."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, emoji=False, highlight=False, width=_PLAIN_WIDTH)


def print_table(rows: Iterable[Sequence[str]], *, title: str | None = None, numeric: Sequence[int] = ()) -> None:
    """Print rows of cells in columns that line up, those in `numeric` to the right; long cells are wrapped."""
    from rich.table import Table

    lines = list(rows)
    table = Table(box=None, show_header=False, pad_edge=False)
    for i in range(max(map(len, lines), default=0)):
        table.add_column(
            justify="right" if i in numeric else "left", no_wrap=i == 0, overflow="fold", style="bold" if i == 0 else ""
        )
    for line in lines:
        table.add_row(*line)
    console = output()
    console.print()
    if title is not None:
        console.print(title, style="bold")
    console.print(table)
