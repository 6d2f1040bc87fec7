"""The passes of a network that a recipe denoises by."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cbsn.devices import has_gpu
from cbsn.errors import ConfigError
from cbsn.inference.calls import Room
from cbsn.inference.engines import compile_network
from cbsn.inference.frame import Frame
from cbsn.inference.layout import Layout
from cbsn.inference.refinement import RandomReplacement
from cbsn.inference.tiled_pass import AUTO_TILE, TiledPass
from cbsn.inference.tiling import Index, Tile
from cbsn.recipes import Recipe

GPU_PIXELS = 2**20
"""How many pixels a GPU computes at once: the full-size network takes 5 GB for them in float32."""

_RIMS = 8
"""Tiles are at least as large as this many receptive-field radii, unless told otherwise."""

R3_MARGIN = 2
"""What a picture is reflected by for R3, where beyond its border there are zeros."""

Where = tuple[Index, ...]


def auto_side(network: Any) -> int:
    """The side of the tiles of `tile="auto"`: so large that the rim is not most of the work."""
    return max(AUTO_TILE, _RIMS * network.receptive_field_radius)


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
        on_gpu = engine == "tensorflow" and has_gpu()
        pixels = AUTO_TILE**2
        if on_gpu:  # fewer with smaller tiles, which are asked for where memory is scarce
            pixels = int(GPU_PIXELS * min(1, side / auto_side(network) if side else 1) ** 2)
        self._room = Room(pixels)
        self._times_calls = on_gpu and side is not None
        padding = "valid" if recipe.border == "reflect" else "same"

        def tiled_pass(blind: bool) -> TiledPass:
            return TiledPass(
                compile_network(recipe, network, engine, blind=blind, padding=padding),
                halo=network.halo,
                multiple=network.size_multiple,
                channels=network.channels,
                border=recipe.border,
                side=side,
                room=self._room,
                constant=on_gpu,
                # The graph of an exported model has tiles of even size. Only networks that are not
                # local would see that these are others.
                grid=network.grid if on_gpu and network.is_local else None,
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

    def seconds_per_pixel(self) -> float | None:
        """Measures the time that a pixel takes, of one picture in one orientation.

        Returns:
            Seconds; None where this cannot be told by a call of the size that is needed anyway.
        """
        if not self._times_calls:
            return None
        seconds = self._first.time_call()
        return seconds + (RandomReplacement.TIMES * self._refine.time_call() if self.r3 else 0)

    def __call__(
        self,
        shape: tuple[int, int, int],
        frames: Sequence[Frame],
        report: Callable[[float], None],
    ) -> None:
        """Denoises pictures of one shape.

        Args:
            shape: height, width and channels (1 or 3) of each picture.
            frames: the pictures.
            report: gets the share of the work that a tile was; they add up to 1.
        """
        # What is between the two passes of R3 is in memory as a whole.
        at_once = self._room.tiles(*shape[:2]) if self.r3 else len(frames)
        for start in range(0, len(frames), at_once):
            some = frames[start : start + at_once]
            part = len(some) / len(frames)
            self._denoise(shape, some, lambda share, part=part: report(part * share))

    def _denoise(
        self,
        shape: tuple[int, int, int],
        frames: Sequence[Frame],
        report: Callable[[float], None],
    ) -> None:
        height, width, channels = shape
        stride = self._recipe.denoise_stride
        # Zeros at the bottom and right make it a multiple of the stride.
        padded = tuple(-(-size // stride) * stride for size in (height, width))
        layouts = [Layout.mosaic(size, stride, self._recipe.denoise_pad) for size in padded]

        def writing(
            writes: Sequence[Callable[[Where, np.ndarray], None]],
            size: tuple[int, int],
            share: float,
        ) -> Callable[[int, Tile, np.ndarray], None]:
            share /= len(frames) * size[0] * size[1]

            def write_tile(number: int, tile: Tile, result: np.ndarray) -> None:
                piece, where = tile.crop(result, *size)
                writes[number](where, piece)
                report(share * piece.shape[0] * piece.shape[1])

            return write_tile

        def read(number: int, tile: Tile, out: np.ndarray) -> None:
            frames[number].read(tile, out[0])

        results = [frame.write for frame in frames]
        if self._refine is None:
            write = writing(results, (height, width), 1.0)
            self._first(*layouts, channels, read, write, pictures=len(frames))
            return
        times = RandomReplacement.TIMES
        firsts = [np.empty((*padded, channels), np.float32) for _ in frames]
        write = writing([first.__setitem__ for first in firsts], padded, 1 / (1 + times))
        self._first(*layouts, channels, read, write, pictures=len(frames))

        replacements = [RandomReplacement(self._seed, frame.orientation) for frame in frames]

        def read_copies(number: int, tile: Tile, out: np.ndarray) -> None:
            noisy = np.empty(out.shape[1:], np.float32)
            frames[number].read(tile, noisy)
            replacements[number].mix(tile, noisy, firsts[number], out)

        margin = R3_MARGIN if self._recipe.border == "zeros" else 0
        self._refine(
            *(Layout.reflected(size, margin) for size in padded),
            channels,
            read_copies,
            writing(results, (height, width), times / (1 + times)),
            pictures=len(frames),
            samples=times,
        )
