"""Run the benchmarks and write their report: ``python -m bench run``, ``python -m bench report RESULTS.json``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import budget, first_call, gate, memory, packing, report


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, do it, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="time all cases and write the report; further arguments go to pytest, such as -k softmax"
    )
    run.add_argument("-o", "--output", type=Path, default=Path("bench-results"), help="folder (default: %(default)s)")
    write = commands.add_parser("report", help="write report.md and report.html from the JSON of a run")
    write.add_argument("results", type=Path)
    write.add_argument("-o", "--output", type=Path, default=Path("bench-results"), help="folder (default: %(default)s)")
    commands.add_parser("first-call", help="print what the first call of an operation costs, with and without a cache")
    commands.add_parser("memory", help="print the peak memory of linear_cross_entropy and its peers")
    counting = commands.add_parser("budget", help="print the peak memory of counting co-occurrences under budgets")
    counting.add_argument("--corpus", type=Path, help="a file of text (default: text that is made)")
    commands.add_parser("packing", help="print how tightly and how fast lengths are packed, streamed and bucketed")
    kernels = commands.add_parser("gate", help="compile the CUDA kernels without a GPU and hold them to their bounds")
    kernels.add_argument("modules", nargs="*", help="only those of these modules, such as _labels")
    kernels.add_argument("--write", action="store_true", help="write the figures into docs/cuda.md")
    args, further = parser.parse_known_args(argv)
    if args.command == "run":
        results = args.output / "results.json"
        status = _run(results, further)
        if status:
            return status
    elif further:
        parser.error(f"unknown arguments: {' '.join(further)}")
    elif args.command == "first-call":
        first_call.main()
        return 0
    elif args.command == "memory":
        memory.main()
        return 0
    elif args.command == "packing":
        packing.main()
        return 0
    elif args.command == "gate":
        return gate.main(args.modules, to_page=args.write)
    elif args.command == "budget":
        budget.main(args.corpus)
        return 0
    else:
        results = args.results
    for path in report.write(results, args.output):
        print(path)
    return 0


def _run(results: Path, further: list[str]) -> int:
    import pytest

    results.parent.mkdir(parents=True, exist_ok=True)
    here = str(Path(__file__).parent)
    return int(pytest.main([here, "--benchmark-enable", "--benchmark-quiet", f"--benchmark-json={results}", *further]))


if __name__ == "__main__":
    sys.exit(main())
