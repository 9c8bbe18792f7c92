"""`Vocabulary` and `build_vocab`: the words of a text, their ids and their counts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnlp._checks import integer
from fastnlp._files import atomic_write
from fastnlp.text import reading
from fastnlp.text._words import UnknownWordError, check_writable, index_of
from fastnlp.text.sources import Progress, Source
from fastnlp.text.stream import Rules, pieces
from fastnlp.text.tokenizers import Tokenizer
from fastnlp.text.tokens import Numbering

# The order of signed bytes is that of unsigned ones with the highest bit turned over, also of the 0 that ends a word.
_SIGNED = bytes(byte ^ 0x80 for byte in range(256))
_KEY = re.compile(rb"[^\x80]*\x80")


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
    lower, normalize
        What was done to the text before, as in `build_vocab`.
    exclude
        Words that were left out on purpose.
    n_tokens
        The tokens of the text, those included whose words were cut. Default: the sum of `counts`.

    Attributes
    ----------
    words : tuple of str
    counts : int64 array ``(V,)``, read-only
    index : dict from word to id
    tokenizer, lower, normalize, exclude, n_tokens
        As given. `encode` takes up the first three.

    Raises
    ------
    TypeError
        A word is not a str, `counts` are not integers, or `lower` is not a bool.
    ValueError
        There are no words, a word stands there twice, `counts` do not fit or are negative, or `tokenizer` or
        `normalize` is not known.
    """

    def __init__(
        self,
        words: Iterable[str],
        counts: Any,
        *,
        tokenizer: str | Tokenizer | None = None,
        lower: bool = False,
        normalize: str | None = None,
        exclude: Iterable[str] = (),
        n_tokens: int | None = None,
    ) -> None:
        self.words = tuple(words)
        self.index = dict(zip(self.words, range(len(self.words)), strict=True))
        if isinstance(words, str) or len(self.index) != len(self.words) or not set(map(type, self.words)) <= {str}:
            self.index = index_of(words if isinstance(words, str) else self.words)  # raises, but for subclasses of str
        self.counts: NDArray[np.int64] = _counts(counts, len(self.words))
        self.tokenizer, self.lower, self.normalize = Rules.checked(tokenizer, lower, normalize)
        self.exclude = excluded_words(exclude)
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

        How the text became tokens and the words that were cut are not written.

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
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        tokenizer: str | Tokenizer | None = None,
        lower: bool = False,
        normalize: str | None = None,
    ) -> Vocabulary:
        """Read what `save` or the original GloVe's vocab_count wrote. The order of the file gives the ids.

        How the text became tokens is not in the file: `tokenizer`, `lower` and `normalize` say it, as in `build_vocab`.

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
            numbers = np.array(counts, np.int64)
            return cls(words, numbers, tokenizer=tokenizer, lower=lower, normalize=normalize)
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
    lower: bool = False,
    normalize: str | None = None,
    exclude: Iterable[str] = (),
    progress: Progress | None = None,
) -> Vocabulary:
    """Count the words of a text and give the frequent ones ids.

    The most frequent word gets id 0. Words that occur equally often stand in the order in which the original GloVe's
    vocab_count puts them on x86: by their UTF-8 bytes, taken as signed numbers, so that characters beyond ASCII come
    before those of ASCII and before the end of a word. With `min_count` alone the words, their counts and their order
    are those of that program.

    The text is read as a stream. Held are its different words and, for each thread, a few MiB of text.

    Parameters
    ----------
    files_or_lines
        Text. A str or a path is the name of one file of UTF-8 text, plain or packed as .gz, .bz2, .xz or .zst, or a
        pattern such as ``"data/*.txt"`` (``**`` goes through folders), whose files are read in the order of their
        names. "-" is standard input; another open file is read from where it stands. An iterable of paths is several
        files. A list or tuple of str (be it one) is files if all of them name existing files, otherwise lines; pass
        ``iter(lines)`` where a line could be such a name. Any other iterable of str is lines, an iterable of lists of
        str is lines that are tokens already.
    tokenizer
        How a line becomes tokens:

        - "whitespace" or None: what stands between white space, as for `str.split`.
        - "characters": each Han, kana or bopomofo character and each punctuation mark; other words whole.
        - "words": lower-cased words, numbers and punctuation of raw English prose.
        - "auto": "characters" where the beginning of the text is mostly Han or kana without spaces, else "whitespace".
        - a function from a line to a list of str.
        - a ``Tokenizer`` of Hugging Face's tokenizers, or a fast tokenizer of transformers: its tokens, without the
          special ones that it would add.

        A line longer than 1 MiB goes to the tokenizer in pieces that are cut after a space; where 4 MiB hold none, they
        are cut between two characters.
    min_count
        Words that occur less often are cut.
    max_size
        Of the rest, this many are kept, the first in the order above. (The original cuts among equally frequent words
        by chance, before it sorts them.) None: all.
    lower
        Lower-case the text (`str.lower`).
    normalize
        "NFC", "NFD", "NFKC" or "NFKD": bring the text into this normal form of Unicode, before it is lower-cased.
    exclude
        Words that get no id, however frequent. ``<unk>`` is a word like any other; the original refuses a text that
        holds it. ``exclude=("<unk>",)`` leaves it out.
    progress
        Called now and then with how much was read and how much there is: bytes of the files, or lines; None where the
        end is not known.

    Returns
    -------
    Vocabulary
        Its ``tokenizer`` (the one used, "auto" decided), ``lower`` and ``normalize`` are what `encode` takes up.

    Raises
    ------
    OSError
        A file is missing, is a folder, or may not be read, or a pattern matches none.
    ImportError
        A file is packed with zstd, and neither Python 3.14 nor the package zstandard is there.
    TypeError
        `files_or_lines`, `tokenizer`, `lower` or `exclude` is of another type, or `min_count` or `max_size` is not an
        integer.
    ValueError
        A file is empty, not text (it holds a NUL byte: the line is named), truncated or corrupt; the tokenizer or the
        normal form is not known; `min_count` or `max_size` is not positive; no word is left.

    Warns
    -----
    UserWarning
        Bytes that are not UTF-8 were replaced; said once, with their number. Or a list was taken as lines though some
        of its str name files.
    """
    rules = Rules.checked(tokenizer, lower, normalize)
    choice = Choice.checked(min_count, max_size, exclude)
    source = Source(files_or_lines)
    used, stream = pieces(source, rules, progress)
    numbering = Numbering()
    for _ in numbering.batches(stream, source):
        pass
    source.warn()
    words, counts, _ = numbering.merged()
    vocab, _ = choice.vocabulary(words, counts, rules._replace(tokenizer=used), source)
    return vocab


class Choice(NamedTuple):
    """Which words get ids."""

    min_count: int
    max_size: int | None
    exclude: tuple[str, ...]

    @classmethod
    def checked(cls, min_count: Any, max_size: Any, exclude: Any) -> Choice:
        """Return the choice after checking it; the errors are those of `build_vocab`."""
        most = None if max_size is None else integer("max_size", max_size, least=1, most=None)
        return cls(integer("min_count", min_count, least=1, most=None), most, excluded_words(exclude))

    def vocabulary(
        self, words: list[bytes], counts: NDArray[np.int64], rules: Rules, source: Source
    ) -> tuple[Vocabulary, NDArray[np.int64]]:
        """Return the vocabulary of the words chosen, and which of `words` they are, in the order of their ids.

        Raises
        ------
        ValueError
            No word is left. The message says why.
        """
        left = np.flatnonzero(counts >= self.min_count)
        if self.exclude:
            excluded = {word.encode("utf-8", "surrogatepass") for word in self.exclude}
            left = left[[words[i] not in excluded for i in left.tolist()]]
        if not left.size:
            raise ValueError(self._nothing_left(source, words, counts))
        keys = _KEY.findall(b"\0".join([*map(words.__getitem__, left.tolist()), b""]).translate(_SIGNED))
        by_bytes = left[sorted(range(left.size), key=keys.__getitem__)]
        chosen = by_bytes[np.argsort(-counts[by_bytes], kind="stable")[: self.max_size]]
        vocab = Vocabulary(
            b"\0".join(map(words.__getitem__, chosen.tolist())).decode().split("\0"),
            counts[chosen],
            **rules._asdict(),
            exclude=self.exclude,
            n_tokens=int(counts.sum()),
        )
        return vocab, chosen

    def _nothing_left(self, source: Source, words: list[bytes], counts: NDArray[np.int64]) -> str:
        hint = " (strings that do not name existing files are lines of text)" if source.could_be_names else ""
        least = f"min_count={self.min_count}"
        if not words:
            return f"the text holds no tokens, so with {least} no vocabulary: give text that holds words{hint}"
        most = int(counts.argmax())
        if counts[most] >= self.min_count:
            return f"all words that occur {least} times are in exclude: leave some out of it, or lower min_count{hint}"
        return (
            f"no word occurs {least} times among {counts.sum()} tokens, the most frequent, "
            f"{words[most].decode()!r:.60}, {counts[most]} times: lower min_count, or give more text{hint}"
        )


def excluded_words(exclude: Any) -> tuple[str, ...]:
    """Return the argument `exclude` as a tuple.

    Raises
    ------
    TypeError
        It is not an iterable of str, or it is a str.
    """
    words = None if isinstance(exclude, str) or not isinstance(exclude, Iterable) else tuple(exclude)
    if words is None or not all(isinstance(word, str) for word in words):
        raise TypeError(f"exclude must be a tuple or another iterable of str, got {exclude!r:.60}")
    return words


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
