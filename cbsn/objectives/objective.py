"""The base class of all objectives."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from keras import ops

Tensor = Any


class Objective:
    """Defines what is minimised, given a network and a noisy batch.

    It is independent of optimisers, files and devices, and of the kind of network.
    """

    TERMS: tuple[str, ...] = ()
    """Names of the terms that a call returns in addition to `total`."""

    SHOTS = 1
    """Number of noisy shots per scene that it takes, concatenated along the channels."""

    TAUGHT = False
    """Whether the second of two shots is a teacher's picture of the first (a pseudo-label)."""

    NEEDS_BLINDNESS = True
    """Whether it needs a network that has a blind pass."""

    NEEDS_SAMPLES = False
    """Whether it needs a network that predicts samples, and has a noise model."""

    milestones: tuple[int, ...] = ()
    """Numbers of steps after which the training calls `fit`."""

    patch_multiple = 1
    """Patch sizes must be multiples of this."""

    def prepare(self) -> None:
        """Loads what it needs besides the network. Called once, before the first batch."""

    def __call__(
        self, network: Any, noisy: Tensor, step: Tensor, random: Any
    ) -> Mapping[str, Tensor]:
        """Computes the loss of one batch.

        Args:
            network: a `DenoisingNetwork`, or an object that is called like one.
            noisy: float32 [N, H, W, SHOTS·C], normalised; H and W multiples of `patch_multiple`.
            step: integer scalar, number of steps done before this one.
            random: provides `random.integers(shape, high)`: int32 in [0, high), independent per
                element; depends only on the run's seed, the step and the place in the batch.
                `shape` begins with N or, after `space_to_batch`, a multiple of it.

        Returns:
            float32 scalars: `total` and the `TERMS`, the latter without their weights.
        """
        raise NotImplementedError

    def held_out(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> Tensor:
        """Returns the loss by which models are compared on patches that are held out.

        It is a float32 scalar, at least 0, and lower for a better model. For the arguments, see
        `__call__`.
        """
        return self(network, noisy, step, random)["total"]

    def fit(
        self, network: Any, batches: Iterable[tuple[Tensor, Any]]
    ) -> tuple[list[np.ndarray], str]:
        """Computes weights that are not trained by gradients, between two steps.

        Args:
            network: the network, which stays as it is.
            batches: endless; normalised batches of any number of rows, with random numbers, see
                `__call__`.

        Returns:
            The new values of the network's `non_trainable_variables`, and a line for the user.
        """
        raise NotImplementedError


def mean_where(values: Tensor, valid: Tensor | None) -> Tensor:
    """Returns the mean of [N, H, W, C] over the valid pixels, a float32 scalar; 0 if none are.

    `valid`, [N, H, W, 1], is 1 at the pixels that count and 0 elsewhere; None counts all pixels.
    """
    values = ops.cast(values, "float32")
    if valid is None:
        return ops.mean(values)
    valid = ops.cast(valid, "float32")
    return ops.sum(values * valid) / (ops.maximum(ops.sum(valid), 1.0) * values.shape[-1])
