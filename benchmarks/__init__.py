"""Paired, runnable comparisons: `python -m benchmarks --help`."""
