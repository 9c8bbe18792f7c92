"""The command ``fastnlp``. Its libraries (click, rich, matplotlib) are imported only when it runs."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDS = ("click", "rich", "matplotlib")


def main() -> None:
    """Run the command with the arguments of the process; without its libraries, say in one line what to install."""
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        print(f'fastnlp: {", ".join(missing)} not installed: pip install "fastnlp-kernels[cli]"', file=sys.stderr)
        sys.exit(2)
    try:
        from fastnlp.cli.app import command
    except KeyboardInterrupt:  # later ones are the command's
        print("fastnlp: interrupted", file=sys.stderr)
        sys.exit(130)

    command(prog_name="fastnlp")
