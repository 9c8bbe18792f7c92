"""From a line of text to a list of tokens.

The tokenizers that have names never make a token across white space, so a line may be handed to them in pieces that
are cut there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

Tokenizer = Callable[[str], Iterable[str]]

# Scripts written without spaces between words: Han, kana, bopomofo. Hangul is written with spaces.
_CJK = (
    "\u2e80-\u2fd5\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)


def whitespace(line: str) -> list[str]:
    """Return what stands between white space (ASCII and Unicode, as `str.split`)."""
    return line.split()


def characters(line: str) -> list[str]:
    """Return each Han, kana or bopomofo character and each punctuation mark, and other words whole."""
    return _characters_pattern().findall(line)


def words(line: str) -> list[str]:
    """Return lower-cased words, numbers and punctuation of raw English prose.

    Apostrophes inside a word stay ("don't"), hyphens divide, points and commas inside a number stay ("1,000.5"). A run
    of points or of hyphens is one token.
    """
    return _words_pattern().findall(line.lower())


_NAMED: dict[str, Tokenizer] = {"whitespace": whitespace, "characters": characters, "words": words}
_NAMES = (*_NAMED, "auto")
_WANTED = "a function from a line to a list of tokens, or a tokenizer of Hugging Face's tokenizers"


def check(tokenizer: Any) -> None:
    """Raise unless `tokenizer` is None, a name, a callable or a tokenizer of Hugging Face's.

    Raises
    ------
    ValueError
        A name that is not known.
    TypeError
        None of these.
    """
    if isinstance(tokenizer, str):
        if tokenizer not in _NAMES:
            raise ValueError(f"tokenizer must be one of {', '.join(map(repr, _NAMES))}, {_WANTED}, got {tokenizer!r}")
    elif tokenizer is not None and not callable(tokenizer) and not hasattr(tokenizer, "encode_batch"):
        raise TypeError(f"tokenizer must be a name, {_WANTED}, got {tokenizer!r}")


def resolve(tokenizer: Any, sample: str) -> Any:
    """Return the name of a tokenizer, or the tokenizer itself; "auto" is decided by a sample of the text."""
    if tokenizer is None:
        return "whitespace"
    return suggest(sample) if isinstance(tokenizer, str) and tokenizer == "auto" else tokenizer


def spaced(name: str) -> Callable[[str], str]:
    """Return a function that puts white space between the tokens of lines, for a name that `resolve` gave."""
    if name == "whitespace":
        return str
    pattern = _characters_pattern() if name == "characters" else _words_pattern()
    find = re.compile(f"{pattern.pattern}|\n").findall
    return (lambda text: " ".join(find(text))) if name == "characters" else (lambda text: " ".join(find(text.lower())))


def of_lines(tokenizer: Any) -> Callable[[list[str]], Iterable[Iterable[str]]]:
    """Return a function from lines to the tokens of each, for a tokenizer that has no name.

    Of Hugging Face's tokenizers, special tokens that they would add, padding and truncation are left out.
    """
    fast = getattr(tokenizer, "backend_tokenizer", tokenizer)  # what transformers wraps
    if not hasattr(fast, "encode_batch"):
        return partial(map, _checked(tokenizer))
    if getattr(fast, "padding", None) is not None or getattr(fast, "truncation", None) is not None:
        from copy import deepcopy

        fast = deepcopy(fast)  # it is the caller's
        fast.no_padding()
        fast.no_truncation()
    return lambda lines: [encoding.tokens for encoding in fast.encode_batch(lines, add_special_tokens=False)]


def _checked(tokenizer: Tokenizer) -> Tokenizer:
    def checked(line: str) -> Iterable[str]:
        tokens = tokenizer(line)
        if isinstance(tokens, str) or not isinstance(tokens, Iterable):
            raise TypeError(f"the tokenizer must return a list of tokens, it returned {tokens!r:.60}")
        return tokens

    return checked


def suggest(sample: str) -> str:
    """Return "characters" for text that is mostly Han or kana without spaces between words, else "whitespace".

    Text is taken as divided into words where at least one space stands between words to three such characters: words
    of segmented Chinese are about one and a half characters long, the shortest lines of verse four.
    """
    cjk = len(re.findall(f"[{_CJK}]", sample))
    letters = len(re.findall(r"[^\W\d_]", sample))
    spaces = len(re.findall(r"(?<=\S)[^\S\n]+(?=\S)", sample))
    return "characters" if cjk * 2 > letters and spaces * 3 < cjk else "whitespace"


@lru_cache(1)
def _characters_pattern() -> re.Pattern[str]:
    marks = _marks()
    return re.compile(rf"[{_CJK}][{marks}]*|(?:(?![{_CJK}])[\w{marks}])+|[^\w\s][{marks}]*")


@lru_cache(1)
def _words_pattern() -> re.Pattern[str]:
    word = rf"[\w{_marks()}]+"
    return re.compile(rf"\d+(?:[.,]\d+)+(?!\w)|{word}(?:['\u2019]{word})*|\.{{2,}}|-{{2,}}|[^\w\s][{_marks()}]*")


@lru_cache(1)
def _marks() -> str:
    """Return the combining marks, which belong to words but not to the expression ``\\w``, as ranges."""
    from unicodedata import category

    marks = [code for code in range(0x300, 0x10000) if category(chr(code))[0] == "M"]
    starts = [code for code in marks if category(chr(code - 1))[0] != "M"]
    ends = [code for code in marks if category(chr(code + 1))[0] != "M"]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(starts, ends, strict=True))
