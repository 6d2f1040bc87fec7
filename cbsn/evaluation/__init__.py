"""Measuring a denoiser against clean pictures."""
