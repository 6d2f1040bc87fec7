"""The client of TensorFlow Serving."""
