"""Objectives: what is minimised, given a network and a noisy batch."""

from cbsn.objectives.asymmetric_pixel_shuffle import AsymmetricPixelShuffle
from cbsn.objectives.downsampled_invariance import DownsampledInvariance

OBJECTIVES = {
    objective.__name__: objective for objective in (AsymmetricPixelShuffle, DownsampledInvariance)
}
"""Every objective that a recipe may name."""
