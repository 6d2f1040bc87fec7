import os
from pathlib import Path

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
    names = ["a.jpe", "b.jfif", "c.jif", "d.JPG", "e.heic", "f.avif", "g.mpo"]
    make(*names)
    assert [p.name for p in find_images(tmp_path)] == names


def test_other_pictures_in_a_folder_are_named(tmp_path, make):
    make("a.png", "b.CR2", "c.psd", "d.txt", "e.gpr", "f.tga")
    with pytest.warns(CbsnWarning, match=r"4 files that cannot be read, such as b\.CR2 \(a raw"):
        assert find_images(tmp_path) == [tmp_path / "a.png"]


@pytest.fixture
def tree(tmp_path, make):
    """A tree of folders, with hidden ones, links that lead back, and results of an earlier run."""
    make("a.png", "2024/b.jpg", "2024/may/c.tif", "2024/.thumbs/d.png", ".trash/e.png")
    make("denoised/a.png", "2024/denoised/f.png")
    (tmp_path / "2024" / "may" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "link.png").symlink_to("a.png")

    def names(pattern, **options):
        found = find_images(tmp_path / pattern, **options)
        return [str(path.relative_to(tmp_path)) for path in found]

    return names


def test_sub_folders_are_searched_if_asked(tmp_path, tree):
    assert tree(".") == ["a.png", "link.png"]
    inside = ["2024/b.jpg", "2024/may/c.tif"]
    with pytest.warns(CbsnWarning, match=r"skipped: the folder .*up, which is a link") as notes:
        assert tree(".", recursive=True) == [*inside, "a.png", "link.png"]
    assert sum("is a link" in str(note.message) for note in notes) == 1
    (tmp_path / "other").symlink_to("2024")
    assert tree("other", recursive=True)[0] == "other/b.jpg"  # a link that is given


def test_links_that_lead_nowhere_are_found(tmp_path, tree):
    """So that reading them says so."""
    for name in ("gone.png", "gone.txt", "gone.png.bak", "2024/gone.tif"):
        (tmp_path / name).symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert tree(".") == ["a.png", "gone.png", "link.png", "loop.png"]
    assert tree("g*") == tree("gone.png") == ["gone.png"]
    assert tree("2024") == ["2024/b.jpg", "2024/gone.tif"]


def test_results_among_the_pictures_are_not_found(tmp_path, tree):
    out = tmp_path / "denoised"
    may = tmp_path / "2024" / "may"
    assert tree(".", recursive=True, outside=may) == ["2024/b.jpg", "a.png", "link.png"]
    assert tree("[2d]*/*.*") == ["2024/b.jpg", "denoised/a.png"]
    assert tree("[2d]*/*.*", outside=out) == ["2024/b.jpg"]
    assert tree("[d]*/../*.png", outside=out) == ["denoised/../a.png", "denoised/../link.png"]
    # What is named is found.
    for pattern in ("denoised", "denoised/a.png", "denoised/*.png"):
        assert tree(pattern, recursive=True, outside=out) == ["denoised/a.png"]
        assert tree(pattern, recursive=True, outside=tmp_path) == ["denoised/a.png"]


def test_skipped_pictures_are_named_once_for_a_tree(tmp_path, make):
    make("a.png", "x/b.CR2", "y/c.nef", "y/z/d.psd")
    with pytest.warns(CbsnWarning) as warned:
        assert find_images(tmp_path, recursive=True) == [tmp_path / "a.png"]
    (text,) = (str(each.message) for each in warned)
    assert "3 files that cannot be read, such as x/b.CR2 (a raw file)" in text


def test_a_sub_folder_that_may_not_be_read_is_skipped(tmp_path, make, monkeypatch):
    make("a.png", "lost+found/b.png", "x/c.png")
    iterdir = Path.iterdir

    def refuse(path):
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.warns(CbsnWarning, match=r"skipped: .*lost\+found cannot be read \(Permission"):
        found = find_images(tmp_path, recursive=True)
    assert found == [tmp_path / "a.png", tmp_path / "x" / "c.png"]


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_no_picture_though_it_is_there(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"/a\.png is a pipe or a device, and no file\. Give a"):
        find_images(tmp_path / "a.png")
    with pytest.raises(DataError, match="no file matches"):
        find_images(tmp_path / "*.png")


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


def test_earlier_results_are_no_pictures_of_a_tree(tmp_path):
    for name in ("a.png", "denoised/a.png", "b/denoised/c.png", "b/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.warns(CbsnWarning, match="skipped: the folder .*denoised, whose name"):
        found = find_images(tmp_path, recursive=True)
    assert found == [tmp_path / "a.png", tmp_path / "b" / "c.png"]
    assert find_images(tmp_path / "denoised", recursive=True) == [tmp_path / "denoised" / "a.png"]
