import numpy as np
import pytest

from cbsn.inference.tiling import make_tiles


@pytest.mark.parametrize("side", [None, 1, 7, 16, 100])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (13, 5), (37, 64)])
def test_tiles_cover_each_pixel_once_with_equal_sources(height, width, side):
    halo, multiple = 8, 6
    covered = np.zeros((height, width), int)
    sizes = set()
    for tile in make_tiles(height, width, side=side, halo=halo, multiple=multiple):
        covered[tile.rows, tile.columns] += 1
        sizes.add((len(tile.source_rows), len(tile.source_columns)))
    assert (covered == 1).all()
    assert len(sizes) == 1
    assert all(size % multiple == 0 for size in sizes.pop())


@pytest.mark.parametrize("side", [None, 9, 20])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (31, 45)])
def test_sources_are_windows_of_the_reflected_picture(height, width, side):
    halo = 8
    image = np.random.default_rng(0).random((height, width, 3))
    reflected = np.pad(image, ((halo, halo + 99), (halo, halo + 99), (0, 0)), mode="reflect")
    for tile in make_tiles(height, width, side=side, halo=halo, multiple=6):
        source = tile.cut(image)
        top, left = tile.rows.start, tile.columns.start
        window = reflected[top : top + source.shape[0], left : left + source.shape[1]]
        np.testing.assert_array_equal(source, window)
        np.testing.assert_array_equal(tile.crop(source), image[tile.rows, tile.columns])


def test_tiles_are_of_even_size():
    tiles = list(make_tiles(1000, 520, side=512, halo=29, multiple=6))
    assert len(tiles) == 4
    assert {t.source_rows.size for t in tiles} == {558}
    assert {t.source_columns.size for t in tiles} == {318}


def test_the_default_tile_of_the_full_network_needs_no_rounding():
    tile = next(make_tiles(5000, 5000, side=512, halo=29, multiple=6))
    assert tile.source_rows.size <= 512 + 2 * 29
