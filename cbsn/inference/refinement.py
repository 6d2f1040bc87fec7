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
    the tiles, nor of the order in which they are taken.

    Args:
        seed: int ≥ 0.
        orientation: int ≥ 0, number of the picture's orientation in a self-ensemble.
        width: int, columns of the picture.
        channels: int, of the picture.
        times: int, number of copies T.
        probability: float, p.
    """

    TIMES = 8
    PROBABILITY = 0.16

    def __init__(
        self,
        seed: int,
        orientation: int,
        width: int,
        channels: int,
        times: int = TIMES,
        probability: float = PROBABILITY,
    ):
        self._key = (orientation, seed)
        self._shape = (times, width, channels)
        self._probability = probability
        self._rows = np.empty(0, int)
        self._masks = np.empty((0, *self._shape), bool)

    def masks(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Says which values are to be replaced.

        Args:
            rows: int [h], rows of the picture.
            columns: int [w], columns of it.

        Returns:
            bool [times, h, w, channels].
        """
        if not np.array_equal(rows, self._rows):  # the tiles of a band have one set of rows
            wanted, where = np.unique(rows, return_inverse=True)
            self._rows, self._masks = rows, np.stack([self._draw(row) for row in wanted])[where]
        return np.moveaxis(self._masks[:, :, columns], 0, 1)

    def _draw(self, row: int) -> np.ndarray:
        orientation, seed = self._key
        # Philox takes 128 bits of key: the row and the orientation in one half, the seed in the
        # other.
        bits = np.random.Philox(key=(seed << 64) + (orientation << 32) + int(row))
        return np.random.Generator(bits).random(self._shape, np.float32) < self._probability

    def mix(self, tile: Tile, noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
        """Returns the copies for a tile, float32 [times, h, w, C].

        Args:
            tile: where they are.
            noisy: the tile's noisy values [h, w, C].
            denoised: the whole denoised picture [H, W, C].
        """
        return np.where(self.masks(tile.rows.reads, tile.columns.reads), noisy, tile.cut(denoised))


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
