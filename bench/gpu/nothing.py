"""A kernel that does nothing: what a launch by itself costs."""

from __future__ import annotations

from fastnlp.kernels.cuda.prims import kernel


@kernel("x* i64 f32", threads=32)
def nothing(x, n, factor):
    """Do nothing."""
