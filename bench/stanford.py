"""The programs of Stanford's GloVe as peers: found on the PATH, or in the folder that ``FASTNLP_STANFORD_GLOVE`` names.

They are built by ``make`` from their source. Their files are kept on a RAM disk where there is one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

FOLDER = "FASTNLP_STANFORD_GLOVE"


def program(name: str) -> str:
    """Return the path of a program: vocab_count, cooccur, shuffle or glove.

    Raises
    ------
    ImportError
        It is not there: the peer is then absent, with this reason.
    """
    found = shutil.which(name, path=os.environ.get(FOLDER) or None)
    if found is None:
        raise ImportError(f"{name} of Stanford's GloVe is not on the PATH ({FOLDER} may name its folder)")
    return found


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for their files, on a RAM disk where there is one."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def vocab_count(text: Path, vocab: Path, min_count: int = 5) -> None:
    """Count the words of a text."""
    with text.open("rb") as read, vocab.open("wb") as write:
        _run("vocab_count", "-min-count", min_count, "-verbose", 0, stdin=read, stdout=write)


def cooccur(text: Path, vocab: Path, counts: Path, *, window: int = 10, memory: float = 4.0) -> None:
    """Count co-occurrences, symmetric and with weights 1/distance."""
    with text.open("rb") as read, counts.open("wb") as write:
        options = "-memory", memory, "-window-size", window, "-vocab-file", vocab, "-verbose", 0
        _run("cooccur", *options, "-overflow-file", counts.with_suffix(".overflow"), stdin=read, stdout=write)


def shuffle(counts: Path, shuffled: Path, *, memory: float = 4.0, seed: int = 1) -> None:
    """Bring the records of a file of counts into random order."""
    with counts.open("rb") as read, shuffled.open("wb") as write:
        options = "-memory", memory, "-seed", seed, "-verbose", 0, "-temp-file", shuffled.with_suffix(".temp")
        _run("shuffle", *options, stdin=read, stdout=write)


def glove(
    shuffled: Path, vocab: Path, vectors: Path, *, seed: int = 1, threads: int = 2, **options: float
) -> list[float]:
    """Train vectors into ``vectors.txt``; return each iteration's cost. `options` are the program's, with _ for -."""
    given = [part for name, value in options.items() for part in (f"-{name.replace('_', '-')}", value)]
    files = "-input-file", shuffled, "-vocab-file", vocab, "-save-file", vectors
    done = _run("glove", *files, "-threads", threads, "-seed", seed, *given)
    return [float(cost) for cost in re.findall(rb"cost: ([\d.einfa-]+)", done.stderr + (done.stdout or b""))]


def matrix(counts: Path, size: int):
    """Return a file of counts as a SciPy matrix."""
    from scipy import sparse

    records = np.fromfile(counts, np.dtype([("row", "<i4"), ("column", "<i4"), ("count", "<f8")]))
    return sparse.coo_array((records["count"], (records["row"] - 1, records["column"] - 1)), shape=(size, size))


def _run(name: str, *arguments: object, **files: object) -> subprocess.CompletedProcess[bytes]:
    command = [program(name), *map(str, arguments)]
    return subprocess.run(command, check=True, stderr=subprocess.PIPE, **files)  # type: ignore[call-overload]
