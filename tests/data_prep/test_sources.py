import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.errors import DataError, ImageError
from data_prep.sources import find_raw

GRAY8 = np.arange(6, dtype=np.uint8).reshape(2, 3)
GRAY16 = GRAY8.astype(np.uint16) * 1000


def find(dataset, source="dataset"):
    return find_raw(dataset, source)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def test_pictures_of_a_folder(tmp_path):
    save(tmp_path / "b.png", GRAY8)
    save(tmp_path / "a.bmp", GRAY8)
    (tmp_path / "notes.txt").write_text("no picture")
    raw = find(tmp_path)
    assert [*raw.names()] == ["a.bmp", "b.png"]
    assert (raw.kind, raw.root, raw.dtype, raw.offset) == ("folder", tmp_path, "uint8", 0)
    assert raw.longest_side(raw.files[0]) == 3


def test_names_of_a_glob_are_relative_to_its_fixed_part(tmp_path):
    save(tmp_path / "a" / "x" / "1.png", GRAY8)
    save(tmp_path / "b" / "x" / "1.png", GRAY8)
    raw = find(f"{tmp_path}/*/x/*.png")
    assert raw.root == tmp_path
    assert [*raw.names()] == ["a/x/1.png", "b/x/1.png"]


def test_relative_path_is_made_absolute(tmp_path, monkeypatch):
    save(tmp_path / "photos" / "1.png", GRAY8)
    monkeypatch.chdir(tmp_path)
    assert find("photos").files == (tmp_path / "photos" / "1.png",)


def test_single_picture(tmp_path):
    assert [*find(save(tmp_path / "1.png", GRAY8)).names()] == ["1.png"]


def test_no_picture_is_an_error(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        find(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "dtype"),
    [
        ("x.png", GRAY16, "uint16"),
        ("x.tif", GRAY8, "uint8"),
        ("x.tif", GRAY16, "uint16"),
        ("x.tif", GRAY8.astype(np.float32) / 255, "float32"),
    ],
)
def test_widest_dtype_is_told_by_the_headers(tmp_path, name, array, dtype):
    save(tmp_path / "8.jpg", GRAY8)
    save(tmp_path / name, array)
    assert find(tmp_path).dtype == dtype


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"II*\0", b"II*\0\xff\xff\0\0abc", b"MM??"])
def test_broken_headers_do_not_stop_the_search(tmp_path, content):
    (tmp_path / "broken.tif").write_bytes(content)
    save(tmp_path / "good.png", GRAY16)
    raw = find(tmp_path)
    assert (len(raw.files), raw.dtype) == (2, "uint16")


def test_gray_is_repeated_and_alpha_dropped(tmp_path):
    save(tmp_path / "gray.png", GRAY16 * 13)
    raw = find(tmp_path)
    gray, value_range = raw.read(tmp_path / "gray.png")
    np.testing.assert_array_equal(gray, np.stack([GRAY16 * 13] * 3, axis=-1))
    assert value_range.is_of(np.uint16)
    rgba = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    color, _ = raw.read(save(tmp_path / "rgba.png", rgba))
    np.testing.assert_array_equal(color, rgba[..., :3])


def test_broken_picture_is_an_error(tmp_path):
    path = save(tmp_path / "x.png", GRAY8)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"x\.png"):
        find(tmp_path).read(path)


def test_noisy_pictures_of_sidd(tmp_path):
    scene = tmp_path / "SIDD_Medium_Srgb" / "Data" / "0001_001_S6"
    for name in ("0001_NOISY_SRGB_011.PNG", "0001_GT_SRGB_011.PNG", "0001_noisy_srgb_010.png"):
        save(scene / name, np.zeros((4, 4, 3), np.uint8))
    (scene / "NOISY.txt").write_text("no picture")
    raw = find("SIDD", tmp_path)
    assert [*raw.names()] == [
        "0001_001_S6/0001_NOISY_SRGB_011.PNG",
        "0001_001_S6/0001_noisy_srgb_010.png",
    ]
    assert (raw.kind, raw.dtype, raw.offset) == ("SIDD", "uint8", 10)
    assert raw.read(raw.files[0])[0].shape == (4, 4, 3)


@pytest.mark.parametrize("name", ["dnd_2017", "dnd2017"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pictures_of_dnd_are_turned(tmp_path, random, name, dtype):
    stored = random.random((3, 9, 5)).astype(dtype)
    folder = tmp_path / name / "images_srgb"
    folder.mkdir(parents=True)
    for number in (2, 1):
        with h5py.File(folder / f"{number:04d}.mat", "w") as file:
            file["InoisySRGB"] = stored
    raw = find("dnd", tmp_path)
    assert [*raw.names()] == ["0001.mat", "0002.mat"]
    assert (raw.kind, raw.dtype, raw.offset) == ("DND", "float32", 0)
    image, value_range = raw.read(raw.files[0])
    assert value_range.is_of(image.dtype)
    assert (image.shape, image.dtype) == ((5, 9, 3), np.float32)
    np.testing.assert_array_equal(image, stored.T.astype(np.float32))
    assert raw.longest_side(raw.files[0]) == 9


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("SIDD", r"SIDD_Medium_Srgb/Data/\*/\*NOISY\*\.PNG.*--source"),
        ("DND", r"dnd_2017/images_srgb or .*dnd2017/images_srgb"),
    ],
)
def test_where_it_looked_is_said(tmp_path, kind, message):
    with pytest.raises(DataError, match=message):
        find(kind, tmp_path)
