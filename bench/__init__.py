"""Benchmarks: every operation beside the software people use for it now, in one run (see ``docs/benchmarks.md``)."""
