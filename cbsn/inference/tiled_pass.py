"""Running a network over a whole picture, a tile at a time."""

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cbsn.inference.engines import Run
from cbsn.inference.layout import Layout
from cbsn.inference.tiling import Tile, make_bands

AUTO_TILE = 342
"""Side of the tiles of `tile="auto"`: the full-size network takes 0.7 GB for one in float32, on a
CPU; larger ones gain little, as only their rims are computed twice."""


class TiledPass:
    """A network's pass over pictures of any size, in bounded memory.

    Args:
        run: the pass over tiles.
        halo: int, the network's receptive-field radius.
        multiple: int, its `size_multiple`.
        border: one of `cbsn.recipes.BORDERS`. With "reflect" `run` must omit the halo.
        side: int, the side of the tiles in pixels; None for the whole picture at once.
        channels: int, of the pictures that the network takes, 1 or 3.
    """

    def __init__(
        self,
        run: Run,
        *,
        halo: int,
        multiple: int,
        border: str,
        side: int | None,
        channels: int = 3,
    ):
        self._run = run
        self._channels = channels
        self._options = {"halo": halo, "multiple": multiple, "border": border, "side": side}

    def __call__(
        self,
        rows: Layout,
        columns: Layout,
        read: Callable[[Tile], np.ndarray],
        write: Callable[[Tile, np.ndarray], None],
        samples: int = 1,
    ) -> None:
        """Runs the network.

        Args:
            rows: how the picture's rows are given to the network.
            columns: likewise its columns.
            read: returns what the network is to see in place of a tile, float32
                [samples, h, w, 1 or 3]. Where the network takes three, one channel is seen three
                times, and the results are averaged; where it takes one, three are seen one by one.
            write: gets a tile and the mean result of its samples, float32 [h, w, 1 or 3]; not
                before all tiles that see pixels of it are read.
            samples: int, as above.
        """
        bands = make_bands(rows, columns, **self._options)
        # The first place that is still needed as it was when a band begins, and after the last.
        firsts = [band[0].rows.first for band in bands]
        needed = [*np.minimum.accumulate(firsts[::-1])[::-1], rows.reads.size]
        done: collections.deque[tuple[Tile, np.ndarray]] = collections.deque()
        for band, needed_next in zip(bands, needed[1:], strict=True):
            done.extend(self._band(band, read, samples))
            while done and done[0][0].rows.stop <= needed_next:
                write(*done.popleft())

    def _band(
        self, band: Sequence[Tile], read: Callable[[Tile], np.ndarray], samples: int
    ) -> Iterator[tuple[Tile, np.ndarray]]:
        for (height, width), tiles in itertools.groupby(band, lambda tile: tile.source_shape):
            # What is small goes together, as many as fill a large tile.
            batch = max(1, AUTO_TILE**2 // (height * width))
            tiles = list(tiles)
            for start in range(0, len(tiles), max(1, batch // samples)):
                group = tiles[start : start + max(1, batch // samples)]
                y = self._run_colors(np.concatenate([read(tile) for tile in group]), batch)
                y = y.reshape(len(group), samples, *y.shape[1:]).mean(axis=1)
                yield from zip(group, y, strict=True)

    def _run_colors(self, x: np.ndarray, batch: int) -> np.ndarray:
        """Runs the network over [n, h, w, 1 or 3], `batch` at a time."""
        count, channels = len(x), x.shape[-1]
        if channels < self._channels:
            x = np.repeat(x, self._channels, axis=-1)
        elif channels > self._channels:
            x = np.concatenate(np.split(x, channels, axis=-1))
        y = np.concatenate([self._run(x[i : i + batch]) for i in range(0, len(x), batch)])
        if channels < self._channels:
            return y.mean(axis=-1, keepdims=True)
        return np.concatenate(np.split(y, len(y) // count), axis=-1)
