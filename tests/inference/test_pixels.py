import numpy as np
import pytest

from cbsn.inference.pixels import fill_hidden


def test_hidden_pixels_take_the_nearest_visible_colour(random):
    colors = random.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    y, x = np.mgrid[:40, :50]
    inside = np.hypot(y - 20, x - 25) < 13
    before = colors.copy()
    fill_hidden(colors, ~inside)
    np.testing.assert_array_equal(colors[inside], before[inside])
    row = 20
    first, last = np.flatnonzero(inside[row])[[0, -1]]
    assert (colors[row, :first] == before[row, first]).all()
    assert (colors[row, last:] == before[row, last]).all()
    visible = {tuple(color) for color in before[inside]}
    assert {tuple(color) for color in colors.reshape(-1, 3)} == visible  # corners, too


@pytest.mark.parametrize("hides", [False, True])
def test_nothing_is_filled_where_all_or_none_is_hidden(random, hides):
    colors = random.integers(0, 256, (4, 5, 1)).astype(np.uint8)
    before = colors.copy()
    fill_hidden(colors, np.full((4, 5), hides))
    np.testing.assert_array_equal(colors, before)
