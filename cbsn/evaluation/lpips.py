"""LPIPS: how different two pictures look, by a network's features."""

import os
from typing import Any

import numpy as np
from keras import ops

from cbsn.evaluation.lpips_weights import cached_weights, fetch_weights, read_weights
from cbsn.evaluation.metrics import check_comparable
from cbsn.value_range import value_range

Tensor = Any

_SHIFT = np.array([-0.030, -0.088, -0.188], "float32")
_SCALE = np.array([0.458, 0.448, 0.450], "float32")
_LAYERS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
"""Stride and padding of AlexNet's convolutions."""
_POOLED = (1, 2)
"""Before these of them, counted from 0, stands a max-pooling."""
_SMALLEST = 31
"""What is left of smaller pictures, in px a side, has no room for the second pooling."""


class LPIPS:
    """Learned perceptual image patch similarity, v0.1 on AlexNet (CVPR 2018, arXiv 1801.03924).

    At every pixel of the features after each of AlexNet's five ReLUs, the channels are scaled to
    length 1; the squared differences of two pictures are weighted by a learnt head, averaged over
    the pixels, and summed over the five.

    Args:
        weights: path of an .npz with the arrays of `lpips_weights.SHAPES`.

    Raises:
        ModelError: if the file cannot be used.
    """

    def __init__(self, weights: str | os.PathLike):
        arrays = {k: ops.convert_to_tensor(v) for k, v in read_weights(weights).items()}
        self._layers = [
            (arrays[f"slice{i + 1}/conv0/kernel"], arrays[f"slice{i + 1}/conv0/bias"])
            for i in range(len(_LAYERS))
        ]
        self._heads = [arrays[f"lin{i}/weight"] for i in range(len(_LAYERS))]

    @classmethod
    def load(cls, path: str | os.PathLike | None = None) -> "LPIPS":
        """Takes the weights from a file, from the cache, or from the network.

        Args:
            path: of the .npz. Default: `lpips_alex.npz` in the folder `$CBSN_CACHE`, or else in
                `~/.cache/cbsn`; fetched if it is not there.

        Raises:
            ModelError: if the file cannot be used, or not be fetched.
        """
        if path is None:
            path = cached_weights()
            if not path.exists():
                fetch_weights(path)
        return cls(path)

    def __call__(self, clean: np.ndarray, denoised: np.ndarray) -> float:
        """Returns the distance of two pictures, 0 where equal.

        Args:
            clean: [H, W, 1 or 3], uint8, uint16 or float in [0, 1]; H and W at least 31. Gray is
                seen as three equal channels.
            denoised: same shape and dtype.

        Raises:
            ValueError: if shapes or dtypes differ, or the shape is none of these.
        """
        check_comparable("LPIPS", clean, denoised)
        if clean.ndim != 3 or clean.shape[-1] not in (1, 3):
            raise ValueError(f"LPIPS needs [H, W, 1 or 3] pictures. Received: {clean.shape}")
        if min(clean.shape[:2]) < _SMALLEST:
            raise ValueError(
                f"LPIPS needs pictures of at least {_SMALLEST} px a side. Received: {clean.shape}"
            )
        distance = 0.0
        features = zip(self._features(clean), self._features(denoised), strict=True)
        for head, (a, b) in zip(self._heads, features, strict=True):
            squared = ops.square(_unit(a) - _unit(b))
            distance += float(ops.mean(ops.sum(squared * head, axis=-1)))
        return distance

    def _features(self, picture: np.ndarray) -> list[Tensor]:
        x = picture.astype("float32") * (2 / value_range(picture.dtype)) - 1
        x = ops.convert_to_tensor(((x - _SHIFT) / _SCALE)[None])
        features = []
        for i, (stride, padding) in enumerate(_LAYERS):
            kernel, bias = self._layers[i]
            if i in _POOLED:
                x = ops.max_pool(x, 3, 2, padding="valid", data_format="channels_last")
            x = ops.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
            x = ops.conv(x, kernel, stride, padding="valid", data_format="channels_last")
            x = ops.relu(x + bias)
            features.append(x)
        return features


def _unit(x: Tensor) -> Tensor:
    """Scales the channels of [N, H, W, C] to length 1 at each pixel."""
    return x / (ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)) + 1e-10)
