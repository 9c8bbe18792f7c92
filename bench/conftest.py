"""Fixtures of the benchmarks, and what a run leaves behind: the machine in the JSON, the ratios on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from bench import report, stanford, words
from bench.figure import disturbed
from bench.harness import Contest
from bench.machine import Machine

_MACHINE = pytest.StashKey[Machine]()
_LINES = pytest.StashKey[list]()


def pytest_addoption(parser):
    parser.addoption(
        "--threads", type=int, default=None, help="threads for every contestant (default: the CPUs available)"
    )

    parser.addoption(
        "--corpus",
        action="append",
        default=[],
        metavar="FILE",
        help="a file of text for the cases of words, beside the text that is made (may be repeated)",
    )
    parser.addoption(
        "--grid", action="store_true", help="run the cases marked grid, too: many shapes, hours rather than minutes"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "grid: one of the many shapes that only --grid runs")
    config.stash[_LINES] = []


def pytest_collection_modifyitems(config, items):
    """Leave out the grid, unless asked; let peers warn: that warnings are errors is for the project's own code."""
    if not config.getoption("--grid"):
        grid = [item for item in items if item.get_closest_marker("grid")]
        config.hook.pytest_deselected(items=grid)
        items[:] = [item for item in items if item not in set(grid)]
    for item in items:
        if "contest" in item.fixturenames:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def machine(pytestconfig):
    """The machine of this run, its limits measured before the first case and after the last."""
    found = pytestconfig.stash[_MACHINE] = Machine(pytestconfig.getoption("threads"))
    timing = not pytestconfig.getoption("benchmark_disable") or pytestconfig.getoption("benchmark_enable")
    if timing:
        found.measure()
    yield found
    if timing:
        found.measure()


class Text(NamedTuple):
    """A file of text and how the report calls it."""

    name: str
    path: Path


def pytest_generate_tests(metafunc):
    if "text" in metafunc.fixturenames:
        given = metafunc.config.getoption("--corpus")
        metafunc.parametrize("text", [*words.MADE, *map(Path, given)], indirect=True, ids=str)


@pytest.fixture(scope="session")
def _scratch():
    with stanford.scratch() as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def text(request, _scratch):
    """A file of text for a case of words: made, or one that --corpus names."""
    source = request.param
    path = _scratch / "text.txt"
    if isinstance(source, int):
        words.write_made(path, source)
        return Text(f"{source:,} tokens", path)
    words.write_given(path, source)
    return Text(source.name.partition(".")[0], path)


@pytest.fixture
def contest(benchmark, machine, pytestconfig):
    """The harness for one case (`bench.harness.Contest`)."""
    yield Contest(
        benchmark,
        machine,
        seconds=float(pytestconfig.getoption("benchmark_max_time")),
        min_rounds=pytestconfig.getoption("benchmark_min_rounds"),
    )
    case = benchmark.extra_info
    if case:
        pytestconfig.stash[_LINES].append(_line(case))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config, benchmarks, output_json):
    if _MACHINE in config.stash:
        output_json["machine"] = config.stash[_MACHINE].describe()


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_LINES]:
        terminalreporter.section("peer / fastnlp, ratios of medians (above 1: fastnlp is faster)")
        for line in config.stash[_LINES]:
            terminalreporter.write_line(line)


def _line(case):
    ours, *peers = case["contestants"]
    parts = [f"{p['name']} " + ("absent" if "absent" in p else f"{p['ratio']:.2f}") for p in peers]
    share = f"{ours['share']:.0%} of {ours['bound']}" if ours["share"] is not None else ""
    crowded = f"  DISTURBED: {case['crowding']:.1f} CPUs in use by others" if disturbed(case) else ""
    floors = "".join(f"\n    {line}" for line in report.over_floors(case))
    return f"{case['operation']:<22} {case['case']:<36} {'  '.join(parts):<44} {share}{crowded}{floors}"
