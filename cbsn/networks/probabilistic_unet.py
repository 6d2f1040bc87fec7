"""The network of Probabilistic Noise2Void."""

import math
from typing import Any

import keras
from keras import ops

from cbsn.networks.blindspot_unet import BlindSpotUNet
from cbsn.networks.layers import scaled
from cbsn.networks.noise_models import NOISE_MODELS
from cbsn.sampling import select, to_cells

Tensor = Any


@keras.saving.register_keras_serializable(package="cbsn")
class ProbabilisticBlindSpotUNet(BlindSpotUNet):
    """A blind-spot U-Net that predicts samples of what a pixel may be, and then looks at the pixel.

    (Krull et al., "Probabilistic Noise2Void", 2020, arXiv 1906.00651.) From the pixels around, it
    predicts K values s that the pixel may have without noise. With a noise model p(x | s), the
    value x that was observed says how likely each of them is. The result is their weighted mean
    (equation 9):

        Σ p(x | s) · s / Σ p(x | s)

    The noise model is part of the weights, but not trained: `noise.fit` computes it from pairs.
    Before that, the result is the plain mean of the samples, as that of a blind pass always is.

    Args:
        filters, …, z_halvings, **kwargs: see `BlindSpotUNet`.
        samples: int, K ≥ 2, number of samples. Of a single one, the weighted mean would be itself.
        noise_model: "gmm" or "histogram", see `cbsn.networks.noise_models`.

    Attributes:
        noise: the `NoiseModel`.

    Input and output: see `EncoderDecoder`. All pictures must be normalised alike, as a signal's
    noise would otherwise depend on the picture.

    Example:
        >>> network = ProbabilisticBlindSpotUNet(channels=1)
        >>> network(keras.ops.zeros((1, 64, 64, 1))).shape
        (1, 64, 64, 1)

    Raises:
        ValueError: see `BlindSpotUNet`; also if there are too few samples, or the noise model is
            unknown.
    """

    # The samples start within a tenth of the pictures' deviation from each other. Further apart,
    # their many errors move the few features of a small network so far that it predicts the same
    # everywhere: with 8 filters, seeds 0 to 2 and 160 steps, the loss was 1.09, 0.91 and 0.90 of
    # the variance with `HE`, and 0.37 each time with this.
    head_initializer = scaled(2.0 * 0.1**2, "truncated_normal")

    def __init__(
        self,
        filters: int = 32,
        depth: int = 3,
        mask_cell: int = 4,
        channels: int = 3,
        mask_shape: str = "point",
        replacement: str = "random",
        pooling: str = "max",
        top_skip: bool = True,
        dimensions: int = 2,
        z_halvings: int = 0,
        samples: int = 32,
        noise_model: str = "gmm",
        **kwargs,
    ):
        if samples < 2 or noise_model not in NOISE_MODELS:
            raise ValueError(
                f"samples must be at least 2, and noise_model {' or '.join(NOISE_MODELS)}. "
                f"Received: samples={samples}, noise_model={noise_model!r}"
            )
        self.samples = samples
        self.noise_model = noise_model
        super().__init__(
            filters,
            depth,
            mask_cell,
            channels,
            mask_shape,
            replacement,
            pooling,
            top_skip,
            dimensions,
            z_halvings,
            autocast=False,  # half precision would be too coarse for the observed values
            **kwargs,
        )

    @property
    def head_channels(self) -> int:  # noqa: D102
        return self.channels * self.samples

    def build(self, input_shape):  # noqa: D102
        self.noise = NOISE_MODELS[self.noise_model](self.channels, name="noise")
        self.noise.build()
        super().build(input_shape)

    def transform(self, inputs: Tensor) -> Tensor:  # noqa: D102
        means = []
        # Channel by channel, as not every runtime has tensors of five or more axes.
        for channel, samples in enumerate(self._by_channel(super().transform(inputs))):
            observed = inputs[..., channel : channel + 1]
            logs = self.noise.known * self.noise.log_likelihood(observed, samples, channel)
            shares = ops.softmax(logs, axis=-1)
            means.append(ops.sum(shares * samples, axis=-1, keepdims=True))
        return ops.concatenate(means, axis=-1)

    def _by_channel(self, samples: Tensor) -> list[Tensor]:
        return ops.split(samples, self.channels, axis=-1)

    def blind_pass(self, inputs: Tensor, random: Any) -> tuple[Tensor, Tensor]:
        """Returns the samples' mean for masked pictures, blind at the pixels of the mask."""
        masked, mask = self.masking(inputs, random)
        samples = self._by_channel(super().transform(self.padded(masked)))
        means = [ops.mean(each, axis=-1, keepdims=True) for each in samples]
        return self.cropped(ops.concatenate(means, axis=-1), inputs, "same"), mask

    def blind_samples(self, inputs: Tensor, random: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the samples of the masked pixels alone, which is much less work than of all.

        Args:
            inputs: normalised pictures, float32 [N, H, W, C], or volumes.
            random: see `cbsn.objectives.objective.Objective`.

        Returns:
            For the one masked pixel of each cell: samples, float32 [N, *cells, C, K]; the observed
            values [N, *cells, C]; and 1 where the samples are blind, else 0, [N, *cells, 1].
        """
        masked, mask = self.masking(inputs, random)
        features = self.cropped(self.features(self.padded(masked)), inputs, "same")
        sides = self.masking.sides
        sizes = zip(ops.shape(inputs)[1:-1], sides, strict=True)
        whole = (slice(None), *(slice(size // side * side) for size, side in sizes))
        where = to_cells(mask[whole], sides) > 0

        def at_mask(x: Tensor) -> Tensor:
            return select(to_cells(x[whole], sides), where)

        samples = self._by_channel(self.head(at_mask(features)))
        return ops.stack(samples, axis=-2), at_mask(inputs), at_mask(mask)

    def log_evidence(self, observed: Tensor, samples: Tensor) -> Tensor:
        """Returns log (1/K) Σ p(x | s) for observed values [..., C] and samples [..., C, K]."""
        evidence = [
            ops.logsumexp(
                self.noise.log_likelihood(
                    observed[..., channel : channel + 1], samples[..., channel, :], channel
                ),
                axis=-1,
            )
            for channel in range(self.channels)
        ]
        return ops.stack(evidence, axis=-1) - math.log(self.samples)

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "samples": self.samples, "noise_model": self.noise_model}
