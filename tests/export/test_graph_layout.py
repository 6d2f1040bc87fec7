import numpy as np
import pytest
import tensorflow as tf

from cbsn.export.graph_tiles import GraphLayout, GraphSpans, reflect
from cbsn.inference.tiling import Layout, make_bands


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_reflection_is_numpys(size):
    expected = np.pad(np.arange(size), 25, "reflect")
    np.testing.assert_array_equal(reflect(tf.range(-25, size + 25), size), expected)


@pytest.mark.parametrize(("size", "stride", "pad"), [(12, 2, 2), (15, 5, 0), (7, 1, 3), (1, 1, 0)])
def test_mosaics_are_those_of_arrays(size, stride, pad):
    layout = GraphLayout.mosaic(tf.constant(size), stride, pad)
    expected = Layout.mosaic(size, stride, pad)
    np.testing.assert_array_equal(layout.reads, expected.reads)
    places = np.arange(size) if layout.places is None else layout.places
    np.testing.assert_array_equal(places, expected.places)


def test_margins_are_those_of_arrays():
    layout, expected = GraphLayout.reflected(tf.constant(3), 4), Layout.reflected(3, 4)
    np.testing.assert_array_equal(layout.reads, expected.reads)
    np.testing.assert_array_equal(layout.places, expected.places)


@pytest.mark.parametrize("border", ["reflect", "zeros"])
@pytest.mark.parametrize(("size", "side", "multiple"), [(50, 24, 6), (50, None, 4), (5, 24, 6)])
def test_tiles_are_those_of_arrays(border, size, side, multiple):
    options = {"border": border, "side": side, "halo": 7, "multiple": multiple}
    spans = GraphSpans(GraphLayout.mosaic(tf.constant(size), 1, 0), **options)
    bands = make_bands(Layout.mosaic(size, 1, 0), Layout.mosaic(1, 1, 0), **options)
    assert int(spans.count) == len(bands)
    for index, [tile] in enumerate(bands):
        np.testing.assert_array_equal(spans.source(tf.constant(index)), tile.rows.reads)
        piece = spans.piece(tf.constant(index), tf.constant(size)).numpy()
        assert len(piece) == spans.step and ((piece >= 0) & (piece < size)).all()
        np.testing.assert_array_equal(piece[: tile.rows.writes.size], tile.rows.writes)
