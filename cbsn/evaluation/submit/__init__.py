"""Submissions to the SIDD and DND benchmarks; `python -m cbsn.evaluation.submit` makes them."""
