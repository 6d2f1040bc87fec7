"""Speed and memory of training, inference and the data pipeline: `python -m benchmarks`."""
