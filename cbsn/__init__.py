"""Image denoisers that are trained without clean images."""

__version__ = "0.1.0"
