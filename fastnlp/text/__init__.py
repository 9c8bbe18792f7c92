"""From files to the ids of words, and vectors of words."""

from fastnlp.text.cooccurrence_files import load_cooccurrences, save_cooccurrences
from fastnlp.text.corpus import Corpus
from fastnlp.text.encoding import build_corpus, encode
from fastnlp.text.evaluate import evaluate_analogies, evaluate_similarity
from fastnlp.text.vectors import KeyedVectors
from fastnlp.text.vocabulary import Vocabulary, build_vocab

__all__ = [
    "Corpus",
    "KeyedVectors",
    "Vocabulary",
    "build_corpus",
    "build_vocab",
    "encode",
    "evaluate_analogies",
    "evaluate_similarity",
    "load_cooccurrences",
    "save_cooccurrences",
]
