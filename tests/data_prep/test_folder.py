import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.errors import DataError, ImageError
from data_prep import folder

GRAY8 = np.arange(6, dtype=np.uint8).reshape(2, 3)
GRAY16 = GRAY8.astype(np.uint16) * 1000


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def test_finds_the_pictures_of_a_folder(tmp_path):
    save(tmp_path / "b.png", GRAY8)
    save(tmp_path / "a.bmp", GRAY8)
    (tmp_path / "notes.txt").write_text("no picture")
    raw = folder.find(tmp_path)
    assert [raw.name(path) for path in raw.files] == ["a.bmp", "b.png"]
    assert (raw.kind, raw.root, raw.dtype, raw.offset) == ("folder", tmp_path, "uint8", 0)


def test_names_of_a_glob_are_relative_to_its_fixed_part(tmp_path):
    save(tmp_path / "a" / "x" / "1.png", GRAY8)
    save(tmp_path / "b" / "x" / "1.png", GRAY8)
    raw = folder.find(f"{tmp_path}/*/x/*.png")
    assert raw.root == tmp_path
    assert [raw.name(path) for path in raw.files] == ["a/x/1.png", "b/x/1.png"]


def test_relative_path_is_made_absolute(tmp_path, monkeypatch):
    save(tmp_path / "photos" / "1.png", GRAY8)
    monkeypatch.chdir(tmp_path)
    assert folder.find("photos").files == (tmp_path / "photos" / "1.png",)


def test_single_picture(tmp_path):
    raw = folder.find(save(tmp_path / "1.png", GRAY8))
    assert [raw.name(path) for path in raw.files] == ["1.png"]


def test_no_picture_is_an_error(tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        folder.find(tmp_path)


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
    assert folder.find(tmp_path).dtype == dtype


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"II*\0", b"II*\0\xff\xff\0\0abc", b"MM??"])
def test_broken_headers_do_not_stop_the_search(tmp_path, content):
    (tmp_path / "broken.tif").write_bytes(content)
    save(tmp_path / "good.png", GRAY16)
    raw = folder.find(tmp_path)
    assert (len(raw.files), raw.dtype) == (2, "uint16")


def test_gray_is_repeated_and_alpha_dropped(tmp_path):
    gray, value_range = folder.read(save(tmp_path / "gray.png", GRAY16 * 13))
    np.testing.assert_array_equal(gray, np.stack([GRAY16 * 13] * 3, axis=-1))
    assert value_range.is_of(np.uint16)
    rgba = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    color, _ = folder.read(save(tmp_path / "rgba.png", rgba))
    np.testing.assert_array_equal(color, rgba[..., :3])


def test_broken_picture_is_an_error(tmp_path):
    path = save(tmp_path / "x.png", GRAY8)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ImageError, match=r"x\.png"):
        folder.read(path)
