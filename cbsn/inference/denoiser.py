"""A trained network as a function from picture to picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cbsn.errors import ConfigError, ImageError, ModelError
from cbsn.inference.tiling import make_tiles
from cbsn.model_path import load_model
from cbsn.recipes import Recipe
from cbsn.value_range import value_range

AUTO_TILE = 512
"""Side of the tiles of `tile="auto"`; the full-size network takes 1.2 GB for one, on a CPU."""

ROUNDINGS = {"round": np.rint, "truncate": np.floor}
"""How integer pixels are made; the original C-BSN code truncates."""


class Denoiser:
    """Denoises pictures of any size, gray or RGB, tile by tile.

    Mean and deviation are those of the whole picture and the tiles overlap by the network's
    receptive field, so the result does not depend on the tiling.

    Args:
        recipe: how the network was trained; says the normalisation.
        network: the trained network.
        tile: `"auto"` (at most 512 × 512 pixels at a time), the side of the tiles in pixels, or
            0 or None for the whole picture at once. The halo comes on top. Default `"auto"`.
        rounding: `"round"` to the nearest integer, or `"truncate"` as the original code does.
            Default `"round"`.

    Raises:
        ConfigError: if `tile` or `rounding` is none of these.

    Example:
        >>> denoise = Denoiser.load("checkpoints/my-run")
        >>> clean = denoise(noisy)
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Any,
        *,
        tile: str | int | None = "auto",
        rounding: str = "round",
    ):
        if rounding not in ROUNDINGS:
            raise ConfigError(f"rounding is {' or '.join(ROUNDINGS)}. Received: {rounding!r}")
        self.recipe = recipe
        self.network = network
        self._side = _tile_side(tile)
        self._round = ROUNDINGS[rounding]
        self._normalization = recipe.build_normalization()
        self._run = _compiled(network)

    @classmethod
    def load(
        cls,
        model_path: str | Path,
        *,
        channel: int | None = None,
        num_block: int | None = None,
        **options: Any,
    ) -> "Denoiser":
        """Loads a trained model.

        Args:
            model_path: a run's folder, a saved-model folder, a shipped name, or the prefix of an
                original TensorFlow 1.15 checkpoint.
            channel: channels of the network; only bare weights need to be told.
            num_block: dilated modules in each branch; likewise.
            **options: `tile` and `rounding`.

        Raises:
            ModelError: if there is no such model, or it cannot be read.
        """
        recipe, network = load_model(model_path, channel=channel, num_block=num_block)
        return cls(recipe, network, **options)

    def __call__(
        self, image: np.ndarray, on_tile: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Denoises one picture.

        Args:
            image: [H, W] gray, or [H, W, C] with C of 1 (gray), 2 (gray and alpha), 3 (RGB) or 4
                (RGB and alpha); uint8, uint16, or float in [0, 1]; any H, W ≥ 1. Gray runs
                through the network as three equal channels, whose results are averaged.
            on_tile: called after each tile with the number of pixels it has filled.

        Returns:
            The denoised picture, of the same shape and dtype; the alpha channel as it was.

        Raises:
            ImageError: if the image is of another shape or dtype, or its floats are not finite
                or not in [0, 1].
            ModelError: if the network returns values that are not finite.
        """
        image = np.asarray(image)
        _check(image)
        planes = image[..., None] if image.ndim == 2 else image
        height, width, channels = planes.shape
        colors = 3 if channels >= 3 else 1
        rgb = np.broadcast_to(planes[..., :colors], (height, width, 3))
        statistics = self._normalization.statistics(rgb)
        scale = value_range(image.dtype)

        output = planes.copy()
        tiles = make_tiles(
            height,
            width,
            side=self._side,
            halo=self.network.receptive_field_radius,
            multiple=self.network.size_multiple,
        )
        for tile in tiles:
            x = self._normalization.apply(tile.cut(rgb) / scale, *statistics)
            y = tile.crop(self._run(x[None])[0])
            if not np.isfinite(y).all():
                raise ModelError(
                    "The network returned values that are not finite; its weights may be broken."
                )
            y = self._normalization.invert(y, *statistics)
            if colors == 1:
                y = y.mean(axis=-1, keepdims=True)
            y = np.clip(y, 0, 1)
            if image.dtype.kind == "u":
                y = self._round(y * scale)
            output[tile.rows, tile.columns, :colors] = y
            if on_tile:
                on_tile(y.shape[0] * y.shape[1])
        return output.reshape(image.shape)


def _tile_side(tile: str | int | None) -> int | None:
    if tile == "auto":
        return AUTO_TILE
    try:
        side = int(tile or 0)
    except ValueError:
        side = -1
    if side < 0:
        raise ConfigError(
            "tile is auto, the side of the tiles in pixels, or 0 for the whole picture at once. "
            f"Received: {tile!r}"
        )
    return side or None


def _check(image: np.ndarray) -> None:
    """Raises ImageError unless the image is one that can be denoised."""
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise ImageError(
            f"A picture is uint8, uint16, or float in [0, 1]. Received: dtype {image.dtype}"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and not 1 <= image.shape[2] <= 4):
        raise ImageError(
            "A picture is [H, W] or [H, W, C] with 1 to 4 channels; give several one by one. "
            f"Received: shape {image.shape}"
        )
    if image.size == 0:
        raise ImageError(f"A picture has at least one pixel. Received: shape {image.shape}")
    if image.dtype.kind == "f":
        low, high = image.min(), image.max()
        if not (low >= 0 and high <= 1):  # so NaN is caught, too
            raise ImageError(
                "A picture of floats is finite and in [0, 1]; scale it first. "
                f"Received: values from {low:g} to {high:g}"
            )


def _compiled(network: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The network's non-blind pass; under TensorFlow as a graph, which is a fifth faster."""

    def run(x):
        return network(x, blind=False)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Pictures of many sizes share one graph; those of a single size get their own.
        run = tf.function(run, reduce_retracing=True)
    return lambda x: keras.ops.convert_to_numpy(run(x))
