"""Denoising in an Apache Beam pipeline; `python -m cbsn.inference.beam` runs it."""
