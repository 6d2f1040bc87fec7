"""What may follow, or surround, a network's pass: R3 and the self-ensemble."""

from collections.abc import Callable

import numpy as np

from cbsn.data.augment import NUM_ORIENTATIONS, orient
from cbsn.inference.tiling import Tile


class RandomReplacement:
    """Random-replacing refinement (R3) of AP-BSN.

    `times` copies of the denoised picture have each value replaced by the noisy one with a certain
    probability, pass through the blind network, and are averaged. What the first pass left over is
    correlated from pixel to pixel; the noisy values break it up, and their own noise the network
    cannot see through. (Lee et al., CVPR 2022, arXiv 2203.11799, section 4.3.)

    Which values are replaced is a function of the seed, the orientation and the place only: not of
    the tiles, nor of the order in which they are taken. It repeats every `PERIOD` pixels, so that
    an exported graph can have it as a table.

    Args:
        seed: int ≥ 0, below 2^64.
        orientation: int ≥ 0, number of the picture's orientation in a self-ensemble.
        times: int, number of copies T.
        probability: float, p.

    Attributes:
        table: bool [times, PERIOD, PERIOD, 3], True where a value is replaced.
    """

    TIMES = 8
    PROBABILITY = 0.16
    PERIOD = 256

    def __init__(
        self, seed: int, orientation: int, times: int = TIMES, probability: float = PROBABILITY
    ):
        # Philox takes 128 bits of key.
        random = np.random.Generator(np.random.Philox(key=(seed << 64) + orientation))
        shape = (times, self.PERIOD, self.PERIOD, 3)
        self.table = random.random(shape, np.float32) < probability

    def masks(self, rows: np.ndarray, columns: np.ndarray, channels: int) -> np.ndarray:
        """Says which values are to be replaced.

        Args:
            rows: int [h], rows of the picture.
            columns: int [w], columns of it.
            channels: int, its channels, at most 3.

        Returns:
            bool [times, h, w, channels].
        """
        rows, columns = rows % self.PERIOD, columns % self.PERIOD
        return self.table[:, rows[:, None], columns, :channels]

    def mix(self, tile: Tile, noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
        """Returns the copies for a tile, float32 [times, h, w, C].

        Args:
            tile: where they are.
            noisy: the tile's noisy values [h, w, C].
            denoised: the whole denoised picture [H, W, C].
        """
        masks = self.masks(tile.rows.reads, tile.columns.reads, noisy.shape[-1])
        return np.where(masks, noisy, tile.cut(denoised))


def self_ensemble(
    denoise: Callable[[int, np.ndarray, np.ndarray], None], image: np.ndarray
) -> np.ndarray:
    """Denoises a picture in its eight orientations, turned back and averaged (×8 self-ensemble).

    Args:
        denoise: called with the number of an orientation, the picture in it, and an array float32
            like it, to which it adds the result.
        image: [H, W, C].

    Returns:
        float32 [H, W, C].
    """
    total = np.zeros(image.shape, np.float32)
    for orientation in range(NUM_ORIENTATIONS):
        # Views: what is added to the turned sum is turned back by that.
        denoise(orientation, orient(image, orientation), orient(total, orientation))
    total /= NUM_ORIENTATIONS
    return total
