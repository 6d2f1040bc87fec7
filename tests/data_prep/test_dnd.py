import h5py
import numpy as np
import pytest

from cbsn.errors import DataError, ImageError
from data_prep import dnd


def write_mat(path, array, name="InoisySRGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:  # MATLAB's header lies in the block
        file[name] = array
    return path


@pytest.fixture
def stored(random):
    return random.random((3, 9, 5)).astype(np.float32)


@pytest.mark.parametrize("name", ["dnd_2017", "dnd2017"])
def test_finds_both_spellings_of_the_folder(tmp_path, stored, name):
    for number in (2, 1):
        write_mat(tmp_path / name / "images_srgb" / f"{number:04d}.mat", stored)
    raw = dnd.find(tmp_path)
    assert [raw.name(path) for path in raw.files] == ["0001.mat", "0002.mat"]
    assert (raw.kind, raw.dtype, raw.offset) == ("DND", "float32", 0)


def test_both_spellings_are_named_if_neither_is_there(tmp_path):
    with pytest.raises(DataError, match=r"dnd_2017/images_srgb or .*dnd2017/images_srgb"):
        dnd.find(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matlabs_axes_are_turned(tmp_path, stored, dtype):
    path = write_mat(tmp_path / "x.mat", stored.astype(dtype))
    image, value_range = dnd.read(path)
    assert value_range.is_of(image.dtype)
    assert dnd.longest_side(path) == 9
    assert (image.shape, image.dtype) == ((5, 9, 3), np.float32)
    assert image[4, 7, 2] == stored[2, 7, 4]


def test_file_cut_off_is_an_error(tmp_path, stored):
    path = write_mat(tmp_path / "x.mat", stored)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ImageError, match="no readable `InoisySRGB`"):
        dnd.read(path)


def test_other_variable_is_an_error(tmp_path, stored):
    with pytest.raises(ImageError, match="no readable `InoisySRGB`"):
        dnd.read(write_mat(tmp_path / "x.mat", stored, name="Inoisy"))


def test_other_shape_is_an_error(tmp_path, stored):
    with pytest.raises(ImageError, match=r"shape \(9, 5\)"):
        dnd.read(write_mat(tmp_path / "x.mat", stored[0]))


def test_what_is_no_picture_is_an_error(tmp_path, stored):
    path = tmp_path / "x.mat"
    for value in (b"text", 3.0, stored.astype("complex64"), stored[:, :0]):
        with pytest.raises(ImageError):
            dnd.read(write_mat(path, value))
    with h5py.File(path, "w") as file:
        file.create_group("InoisySRGB")
    with pytest.raises(ImageError, match="no array"):
        dnd.read(path)
    with h5py.File(path, "w") as file:  # takes no room in the file
        file.create_dataset("InoisySRGB", (3, 10**6, 10**6), np.float32)
    with pytest.raises(ImageError, match="claims 1000000 x 1000000 pixels"):
        dnd.read(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(ImageError, match="no readable"):
        dnd.read(path)
