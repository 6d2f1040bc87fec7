"""What may follow, or surround, a network's pass: R3 and the self-ensemble."""

from collections.abc import Callable

import numpy as np

from cbsn.inference.tiling import Tile
from cbsn.orientations import NUM_ORIENTATIONS, orient


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
        return self.table.take(rows, axis=1).take(columns, axis=2)[..., :channels]

    def mix(self, tile: Tile, noisy: np.ndarray, denoised: np.ndarray, out: np.ndarray) -> None:
        """Makes the copies for a tile.

        Args:
            tile: where they are.
            noisy: the tile's noisy values [h, w, C].
            denoised: the whole denoised picture [H, W, C].
            out: float32 [times, h, w, C], what they are written into.
        """
        out[...] = tile.cut(denoised)
        masks = self.masks(tile.rows.reads, tile.columns.reads, noisy.shape[-1])
        np.copyto(out, noisy, where=masks)


def self_ensemble(
    denoise: Callable[[dict[int, tuple[np.ndarray, np.ndarray]]], None], images: np.ndarray
) -> np.ndarray:
    """Denoises pictures in their eight orientations, turned back and averaged (×8 self-ensemble).

    Args:
        denoise: called once or twice, so that all orientations of a call have one shape, with the
            turned pictures by the numbers of the orientations; each with an array float32 like
            them, to which it adds the results.
        images: [N, H, W, C].

    Returns:
        float32 [N, H, W, C].
    """
    total = np.zeros(images.shape, np.float32)
    # Views: what is added to the turned sum is turned back by that.
    turned = {
        number: tuple(_orient_each(each, number) for each in (images, total))
        for number in range(NUM_ORIENTATIONS)
    }
    for shape in dict.fromkeys(each.shape for each, _ in turned.values()):
        denoise({number: pair for number, pair in turned.items() if pair[0].shape == shape})
    total /= NUM_ORIENTATIONS
    return total


def _orient_each(images: np.ndarray, orientation: int) -> np.ndarray:
    """As `orient`, of each of [N, H, W, C], as a view."""
    turned = orient(np.moveaxis(images, 0, -1), orientation)
    return np.moveaxis(turned, -1, 0)
