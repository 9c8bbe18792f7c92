"""The table of compiled kernels in the documentation: registers, memory and instructions of each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.gate import Result

SHOWN = ("sm_80", "sm_90a")
"""The architectures of the table."""

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cuda.md"
BEGIN, END = "<!-- gate: begin -->\n", "<!-- gate: end -->\n"
_FIGURES = ("registers", "shared memory, bytes", "code, bytes", "instructions", "16-byte loads", "16-byte stores")
HEAD = f"| kernel | dtype | {' | '.join(_FIGURES)} |\n| --- | --- |{' ---: |' * len(_FIGURES)}\n"


def rows(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each kernel and dtype, the architectures of `SHOWN` in its cells where they differ."""
    together: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.arch in SHOWN and result.built:
            together.setdefault((result.kernel.name, result.dtype), []).append(result)
    for (name, dtype), pair in together.items():
        cells = zip(*map(_cells, pair), strict=True)
        texts = [str(cell[0]) if len(set(cell)) == 1 else " / ".join(map(str, cell)) for cell in cells]
        yield f"| {name} | {dtype or '-'} | {' | '.join(texts)} |\n"


def _cells(result: Result) -> tuple[int, ...]:
    built, code = result.built, result.instructions
    assert built is not None
    assert code is not None
    return built.registers, built.shared, len(built.code), code.total, code.loads, code.stores


def versions() -> str:
    """Return the versions that the figures depend on, as the page states them."""
    names = ("numba", "numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    return ", ".join([python, *(f"{name} {version(name)}" for name in names)])


def written(page: Path = PAGE) -> str:
    """Return what stands between the marks of the page."""
    return page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def text(table: Sequence[str]) -> str:
    """Return what belongs between the marks, from the rows of a table."""
    return f"\nCompiled with {versions()}.\n\n{HEAD}{''.join(table)}\n"


def write(results: Sequence[Result], page: Path = PAGE, *, keep: bool = False) -> Path:
    """Put the table between the marks of the page; return the page.

    Parameters
    ----------
    keep
        Rows of other kernels stay, if they were made by the same toolchain.

    Raises
    ------
    ValueError
        They were not.
    """
    before, mark, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    old, end, after = rest.partition(END)
    table = {_key(row): row for row in old.splitlines(keepends=True) if row.startswith("|")} if keep else {}
    if keep and versions() not in old:
        raise ValueError(f"the table was not made with {versions()}: write all of it")
    for line in HEAD.splitlines(keepends=True):
        table.pop(_key(line), None)
    table |= {_key(row): row for row in rows(results)}
    in_order = sorted(table.values(), key=lambda row: _key(row)[0])
    page.write_text(f"{before}{mark}{text(in_order)}{end}{after}", encoding="utf-8")
    return page


def _key(row: str) -> tuple[str, str]:
    """Return the kernel and the dtype of a row."""
    _, kernel, dtype, *_ = row.split("|")
    return kernel.strip(), dtype.strip()
