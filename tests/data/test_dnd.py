import h5py
import numpy as np
import pytest

from cbsn.data.dnd import open_noisy
from cbsn.errors import ImageError


def write_mat(path, array, name="InoisySRGB"):
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
    with open_noisy(path) as noisy:
        assert noisy.shape == (3, 9, 5)
        np.testing.assert_array_equal(noisy[:, 2:4], stored[:, 2:4])


def test_what_is_no_picture_is_an_error(tmp_path, stored):
    path = tmp_path / "x.mat"
    for value, message in (
        (b"text", "shape"),
        (3.0, "shape"),
        (stored[0], r"shape \(9, 5\)"),
        (stored.astype("complex64"), "complex64"),
        (stored[:, :0], "claims 0 x 5"),
    ):
        with pytest.raises(ImageError, match=message), open_noisy(write_mat(path, value)):
            pass
    with h5py.File(path, "w") as file:
        file.create_group("InoisySRGB")
    with pytest.raises(ImageError, match="no array"), open_noisy(path):
        pass
    with h5py.File(path, "w") as file:  # takes no room in the file
        file.create_dataset("InoisySRGB", (3, 10**6, 10**6), np.float32)
    with pytest.raises(ImageError, match="claims 1000000 x 1000000 pixels"), open_noisy(path):
        pass
    with h5py.File(path, "w") as file:
        file.create_dataset("InoisySRGB", data=stored, chunks=True, compression="lzf")
    with pytest.raises(ImageError, match=r"filters .* not as MATLAB"), open_noisy(path):
        pass


@pytest.mark.parametrize("damage", ["cut off", "no HDF5", "other variable"])
def test_damaged_files_are_errors_with_a_cause(tmp_path, stored, damage):
    path = write_mat(
        tmp_path / "x.mat", stored, "x" if damage == "other variable" else "InoisySRGB"
    )
    if damage != "other variable":
        path.write_bytes(path.read_bytes()[:-300] if damage == "cut off" else b"no HDF5")
    with (
        pytest.raises(ImageError, match="no readable `InoisySRGB`") as caught,
        open_noisy(path) as noisy,
    ):
        noisy[()]
    assert caught.value.__cause__
