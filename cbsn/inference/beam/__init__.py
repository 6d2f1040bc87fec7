"""Denoising in an Apache Beam pipeline; `cbsn beam` runs it."""
