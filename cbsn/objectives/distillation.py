"""The objective of a student that learns from a teacher's pictures."""

import math
from typing import Any

from keras import ops

from cbsn.errors import ConfigError
from cbsn.objectives.objective import Objective

Tensor = Any

_STEPS = 1 << 16
"""Of a random number in [0, 1)."""


class Distillation(Objective):
    """Trains a network to turn a noisy picture into what a teacher makes of it.

    For a noisy picture y and the teacher's picture x of it:

        pixel = mean |f(y') − x|,    y' = x + g·(y − x), clipped to [0, 1]

    y − x is a sample of the camera's own noise, with its correlation and its dependence on the
    brightness. For half of the pictures the gain g is 1, so that y' = y; for the others it is
    drawn, uniformly in its logarithm, between 1 and `amplify`. What the teacher left in x is little
    against the amplified noise, and the student sees noise stronger than that of any picture
    there is: so it becomes better than its teacher where the noise is strong.

    The student need not be blind. (Distilled students of blind-spot teachers: Chen et al.,
    AT-BSN, arXiv 2303.16783; Li et al., TBSN, arXiv 2404.07846. More noise on a denoised picture:
    Zhang et al., IDR, arXiv 2111.14358.)

    Args:
        amplify: float ≥ 1, the largest gain g; 1 for the noise as it is.

    Raises:
        ConfigError: if it is out of range.
    """

    TERMS = ("pixel",)
    SHOTS = 2
    TAUGHT = True
    NEEDS_BLINDNESS = False

    def __init__(self, amplify: float = 4.0):
        if not (amplify >= 1 and math.isfinite(amplify)):
            raise ConfigError(f"amplify must be 1 or above. Received: amplify={amplify}")
        self.amplify = amplify

    def __call__(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> dict[str, Tensor]:
        """Computes the loss of one batch, as `Objective` says.

        Args:
            network: called as `network(x, blind=False)`.
            noisy: float32 [N, H, W, 2·C] in [0, 1]: the noisy pictures, and the teacher's.
            step: of no influence.
            random: likewise, where `amplify` is 1.
        """
        picture, target = ops.split(noisy, 2, axis=-1)
        if self.amplify > 1:
            gain = self._gains(picture.shape[0], random)
            louder = ops.clip(target + gain * (picture - target), 0.0, 1.0)
            picture = ops.where(gain > 1, louder, picture)
        output = ops.cast(network(picture, blind=False), "float32")
        pixel = ops.mean(ops.abs(output - target))
        return {"total": pixel, "pixel": pixel}

    def _gains(self, count: int, random: Any) -> Tensor:
        """float32 [N, 1, 1, 1]."""
        drawn = ops.cast(random.integers((count, 1, 1, 1), _STEPS), "float32") / _STEPS
        return ops.exp(math.log(self.amplify) * ops.maximum(2 * drawn - 1, 0.0))
