import numpy as np
import pytest

from cbsn.inference.pixels import HiddenPixels


def test_hidden_pixels_take_the_nearest_visible_colour_and_are_restored(random):
    colors = random.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    y, x = np.mgrid[:40, :50]
    inside = np.hypot(y - 20, x - 25) < 13
    alpha = np.where(inside, 255, 0)
    before = colors.copy()
    hidden = HiddenPixels(colors, alpha)
    np.testing.assert_array_equal(colors[inside], before[inside])
    row = 20
    first, last = np.flatnonzero(inside[row])[[0, -1]]
    assert (colors[row, :first] == before[row, first]).all()
    assert (colors[row, last:] == before[row, last]).all()
    visible = {tuple(color) for color in before[inside]}
    assert {tuple(color) for color in colors.reshape(-1, 3)} == visible  # corners, too
    hidden.restore()
    np.testing.assert_array_equal(colors, before)


@pytest.mark.parametrize("alpha", [0, 1, 255])
def test_nothing_is_filled_where_all_or_none_is_hidden(random, alpha):
    colors = random.integers(0, 256, (4, 5, 1)).astype(np.uint8)
    before = colors.copy()
    hidden = HiddenPixels(colors, np.full((4, 5), alpha, np.uint8))
    assert hidden.all == (alpha == 0)
    np.testing.assert_array_equal(colors, before)
