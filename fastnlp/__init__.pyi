# What users see, a line a name. `__init__.py` reads these lines and imports a name's module when it is first used.

from fastnlp import text as text
from fastnlp import torch as torch
from fastnlp._determinism import deterministic as deterministic
from fastnlp._determinism import use_deterministic as use_deterministic
from fastnlp._op import value_and_grad as value_and_grad
from fastnlp._op import vjp as vjp
from fastnlp._threads import get_num_threads as get_num_threads
from fastnlp._threads import set_num_threads as set_num_threads
from fastnlp.ops._cooccurrence_result import CooccurrenceCounts as CooccurrenceCounts
from fastnlp.ops._criterion import LossStats as LossStats
from fastnlp.ops._ragged import sequence_lengths as sequence_lengths
from fastnlp.ops.block_diagonal_mask import block_diagonal_mask as block_diagonal_mask
from fastnlp.ops.bucket_batches import Batches as Batches
from fastnlp.ops.bucket_batches import bucket_batches as bucket_batches
from fastnlp.ops.cooccurrence import cooccurrence as cooccurrence
from fastnlp.ops.cross_entropy import cross_entropy as cross_entropy
from fastnlp.ops.entropy import entropy as entropy
from fastnlp.ops.entropy import perplexity as perplexity
from fastnlp.ops.glove import GloVe as GloVe
from fastnlp.ops.kl_div import kl_div as kl_div
from fastnlp.ops.linear import linear as linear
from fastnlp.ops.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
from fastnlp.ops.linear_kl_div import linear_kl_div as linear_kl_div
from fastnlp.ops.linear_softmax import linear_softmax as linear_softmax
from fastnlp.ops.pack import Packing as Packing
from fastnlp.ops.pack import pack as pack
from fastnlp.ops.pack_arrays import PackedArrays as PackedArrays
from fastnlp.ops.pack_arrays import pack_arrays as pack_arrays
from fastnlp.ops.pack_arrays import unpack_arrays as unpack_arrays
from fastnlp.ops.pad_arrays import PaddedArrays as PaddedArrays
from fastnlp.ops.pad_arrays import pad_arrays as pad_arrays
from fastnlp.ops.pad_arrays import unpad_arrays as unpad_arrays
from fastnlp.ops.pool import pool as pool
from fastnlp.ops.softmax import log_softmax as log_softmax
from fastnlp.ops.softmax import logsumexp as logsumexp
from fastnlp.ops.softmax import softmax as softmax
from fastnlp.ops.softmax_kl_div import softmax_kl_div as softmax_kl_div
from fastnlp.text import Corpus as Corpus
from fastnlp.text import KeyedVectors as KeyedVectors
from fastnlp.text import Vocabulary as Vocabulary
from fastnlp.text import build_corpus as build_corpus
from fastnlp.text import build_vocab as build_vocab
from fastnlp.text import encode as encode

__version__: str
