import itertools

import numpy as np
import pytest

from cbsn.inference.denoiser import AUTO_TILE
from cbsn.inference.tiling import make_bands


def _tiles(*size, **options):
    return itertools.chain.from_iterable(make_bands(*size, **options))


@pytest.mark.parametrize("side", [None, 1, 7, 16, 100])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (13, 5), (37, 64)])
def test_tiles_cover_each_pixel_once_with_equal_sources(height, width, side):
    halo, multiple = 8, 6
    covered = np.zeros((height, width), int)
    sizes = set()
    for tile in _tiles(height, width, side=side, halo=halo, multiple=multiple):
        covered[tile.rows, tile.columns] += 1
        sizes.add((len(tile.source_rows), len(tile.source_columns)))
    assert (covered == 1).all()
    assert len(sizes) == 1
    assert all((size - 2 * halo) % multiple == 0 for size in sizes.pop())


@pytest.mark.parametrize("side", [None, 9, 20])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (31, 45)])
def test_sources_are_windows_of_the_reflected_picture(height, width, side):
    halo = 8
    image = np.random.default_rng(0).random((height, width, 3))
    reflected = np.pad(image, ((halo, halo + 99), (halo, halo + 99), (0, 0)), mode="reflect")
    for tile in _tiles(height, width, side=side, halo=halo, multiple=6):
        source = tile.cut(image)
        top, left = tile.rows.start, tile.columns.start
        window = reflected[top : top + source.shape[0], left : left + source.shape[1]]
        np.testing.assert_array_equal(source, window)
        result = source[halo:-halo, halo:-halo]
        np.testing.assert_array_equal(tile.crop(result), image[tile.rows, tile.columns])


def test_tiles_are_of_even_size():
    tiles = list(_tiles(1000, 520, side=512, halo=29, multiple=6))
    assert len(tiles) == 4
    assert {t.source_rows.size for t in tiles} == {504 + 58}
    assert {t.source_columns.size for t in tiles} == {264 + 58}


def test_the_default_tile_of_the_full_network_needs_no_rounding():
    tile = next(_tiles(5000, 5000, side=AUTO_TILE, halo=29, multiple=6))
    assert tile.source_rows.size <= AUTO_TILE + 2 * 29
