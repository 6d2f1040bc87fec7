"""The passes of a network that a recipe denoises by."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cbsn.errors import ConfigError
from cbsn.inference.engines import compile_network
from cbsn.inference.layout import Layout
from cbsn.inference.refinement import RandomReplacement
from cbsn.inference.tiled_pass import TiledPass
from cbsn.inference.tiling import Tile
from cbsn.recipes import Recipe

R3_MARGIN = 2
"""What a picture is reflected by for R3, where beyond its border there are zeros."""

Index = tuple[np.ndarray, ...]
Write = Callable[[Index, np.ndarray], None]


class Passes:
    """Denoises pictures as a recipe has it, in the units of its normalisation.

    One pass over the picture, or over the mosaic of its sub-images (pixel-shuffle downsampling,
    PD); then, with R3, one over each of the copies that `RandomReplacement` makes of the result.

    Args:
        recipe: how to denoise.
        network: the trained network.
        engine: one of `cbsn.inference.engines.ENGINES`.
        side: int, side of the tiles in pixels; None for the whole picture at once.
        r3: whether to refine by R3; None as the recipe has it.
        seed: int ≥ 0, of R3's random choices.

    Attributes:
        r3: bool, whether to refine.

    Raises:
        ConfigError: if the seed is out of range, or the network cannot have the recipe's border,
            or not be blind for R3.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Any,
        engine: str,
        *,
        side: int | None,
        r3: bool | None = None,
        seed: int = 0,
    ):
        if not 0 <= seed < 2**64:
            raise ConfigError(f"--seed must be 0 or above, and below 2^64. Received: {seed}")
        if recipe.border == "reflect" and not network.is_local:
            raise ConfigError(
                f"{recipe.network} sees all of its input, so its recipe needs border='zeros'. "
                f"Received: border={recipe.border!r}"
            )
        self._recipe = recipe
        self._seed = seed
        padding = "valid" if recipe.border == "reflect" else "same"

        def tiled_pass(blind: bool) -> TiledPass:
            return TiledPass(
                compile_network(recipe, network, engine, blind=blind, padding=padding),
                halo=network.halo,
                multiple=network.size_multiple,
                channels=network.channels,
                border=recipe.border,
                side=side,
            )

        # A network that cannot but be blind has one graph for both.
        always_blind = network.blindness == "always"
        self._first = tiled_pass(blind=always_blind)
        self._refine = None
        self.r3 = recipe.r3 if r3 is None else r3
        if self.r3:
            if network.blindness not in ("always", "switched"):
                raise ConfigError(
                    f"R3 needs a network that can be blind, which {recipe.network} cannot: omit "
                    f"--r3. Received: recipe={recipe.name!r}, r3={r3}"
                )
            self._refine = self._first if always_blind else tiled_pass(blind=True)

    def __call__(
        self,
        shape: tuple[int, int, int],
        read: Callable[[Tile], np.ndarray],
        write: Write,
        report: Callable[[float], None],
        orientation: int = 0,
    ) -> None:
        """Denoises a picture.

        Args:
            shape: height, width and channels (1 or 3) of the picture.
            read: returns the noisy values of a tile, float32 [h, w, C], by `Tile.cut`.
            write: gets the index of some pixels, and the result there, float32 [h, w, C]. All
                that `read` is still to be asked for stays unwritten.
            report: gets the share of the work that a tile was; they add up to 1.
            orientation: int, number of the picture's orientation in a self-ensemble.
        """
        height, width, channels = shape
        stride = self._recipe.denoise_stride
        # Zeros at the bottom and right make it a multiple of the stride.
        padded = tuple(-(-size // stride) * stride for size in (height, width))
        layouts = [Layout.mosaic(size, stride, self._recipe.denoise_pad) for size in padded]

        def writing(write: Write, size: tuple[int, int], share: float) -> Callable:
            def write_tile(tile: Tile, result: np.ndarray) -> None:
                piece, where = tile.crop(result, *size)
                write(where, piece)
                report(share * piece.shape[0] * piece.shape[1] / (size[0] * size[1]))

            return write_tile

        def read_one(tile: Tile) -> np.ndarray:
            return read(tile)[None]

        if self._refine is None:
            self._first(*layouts, read_one, writing(write, (height, width), 1.0))
            return
        times = RandomReplacement.TIMES
        first = np.empty((*padded, channels), np.float32)
        self._first(*layouts, read_one, writing(first.__setitem__, padded, 1 / (1 + times)))

        replacement = RandomReplacement(self._seed, orientation)
        margin = R3_MARGIN if self._recipe.border == "zeros" else 0
        self._refine(
            *(Layout.reflected(size, margin) for size in padded),
            lambda tile: replacement.mix(tile, read(tile), first),
            writing(write, (height, width), times / (1 + times)),
            samples=times,
        )
