"""Benchmarks: every operation beside the software people use for it now, in one run (see ``docs/benchmarks.md``)."""

import sys

# transformers and TRL look for a package `kernels`; at the root of a checkout they would find our folder of that name.
sys.modules.setdefault("kernels", None)
