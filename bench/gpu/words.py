"""Parts of words: counting co-occurrences and training GloVe vectors on the GPU, beside the CPU of the same machine."""

from __future__ import annotations

from bench.gpu.part import Part


def main() -> list[Part]:
    """Return the case of the target."""
    return []


def more() -> list[Part]:
    """Return the rest."""
    return []
