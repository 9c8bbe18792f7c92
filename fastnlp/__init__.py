"""Compiled kernels for the computations behind language models, on NumPy and CuPy arrays.

For torch tensors see `fastnlp.torch`.
"""

from fastnlp._op import value_and_grad, vjp
from fastnlp._threads import get_num_threads, set_num_threads
from fastnlp.ops.bucket_batches import Batches, bucket_batches
from fastnlp.ops.pack import Packing, pack
from fastnlp.ops.softmax import log_softmax, logsumexp, softmax
from fastnlp.text import Corpus, KeyedVectors, Vocabulary, build_vocab, encode

__version__ = "0.1.0"

__all__ = [
    "Batches",
    "Corpus",
    "KeyedVectors",
    "Packing",
    "Vocabulary",
    "bucket_batches",
    "build_vocab",
    "encode",
    "get_num_threads",
    "log_softmax",
    "logsumexp",
    "pack",
    "set_num_threads",
    "softmax",
    "value_and_grad",
    "vjp",
]
