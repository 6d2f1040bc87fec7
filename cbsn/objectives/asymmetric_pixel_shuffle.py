"""The objective of AP-BSN and SS-BSN."""

from typing import Any

from keras import ops

from cbsn.errors import ConfigError
from cbsn.objectives.objective import Objective, mean_where
from cbsn.sampling import pixel_shuffle_down, pixel_shuffle_up

Tensor = Any


class AsymmetricPixelShuffle(Objective):
    """Trains a blind network on sub-images whose pixels are too far apart for correlated noise.

    For a noisy batch x (Lee et al., AP-BSN, CVPR 2022, arXiv 2203.11799, section 4):

        total = blind = mean |PD⁻¹(f(PD(x, b)), b) − x|

    PD lays out the b² sub-images of a picture as a mosaic. It is asymmetric because denoising uses
    a smaller stride (a recipe's `denoise_stride`), which keeps more of the picture's detail.

    Args:
        stride_b: int ≥ 1, b; see `DownsampledInvariance`.
        pad: int ≥ 0, width in pixels of the zeros around each sub-image in the mosaic.

    Raises:
        ConfigError: if a value is out of its range.
    """

    TERMS = ("blind",)

    def __init__(self, stride_b: int = 5, pad: int = 2):
        if stride_b < 1 or pad < 0:
            raise ConfigError(
                "stride_b must be at least 1 and pad at least 0. "
                f"Received: stride_b={stride_b}, pad={pad}"
            )
        self.stride_b = self.patch_multiple = stride_b
        self.pad = pad

    def __call__(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> dict[str, Tensor]:
        """Computes the loss of one batch (see `Objective`); `step` is not used."""
        mosaic = pixel_shuffle_down(noisy, self.stride_b, self.pad)
        output, valid = (
            image if image is None else pixel_shuffle_up(image, self.stride_b, self.pad)
            for image in network.blind_pass(mosaic, random)
        )
        blind = mean_where(ops.abs(ops.cast(output, "float32") - noisy), valid)
        return {"total": blind, "blind": blind}
