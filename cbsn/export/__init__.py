"""Trained models for TensorFlow Serving, LiteRT and ONNX, and a client of the server."""
