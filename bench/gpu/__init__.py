"""The proof where there is a GPU: ``python -m bench.gpu`` tests, checks and times the CUDA kernels in ten minutes.

What it does, in this order: the tests against float64 and compute-sanitizer (`checks`), then the parts of `parts`, each
a race of contestants (`race`) on one GPU (`device`), in a process of their own (`worker`) that is started again where a
part broke it (`schedule`). After each part the results are written (`report`) and judged (`targets`).
"""
