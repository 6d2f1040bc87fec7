"""Submissions to the SIDD and DND benchmarks; `python -m cbsn submit` makes them."""
