"""How a text is cut so that counting it stays within a budget of memory."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fastnlp._checks import integer
from fastnlp.ops._cooccurrence_rows import ENTRY, Question, part_bytes, scratch_bytes
from fastnlp.ops._cooccurrence_text import Text

_MOST = 1 << 31  # places of a part: positions in it are 32 bits
_LEAST = 1 << 16
_SCRATCH = 1 << 21  # entries that are counted before they are moved to the result
_LOADED = 76_000_000  # bytes: compiled kernels, SciPy, threads, and what the allocator keeps
_ENDLESS = 2.0**64
_RECORD = 24  # bytes an entry takes on its way to a file
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class Plan(NamedTuple):
    """How much is done at once."""

    places: int
    """The places of the text that are one part."""
    parts: int
    scratch: int
    """Entries that are counted at once."""
    add_scratch: int
    """Entries that are added at once, when there are several parts."""


def plan_of(text: Text, question: Question, memory: int | None) -> Plan:
    """Return the plan with the fewest parts that keeps to the budget.

    Raises
    ------
    ValueError
        The budget is too small.
    """
    if memory is None:
        places = min(_MOST, max(1, text.size))
        return Plan(places, -(-text.size // places) or 1, _SCRATCH, _SCRATCH)
    found = _fit(text, question, memory)
    if found is None:
        enough = _bytes(text, question, max(1, text.size), question.width)
        least = 1 + _largest(memory, enough, lambda budget: _fit(text, question, budget) is None)
        raise ValueError(
            f"memory must be at least {-(-least // 10**6)} MB for this text and vocabulary, got {memory / 1e6:g} MB"
            + ("" if text.mapped else ": ids that are mapped from a file take less")
        )
    return found


def _fit(text: Text, question: Question, memory: int) -> Plan | None:
    """Return the plan with the fewest parts, or None if there is none."""
    width = question.width
    smallest, most = min(_LEAST, max(1, text.size)), max(1, min(_MOST, text.size))
    if memory < _bytes(text, question, smallest, width):
        return None
    spare = memory - _bytes(text, question, smallest, 0)
    scratch = min(_SCRATCH, max(width, spare // 4 // (ENTRY + _RECORD)))
    places = _largest(smallest, max(smallest, most), lambda n: _bytes(text, question, n, scratch) <= memory)
    parts = max(1, -(-text.size // places))
    places = max(1, -(-text.size // parts))
    if parts == 1:
        return Plan(places, parts, scratch, scratch)
    left = memory - _always(text, question) - 16 * parts * question.rows  # row starts of each part, twice
    add_scratch = min(_SCRATCH, left // (2 * ENTRY + _RECORD))
    return Plan(places, parts, scratch, add_scratch) if add_scratch >= parts * width else None  # a row at least


def _always(text: Text, question: Question) -> int:
    """Return the bytes that are taken however the text is cut."""
    return _LOADED + text.nbytes + scratch_bytes(question.width) + 64 * question.rows


def _bytes(text: Text, question: Question, places: int, scratch: int) -> int:
    """Return the bytes that counting a part takes."""
    part = part_bytes(places + 2 * question.reach, text.offsets.size, question.width)
    return _always(text, question) + part + scratch * (ENTRY + _RECORD)


def _largest(low: int, high: int, fits: Any) -> int:
    """Return the largest number in [low, high] that fits, if `low` does."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def bytes_of(memory: int | str | None) -> int | None:
    """Return a budget such as 256_000_000, "256MB" or "1.5GiB" in bytes.

    Raises
    ------
    TypeError
        Neither an integer nor a str.
    ValueError
        Not a size, or not positive.
    """
    if memory is None:
        return None
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?I?)B?\s*", memory.upper())
        if found is None or found[2] not in _UNITS:
            raise ValueError(f"memory must be bytes or a size such as '256MB' or '1.5GiB', got {memory!r}")
        memory = int(min(float(found[1]), _ENDLESS) * _UNITS[found[2]])
    return integer("memory", memory, least=1, most=None)
