"""Benchmarks: each figure beside its yardstick, measured in the same run, and held against its bar."""
