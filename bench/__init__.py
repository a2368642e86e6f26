"""Benchmarks: each figure beside its own floor, measured in the same run on the same machine, as a ratio."""
