"""The pixels around pixels."""

import numpy as np


def gathered(image: np.ndarray, places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns the pixels of [H, W, C] that lie at some offsets, up to 2, from some places, [n, m].

    Beyond the edges others stand in, such that no pixel is its own neighbour, as one next to the
    edge would be if they were mirrored.
    """
    rows, columns = (
        np.array([*range(length), length - 3, length - 4, 3, 2]) for length in image.shape[:2]
    )
    down, right = (places[:, None, :2] + offsets).transpose(2, 0, 1)
    return image[rows[down], columns[right], places[:, 2, None]]


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """Returns the pixels [H, W, C] that lie further down and right; mirrored beyond the edges."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    height, width = image.shape[:2]
    return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]


def middle_of_four(image: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle two of the four neighbours, [H, W, C]."""
    up, down, left, right = (shifted(image, *each) for each in ((-1, 0), (1, 0), (0, -1), (0, 1)))
    low, high = np.minimum(up, down), np.maximum(up, down)
    lows, highs = np.minimum(left, right), np.maximum(left, right)
    return (np.maximum(low, lows) + np.minimum(high, highs)) / 2
