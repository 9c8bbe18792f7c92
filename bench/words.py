"""Text for the cases of words: made on the spot from Zipf's distribution, or the files that ``--corpus`` names.

Made text needs no download and is the same everywhere; in real text words come in bursts, which counting feels. The
peers' wish is met where they have one: ``<unk>``, which Stanford's programs refuse, becomes ``<raw_unk>``.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np

MIN_COUNT, WINDOW = 5, 10
MADE = (20_000, 300_000)  # tokens of the texts that are made
_WORDS, _LINE = 20_000, 25
_UNPACK = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def write_made(path: Path, tokens: int) -> None:
    """Write lines of 25 words of Zipf's distribution, 20,000 different ones."""
    chance = 1 / np.arange(1, _WORDS + 1)
    ids = np.random.default_rng(0).choice(_WORDS, tokens, p=chance / chance.sum())
    names = np.array([f"w{i:x}" for i in range(_WORDS)])
    lines = (" ".join(names[line]) for line in np.split(ids, range(_LINE, tokens, _LINE)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_given(path: Path, source: Path) -> None:
    """Write a file of text, unpacked and without ``<unk>``."""
    with _UNPACK.get(source.suffix, open)(source, "rb") as file:
        path.write_bytes(file.read().replace(b"<unk>", b"<raw_unk>"))
