"""Tests of `cbsn.napari_plugin.lazy_array`."""

import numpy as np
import pytest

from cbsn.napari_plugin.lazy_array import lazy_array

WHOLE = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)


def test_it_reads_only_what_is_looked_at():
    read = []

    def plane(index):
        read.append(index)
        return WHOLE[index]

    array = lazy_array(plane, (2, 3), (4, 5), WHOLE.dtype)
    assert (array.shape, array.dtype, array.chunksize) == (WHOLE.shape, WHOLE.dtype, (1, 1, 4, 5))
    assert read == []
    np.testing.assert_array_equal(array[1, 2], WHOLE[1, 2])
    assert read == [(1, 2)]


@pytest.mark.parametrize(
    "key",
    [
        np.s_[:],
        np.s_[1],
        np.s_[-1, 0],
        np.s_[:, 1:, ::2],
        np.s_[::-1, 2, 1:3, -2:],
        np.s_[0, 1, 2, 3],
        np.s_[..., None, 2],
        np.s_[:, [2, 0]],
        np.s_[1:1],
    ],
)
def test_it_is_indexed_as_an_array(key):
    array = lazy_array(lambda index: WHOLE[index], (2, 3), (4, 5), WHOLE.dtype)
    np.testing.assert_array_equal(np.asarray(array[key]), WHOLE[key])


def test_a_single_plane():
    array = lazy_array(lambda index: WHOLE[0, 0], (), (4, 5), WHOLE.dtype)
    np.testing.assert_array_equal(np.asarray(array), WHOLE[0, 0])


def test_each_array_has_a_name_of_its_own():
    """Else napari, which keeps chunks by their names, would show those of another one."""
    one, two = (lazy_array(lambda i: WHOLE[i], (2, 3), (4, 5), WHOLE.dtype) for _ in range(2))
    assert one.name != two.name
