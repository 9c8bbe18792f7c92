"""A source and a tokenizer put together: a stream of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from fastnlp._checks import flag
from fastnlp.text import tokenizers
from fastnlp.text.sources import Progress, Source, Text

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
_SAMPLE = 1 << 16  # characters by which "auto" decides


class Rules(NamedTuple):
    """How text becomes tokens."""

    tokenizer: Any = None
    lower: bool = False
    normalize: Any = None  # the name of a normal form

    @classmethod
    def checked(cls, tokenizer: Any, lower: Any, normalize: Any) -> Rules:
        """Return the rules after checking them.

        Raises
        ------
        TypeError
            `tokenizer` is of another type, or `lower` is not a bool.
        ValueError
            The tokenizer's or the normal form's name is not known.
        """
        tokenizers.check(tokenizer)
        if normalize is not None and normalize not in FORMS:
            raise ValueError(f"normalize must be one of {', '.join(FORMS)} or None, got {normalize!r}")
        return cls(tokenizer, flag("lower", lower), normalize)

    def normal(self, text: str) -> str:
        """Return a text in its normal form, then lower-cased."""
        if self.normalize is not None and not text.isascii():
            from unicodedata import normalize

            text = normalize(self.normalize, text)
            return normalize(self.normalize, text.lower()) if self.lower else text
        return text.lower() if self.lower else text


class Piece(NamedTuple):
    """Some of the stream: text whose tokens stand between white space, or the tokens themselves."""

    content: Any  # bytes, UTF-8, or for each line an iterable of its tokens
    name: str  # of the file
    open: bool  # the last line goes on in the next piece
    last: bool  # the file ends here


def pieces(source: Source, rules: Rules, progress: Progress | None) -> tuple[Any, Iterator[Piece]]:
    """Return the tokenizer that is used, "auto" decided, and the stream.

    Raises
    ------
    ValueError
        The source gives tokens and something is to be done to text.
    """
    if source.kind == "tokens":
        for name, value in zip(rules._fields, rules, strict=True):
            if value is not None and value is not False:
                raise ValueError(f"{name}={value!r} has nothing to do, files_or_lines are tokens already: leave it out")
        return None, (Piece(lines, "", *ends) for lines, *ends in source.batches(progress))
    if isinstance(rules.tokenizer, str) or rules.tokenizer is None:
        texts = source.texts(progress)
        first = next(texts)
        used = tokenizers.resolve(rules.tokenizer, first.data[: 3 * _SAMPLE].decode(errors="ignore")[:_SAMPLE])
        return used, _texts(source, chain([first], texts), rules._replace(tokenizer=used))
    return rules.tokenizer, _tokens(source.batches(progress), rules)


def _texts(source: Source, texts: Iterable[Text], rules: Rules) -> Iterator[Piece]:
    spaced = tokenizers.spaced(rules.tokenizer)
    as_it_is = rules == Rules("whitespace")
    for data, name, last in texts:
        is_open = not data.endswith(b"\n")
        if not as_it_is:
            data = spaced(rules.normal(source.decode(data, name))).encode()
        yield Piece(data, name, is_open, last)


def _tokens(batches: Iterable[Any], rules: Rules) -> Iterator[Piece]:
    tokenize = tokenizers.of_lines(rules.tokenizer)
    changed = rules.lower or rules.normalize is not None
    for lines, is_open, last in batches:
        yield Piece(tokenize(rules.normal("\n".join(lines)).split("\n") if changed else lines), "", is_open, last)
