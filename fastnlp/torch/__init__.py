"""The same functions for torch tensors, with autograd, in torch's signatures.

Where torch has the function, names, argument order, class axis and defaults are torch's: changing the import is the
migration. `patch_lm_head` does it for the causal language models of transformers.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("fastnlp.torch needs PyTorch: pip install 'fastnlp-kernels[torch]'") from error

from fastnlp.torch.batches import (
    assemble_pairs,
    block_diagonal_mask,
    pack_arrays,
    pad_arrays,
    unpack_arrays,
    unpad_arrays,
)
from fastnlp.torch.collators import FlatteningCollator, PaddingCollator, PairCollator
from fastnlp.torch.datasets import PackedDataset
from fastnlp.torch.functional import (
    cross_entropy,
    entropy,
    kl_div,
    linear_cross_entropy,
    linear_kl_div,
    linear_softmax,
    log_softmax,
    logsumexp,
    perplexity,
    pool,
    softmax,
    softmax_kl_div,
)
from fastnlp.torch.huggingface import patch_lm_head, unpatch_lm_head
from fastnlp.torch.modules import CrossEntropyLoss, KLDivLoss, LinearCrossEntropyLoss
from fastnlp.torch.packed_stream import PackedIterableDataset
from fastnlp.torch.samplers import BucketBatchSampler

__all__ = [
    "BucketBatchSampler",
    "CrossEntropyLoss",
    "FlatteningCollator",
    "KLDivLoss",
    "LinearCrossEntropyLoss",
    "PackedDataset",
    "PackedIterableDataset",
    "PaddingCollator",
    "PairCollator",
    "assemble_pairs",
    "block_diagonal_mask",
    "cross_entropy",
    "entropy",
    "kl_div",
    "linear_cross_entropy",
    "linear_kl_div",
    "linear_softmax",
    "log_softmax",
    "logsumexp",
    "pack_arrays",
    "pad_arrays",
    "patch_lm_head",
    "perplexity",
    "pool",
    "softmax",
    "softmax_kl_div",
    "unpack_arrays",
    "unpad_arrays",
    "unpatch_lm_head",
]
