"""Patch records, picture pairs, the benchmarks' files and the tf.data pipeline."""
