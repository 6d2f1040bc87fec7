"""The downsampled invariance loss of C-BSN."""

import math
from typing import Any

from keras import ops

from cbsn.errors import ConfigError
from cbsn.objectives.objective import Objective, mean_where
from cbsn.sampling import random_subsample, space_to_batch

Tensor = Any


class DownsampledInvariance(Objective):
    """Trains a network in blind and non-blind mode, from noisy images alone.

    For a normalised noisy batch x (arXiv 2304.09507, section 3):

        blind      = mean |B2S(f_blind(S2B(x, b)), b) − x|
        self       = mean |f(x) − x|
        invariance = mean |RS(f(x), i) − stop_gradient(f_blind(RS(x, i)))|
        total      = blind + t · (self + λ · invariance),   t = min(step / ramp_steps, 1)

    For correlated noise a blind spot alone is not enough; downsampling by b breaks the
    correlation. The random subsampler RS draws one pixel of each i × i cell, at the same places in
    f(x) and x, and ties the non-blind output to the blind one. For a network that is blind at
    masked pixels, `blind` and `invariance` are means over those pixels.

    Args:
        stride_b: int ≥ 1, b: distance in pixels at which the noise is no longer correlated. 5 for
            photographs in sRGB, 1 for pixel-wise independent noise.
        stride_i: int ≥ 1, i: side of the cells of the random subsampler.
        lmbda: float ≥ 0, λ, weight of the invariance term.
        ramp_steps: int ≥ 0, number of steps over which t rises from 0 to 1.

    Raises:
        ConfigError: if a value is out of its range.
    """

    TERMS = ("blind", "self", "invariance")

    def __init__(
        self, stride_b: int = 5, stride_i: int = 2, lmbda: float = 2.0, ramp_steps: int = 200_000
    ):
        for name, value in (("stride_b", stride_b), ("stride_i", stride_i)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1. Received: {name}={value}")
        for name, weight in (("lmbda", lmbda), ("ramp_steps", ramp_steps)):
            if not (weight >= 0 and math.isfinite(weight)):
                raise ConfigError(f"{name} must be 0 or above. Received: {name}={weight}")
        self.stride_b = stride_b
        self.stride_i = stride_i
        self.lmbda = lmbda
        self.ramp_steps = ramp_steps
        self.patch_multiple = math.lcm(stride_b, stride_i)

    def ramp(self, step: Tensor) -> Tensor:
        """Returns t, a float32 scalar in [0, 1], for an integer `step`."""
        if self.ramp_steps == 0:
            return ops.ones((), "float32")
        t = ops.cast(step, "float32") / ops.cast(self.ramp_steps, "float32")
        return ops.minimum(t, ops.ones((), "float32"))

    def __call__(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> dict[str, Tensor]:
        """Computes the loss of one batch; see `Objective`."""
        n, h, w, _ = ops.shape(noisy)
        i = self.stride_i
        indices = random.integers((n, h // i, w // i), i * i)

        # The mean is the same with or without B2S.
        phases = space_to_batch(noisy, self.stride_b)
        blind_output, valid = network.blind_pass(phases, random)
        blind = mean_where(ops.abs(blind_output - phases), valid)

        output = network(noisy, blind=False)
        self_term = mean_where(ops.abs(output - noisy), None)

        if self.stride_b == i == 1:
            target = blind_output  # the pictures are the same
        else:
            target, valid = network.blind_pass(random_subsample(noisy, indices, i), random)
        difference = random_subsample(output, indices, i) - ops.stop_gradient(target)
        invariance = mean_where(ops.abs(difference), valid)
        total = blind + self.ramp(step) * (self_term + self.lmbda * invariance)
        return {"total": total, "blind": blind, "self": self_term, "invariance": invariance}
