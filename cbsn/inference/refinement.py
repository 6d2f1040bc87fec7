"""Random-replacing refinement (R3) of AP-BSN."""

import numpy as np

from cbsn.inference.pixels import Frame
from cbsn.inference.tiling import Tile, as_index, take


class RandomReplacement:
    """Says which values of a denoised picture are replaced by the noisy ones.

    `TIMES` copies of the picture have each value replaced with a probability, pass through the
    blind network, and are averaged. What the first pass left over is correlated from pixel to
    pixel; the noisy values break it up, and their own noise the network cannot see through. (Lee et
    al., CVPR 2022, arXiv 2203.11799, section 4.3.)

    It is a function of the seed, the orientation and the place, which repeats every `PERIOD`
    pixels, so that an exported graph can have it as a table.

    Args:
        seed: int ≥ 0, below 2^64.
        orientation: int ≥ 0, number of the picture's orientation in a self-ensemble.

    Attributes:
        table: bool [TIMES, PERIOD, PERIOD, 3], True where a value is replaced.
    """

    TIMES = 8
    PROBABILITY = 0.16
    PERIOD = 256

    def __init__(self, seed: int, orientation: int):
        # Philox takes 128 bits of key.
        random = np.random.Generator(np.random.Philox(key=(seed << 64) + orientation))
        shape = (self.TIMES, self.PERIOD, self.PERIOD, 3)
        self.table = random.random(shape, np.float32) < self.PROBABILITY

    def masks(self, rows: np.ndarray, columns: np.ndarray, channels: int) -> np.ndarray:
        """Returns bool [TIMES, h, w, channels] for rows [h] and columns [w] of the picture."""
        rows, columns = rows % self.PERIOD, columns % self.PERIOD
        return self.table.take(rows, axis=1).take(columns, axis=2)[..., :channels]


class Copies:
    """What R3 has the network see of a picture whose first result is `denoised`, [H, W, C]."""

    samples = RandomReplacement.TIMES

    def __init__(self, frame: Frame, denoised: np.ndarray, seed: int):
        self.channels = frame.channels
        self._frame = frame
        self._denoised = denoised
        self._replacement = RandomReplacement(seed, frame.orientation)

    def read(self, tile: Tile, out: np.ndarray) -> None:
        """Writes the copies of a tile's source into float32 [TIMES, h, w, C]."""
        noisy = np.empty((1, *out.shape[1:]), np.float32)
        self._frame.read(tile, noisy)
        rows, columns = tile.rows.reads, tile.columns.reads
        out[...] = take(self._denoised, as_index(rows), as_index(columns))
        np.copyto(out, noisy, where=self._replacement.masks(rows, columns, self.channels))
