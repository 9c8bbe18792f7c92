"""The same functions for torch tensors, with autograd, in torch's signatures.

Where torch has the function, names, argument order, class axis and defaults are torch's: changing the import is the
migration. What a signature holds that is not there yet raises NotImplementedError.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("fastnlp.torch needs PyTorch: pip install 'fastnlp-kernels[torch]'") from error

from fastnlp.torch.functional import cross_entropy, linear_cross_entropy

__all__ = ["cross_entropy", "linear_cross_entropy"]
