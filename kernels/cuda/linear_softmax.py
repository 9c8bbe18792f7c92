"""Linear map and softmax in one buffer: p = softmax(scale (x W' + b)), cuBLAS and one pass over its result."""

from __future__ import annotations

from fastnlp.kernels.cuda import linear
from fastnlp.kernels.cuda.softmax import softmax


def forward(x, weight, bias, scale, out, matmul):  # (N, D), (V, D), (V,) or None, (N, V)
    """out = softmax(scale (x weight' + bias)); `matmul` names a CPU's BLAS, the GPU's is used."""
    linear.forward(x, weight, bias, None, out, matmul)
    softmax(out, out, scale)
