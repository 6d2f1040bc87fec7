"""The client for TensorFlow Serving."""
