"""Numba CUDA kernels and their drivers. Only `prims` knows the compiler; matrix products are cuBLAS's."""
