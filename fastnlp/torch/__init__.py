"""The same functions for torch tensors, with autograd, in torch's signatures.

Where torch has the function, names, argument order, class axis and defaults are torch's: changing the import is the
migration. `patch_lm_head` does it for the causal language models of transformers.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("fastnlp.torch needs PyTorch: pip install 'fastnlp-kernels[torch]'") from error

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
from fastnlp.torch.samplers import BucketBatchSampler

__all__ = [
    "BucketBatchSampler",
    "CrossEntropyLoss",
    "KLDivLoss",
    "LinearCrossEntropyLoss",
    "cross_entropy",
    "entropy",
    "kl_div",
    "linear_cross_entropy",
    "linear_kl_div",
    "linear_softmax",
    "log_softmax",
    "logsumexp",
    "patch_lm_head",
    "perplexity",
    "pool",
    "softmax",
    "softmax_kl_div",
    "unpatch_lm_head",
]
