"""Linear map and softmax in one buffer: p = softmax(scale (x W' + b))."""

from __future__ import annotations

from fastnlp.kernels.reference import linear
from fastnlp.kernels.reference.softmax import softmax


def forward(x, weight, bias, scale, out, matmul):  # (N, D), (V, D), (V,) or None, (N, V)
    """out = softmax(scale (x weight' + bias))."""
    linear.forward(x, weight, bias, None, out, matmul)
    softmax(out, out, scale)
