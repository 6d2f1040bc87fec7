"""Noise2Noise: the target is another noisy shot."""

import math
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from cbsn.errors import ConfigError, plain_reason
from cbsn.objectives.objective import Objective

Tensor = Any

LAYERS = ("block1_conv2", "block2_conv2", "block3_conv3")

WEIGHTS = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{WEIGHTS}"
_MD5 = "6d6bbae143d832006294945121d1f1fc"

# Means of ImageNet's channels B, G, R in [0, 255]; VGG's weights expect them to be subtracted.
_MEANS = np.array([103.939, 116.779, 123.68], "float32")


class PerceptualLoss:
    """Mean absolute difference of two batches' features (Johnson et al., arXiv 1603.08155).

    The features are the outputs after ReLU of the `LAYERS` of a VGG-16 trained on ImageNet. The
    network gets values from 0 to 255. The differences are divided by 255, which makes the loss
    comparable to the mean absolute difference of pictures in [0, 1]. All layers count equally.

    Args:
        weights: path of Keras' file of the weights, without the top. Default: Keras downloads it
            on first use and keeps it in its cache.

    Raises:
        ConfigError: if the weights cannot be fetched or the file cannot be used.
    """

    def __init__(self, weights: str | os.PathLike | None = None):
        vgg = keras.applications.VGG16(weights=None, include_top=False)
        path = Path(_fetch() if weights is None else weights)
        try:
            path.stat()  # for a missing file, its error is shorter than HDF5's
            vgg.load_weights(path)
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes make HDF5 and Keras raise almost anything
            raise ConfigError(
                f"{path} cannot be used as VGG-16's weights ({plain_reason(error)}). "
                f"--perceptual_weights needs {WEIGHTS} from {URL}"
            ) from error
        self._network = keras.Model(vgg.input, [vgg.get_layer(name).output for name in LAYERS])
        self._network.trainable = False

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Computes the loss, a float32 scalar, of two batches of the same shape.

        They are float32 [N, H, W, 1 or 3] in [0, 1] or slightly outside; H and W are at least 4.
        Gray is treated as three equal channels.
        """
        pairs = zip(self._features(a), self._features(b), strict=True)
        differences = [ops.mean(ops.abs(ops.cast(x - y, "float32"))) for x, y in pairs]
        return sum(differences) / (255 * len(differences))

    def _features(self, x: Tensor) -> list[Tensor]:
        if x.shape[-1] == 1:
            x = ops.repeat(x, 3, axis=-1)
        return self._network(255 * ops.flip(x, axis=-1) - _MEANS, training=False)


def _fetch() -> str:
    """Returns the path of the weights in Keras' cache."""
    try:
        return keras.utils.get_file(WEIGHTS, URL, cache_subdir="models", file_hash=_MD5)
    except Exception as error:  # Keras raises a bare Exception
        raise ConfigError(
            f"VGG-16's weights could not be downloaded ({plain_reason(error)}). Without a network, "
            f"get {WEIGHTS} from {URL} and give it with --perceptual_weights FILE; or train "
            "without the perceptual loss, which needs no weights: --lmbda 0"
        ) from error


class Noise2Noise(Objective):
    """Trains a network to turn one noisy shot of a scene into another shot of it.

    For two aligned shots a and b with independent noise (Lehtinen et al., ICML 2018, arXiv
    1803.04189, equation 6, with the L1 loss of its section 3):

        pixel = mean |f(a) − b|
        total = pixel + λ · perceptual(f(a), b)

    The noise of b cannot be predicted, so the network learns what both shots have in common.
    `perceptual` compares features of VGG-16 (see `PerceptualLoss`). They are not linear, so noise
    in b leaves traces in their mean, and more of them with a larger λ.

    Args:
        lmbda: float ≥ 0, λ, weight of the perceptual term. With 0, VGG-16's weights are not needed.

    Attributes:
        perceptual_weights: file of VGG-16's weights, which `prepare` loads. Default: None, which
            makes Keras download them.

    Raises:
        ConfigError: if `lmbda` is out of range.
    """

    SHOTS = 2
    NEEDS_BLINDNESS = False

    def __init__(self, lmbda: float = 0.0):
        if not (lmbda >= 0 and math.isfinite(lmbda)):
            raise ConfigError(f"lmbda must be 0 or above. Received: lmbda={lmbda}")
        self.lmbda = lmbda
        self.TERMS = ("pixel", "perceptual") if lmbda else ("pixel",)
        self.perceptual_weights: str | os.PathLike | None = None
        self._perceptual: PerceptualLoss | None = None

    def prepare(self) -> None:
        """Loads VGG-16 if λ is not 0. Raises a ConfigError if its weights are not available."""
        if self.lmbda:
            self._perceptual = PerceptualLoss(self.perceptual_weights)

    def __call__(self, network: Any, noisy: Tensor, step: Tensor, random: Any) -> dict[str, Tensor]:
        """Computes the loss of one batch (see `Objective`); `step` and `random` are not used."""
        first, second = ops.split(noisy, 2, axis=-1)
        output = ops.cast(network(first, blind=False), "float32")
        pixel = ops.mean(ops.abs(output - second))
        if not self._perceptual:
            return {"total": pixel, "pixel": pixel}
        perceptual = self._perceptual(output, second)
        total = pixel + self.lmbda * perceptual
        return {"total": total, "pixel": pixel, "perceptual": perceptual}
