"""The objective of Noise2Noise."""

import math
from typing import Any

from keras import ops

from cbsn.errors import ConfigError
from cbsn.objectives.objective import Objective
from cbsn.objectives.perceptual import PerceptualLoss

Tensor = Any


class Noise2Noise(Objective):
    """Trains a network to turn one noisy shot of a scene into another one of it.

    For two aligned shots a and b with independent noise (Lehtinen et al., ICML 2018, arXiv
    1803.04189, equation 6, with the L1 loss of its section 3):

        pixel = mean |f(a) − b|
        total = pixel + λ · perceptual(f(a), b)

    The noise of b cannot be foretold, so the network learns what is common to both. `perceptual`
    compares features of VGG-16 (see `PerceptualLoss`); they are not linear, so that noise in b
    leaves its traces in their mean, and the more so the larger λ.

    Args:
        lmbda: float ≥ 0, λ, the weight of the perceptual term; with 0 its weights are not needed.

    Raises:
        ConfigError: if it is out of range.
    """

    SHOTS = 2
    NEEDS_BLINDNESS = False

    def __init__(self, lmbda: float = 0.0):
        if not (lmbda >= 0 and math.isfinite(lmbda)):
            raise ConfigError(f"lmbda must be 0 or above. Received: lmbda={lmbda}")
        self.lmbda = lmbda
        self._perceptual: PerceptualLoss | None = None

    @property
    def TERMS(self) -> tuple[str, ...]:  # noqa: N802
        """As `Objective` says."""
        return ("pixel", "perceptual") if self.lmbda else ("pixel",)

    def prepare(self, perceptual_weights: Any = None) -> None:
        """Loads VGG-16, if λ is not 0.

        Args:
            perceptual_weights: path of its weights; None for those that Keras fetches.

        Raises:
            ConfigError: if they cannot be had.
        """
        if self.lmbda:
            self._perceptual = PerceptualLoss(perceptual_weights)

    def __call__(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> dict[str, Tensor]:
        """Computes the loss of one batch, as `Objective` says.

        Args:
            network: called as `network(x, blind=False)`.
            noisy: float32 [N, H, W, 2·C], the two shots, in [0, 1] but for their noise.
            step: of no influence.
            random: likewise; what is random is in the shots.
        """
        first, second = ops.split(noisy, 2, axis=-1)
        output = ops.cast(network(first, blind=False), "float32")
        pixel = ops.mean(ops.abs(output - second))
        if not self._perceptual:
            return {"total": pixel, "pixel": pixel}
        perceptual = self._perceptual(output, second)
        total = pixel + self.lmbda * perceptual
        return {"total": total, "pixel": pixel, "perceptual": perceptual}
