import contextlib
import io
import struct

import h5py
import numpy as np
import pytest
import scipy.io

from cbsn.data.benchmark_files import block_places, open_dnd, read_blocks, read_mat, write_mat
from cbsn.errors import DataError, ImageError

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
    with pytest.raises(DataError, match="must hold one array"):
        read_blocks(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_variables_of_any_kind_are_read(path, compressed):
    cells = np.array([np.ones((2, 3)), "text", {"b": 1.5}], object)
    for value in (np.arange(6), "text", "t", {"a": {"b": [1, 2]}}, cells, np.eye(3) * 1j, True):
        content = mat_file(value, do_compression=compressed)
        path.write_bytes(content)
        expected = scipy.io.loadmat(io.BytesIO(content))["Blocks"]
        assert repr(read_mat(path, "Blocks")) == repr(expected)


@pytest.mark.parametrize("kind", [0, 8, 10, 14, 15, 19, 200, 2**15])
def test_values_of_no_kind_are_refused(path, kind):
    """SciPy ends the process."""
    content = mat_file(np.zeros((1, 2, 4, 4, 3), np.uint8))
    struct.pack_into("<I", content, 128 + 72, kind)
    path.write_bytes(content)
    with pytest.raises(DataError, match="and may be damaged"):
        read_blocks(path)


def test_an_array_without_sizes_is_refused(path):
    """SciPy ends the process."""
    content = mat_file("text")
    struct.pack_into("<I", content, 128 + 28, 1)
    path.write_bytes(content)
    with pytest.raises(DataError, match="dimensions of an array"):
        read_mat(path, "Blocks")


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


def write_dnd(path, array, name="InoisySRGB"):
    with h5py.File(path, "w", userblock_size=512) as file:  # MATLAB's header lies in the block
        file[name] = array
    return path


@pytest.fixture
def stored(random):
    return random.random((3, 9, 5)).astype(np.float32)


@pytest.mark.parametrize("chunks", [None, (1, 4, 4)])
def test_the_picture_is_read_as_it_is_stored(tmp_path, stored, chunks):
    path = tmp_path / "x.mat"
    with h5py.File(path, "w") as file:
        compression = {"compression": 3, "shuffle": True} if chunks else {}
        file.create_dataset("InoisySRGB", data=stored, chunks=chunks, **compression)
    with open_dnd(path) as noisy:
        assert noisy.shape == (3, 9, 5)
        np.testing.assert_array_equal(noisy[:, 2:4], stored[:, 2:4])


def test_what_is_no_picture_is_an_error(tmp_path, stored):
    path = tmp_path / "x.mat"
    for value, message in (
        (b"text", "shape"),
        (3.0, "shape"),
        (stored[0], r"shape \(9, 5\)"),
        (stored.astype("complex64"), "complex64"),
        (stored[:, :0], "has 0 x 5 pixels"),
    ):
        with pytest.raises(ImageError, match=message), open_dnd(write_dnd(path, value)):
            pass
    with h5py.File(path, "w") as file:
        file.create_group("InoisySRGB")
    with pytest.raises(ImageError, match="not an array"), open_dnd(path):
        pass
    with h5py.File(path, "w") as file:  # takes no room in the file
        file.create_dataset("InoisySRGB", (3, 10**6, 10**6), np.float32)
    with pytest.raises(ImageError, match="has 1000000 x 1000000 pixels"), open_dnd(path):
        pass
    with h5py.File(path, "w") as file:
        file.create_dataset("InoisySRGB", data=stored, chunks=True, compression="lzf")
    with pytest.raises(ImageError, match=r"filters .* MATLAB never uses"), open_dnd(path):
        pass


@pytest.mark.parametrize("damage", ["cut off", "no HDF5", "other variable"])
def test_damaged_files_are_errors_with_a_cause(tmp_path, stored, damage):
    path = write_dnd(
        tmp_path / "x.mat", stored, "x" if damage == "other variable" else "InoisySRGB"
    )
    if damage != "other variable":
        path.write_bytes(path.read_bytes()[:-300] if damage == "cut off" else b"no HDF5")
    with (
        pytest.raises(ImageError, match="no readable `InoisySRGB`") as caught,
        open_dnd(path) as noisy,
    ):
        noisy[()]
    assert caught.value.__cause__
