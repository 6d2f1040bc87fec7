"""Training a model a little further, on the very pictures that it is to denoise."""
