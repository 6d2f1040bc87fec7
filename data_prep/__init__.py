"""Converts raw files to TFRecord shards."""
