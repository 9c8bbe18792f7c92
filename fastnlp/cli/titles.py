"""Titles in a text, and the pieces that they head: the articles of a collection, the chapters of a book."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_LONGEST = 120  # characters of a title

_MARKED = re.compile(  # == Title ==, = = Title = =, ## Title
    r"(?P<wiki>=+(?: =+)*)\s*(?P<between>[^=\s].*?)\s*(?P=wiki)|(?P<markdown>#{1,6})\s+(?P<after>[^#].*?)[\s#]*"
)
_NUMBER = r"\s+(?:\d+|[ivxlcdm]+|one|two|three|four|five|six|seven|eight|nine|ten|the \w+)"
_NAME = r"\s*(?:[.:\u2013\u2014-].*)?"  # nothing, or a mark and words
_HAN_NUMBER = r"第\s*[\d\u3007零一二三四五六七八九十百千两]+\s*"
_HAN_NAME = r"[^\u3002\uff0c]*"  # no sentence
_HEADS = tuple(
    re.compile(rf"(?:{words}){_NUMBER}{_NAME}|{_HAN_NUMBER}[{signs}]{_HAN_NAME}", re.IGNORECASE)
    for words, signs in (("volume|book|part|act", "卷部编"), ("chapter|canto|letter|scene", "回章"), ("section", "节"))
)
"""What heads the pieces of a book, by level."""


class Piece(NamedTuple):
    """Lines of a text from a title to the next one of its level or of a higher one."""

    title: str
    begin: int  # the line of the title
    end: int

    @property
    def size(self) -> int:
        """The number of lines."""
        return self.end - self.begin


def pieces(lines: Sequence[str], *, shortest: int, fewest: int) -> list[Piece]:
    """Return the pieces of the highest level that has `fewest` of at least `shortest` lines; none without such a level.

    A title is a line such as ``= Title =`` or ``== Title ==`` (wikis, WikiText), ``# Title`` (Markdown), ``CHAPTER IV``
    or 第四回. Where names occur again the later ones are numbered.
    """
    titles = [(i, *title) for i, line in enumerate(lines) if (title := level_and_title(line)) is not None]
    for level in sorted({level for _, level, _ in titles}):
        heads = [(i, own, title) for i, own, title in titles if own <= level]
        ends = [i for i, _, _ in heads[1:]] + [len(lines)]
        found = [Piece(title, i, end) for (i, own, title), end in zip(heads, ends, strict=True) if own == level]
        if sum(piece.size >= shortest for piece in found) >= fewest:
            return list(_told_apart(found))
    return []


def level_and_title(line: str) -> tuple[int, str] | None:
    """Return the level of a title, 1 being the highest, and its words; None if the line is no title."""
    text = line.strip()
    if len(text) > _LONGEST:
        return None
    marked = _MARKED.fullmatch(text)
    if marked:
        if marked["markdown"]:
            return len(marked["markdown"]), marked["after"]
        return marked["wiki"].count("="), marked["between"]
    return next(((level, text) for level, head in enumerate(_HEADS, 1) if head.fullmatch(text)), None)


def _told_apart(found: Sequence[Piece]) -> Iterator[Piece]:
    seen: Counter[str] = Counter()
    for piece in found:
        seen[piece.title] += 1
        n = seen[piece.title]
        yield piece if n == 1 else piece._replace(title=f"{piece.title} ({n})")
