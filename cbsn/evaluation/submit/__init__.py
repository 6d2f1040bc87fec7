"""Submissions to the SIDD and DND benchmarks; `cbsn submit` makes them."""
