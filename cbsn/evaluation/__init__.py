"""Evaluates denoisers, with or without clean pictures."""
