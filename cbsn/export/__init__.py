"""Exporting trained models for TensorFlow Serving, LiteRT and ONNX."""
