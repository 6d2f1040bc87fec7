"""What all objectives have in common."""

from collections.abc import Mapping
from typing import Any

from keras import ops

Tensor = Any


class Objective:
    """Says what is minimised, given a network and a noisy batch.

    It knows nothing of optimisers, files or devices, nor what the network is.
    """

    TERMS: tuple[str, ...] = ()
    """Names of the terms that a call returns, beside `total`."""

    SHOTS = 1
    """Noisy shots of each scene that it takes, one after the other in the channels."""

    TAUGHT = False
    """Whether the second of two is a teacher's picture of the first."""

    NEEDS_BLINDNESS = True
    """Whether it asks the network for a blind pass."""

    patch_multiple = 1
    """Patch sizes must be multiples of this."""

    def prepare(self) -> None:
        """Loads what it needs besides the network, once, before the first call."""

    def __call__(
        self, network: Any, noisy: Tensor, step: Tensor, random: Any
    ) -> Mapping[str, Tensor]:
        """Computes the loss of one batch.

        Args:
            network: a `DenoisingNetwork`, or what is called like one.
            noisy: float32 [N, H, W, SHOTS·C], normalised; H and W multiples of `patch_multiple`.
            step: integer scalar, number of steps done before this one.
            random: gives `random.integers(shape, high)`: int32 in [0, high), independent per
                element, a function of the run's seed, the step and the place in the batch only;
                `shape` begins with N or, after `space_to_batch`, a multiple of it.

        Returns:
            float32 scalars `total` and `TERMS`; these are the bare terms, without their weights.
        """
        raise NotImplementedError


def mean_where(values: Tensor, valid: Tensor | None) -> Tensor:
    """Returns the mean of [N, H, W, C] over some pixels, a float32 scalar; over none it is 0.

    `valid`, [N, H, W, 1], is 1 at the pixels that count, else 0; None where all do.
    """
    values = ops.cast(values, "float32")
    if valid is None:
        return ops.mean(values)
    valid = ops.cast(valid, "float32")
    return ops.sum(values * valid) / (ops.maximum(ops.sum(valid), 1.0) * values.shape[-1])
