"""Compiled kernels for the computations behind language models, on NumPy and CuPy arrays.

For torch tensors see `fastnlp.torch`.
"""

from fastnlp._op import value_and_grad, vjp
from fastnlp._threads import get_num_threads, set_num_threads
from fastnlp.ops.bucket_batches import Batches, bucket_batches
from fastnlp.ops.cooccurrence import cooccurrence
from fastnlp.ops.cross_entropy import cross_entropy
from fastnlp.ops.glove import GloVe
from fastnlp.ops.linear import linear
from fastnlp.ops.linear_cross_entropy import linear_cross_entropy
from fastnlp.ops.linear_softmax import linear_softmax
from fastnlp.ops.pack import Packing, pack
from fastnlp.ops.softmax import log_softmax, logsumexp, softmax
from fastnlp.text import Corpus, KeyedVectors, Vocabulary, build_vocab, encode

__version__ = "0.1.0"

__all__ = [
    "Batches",
    "Corpus",
    "GloVe",
    "KeyedVectors",
    "Packing",
    "Vocabulary",
    "bucket_batches",
    "build_vocab",
    "cooccurrence",
    "cross_entropy",
    "encode",
    "get_num_threads",
    "linear",
    "linear_cross_entropy",
    "linear_softmax",
    "log_softmax",
    "logsumexp",
    "pack",
    "set_num_threads",
    "softmax",
    "value_and_grad",
    "vjp",
]
