"""Numba CUDA kernels. None is here yet: a call on a device array says so and lists the backends that there are."""
