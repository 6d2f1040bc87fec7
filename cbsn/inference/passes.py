"""The passes of a network that a recipe denoises by."""

import collections
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cbsn.devices import has_gpu
from cbsn.errors import ConfigError
from cbsn.inference.engines import Calls, Room, Run, compile_network
from cbsn.inference.pixels import Frame
from cbsn.inference.refinement import RandomReplacement
from cbsn.inference.tiling import Index, Layout, Tile, make_bands
from cbsn.recipes import Recipe

AUTO_TILE = 342
"""Side of the tiles of `tile="auto"`: the full-size network takes 0.7 GB for one in float32, on a
CPU; larger ones gain little, as only their rims are computed twice."""


class Work(NamedTuple):
    """A tile of one of several pictures.

    Args:
        picture: int, its number.
        tile: the tile.
        needed: int, how many tiles, of all pictures and in their order, see pixels of this one
            before they may be overwritten.
    """

    picture: int
    tile: Tile
    needed: int


class TiledPass:
    """A network's pass over pictures of any size, in bounded memory.

    Args:
        run: the pass over tiles.
        halo: int, the network's receptive-field radius.
        multiple: int, its `size_multiple`.
        border: one of `cbsn.recipes.BORDERS`. With "reflect" `run` must omit the halo.
        side: int, the side of the tiles in pixels; None for the whole picture at once.
        channels: int, of the pictures that the network takes, 1 or 3.
        room: how much is computed at once.
        constant: bool, whether every call is to be of one size, as many tiles as the others, for
            devices that need a while for each new one. Default False.
        grid: int, as for `make_bands`. Default None.
    """

    def __init__(
        self,
        run: Run,
        *,
        halo: int,
        multiple: int,
        border: str,
        side: int | None,
        channels: int,
        room: Room,
        constant: bool = False,
        grid: int | None = None,
    ):
        self._calls = Calls(run, halo=halo, multiple=multiple, border=border, room=room)
        self._channels = channels
        self._constant = constant
        self._options = {
            "halo": halo,
            "multiple": multiple,
            "border": border,
            "side": side,
            "grid": grid,
        }

    def __call__(
        self,
        rows: Layout,
        columns: Layout,
        channels: int,
        read: Callable[[int, Tile, np.ndarray], object],
        write: Callable[[int, Tile, np.ndarray], None],
        *,
        pictures: int = 1,
        samples: int = 1,
    ) -> None:
        """Runs the network.

        Args:
            rows: how the rows of each picture are given to the network.
            columns: likewise its columns.
            channels: int, of the pictures, 1 or 3. Where the network takes three, one channel is
                seen three times, and the results are averaged; where it takes one, three are seen
                one by one.
            read: takes a picture's number, a tile, and an array float32 [samples, h, w, C], into
                which it writes what the network is to see in place of the tile.
            write: gets a picture's number, a tile and the mean result of its samples, float32
                [h, w, C]; not before all tiles that see pixels of it are read.
            pictures: int, how many pictures there are, all of one size.
            samples: int, as above.
        """
        bands = make_bands(rows, columns, **self._options)

        def read_group(group: Sequence[Work], size: int) -> np.ndarray:
            x = np.empty((size, samples, *group[0].tile.source_shape, channels), np.float32)
            for work, out in zip(group, x, strict=False):
                read(work.picture, work.tile, out)
            x[len(group) :] = 0
            return x.reshape(-1, *x.shape[2:])

        done: collections.deque[tuple[Work, np.ndarray]] = collections.deque()
        groups = self._groups(_plan(bands, pictures), samples)
        for group, y, reads in self._results(groups, read_group):
            y = y.reshape(-1, samples, *y.shape[1:])
            done.extend(zip(group, y.mean(axis=1) if samples > 1 else y[:, 0], strict=False))
            while done and done[0][0].needed <= reads:
                work, result = done.popleft()
                write(work.picture, work.tile, result)

    def time_call(self) -> float:
        """Measures a call of the size that large pictures need, without the host's work.

        Returns:
            Seconds per pixel.
        """
        large = Layout.mosaic(3 * (self._options["side"] + 2 * self._options["halo"]), 1, 0)
        size = make_bands(large, large, **self._options)[1][1].source_shape
        x = np.zeros((self._calls.room.tiles(*size), *size, self._channels), np.float32)
        for _ in range(2):  # the first time a GPU looks for the fastest way to compute it
            start = time.perf_counter()
            self._calls.finish(x, self._calls.start(x))
        return (time.perf_counter() - start) / math.prod(x.shape[:3])

    def _groups(self, plan: Sequence[Work], samples: int) -> Iterator[tuple[Sequence[Work], int]]:
        """Divides the work into what is read at a time, small tiles together.

        Yields:
            Tiles of one shape, and how many there are to be, so that all calls are equal.
        """
        for shape, each in itertools.groupby(plan, lambda work: work.tile.source_shape):
            works = [*each]
            size = max(1, self._calls.room.tiles(*shape) // samples)
            for start in range(0, len(works), size):
                group = works[start : start + size]
                yield group, size if self._constant and len(works) > size else len(group)

    def _results(
        self,
        groups: Iterable[tuple[Sequence[Work], int]],
        read: Callable[[Sequence[Work], int], np.ndarray],
    ) -> Iterator[tuple[Sequence[Work], np.ndarray, int]]:
        """Runs the network over groups of tiles.

        While a device of its own computes one of them, the host reads the next, and the caller has
        the time to write the previous.

        Yields:
            Each group; the results of its tiles' samples; and how many tiles have been read.
        """
        running, reads = None, 0
        for group, size in groups:
            x = read(group, size)
            reads += len(group)
            finished = running and (running[0], self._finish(running[1]))
            running = group, self._start(x)
            if finished:
                yield *finished, reads
        if running:
            yield running[0], self._finish(running[1]), reads

    def _start(self, x: np.ndarray) -> tuple[int, list]:
        """Has the network begin with [n, h, w, 1 or 3]."""
        channels = x.shape[-1]
        if channels < self._channels:
            x = np.repeat(x, self._channels, axis=-1)
        elif channels > self._channels:
            x = np.concatenate(np.split(x, channels, axis=-1))
        calls = -(-len(x) // self._calls.room.tiles(*x.shape[1:3]))
        return channels, [(part, self._calls.start(part)) for part in np.array_split(x, calls)]

    def _finish(self, running: tuple[int, list]) -> np.ndarray:
        """Waits for the results of `_start`, [n, h, w, 1 or 3]."""
        channels, calls = running
        results = [self._calls.finish(*call) for call in calls]
        y = np.concatenate(results) if len(results) > 1 else results[0]
        if channels < self._channels:
            return y.mean(axis=-1, keepdims=True)
        if channels > self._channels:
            return np.concatenate(np.split(y, channels), axis=-1)
        return y


def _plan(bands: Sequence[Sequence[Tile]], pictures: int) -> list[Work]:
    """All tiles of all pictures, in their order."""
    tiles = [*itertools.chain.from_iterable(bands)]
    # The first place that is needed as it was for each tile or a later one.
    firsts = np.minimum.accumulate([tile.rows.first for tile in reversed(tiles)])[::-1]
    needed = np.searchsorted(firsts, [tile.rows.stop for tile in tiles])
    return [
        Work(picture, tile, picture * len(tiles) + int(count))
        for picture in range(pictures)
        for tile, count in zip(tiles, needed, strict=True)
    ]


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
