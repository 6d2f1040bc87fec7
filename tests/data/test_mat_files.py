import contextlib
import io
import struct

import numpy as np
import pytest
import scipy.io

from cbsn.data.mat_files import block_places, load_mat, read_blocks, read_mat, write_mat
from cbsn.errors import DataError

BLOCKS = np.arange(2 * 3 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 4, 3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.mat"


def mat_file(value, **options):
    file = io.BytesIO()
    scipy.io.savemat(file, {"Blocks": value}, **options)
    return bytearray(file.getvalue())


def test_what_is_written_is_read(path):
    write_mat(path, {"Blocks": BLOCKS, "text": "text"})
    np.testing.assert_array_equal(read_mat(path, "Blocks"), BLOCKS)
    with pytest.raises(DataError, match=r"x\.mat has no variable Other"):
        read_mat(path, "Other")
    write_mat(path, {"Blocks": BLOCKS})
    blocks = read_blocks(path)
    np.testing.assert_array_equal(blocks, BLOCKS)
    assert [*block_places(blocks).items()][3:] == [
        ("0001_00", (1, 0)),
        ("0001_01", (1, 1)),
        ("0001_02", (1, 2)),
    ]


@pytest.mark.parametrize("value", ["text", 3.0, {"a": 1}, np.zeros((0, 0, 8, 8, 3), np.uint8)])
def test_other_variables_are_no_blocks(path, value):
    write_mat(path, {"x": value})
    with pytest.raises(DataError, match="should hold one array"):
        read_blocks(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_variables_of_any_kind_are_read(path, compressed):
    cells = np.array([np.ones((2, 3)), "text", {"b": 1.5}], object)
    for value in (np.arange(6), "text", "t", {"a": {"b": [1, 2]}}, cells, np.eye(3) * 1j, True):
        content = mat_file(value, do_compression=compressed)
        path.write_bytes(content)
        expected = scipy.io.loadmat(io.BytesIO(content))["Blocks"]
        assert repr(load_mat(path, ["Blocks"])["Blocks"]) == repr(expected)


@pytest.mark.parametrize("kind", [0, 8, 10, 14, 15, 19, 200, 2**15])
def test_values_of_no_kind_are_refused(path, kind):
    """SciPy ends the process."""
    content = mat_file(np.zeros((1, 2, 4, 4, 3), np.uint8))
    struct.pack_into("<I", content, 128 + 72, kind)
    path.write_bytes(content)
    with pytest.raises(DataError, match="it may be damaged"):
        read_blocks(path)


def test_an_array_without_sizes_is_refused(path):
    """SciPy ends the process."""
    content = mat_file("text")
    struct.pack_into("<I", content, 128 + 28, 1)
    path.write_bytes(content)
    with pytest.raises(DataError, match="sizes of an array"):
        load_mat(path)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_are_read_or_refused(path, seed):
    content = mat_file(BLOCKS, do_compression=seed == 2)
    random = np.random.default_rng(seed)
    for _ in range(30):
        damaged = bytearray(content)
        for place in random.integers(0, min(400, len(content)), 3):  # where the headers are
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            read_blocks(path)
