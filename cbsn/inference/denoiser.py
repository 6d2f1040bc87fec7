"""A trained network as a function from picture to picture."""

import collections
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.errors import ConfigError, ImageError, ModelError
from cbsn.inference.engines import choose_engine, compile_network
from cbsn.inference.tiling import Tile, make_bands
from cbsn.model_path import load_model
from cbsn.precision import choose_precision
from cbsn.recipes import Recipe
from cbsn.value_range import value_range

AUTO_TILE = 342
"""Side of the tiles of `tile="auto"`: the full-size network takes 0.7 GB for one in float32, on a
CPU; larger ones gain little, as only their rims are computed twice."""

ROUNDINGS = {"round": np.rint, "truncate": np.floor}
"""How integer pixels are made; the original C-BSN code truncates."""


class Denoiser:
    """Denoises pictures of any size, gray or RGB, tile by tile.

    Mean and deviation are those of the whole picture and the tiles overlap by the network's
    receptive field, so the result does not depend on the tiling.

    Args:
        recipe: how the network was trained; says the normalisation.
        network: the trained network.
        tile: `"auto"` (at most 342 × 342 pixels at a time), the side of the tiles in pixels, or
            0 or None for the whole picture at once. The halo comes on top. Default `"auto"`.
        rounding: `"round"` to the nearest integer, or `"truncate"` as the original code does.
            Default `"round"`.
        engine: one of `cbsn.inference.engines.ENGINES`. Default `"tensorflow"`.

    Attributes:
        choices: str, what `load` has chosen, and why.

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
        engine: str = "tensorflow",
    ):
        if rounding not in ROUNDINGS:
            raise ConfigError(f"rounding is {' or '.join(ROUNDINGS)}. Received: {rounding!r}")
        self.recipe = recipe
        self.network = network
        self.choices = f"Engine {engine}."
        self._side = _tile_side(tile)
        self._round = ROUNDINGS[rounding]
        self._normalization = recipe.build_normalization()
        self._run = compile_network(recipe, network, engine)

    @classmethod
    def load(
        cls,
        model_path: str | Path,
        *,
        channel: int | None = None,
        num_block: int | None = None,
        precision: str = "auto",
        engine: str = "auto",
        **options: Any,
    ) -> "Denoiser":
        """Loads a trained model.

        Args:
            model_path: a run's folder, a saved-model folder, a shipped name, or the prefix of an
                original TensorFlow 1.15 checkpoint.
            channel: channels of the network; only bare weights need to be told.
            num_block: dilated modules in each branch; likewise.
            precision: as `cbsn.precision.choose_precision` takes it. "float32" gives the
                original code's numbers; bfloat16 differs by a level here and there.
            engine: as `cbsn.inference.engines.choose_engine` takes it.
            **options: `tile` and `rounding`.

        Raises:
            ConfigError: if precision or engine is not one that can be had here.
            ModelError: if there is no such model, or it cannot be read.
        """
        precision, why_precision = choose_precision(precision)
        engine, why_engine = choose_engine(engine, precision)
        recipe, network = load_model(
            model_path, channel=channel, num_block=num_block, precision=precision
        )
        denoiser = cls(recipe, network, engine=engine, **options)
        denoiser.choices = f"Precision {precision}: {why_precision}. Engine {engine}: {why_engine}."
        return denoiser

    def __call__(
        self,
        image: np.ndarray,
        on_tile: Callable[[int], None] | None = None,
        *,
        in_place: bool = False,
    ) -> np.ndarray:
        """Denoises one picture.

        Args:
            image: [H, W] gray, or [H, W, C] with C of 1 (gray), 2 (gray and alpha), 3 (RGB) or 4
                (RGB and alpha); uint8, uint16, or float in [0, 1]; any H, W ≥ 1. Gray runs
                through the network as three equal channels, whose results are averaged.
            on_tile: called after each tile with the number of pixels it has filled.
            in_place: whether to write the result over `image`, a writable array, so that a
                large picture is in memory once only.

        Returns:
            The denoised picture, of the same shape and dtype; the alpha channel as it was.

        Raises:
            ImageError: if the image is of another shape or dtype, or its floats are not finite
                or not in [0, 1].
            ModelError: if the network returns values that are not finite. A picture that was to
                be denoised in place is lost then.
        """
        image = np.asarray(image)
        _check(image)
        output = image if in_place else image.copy()
        planes = output[..., None] if output.ndim == 2 else output
        colors = planes[..., : 3 if planes.shape[-1] >= 3 else 1]
        statistics = self._normalization.statistics(colors)
        bands = make_bands(
            *colors.shape[:2],
            side=self._side,
            halo=self.network.receptive_field_radius,
            multiple=self.network.size_multiple,
        )
        # The first row that is still needed as it was when a band begins, and after the last.
        needed = [min(tile.source_rows.min() for tile in band) for band in bands]
        needed = [*np.minimum.accumulate(needed[::-1])[::-1], colors.shape[0]]
        done: collections.deque[tuple[Tile, np.ndarray]] = collections.deque()
        for band, needed_next in zip(bands, needed[1:], strict=True):
            for tile, result in self._denoise(band, colors, statistics):
                done.append((tile, result))
                if on_tile:
                    on_tile(result.shape[0] * result.shape[1])
            while done and done[0][0].rows.stop <= needed_next:
                tile, result = done.popleft()
                colors[tile.rows, tile.columns] = result
        return output

    def _denoise(
        self, tiles: Sequence[Tile], colors: np.ndarray, statistics: tuple[np.ndarray, np.ndarray]
    ) -> Iterator[tuple[Tile, np.ndarray]]:
        """Yields tiles with their results [h, w, 1 or 3], in the picture's dtype."""
        source = tiles[0].source_rows.size * tiles[0].source_columns.size
        batch = max(1, AUTO_TILE**2 // source)  # small tiles go together, as many as fill a large
        for start in range(0, len(tiles), batch):
            group = tiles[start : start + batch]
            x = np.stack([tile.cut(colors) for tile in group]) / value_range(colors.dtype)
            x = self._normalization.apply(x, *statistics)
            results = self._run(np.repeat(x, 3 // colors.shape[-1], axis=-1))
            for tile, y in zip(group, results, strict=True):
                yield tile, self._finish(tile.crop(y), colors, statistics)

    def _finish(
        self, y: np.ndarray, colors: np.ndarray, statistics: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        """From what the network returned to pixels like those of `colors`."""
        if not np.isfinite(y).all():
            raise ModelError(
                "The network returned values that are not finite; its weights may be broken."
            )
        if colors.shape[-1] == 1:
            y = y.mean(axis=-1, keepdims=True)
        y = np.clip(self._normalization.invert(y, *statistics), 0, 1)
        if colors.dtype.kind == "u":
            y = self._round(y * value_range(colors.dtype))
        return y.astype(colors.dtype)


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
