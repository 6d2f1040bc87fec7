"""Denoising in an Apache Beam pipeline; `python -m cbsn beam` runs it."""
