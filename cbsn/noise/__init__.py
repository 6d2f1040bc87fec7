"""What is in noisy pictures that have no clean side: how much noise, of what kind, and where."""

from cbsn.noise.advice import Advice, advise
from cbsn.noise.estimate import NoiseEstimate, estimate_noise, estimate_noise_of_residuals

__all__ = ["Advice", "NoiseEstimate", "advise", "estimate_noise", "estimate_noise_of_residuals"]
