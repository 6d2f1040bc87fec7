"""Denoising of pictures, arrays and files, with a trained network."""
