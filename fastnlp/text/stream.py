"""A source and a tokenizer put together: a stream of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from fastnlp.text.sources import Batch, Progress, Source
from fastnlp.text.tokenizers import Tokenizer, function, resolve

_SAMPLE = 1 << 16  # characters by which "auto" decides


def token_batches(
    source: Source, tokenizer: str | Tokenizer | None, progress: Progress | None
) -> tuple[str | Tokenizer | None, Iterator[Batch]]:
    """Return the tokenizer that is used, "auto" decided, and the source's batches with an iterable of tokens a line.

    Raises
    ------
    ValueError
        The source gives tokens and a tokenizer is asked for.
    """
    batches = source.batches(progress)
    if source.kind == "tokens":
        if tokenizer is not None:
            raise ValueError(
                f"tokenizer={tokenizer!r} has nothing to do, files_or_lines are tokens already: leave it out"
            )
        return None, batches
    first = next(batches)
    used = resolve(tokenizer, "\n".join(first.lines)[:_SAMPLE])
    tokenize = function(used)
    return used, (Batch(map(tokenize, lines), is_open) for lines, is_open in chain([first], batches))
