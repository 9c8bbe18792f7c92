"""Linear map and softmax in one buffer: p = softmax(scale (x W' + b)).

Schedule: the GEMM of a chunk of rows writes logits into the output, and the softmax of the chunk replaces them while
they are in cache. Flops: 2 N V D; bytes: the output is written once.
"""

from __future__ import annotations

from fastnlp.kernels.cpu import linear
from fastnlp.kernels.cpu.softmax import softmax


def forward(x, weight, bias, scale, out, matmul):  # (N, D), (V, D), (V,) or None, (N, V)
    """out = softmax(scale (x weight' + bias))."""
    for begin, end in linear.row_chunks(x.shape[0], out.shape[1] * out.itemsize):
        chunk = out[begin:end]
        linear.forward(x[begin:end], weight, bias, None, chunk, matmul)
        softmax(chunk, chunk, scale)
