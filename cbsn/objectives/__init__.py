"""Objectives: what training minimises, given a network and a noisy batch."""

from cbsn.objectives.asymmetric_pixel_shuffle import AsymmetricPixelShuffle
from cbsn.objectives.distillation import Distillation
from cbsn.objectives.downsampled_invariance import DownsampledInvariance
from cbsn.objectives.noise2noise import Noise2Noise
from cbsn.objectives.noise2void import Noise2Void
from cbsn.objectives.probabilistic_noise2void import ProbabilisticNoise2Void

OBJECTIVES = {
    objective.__name__: objective
    for objective in (
        AsymmetricPixelShuffle,
        Distillation,
        DownsampledInvariance,
        Noise2Noise,
        Noise2Void,
        ProbabilisticNoise2Void,
    )
}
"""Every objective that a recipe may name."""
