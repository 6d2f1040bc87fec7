"""Measures speed and memory of training, inference and data pipeline: `python -m benchmarks`."""
