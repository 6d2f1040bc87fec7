import itertools

import numpy as np
import pytest

from cbsn.inference.passes import AUTO_TILE
from cbsn.inference.tiling import Layout, make_bands
from cbsn.sampling import pixel_shuffle_down

LAYOUTS = {
    "plain": lambda size: Layout.mosaic(size, 1, 0),
    "mosaic": lambda size: Layout.mosaic(size, 2, 2),
    "reflected": lambda size: Layout.reflected(size, 2),
}
SIZES = [(2, 2), (2, 40), (14, 6), (38, 64)]  # a mosaic needs multiples of its stride


def _tiles(height, width, *, layout="plain", border="reflect", **options):
    rows, columns = (LAYOUTS[layout](size) for size in (height, width))
    return itertools.chain.from_iterable(make_bands(rows, columns, border=border, **options))


def _given(image, layout):
    """What the network is to see of a picture [H, W, C]."""
    if layout == "mosaic":
        return np.asarray(pixel_shuffle_down(image[None], 2, 2))[0]
    margin = 2 if layout == "reflected" else 0
    return np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("border", ["reflect", "zeros"])
@pytest.mark.parametrize("side", [None, 1, 7, 16, 100])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_cover_each_pixel_once(height, width, side, border, layout):
    covered = np.zeros((height, width), int)
    options = {"layout": layout, "border": border, "side": side, "halo": 8, "multiple": 6}
    sizes = set()
    for tile in _tiles(height, width, **options):
        result = np.ones((200, 200), int)
        piece, where = tile.crop(result, height, width)
        covered[where] += piece
        sizes.update(tile.source_shape)
    assert (covered == 1).all()
    if border == "reflect":  # all of one size, so that they can go together
        assert len(sizes) <= 2
        assert all((size - 16) % 6 == 0 for size in sizes)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("side", [None, 9, 20])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_sources_are_windows(height, width, side, layout):
    halo = 8
    image = np.random.default_rng(0).random((height, width, 3))
    given = _given(image, layout)
    shape = given.shape[:2]
    options = {"layout": layout, "side": side, "halo": halo, "multiple": 6}
    margins = ((halo, halo + 99), (halo, halo + 99), (0, 0))
    reflected, zeros = np.pad(given, margins, mode="reflect"), np.pad(given, margins)
    for border, around in (("reflect", reflected), ("zeros", zeros)):
        for tile in _tiles(height, width, border=border, **options):
            source = tile.cut(image)
            # Where the window begins, from where its piece begins.
            top, left = (
                span.stop - span.writes.size - span.margin + (halo if border == "zeros" else 0)
                for span in (tile.rows, tile.columns)
            )
            window = around[top : top + source.shape[0], left : left + source.shape[1]]
            np.testing.assert_array_equal(source, window)
            if border == "reflect":
                source = source[halo:-halo, halo:-halo]
            else:
                end = [
                    start - halo + n for start, n in zip((top, left), source.shape, strict=False)
                ]
                assert end[0] <= shape[0] and end[1] <= shape[1]
            piece, where = tile.crop(source, height, width)
            np.testing.assert_array_equal(piece, image[where])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("border", ["reflect", "zeros"])
@pytest.mark.parametrize("side", [3, 10])
def test_first_tells_what_a_band_still_needs(layout, border, side):
    """A row may be overwritten once no later band reads it."""
    height = 38
    rows = LAYOUTS[layout](height)
    options = {"border": border, "side": side, "halo": 8, "multiple": 1}
    bands = make_bands(rows, rows, **options)
    for i, band in enumerate(bands):
        needed = min((later[0].rows.first for later in bands[i + 1 :]), default=rows.reads.size)
        written = [row for row in rows.writes[:needed] if row >= 0]
        for later in bands[i + 1 :]:
            assert not np.isin(later[0].rows.reads, written).any()
        assert band[0].rows.first <= band[0].rows.stop


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("border", ["reflect", "zeros"])
@pytest.mark.parametrize(("halo", "grid"), [(8, 1), (8, 4), (0, 1)])
@pytest.mark.parametrize("side", [12, 20])
def test_fixed_windows(layout, border, halo, grid, side):
    """Each is a piece of the picture as it is given; a row is filled from the middle of one."""
    options = {"border": border, "side": side, "halo": halo, "multiple": 4, "grid": grid}
    length = side + 2 * halo
    sizes = set()
    for height in range(2, 150, 2):
        rows = LAYOUTS[layout](height)
        size = rows.reads.size
        bands = make_bands(rows, LAYOUTS["plain"](4), **options)
        inside = np.pad(np.arange(size), 99, mode="reflect")
        covered = np.zeros(height, int)
        for number, [tile] in enumerate(bands):
            span = tile.rows
            first = span.stop - span.writes.size - span.margin
            assert first % grid == 0
            window = first - (halo if border == "reflect" else 0) + 99
            expected = rows.reads[inside[window : window + span.reads.size]]
            np.testing.assert_array_equal(span.reads, expected)
            if border == "zeros" and size > length:
                end = first + span.reads.size
                assert span.margin >= halo or number == 0
                assert span.stop <= end - halo or number == len(bands) - 1
                assert size <= end < size + grid if number == len(bands) - 1 else end <= size
            from_rows, where = span.kept(height)
            covered[where] += 1
            done = rows.reads[inside[np.arange(first, first + 2 * length)[from_rows] + 99]]
            np.testing.assert_array_equal(done, np.arange(height)[where])
            needed = min((later[0].rows.first for later in bands[number + 1 :]), default=size)
            written = [row for row in rows.writes[:needed] if row >= 0]
            for [later] in bands[number + 1 :]:
                assert not np.isin(later.rows.reads, written).any()
        assert (covered == 1).all()
        if size > length:
            sizes.update(tile.source_shape[0] for [tile] in bands)
    assert sizes == {length}


@pytest.mark.parametrize("layout", ["plain", "reflected"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (13, 5)])
def test_odd_sizes(height, width, layout):
    covered = np.zeros((height, width), int)
    for tile in _tiles(height, width, layout=layout, side=4, halo=8, multiple=6):
        piece, where = tile.crop(np.ones((200, 200), int), height, width)
        covered[where] += piece
    assert (covered == 1).all()


def test_beyond_a_padded_picture_there_are_zeros():
    """A picture of 5 rows, padded to 6 for its sub-images."""
    image = np.ones((5, 6, 1), np.uint8)
    (tile,) = _tiles(6, 6, layout="mosaic", border="zeros", side=None, halo=8, multiple=6)
    source = np.empty((*tile.source_shape, 1))
    tile.cut(image, lambda values, out: np.subtract(values, 0.5, out=out), source)
    expected = pixel_shuffle_down(np.pad(image - 0.5, ((0, 1), (0, 0), (0, 0)))[None], 2, 2)
    np.testing.assert_array_equal(source, expected[0])


def test_tiles_are_of_even_size():
    tiles = list(_tiles(1000, 520, side=512, halo=29, multiple=6))
    assert len(tiles) == 4
    assert {t.source_shape for t in tiles} == {(504 + 58, 264 + 58)}


def test_the_default_tile_of_the_full_network_needs_no_rounding():
    tile = next(_tiles(5000, 5000, side=AUTO_TILE, halo=29, multiple=6))
    assert tile.source_shape[0] <= AUTO_TILE + 2 * 29
