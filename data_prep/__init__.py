"""Raw files to TFRecord shards."""
