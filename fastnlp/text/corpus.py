"""`Corpus`: a text as the ids of its words."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnlp._files import atomic_folder
from fastnlp.text.vocabulary import Vocabulary

_ARRAYS = ("ids", "offsets", "sentences")
_FACTS = "corpus.json"


class Corpus:
    """A text as ids: documents one after the other.

    ``len(corpus)`` is its number of ids, ``corpus.n_documents`` that of its documents.

    Parameters
    ----------
    ids
        ``(tokens,)`` int32, in memory or mapped from a file. -1 stands for a token that the vocabulary does not hold.
    offsets
        ``(documents + 1,)`` int64: document i is ``ids[offsets[i]:offsets[i + 1]]``.
    vocab
        The vocabulary of the ids.
    n_oov
        How many tokens the vocabulary does not hold, left out or -1.
    sentences
        ``(lines + 1,)`` int64: line i is ``ids[sentences[i]:sentences[i + 1]]``. Default: `offsets`, a line a document.

    Raises
    ------
    TypeError
        `ids` are not int32, `offsets` or `sentences` are not int64, or `vocab` is no `Vocabulary`.
    ValueError
        `offsets` or `sentences` do not rise from 0 to the number of ids.
    """

    def __init__(
        self,
        ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        vocab: Vocabulary,
        n_oov: int = 0,
        *,
        sentences: NDArray[np.int64] | None = None,
    ) -> None:
        if not isinstance(vocab, Vocabulary):
            raise TypeError(f"vocab must be a Vocabulary, got {type(vocab).__name__}")
        sentences = offsets if sentences is None else sentences
        for name, x, dtype in (
            ("ids", ids, np.int32),
            ("offsets", offsets, np.int64),
            ("sentences", sentences, np.int64),
        ):
            if not isinstance(x, np.ndarray) or x.dtype != dtype or x.ndim != 1:
                raise TypeError(f"{name} must be an array of one axis of {np.dtype(dtype).name}")
        for name, x in (("offsets", offsets), ("sentences", sentences)):
            if x.size == 0 or x[0] != 0 or x[-1] != ids.size or (x[1:] < x[:-1]).any():
                raise ValueError(f"{name} must rise from 0 to the number of ids, {ids.size}")
        self.ids = ids
        self.offsets = offsets
        self.sentences = sentences
        self.vocab = vocab
        self.n_oov = n_oov

    @property
    def n_documents(self) -> int:
        """The number of documents, empty ones included."""
        return self.offsets.size - 1

    @property
    def nbytes(self) -> int:
        """The size of the ids, offsets and sentences in bytes, in memory or on disk."""
        sentences = 0 if self.sentences is self.offsets else self.sentences.nbytes
        return self.ids.nbytes + self.offsets.nbytes + sentences

    def document(self, i: int) -> NDArray[np.int32]:
        """Return the ids of document i, a view; negative i count from the end.

        Raises
        ------
        IndexError
            There is no document i.
        """
        n = self.n_documents
        if not -n <= i < n:
            raise IndexError(f"document {i} is out of range, there are {n}")
        i %= n
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def documents(self) -> Iterator[NDArray[np.int32]]:
        """Yield the ids of each document in order, views."""
        return map(self.document, range(self.n_documents))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the corpus to a folder, from which `load` maps it: the folder is there whole, or as it was before.

        It holds ``ids.npy``, ``offsets.npy``, ``sentences.npy``, the vocabulary as ``vocab.txt`` and what else there is
        as ``corpus.json``. A tokenizer without a name is not written.

        Raises
        ------
        ValueError
            The vocabulary cannot be written (see `Vocabulary.save`).
        OSError
            The folder cannot be written, or something that is no corpus stands there.
        """
        vocab = self.vocab
        facts = {
            "n_oov": self.n_oov,
            "n_tokens": vocab.n_tokens,
            "tokenizer": vocab.tokenizer if isinstance(vocab.tokenizer, str) else None,
            "lower": vocab.lower,
            "normalize": vocab.normalize,
            "exclude": vocab.exclude,
        }
        name = os.fspath(folder)
        if os.path.lexists(name) and not os.path.exists(os.path.join(name, _FACTS)):
            raise FileExistsError(errno.EEXIST, "something that is no corpus stands here: name another folder", name)
        with atomic_folder(folder) as new:
            vocab.save(os.path.join(new, "vocab.txt"))
            for name in _ARRAYS:
                np.save(os.path.join(new, f"{name}.npy"), getattr(self, name))
            with open(os.path.join(new, _FACTS), "w", encoding="utf-8") as file:
                json.dump(facts, file, indent=1)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Corpus:
        """Open what `save` wrote; the ids stay on disk and are mapped.

        Raises
        ------
        OSError
            There is no such folder.
        ValueError
            It is no saved corpus, or is damaged.
        """
        name = os.fspath(folder)
        if not os.path.isdir(name):
            raise FileNotFoundError(errno.ENOENT, "no such folder: a corpus is saved as one", name)
        try:
            with open(os.path.join(name, _FACTS), encoding="utf-8") as file:
                facts = json.load(file)
            ids, offsets, sentences = (_saved(os.path.join(name, f"{array}.npy")) for array in _ARRAYS)
            n_oov = facts.pop("n_oov")
            saved = Vocabulary.load(os.path.join(name, "vocab.txt"))
            vocab = Vocabulary(saved.words, saved.counts, **facts)
            lines = None if np.array_equal(offsets, sentences) else np.array(sentences)
            return cls(ids, np.array(offsets), vocab, n_oov, sentences=lines)
        except (ValueError, TypeError, KeyError, AttributeError, EOFError, FileNotFoundError) as error:
            raise ValueError(f"{name} is no saved corpus, or is damaged ({error}): save it again") from error

    def __len__(self) -> int:
        return self.ids.size

    def __repr__(self) -> str:
        return f"Corpus({len(self)} tokens, {self.n_documents} documents, {self.n_oov} tokens not in the vocabulary)"


def _saved(path: str) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r")
    except ValueError:
        empty = np.load(path)
        if empty.size:
            raise
        return empty  # which cannot be mapped
