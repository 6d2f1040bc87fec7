"""The network passes by which a recipe denoises, tile by tile."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from cbsn.devices import choose_convolutions_at_once
from cbsn.errors import ConfigError
from cbsn.inference.engines.calls import Calls
from cbsn.inference.engines.engine import Engine, Run
from cbsn.inference.pixels import Frame
from cbsn.inference.tiling import (
    Index,
    Tile,
    Tiling,
    as_index,
    make_tiles,
    pass_axes,
    take,
)
from cbsn.inference.volumes import (
    TYPICAL,
    VOLUME_BYTES,
    check_volumes,
    tile_sides,
    volume_tilings,
)
from cbsn.recipes import Recipe


class RandomReplacement:
    """Chooses which values of a denoised picture are replaced by the noisy ones.

    In each of `TIMES` copies of the picture, values are replaced with probability `PROBABILITY`.
    The copies pass through the blind network and are averaged. The noise left by the first pass is
    correlated between pixels. The noisy values break this up, and the blind network cannot
    reproduce their own noise. (Lee et al., CVPR 2022, arXiv 2203.11799, section 4.3.)

    The choice depends on the seed, the orientation in a self-ensemble, and the position. It repeats
    every `PERIOD` pixels, so that an exported graph can store it: `table`, bool
    [TIMES, PERIOD, PERIOD, 3], is True where a value is replaced.
    """

    TIMES = 8
    PROBABILITY = 0.16
    PERIOD = 256

    def __init__(self, seed: int, orientation: int):
        # Philox takes a key of 128 bits.
        random = np.random.Generator(np.random.Philox(key=(seed << 64) + orientation))
        shape = (self.TIMES, self.PERIOD, self.PERIOD, 3)
        self.table = random.random(shape, np.float32) < self.PROBABILITY

    def masks(self, rows: np.ndarray, columns: np.ndarray, channels: int) -> np.ndarray:
        """Returns bool [TIMES, h, w, channels] for rows [h] and columns [w] of the picture."""
        rows, columns = rows % self.PERIOD, columns % self.PERIOD
        return self.table.take(rows, axis=1).take(columns, axis=2)[..., :channels]


@dataclasses.dataclass(frozen=True)
class Copies:
    """R3's inputs: copies of a first result `denoised`, [H, W, C], with some noisy values."""

    frame: Frame
    denoised: np.ndarray
    replacement: RandomReplacement

    samples = RandomReplacement.TIMES

    def read(self, tile: Tile, out: np.ndarray) -> None:
        """Writes the copies of a tile's source into float32 [TIMES, h, w, C]."""
        noisy = np.empty((1, *out.shape[1:]), np.float32)
        self.frame.read(tile, noisy)
        rows, columns = (each.reads for each in tile.lines)
        out[...] = take(self.denoised, as_index(rows), as_index(columns))
        np.copyto(out, noisy, where=self.replacement.masks(rows, columns, out.shape[-1]))


AUTO_TILE = 342
"""Least side of the tiles for `tile="auto"`. On a CPU, the full-size network takes 0.7 GB for one
in float32."""

TILE_BYTES = 300_000_000
"""Memory that tiles may take which are larger than that."""

GPU_PIXELS = 2**20
"""Pixels that a GPU computes at once. The full-size network takes 5 GB for them in float32."""

Work = tuple[int, Tile]
"""The number of a picture, and one of its tiles."""

Finish = Callable[[Frame, tuple[Index, ...], np.ndarray], np.ndarray]
"""Makes what is kept of a network's result, float32 [(z,) h, w, C]: for a picture, and the index of
its pixels there."""


def auto_side(network: Any, engine: Engine) -> int:
    """Returns the side of the tiles for `tile="auto"`.

    Rims are computed twice, so tiles are as large as `TILE_BYTES` allow, and never so small that
    rims are most of the work. Where results depend on the tiles, these do not depend on memory.
    Those of volumes depend on the volume, see `tile_sides`; this is the side for a typical one.
    """
    if network.dimensions == 3:
        return auto_sides(network, engine)[1]
    least = max(AUTO_TILE, 8 * network.receptive_field_radius)
    if not network.is_local:
        return least
    window = math.isqrt(TILE_BYTES // engine.bytes_per_pixel(network))
    side = (window - 2 * network.halo) // network.size_multiple * network.size_multiple
    return max(least, side)


def auto_sides(network: Any, engine: Engine, size: Sequence[int] = TYPICAL) -> tuple[int, ...]:
    """Returns the sides of the tiles of a volume of a size for `tile="auto"`, see `tile_sides`."""
    return tile_sides(network, size, VOLUME_BYTES // engine.bytes_per_pixel(network))


class Passes:
    """Denoises pictures or volumes by a recipe, in the units of its normalisation.

    Makes one pass over the picture, or over the mosaic of its sub-images (pixel-shuffle
    downsampling, PD). With R3, it then makes a pass over each copy that `RandomReplacement` gives.
    For `engine`, `side` and `r3`, see `Denoiser`. The default None of `r3` takes the recipe's. A
    `side` of "auto" is for volumes, of each of which it takes what `tile_sides` says.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Any,
        engine: Engine,
        *,
        side: int | Literal["auto"] | None,
        r3: bool | None = None,
        seed: int = 0,
    ):
        if recipe.border == "reflect" and not network.is_local:
            raise ConfigError(
                f"{recipe.network} sees all of its input, so its recipe needs border='zeros'. "
                f"Received: border={recipe.border!r}"
            )
        self.r3 = recipe.r3 if r3 is None else r3
        if self.r3 and network.blindness not in ("always", "switched"):
            raise ConfigError(
                f"R3 needs a blind network, which {recipe.network} cannot be: omit --r3. "
                f"Received: recipe={recipe.name!r}, r3={r3}"
            )
        is_volume = network.dimensions == 3
        if is_volume:
            check_volumes(recipe, network, self.r3)
        self._recipe = recipe
        self._network = network
        self._engine = engine
        self._auto = side == "auto"
        self._side = None if side == "auto" else side
        self._seed = seed
        self._channels = network.channels
        self._one_shape = engine.shapes != "any"
        self._even = engine.shapes != "one for all pictures"
        pixels = AUTO_TILE**2
        if not self._even:  # a GPU
            choose_convolutions_at_once()
            if not is_volume:
                # Fewer with smaller tiles, which users ask for if memory is scarce.
                share = self._side / auto_side(network, engine) if self._side else 1
                pixels = int(GPU_PIXELS * min(1, share) ** 2)
        self._calls = Calls(self._tilings((1,) * network.dimensions), pixels)
        # A network that is always blind has one graph for both.
        always_blind = network.blindness == "always"
        self._first = self._refine = engine.compile(recipe, network, blind=always_blind)
        if self.r3 and not always_blind:
            self._refine = engine.compile(recipe, network, blind=True)

    def _tilings(self, size: Sequence[int]) -> Sequence[Tiling]:
        """Returns how each axis of pictures of a size is divided into tiles."""
        network, side = self._network, self._side
        if len(size) == 3:
            sides = auto_sides(network, self._engine, size) if self._auto else (side,) * 3
            return volume_tilings(network, sides, windows=True)
        # The graph of an exported model has tiles of even size. Other tiles give the same results
        # only if the network is local.
        tiling = Tiling(
            self._recipe.border,
            side,
            network.halo,
            network.size_multiple,
            grid=network.grid if self._one_shape and network.is_local else None,
            even=self._even,
            fill=network.padding_mode,
        )
        return tiling, tiling

    def __call__(
        self,
        frames: Sequence[Frame],
        on_tile: Callable[[float], None],
        finish: Finish = lambda frame, where, result: result,
    ) -> Iterator[tuple[Frame, tuple[Index, ...], np.ndarray]]:
        """Denoises pictures, those of one shape together. For `on_tile`, see `Denoiser`.

        Yields:
            A picture, the index of some of its pixels, and what `finish` makes of the network's
            result there, by default nothing else. Pixels come only when no tile needs to read them
            any more, so results of about a row of tiles are kept until then.
        """
        for shape in dict.fromkeys(frame.image.shape for frame in frames):
            same = [frame for frame in frames if frame.image.shape == shape]
            # R3 holds the complete results of the first pass in memory.
            at_once = self._calls.tiles(*shape[:-1]) if self.r3 else len(same)
            for start in range(0, len(same), at_once):
                part = 1 / len(frames)
                yield from self._denoise(same[start : start + at_once], on_tile, part, finish)

    def _denoise(
        self,
        frames: Sequence[Frame],
        on_tile: Callable[[float], None],
        part: float,
        finish: Finish,
    ) -> Iterator[tuple[Frame, tuple[Index, ...], np.ndarray]]:
        """Denoises pictures of one shape, each of which is the share `part` of the whole work."""
        *size, channels = frames[0].image.shape
        tilings = self._tilings(size)
        first_axes, refine_axes = zip(
            *(pass_axes(self._recipe, each) for each in size), strict=True
        )
        pictures: Sequence[Frame | Copies] = frames
        run, axes = self._first, first_axes
        if self.r3:
            padded = [axis.size for axis in first_axes]
            copies = [
                Copies(
                    frame,
                    np.empty((*padded, channels), np.float32),
                    RandomReplacement(self._seed, frame.orientation),
                )
                for frame in frames
            ]
            part /= 1 + Copies.samples
            tiles = make_tiles(first_axes, tilings, size, filled=padded)
            for number, tile, result in self._results(self._first, tiles, frames, channels):
                copies[number].denoised[tile.where] = result
                on_tile(part * tile.share)
            run, axes, pictures = self._refine, refine_axes, copies
            part *= Copies.samples

        tiles = make_tiles(axes, tilings, size)

        def finished(number: int, tile: Tile, result: np.ndarray) -> np.ndarray:
            return finish(frames[number], tile.where, result)

        for number, tile, result in self._results(run, tiles, pictures, channels, finished):
            yield frames[number], tile.where, result
            on_tile(part * tile.share)

    def _results(
        self,
        run: Run,
        tiles: Sequence[Tile],
        pictures: Sequence[Frame | Copies],
        channels: int,
        finish: Callable[[int, Tile, np.ndarray], np.ndarray] = lambda number, tile, result: result,
    ) -> Iterator[tuple[int, Tile, np.ndarray]]:
        """Runs the network over pictures.

        Yields:
            A picture's number, a tile, and what `finish` makes of these and of the mean result of
            the tile's samples, float32 [(z,) h, w, C]. It comes after all tiles that need its
            pixels have been read.
        """
        samples = pictures[0].samples
        waiting: collections.deque[tuple[Work, np.ndarray]] = collections.deque()
        for group, y, reads in self._groups(run, tiles, pictures, channels):
            y = y.reshape(-1, samples, *y.shape[1:])
            y = y.mean(axis=1) if samples > 1 else y[:, 0]
            for (number, tile), result in zip(group, y, strict=False):
                waiting.append(((number, tile), finish(number, tile, tile.crop(result))))
            while waiting:
                (number, tile), result = waiting[0]
                if number * len(tiles) + tile.needed > reads:
                    break
                waiting.popleft()
                yield number, tile, result

    def _groups(
        self, run: Run, tiles: Sequence[Tile], pictures: Sequence[Frame | Copies], channels: int
    ) -> Iterator[tuple[Sequence[Work], np.ndarray, int]]:
        """Runs the network over groups of tiles of one shape, as large as memory allows.

        While a GPU computes one group, the host reads the next, and the caller has time to write
        the previous.

        Yields:
            The tiles, their results [n·samples, (z,) h, w, C], and how many tiles have been read
            so far.
        """
        samples, reads = pictures[0].samples, 0
        running: tuple[Sequence[Work], list[Any]] | None = None
        for group, count in self._plan(tiles, len(pictures), samples):
            shape = group[0][1].source_shape
            x = np.empty((count, samples, *shape, channels), np.float32)
            for (number, tile), out in zip(group, x, strict=False):
                pictures[number].read(tile, out)
            x[len(group) :] = 0
            reads += len(group)
            previous = running and (running[0], self._finish(run, channels, running[1]))
            running = group, self._start(run, x.reshape(-1, *shape, channels))
            if previous:
                yield *previous, reads
        if running:
            yield running[0], self._finish(run, channels, running[1]), reads

    def _plan(
        self, tiles: Sequence[Tile], pictures: int, samples: int
    ) -> Iterator[tuple[Sequence[Work], int]]:
        """Yields groups of tiles to read at once, and the count to which zeros pad each group."""
        plan = itertools.product(range(pictures), tiles)
        for shape, each in itertools.groupby(plan, lambda work: work[1].source_shape):
            works = [*each]
            size = max(1, self._calls.tiles(*shape) // samples)
            for start in range(0, len(works), size):
                group = works[start : start + size]
                yield group, size if self._one_shape and len(works) > size else len(group)

    def _start(self, run: Run, x: np.ndarray) -> list[tuple[np.ndarray, Any]]:
        """Starts the network on tiles [n, (z,) h, w, 1 or 3], whatever its own channels are.

        An RGB network gets gray as three equal channels, and its results are averaged. A gray
        network gets RGB channel by channel.
        """
        channels = x.shape[-1]
        if channels < self._channels:
            x = np.repeat(x, self._channels, axis=-1)
        elif channels > self._channels:
            x = np.concatenate(np.split(x, channels, axis=-1))
        calls = -(-len(x) // self._calls.tiles(*x.shape[1:-1]))
        return [(part, self._calls.start(run, part)) for part in np.array_split(x, calls)]

    def _finish(
        self, run: Run, channels: int, calls: Sequence[tuple[np.ndarray, Any]]
    ) -> np.ndarray:
        """Waits for the calls of `_start`, and returns their results, [n, (z,) h, w, channels]."""
        results = [self._calls.finish(run, *call) for call in calls]
        y = np.concatenate(results) if len(results) > 1 else results[0]
        if channels < self._channels:
            return y.mean(axis=-1, keepdims=True)
        if channels > self._channels:
            return np.concatenate(np.split(y, channels), axis=-1)
        return y
