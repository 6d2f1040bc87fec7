"""The objective of a student that learns from a teacher's pictures."""

from typing import Any

from keras import ops

from cbsn.objectives.objective import Objective

Tensor = Any


class Distillation(Objective):
    """Trains a network to turn a noisy picture into its pseudo-label, a teacher's picture.

    For a noisy picture y and its pseudo-label x:

        pixel = mean |f(y) − x|

    The student need not be blind. (Students distilled from blind-spot teachers: Chen et al.,
    AT-BSN, arXiv 2303.16783; Li et al., TBSN, arXiv 2404.07846. Noise added to a denoised picture:
    Zhang et al., IDR, arXiv 2111.14358.)
    """

    TERMS = ("pixel",)
    SHOTS = 2
    TAUGHT = True
    NEEDS_BLINDNESS = False

    def __call__(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> dict[str, Tensor]:
        """Computes the loss of one batch (see `Objective`); `step` and `random` are not used."""
        picture, target = ops.split(noisy, 2, axis=-1)
        output = ops.cast(network(picture, blind=False), "float32")
        pixel = ops.mean(ops.abs(output - target))
        return {"total": pixel, "pixel": pixel}
