"""dropax on GPU and TPU: `python -m benchmarks.accelerators --help`.

Without a device the programs that XLA compiles are read; with one they are timed.
"""
