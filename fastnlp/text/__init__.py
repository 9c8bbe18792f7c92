"""From files to the ids of words, and vectors of words."""

from fastnlp.text.corpus import Corpus, encode
from fastnlp.text.evaluate import evaluate_similarity
from fastnlp.text.vectors import KeyedVectors
from fastnlp.text.vocabulary import Vocabulary, build_vocab

__all__ = ["Corpus", "KeyedVectors", "Vocabulary", "build_vocab", "encode", "evaluate_similarity"]
