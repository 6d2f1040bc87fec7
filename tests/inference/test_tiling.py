import numpy as np
import pytest
import tensorflow as tf

from cbsn.inference.passes import AUTO_TILE
from cbsn.inference.tiling import Axis, Spans, Tiling, make_tiles, reflected
from cbsn.sampling import pixel_shuffle_down

LAYOUTS = {
    "plain": lambda size, xp=np: Axis(size, xp=xp),
    "mosaic": lambda size, xp=np: Axis(size, 2, 2, xp=xp),
    "reflected": lambda size, xp=np: Axis(size, 1, 2, True, xp),
}
SIZES = [(2, 2), (2, 40), (14, 6), (38, 64)]  # a mosaic needs multiples of its stride


def _tiles(height, width, *, layout="plain", border="reflect", grid=None, **options):
    axes = [LAYOUTS[layout](size) for size in (height, width)]
    tiling = Tiling(border=border, grid=grid, **options)
    return make_tiles(axes, [tiling] * 2, (height, width))


def _given(image, layout):
    """What the network is to see of a picture [H, W, C]."""
    if layout == "mosaic":
        return np.asarray(pixel_shuffle_down(image[None], 2, 2))[0]
    margin = 2 if layout == "reflected" else 0
    return np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_places_are_those_of_the_picture_that_is_given(layout):
    image = np.arange(1, 39)[:, None, None]
    given = _given(np.tile(image, (1, 4, 1)), layout)[:, 2, 0]
    axis = LAYOUTS[layout](38)
    rows = axis.rows(np.arange(axis.length))
    np.testing.assert_array_equal(np.where(rows < 0, 0, rows + 1), given)
    np.testing.assert_array_equal(given[axis.places(np.arange(38))], image.ravel())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("border", ["reflect", "zeros"])
@pytest.mark.parametrize("side", [None, 1, 7, 16, 100])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_cover_each_pixel_once(height, width, side, border, layout):
    covered = np.zeros((height, width), int)
    options = {"layout": layout, "border": border, "side": side, "halo": 8, "multiple": 6}
    sizes, share = set(), 0
    for tile in _tiles(height, width, **options):
        covered[tile.where] += tile.crop(np.ones((200, 200), int))
        sizes.update(tile.source_shape)
        share += tile.share
    assert (covered == 1).all()
    assert share == pytest.approx(1)
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
    margins = ((halo, halo + 99), (halo, halo + 99), (0, 0))
    options = {"layout": layout, "side": side, "halo": halo, "multiple": 6}
    for border, mode in (("reflect", "reflect"), ("zeros", "constant")):
        around = np.pad(given, margins, mode=mode)
        axes = [LAYOUTS[layout](size) for size in (height, width)]
        spans = [Spans(axis, Tiling(border, side, halo, 6)) for axis in axes]
        tiles = _tiles(height, width, border=border, **options)
        assert len(tiles) == spans[0].count * spans[1].count
        for number, tile in enumerate(tiles):
            row, column = (
                each.span(index)
                for each, index in zip(spans, divmod(number, spans[1].count), strict=True)
            )
            source = tile.take(image).copy()
            tile.clear(source)
            window = around[row.first + halo : row.stop + halo]
            window = window[:, column.first + halo : column.stop + halo]
            np.testing.assert_array_equal(source, window)
            if border == "reflect":
                source = source[halo:-halo, halo:-halo]
            else:
                assert row.stop <= len(given) and column.stop <= given.shape[1]
            np.testing.assert_array_equal(tile.crop(source), image[tile.where])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("border", ["reflect", "zeros"])
@pytest.mark.parametrize(("side", "grid"), [(3, None), (10, None), (12, 4)])
def test_needed_tells_when_a_tile_may_be_overwritten(layout, border, side, grid):
    options = {"border": border, "side": side, "halo": 8, "multiple": 1, "grid": grid}
    tiles = _tiles(60, 20, layout=layout, **options)
    assert len({tile.needed for tile in tiles}) > 1
    for i, tile in enumerate(tiles):
        assert tile.needed > i
        for later in tiles[tile.needed :]:
            assert not np.isin(later.lines[0].reads, np.arange(60)[tile.lines[0].filled]).any()


def test_tiles_of_volumes():
    """They cover each voxel once, see what they should, and wait until it may be overwritten."""
    size = (41, 70, 61)
    volume = np.random.default_rng(0).random((*size, 1))
    tilings = [
        Tiling("zeros", 8, 6, 2, grid=2, even=True),
        *[Tiling("zeros", 24, 12, 4, grid=4, even=True)] * 2,
    ]
    tiles = make_tiles([*map(Axis, size)], tilings, size)
    covered = np.zeros(size, int)
    made = np.full(volume.shape, np.nan)
    for number, tile in enumerate(tiles):
        covered[tile.where] += 1
        source = tile.take(volume)
        assert source.shape[:-1] == tile.source_shape
        made[tile.where] = tile.crop(source)
        assert tile.needed > number
        filled = np.arange(size[0])[tile.lines[0].filled]
        for later in tiles[tile.needed :]:
            assert not np.isin(later.lines[0].reads, filled).any()
    assert (covered == 1).all()
    assert sum(tile.share for tile in tiles) == pytest.approx(1)
    assert len({tile.source_shape for tile in tiles}) == 1 and len(tiles) > 8
    assert len({tile.needed for tile in tiles}) > 1
    np.testing.assert_array_equal(made, volume)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("border", "fill"), [("reflect", "reflect"), ("zeros", "reflect"), ("zeros", "zeros")]
)
@pytest.mark.parametrize(("halo", "grid"), [(8, 1), (8, 4), (0, 1)])
@pytest.mark.parametrize("side", [12, 20])
def test_fixed_windows(layout, border, fill, halo, grid, side):
    """Each is a piece of the picture as it is given; a row is filled from the middle of one."""
    tiling = Tiling(border, side, halo, 4, grid=grid, fill=fill)
    length = side + 2 * halo
    sizes = set()
    for height in range(2, 150, 4):
        axis = LAYOUTS[layout](height)
        size, rows = axis.length, [*axis.rows(np.arange(axis.length)), -1]
        rows = np.array(rows)  # beyond the axis, the last of these may be read
        how = {"mode": "reflect"} if fill == "reflect" else {"constant_values": size}
        inside = np.pad(np.arange(size), 99, **how)
        spans, covered = Spans(axis, tiling), np.zeros(height, int)
        for number, tile in enumerate(make_tiles([axis, Axis(4)], [tiling] * 2, (height, 4))):
            span, lines = spans.span(number), tile.lines[0]
            first = span.start - span.margin
            assert first % grid == 0
            window = first - (halo if border == "reflect" else 0) + 99
            expected = rows[inside[window : window + lines.reads.size]]
            np.testing.assert_array_equal(lines.reads, expected)
            if border == "zeros" and size > length:
                is_last = number == spans.count - 1
                assert span.margin >= halo or number == 0
                assert span.end <= span.stop - halo or is_last
                assert size <= span.stop < size + grid if is_last else span.stop <= size
            covered[lines.filled] += 1
            done = rows[inside[np.arange(first, first + 2 * length)[lines.kept] + 99]]
            np.testing.assert_array_equal(done, np.arange(height)[lines.filled])
            if size > length:
                sizes.add(lines.reads.size)
        assert (covered == 1).all()
    assert sizes == {length}


@pytest.mark.parametrize("layout", ["plain", "reflected"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (13, 5)])
def test_odd_sizes(height, width, layout):
    covered = np.zeros((height, width), int)
    for tile in _tiles(height, width, layout=layout, side=4, halo=8, multiple=6):
        covered[tile.where] += tile.crop(np.ones((200, 200), int))
    assert (covered == 1).all()


def test_beyond_a_padded_picture_there_are_zeros():
    """A picture of 5 rows, padded to 6 for its sub-images."""
    image = np.ones((5, 6, 1))
    tiling = Tiling("zeros", None, 8, 6)
    (tile,) = make_tiles([LAYOUTS["mosaic"](6)] * 2, [tiling] * 2, (5, 6))
    source = tile.take(image) - 0.5
    tile.clear(source)
    expected = pixel_shuffle_down(np.pad(image - 0.5, ((0, 1), (0, 0), (0, 0)))[None], 2, 2)
    np.testing.assert_array_equal(source, expected[0])
    assert tile.crop(source).shape == (5, 6, 1)
    (tile,) = make_tiles([LAYOUTS["mosaic"](6)] * 2, [tiling] * 2, (5, 6), filled=(6, 6))
    assert tile.crop(source).shape == (6, 6, 1)


def test_tiles_are_of_even_size():
    tiles = _tiles(1000, 520, side=512, halo=29, multiple=6)
    assert len(tiles) == 4
    assert {t.source_shape for t in tiles} == {(504 + 58, 264 + 58)}


def test_the_default_tile_of_the_full_network_needs_no_rounding():
    tile = _tiles(5000, 5000, side=AUTO_TILE, halo=29, multiple=6)[0]
    assert tile.source_shape[0] <= AUTO_TILE + 2 * 29


@pytest.mark.parametrize("xp", [np, tf])
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_reflection_is_numpys(size, xp):
    places = (tf.range if xp is tf else np.arange)(-25, size + 25)
    expected = np.pad(np.arange(size), 25, "reflect")
    np.testing.assert_array_equal(reflected(places, size, xp), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("border", ["reflect", "zeros"])
@pytest.mark.parametrize(("size", "side", "multiple"), [(50, 24, 6), (50, None, 4), (6, 24, 6)])
def test_tiles_of_a_graph_are_those_of_arrays(layout, border, size, side, multiple):
    tiling = Tiling(border, side, 7, multiple)
    spans = Spans(LAYOUTS[layout](tf.constant(size), tf), tiling)
    expected = Spans(LAYOUTS[layout](size), tiling)
    assert (int(spans.step), int(spans.count)) == (expected.step, expected.count)
    for index in range(expected.count):
        span, known = spans.span(tf.constant(index)), expected.span(index)
        assert tuple(map(int, span)) == known
        np.testing.assert_array_equal(spans.reads(span), expected.reads(known))
    places = expected.axis.places(np.arange(size))
    np.testing.assert_array_equal(spans.axis.places(tf.range(size)), places)
