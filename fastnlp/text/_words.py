"""Lists of words that have ids: what vocabularies and vectors share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

_ASCII_SPACE = re.compile(r"[ \t\n\v\f\r]")
_SEARCHED = 50_000  # words that are compared to find close ones


def index_of(words: Iterable[str], name: str = "words") -> dict[str, int]:
    """Return the id of each word; `name` is the caller's name for the argument, used in errors.

    Raises
    ------
    TypeError
        A word is not a str.
    ValueError
        A word stands there twice.
    """
    if isinstance(words, str):
        raise TypeError(f"{name} must be a list of str, got the str {words!r:.60}")
    words = tuple(words)
    index = dict(zip(words, range(len(words)), strict=True)) if set(map(type, words)) == {str} else {}
    if len(index) == len(words):  # as a rule; otherwise the first word that is wrong is looked for
        return index
    index = {}
    for i, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"{name} must hold str, word {i} is {type(word).__name__}")
        if index.setdefault(word, i) != i:
            raise ValueError(f"{name} must hold each word once, {word!r} is both word {index[word]} and word {i}")
    return index


def check_writable(words: Iterable[str], path: str | os.PathLike[str], remedy: str) -> None:
    """Raise if a word cannot stand in a line of text whose fields are divided by spaces.

    Raises
    ------
    ValueError
        A word is empty or holds ASCII white space. Others, like U+00A0, are allowed.
    """
    for word in words:
        if not word or _ASCII_SPACE.search(word):
            raise ValueError(
                f"{os.fspath(path)} cannot hold the word {word!r}: it is empty or has white space ({remedy})"
            )


def encoded_words(words: Iterable[str], path: str | os.PathLike[str]) -> list[bytes]:
    """Return the words as UTF-8, for a file.

    Raises
    ------
    ValueError
        A word holds half of a character (a surrogate), which UTF-8 does not have.
    """
    encoded = []
    for word in words:
        try:
            encoded.append(word.encode())
        except UnicodeEncodeError as error:
            raise ValueError(f"{os.fspath(path)} cannot hold the word {word!r:.60}: {error.reason}") from None
    return encoded


class UnknownWordError(KeyError):
    """A word that is not in the list. The close ones are looked for only when the message is read."""

    def __init__(self, word: object, words: Sequence[str]) -> None:
        super().__init__(word)
        self._words = words

    def __str__(self) -> str:
        word = self.args[0]
        close = _close(word, self._words) if isinstance(word, str) else []
        hint = f"; close to it are {', '.join(map(repr, close))}" if close else ""
        return f"{word!r} is not among the {len(self._words)} words{hint}"

    def __reduce__(self) -> tuple[type[KeyError], tuple[str]]:
        return KeyError, (str(self),)


def _close(word: str, words: Sequence[str]) -> list[str]:
    from difflib import get_close_matches

    searched = words[:_SEARCHED]
    same = [other for other in searched if other.lower() == word.lower()]
    similar = [other for other in searched if abs(len(other) - len(word)) <= 2]
    return list(dict.fromkeys(same + get_close_matches(word, similar)))[:3]
