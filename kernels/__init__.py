"""How operations run: `reference` (NumPy), `cpu` (Numba), `cuda` (Numba CUDA). Kernels know arrays, never API options.

A kernel module has the name of its operation family. Its public functions take their outputs as arguments, fill them,
and return nothing.
"""

if __name__ != "fastnlp.kernels":
    raise ImportError("kernels/ is the package fastnlp.kernels: import it by that name")
