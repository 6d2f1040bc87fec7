import pytest

from cbsn.errors import CbsnWarning, DataError, ImageError
from cbsn.images.finding import find_images, format_of_suffix


@pytest.fixture
def make(tmp_path):
    """Makes empty files."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return make


def test_find_images(tmp_path, monkeypatch, make):
    make("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "sub/c.tiff", "sub/d.raw")
    assert [p.name for p in find_images(tmp_path)] == ["a.jpg", "b.PNG"]
    assert [p.name for p in find_images(f"{tmp_path}/*")] == ["a.jpg", "b.PNG", "notes.txt"]
    assert [p.name for p in find_images(f"{tmp_path}/**/*.tiff")] == ["c.tiff"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_images("~/a.jpg") == find_images(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]


def test_a_folder_is_searched_for_pictures_by_any_name(tmp_path, make):
    names = ["a.jpe", "b.jfif", "c.jif", "d.JPG", "e.heic", "f.avif"]
    make(*names)
    assert [p.name for p in find_images(tmp_path)] == names


def test_other_pictures_in_a_folder_are_named(tmp_path, make):
    make("a.png", "b.CR2", "c.psd", "d.txt")
    with pytest.warns(CbsnWarning, match=r"2 files of other kinds, such as b\.CR2 \(a raw"):
        assert find_images(tmp_path) == [tmp_path / "a.png"]


def test_a_name_with_brackets_is_a_name_first(tmp_path, make):
    make("shot[1].png", "photos [2023]/a*b/a.png")
    assert find_images(tmp_path / "shot[1].png") == [tmp_path / "shot[1].png"]
    photos = tmp_path / "photos [2023]"
    for pattern in ("a*b/*.png", "a*b/a.*", "a*b/[a-c].png", "a*b/**/*.png", "**/*.png"):
        assert find_images(photos / pattern) == [photos / "a*b" / "a.png"]


@pytest.mark.parametrize("pattern", ["", "*.png", "nothing.png", "a" * 5000])
def test_nothing_found_says_where(tmp_path, pattern):
    with pytest.raises(DataError, match=str(tmp_path)):
        find_images(tmp_path / pattern)


@pytest.mark.parametrize("method", ["iterdir", "is_file"])
def test_a_folder_that_may_not_be_read_is_said(tmp_path, monkeypatch, method):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path." + method, refuse)
    for pattern in (tmp_path, tmp_path / "*.png"):
        with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
            find_images(pattern)


def test_format_of_suffix():
    assert format_of_suffix(".JPEG") == "JPEG" and format_of_suffix(".tif") == "TIFF"
    with pytest.raises(ImageError, match=r"\.xyz"):
        format_of_suffix(".xyz")
