"""`Vocabulary` and `build_vocab`: the words of a text, their ids and their counts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnlp._checks import integer
from fastnlp._files import atomic_write
from fastnlp.text import reading, tokenizers
from fastnlp.text._words import UnknownWordError, check_writable, index_of
from fastnlp.text.sources import Progress, Source
from fastnlp.text.stream import token_batches
from fastnlp.text.tokenizers import Tokenizer


class Vocabulary:
    """Words, their ids and how often each occurs. Not to be changed once made.

    ``vocab.words[i]`` is the word of id i, ``vocab.id(word)`` its id, ``word in vocab`` tells whether it has one.

    Parameters
    ----------
    words
        V different str. The id of a word is its place.
    counts
        ``(V,)`` int, how often each word occurs.
    tokenizer
        What made the tokens: a name, a function, or None if not known.
    n_tokens
        The tokens of the text, those included whose words were cut. Default: the sum of `counts`.

    Attributes
    ----------
    words : tuple of str
    counts : int64 array ``(V,)``, read-only
    index : dict from word to id
    tokenizer, n_tokens
        As given.

    Raises
    ------
    TypeError
        A word is not a str, or `counts` are not integers.
    ValueError
        There are no words, a word stands there twice, or `counts` do not fit or are negative.
    """

    def __init__(
        self,
        words: Iterable[str],
        counts: Any,
        *,
        tokenizer: str | Tokenizer | None = None,
        n_tokens: int | None = None,
    ) -> None:
        self.index = index_of(words)
        self.words = tuple(self.index)
        self.counts: NDArray[np.int64] = _counts(counts, len(self.words))
        tokenizers.check(tokenizer)
        self.tokenizer = tokenizer
        self.n_tokens = int(self.counts.sum()) if n_tokens is None else n_tokens

    def id(self, word: str) -> int:
        """Return the id of `word`.

        Raises
        ------
        KeyError
            The vocabulary does not hold it. The message names close ones.
        """
        try:
            return self.index[word]
        except KeyError:
            raise UnknownWordError(word, self.words) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a line ``word count`` for each word in the order of the ids, as the original GloVe's vocab_count does.

        The tokenizer and the words that were cut are not written.

        Raises
        ------
        ValueError
            A word is empty or holds ASCII white space.
        OSError
            The file cannot be written. What stood there before is unchanged.
        """
        check_writable(self.words, path, "make the tokenizer return words without it")
        with atomic_write(path) as file:
            for word, count in zip(self.words, self.counts.tolist(), strict=True):
                file.write(f"{word} {count}\n".encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, tokenizer: str | Tokenizer | None = None) -> Vocabulary:
        """Read what `save` or the original GloVe's vocab_count wrote. The order of the file gives the ids.

        Raises
        ------
        OSError
            The file cannot be opened.
        ValueError
            The file is empty, or a line is not a word and a count. The message names the path and the line.
        """
        name = os.fspath(path)
        words, counts = [], []
        with reading.open_bytes(path) as file:
            for number, line in enumerate(file, 1):
                word, _, count = line.rstrip(b" \r\n").rpartition(b" ")
                try:
                    words.append(word.decode())
                    counts.append(int(count))
                except ValueError:
                    raise ValueError(
                        f"{name}, line {number}: a word and its count are wanted, got {line!r:.80}"
                    ) from None
                if not word or counts[-1] < 0:
                    raise ValueError(f"{name}, line {number}: a word and its count are wanted, got {line!r:.80}")
        try:
            return cls(words, np.array(counts, np.int64), tokenizer=tokenizer)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{name} is not a vocabulary: {error}") from None

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.words == other.words and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words, {self.n_tokens} tokens, tokenizer={self.tokenizer!r})"


def build_vocab(
    files_or_lines: Any,
    *,
    tokenizer: str | Tokenizer | None = None,
    min_count: int = 5,
    max_size: int | None = None,
    progress: Progress | None = None,
) -> Vocabulary:
    """Count the words of a text and give the frequent ones ids.

    The most frequent word gets id 0; words that occur equally often stand in the order of their UTF-8 bytes. The text
    is read as a stream; only its different words are held.

    Parameters
    ----------
    files_or_lines
        Text. A str or a path is the name of one file of UTF-8 text, plain or packed as .gz, .bz2 or .xz. An iterable
        of paths is several. A list or tuple of str (be it one) is files if all of them name existing files, otherwise
        lines; pass ``iter(lines)`` where a line could be such a name. Any other iterable of str is lines, an iterable
        of lists of str is lines that are tokens already. A line longer than 1 MiB in a file goes to the tokenizer in
        pieces, cut at spaces.
    tokenizer
        How a line becomes tokens:

        - "whitespace" or None: what stands between white space.
        - "characters": each Han, kana or bopomofo character and each punctuation mark; other words whole.
        - "words": lower-cased words, numbers and punctuation of raw English prose.
        - "auto": "characters" where the beginning of the text is mostly Han or kana without spaces, else "whitespace".
        - a function from a line to a list of str.
    min_count
        Words that occur less often are cut.
    max_size
        Of the rest, this many are kept. None: all.
    progress
        Called now and then with how much was read and how much there is: bytes of the files, or lines and None.

    Returns
    -------
    Vocabulary
        Its ``tokenizer`` is the one used ("auto" decided), which `encode` takes up.

    Raises
    ------
    OSError
        A file is missing, is a folder, or may not be read.
    TypeError
        `files_or_lines` or `tokenizer` is of another type, or `min_count` or `max_size` is not an integer.
    ValueError
        A file is empty, not text, truncated or corrupt; the tokenizer is not known; `min_count` or `max_size` is not
        positive; no word is left.

    Warns
    -----
    UserWarning
        Bytes that are not UTF-8 were replaced; said once, with their number. Or a list was taken as lines though some
        of its str name files.
    """
    tokenizers.check(tokenizer)
    least = integer("min_count", min_count, least=1, most=None)
    most = None if max_size is None else integer("max_size", max_size, least=1, most=None)
    source = Source(files_or_lines)
    used, batches = token_batches(source, tokenizer, progress)
    counter: Counter[str] = Counter()
    for batch in batches:
        for tokens in batch.lines:
            counter.update(tokens)
    source.warn()

    for word in counter:
        if not isinstance(word, str):
            raise TypeError(f"tokens must be str, got {word!r:.60}")
    n_tokens = counter.total()
    words = sorted(word for word, count in counter.items() if count >= least)  # code points sort as UTF-8 bytes do
    if not words:
        raise ValueError(_nothing_left(source, counter, least))
    counts = np.fromiter((counter[word] for word in words), np.int64, len(words))
    order = np.argsort(-counts, kind="stable")[:most]
    return Vocabulary([words[i] for i in order], counts[order], tokenizer=used, n_tokens=n_tokens)


def _nothing_left(source: Source, counter: Counter[str], min_count: int) -> str:
    hint = " (strings that do not name existing files are lines of text)" if source.could_be_names else ""
    if not counter:
        return (
            f"the text holds no tokens, so with min_count={min_count} no vocabulary: give text that holds words{hint}"
        )
    word, count = counter.most_common(1)[0]
    return (
        f"no word occurs min_count={min_count} times among {counter.total()} tokens, the most frequent, {word!r:.60}, "
        f"{count} times: lower min_count, or give more text{hint}"
    )


def _counts(counts: Any, size: int) -> NDArray[np.int64]:
    if size == 0:
        raise ValueError("a vocabulary must hold at least one word")
    array = np.asarray(counts)
    if array.dtype.kind not in "iu":
        raise TypeError(f"counts must be integers, got {array.dtype.name}")
    if array.shape != (size,):
        raise ValueError(f"counts must have shape ({size},), one count a word, got {array.shape}")
    if array.min() < 0:
        raise ValueError(f"counts must not be negative, got {array.min()}")
    array = array.astype(np.int64, copy=True)
    array.flags.writeable = False
    return array
