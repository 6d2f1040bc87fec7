"""Running a network over whole pictures, a few tiles at a time."""

import collections
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cbsn.inference.calls import Calls, Room
from cbsn.inference.engines import Run
from cbsn.inference.layout import Layout
from cbsn.inference.tiling import Tile, make_bands

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
