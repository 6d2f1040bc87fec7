"""Tests of `cbsn.images.stacks.opening`, and of finding stacks among pictures."""

import errno
import shutil
import unittest.mock
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cbsn.errors import CbsnWarning, ConfigError, DataError, ImageError
from cbsn.images.finding import find_images
from cbsn.images.stacks.ome_zarr_writer import create_ome_zarr
from cbsn.images.stacks.opening import is_stack, open_stacks, suffix_of, target_suffix, writer_of
from cbsn.images.stacks.stack import Layout
from cbsn.images.stacks.tiff_stack_writer import create_tiff_stack


@pytest.fixture
def zarr_folder(tmp_path):
    pytest.importorskip("zarr")
    folder = tmp_path / "pictures" / "b.ome.zarr"
    folder.parent.mkdir()
    layout = Layout("TYX", (2, 4, 5), np.dtype(np.uint16), "OME-Zarr")
    create_ome_zarr(folder, [layout], resume=False).close()
    return folder


def test_stacks_are_found_among_pictures(zarr_folder):
    folder = zarr_folder.parent
    for name in "a.tif", "c.czi", "sub/d.nd2", "notes.txt":
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    shutil.copytree(zarr_folder, folder / "sub" / "e.zarr")

    def names(pattern, **options):
        return [path.relative_to(folder).as_posix() for path in find_images(pattern, **options)]

    assert names(folder) == ["a.tif", "b.ome.zarr", "c.czi"]
    everything = ["a.tif", "b.ome.zarr", "c.czi", "sub/d.nd2", "sub/e.zarr"]
    assert names(folder, recursive=True) == everything
    assert names(zarr_folder) == ["b.ome.zarr"]
    # What lies inside of a Zarr folder is no picture of its own.
    assert names(f"{folder}/**") == [*everything[:3], "notes.txt", *everything[3:]]
    assert is_stack(zarr_folder) and is_stack(folder / "c.czi") and not is_stack(folder / "a.tif")


def test_an_incomplete_zarr_folder_is_named(zarr_folder):
    (zarr_folder / "zarr.json").unlink()
    with pytest.raises(DataError, match="copy it again"):
        find_images(zarr_folder)
    (zarr_folder.parent / "a.tif").write_bytes(b"")
    with pytest.warns(CbsnWarning, match="skipped: .*b.ome.zarr"):
        assert [path.name for path in find_images(zarr_folder.parent)] == ["a.tif"]


def test_a_file_that_changes_is_looked_at_anew(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint16))
    assert not is_stack(path)
    tifffile.imwrite(path, np.zeros((2, 8, 8), np.uint16), photometric="minisblack")
    assert is_stack(path)


def test_errors_name_the_file(tmp_path, zarr_folder):
    with pytest.raises(ImageError, match=r"none\.tif: no such file"), open_stacks("none.tif"):
        pass
    (zarr_folder / "zarr.json").write_text("{")
    with pytest.raises(ImageError, match=r"b\.ome\.zarr: "), open_stacks(zarr_folder):
        pass


def test_zarr_has_axes_of_its_own(zarr_folder):
    with pytest.raises(ConfigError, match="omit --axes"), open_stacks(zarr_folder, "TYX"):
        pass


@pytest.mark.parametrize(
    ("name", "format", "suffix"),
    [
        ("a.tif", "auto", ".tif"),
        ("a.TIFF", "tiff", ".TIFF"),
        ("a.OME.tif", "same", ".OME.tif"),
        ("a.czi", "auto", ".ome.tif"),
        ("a.lif", "same", ".ome.tif"),
        ("a.tif", "zarr", ".ome.zarr"),
        ("a.nd2", "zarr", ".ome.zarr"),
    ],
)
def test_results_are_named_after_their_format(name, format, suffix):
    assert target_suffix(Path(name), format) == suffix
    expected = create_ome_zarr if "zarr" in suffix else create_tiff_stack
    assert writer_of(Path(f"x{suffix}")) is expected


def test_zarr_may_become_tiff(zarr_folder):
    assert suffix_of(zarr_folder) == ".ome.zarr"
    assert target_suffix(zarr_folder, "auto") == ".ome.zarr"
    assert target_suffix(zarr_folder, "tiff") == ".ome.tif"
    other = zarr_folder.rename(zarr_folder.with_name("experiment"))
    assert target_suffix(other, "auto") == ".ome.zarr"


def test_stacks_are_no_photographs():
    with pytest.raises(ConfigError, match="tiff or zarr"):
        target_suffix(Path("a.tif"), "jpeg")


def test_a_stack_that_the_system_does_not_give_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2, 8, 9), np.uint16))
    error = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(tifffile, "TiffFile", unittest.mock.Mock(side_effect=error))
    with (
        pytest.raises(ImageError, match=r"a\.tif: cannot be read \(Permission denied\)\.$"),
        open_stacks(path),
    ):
        pass
