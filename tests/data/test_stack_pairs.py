import numpy as np
import pytest
import tifffile
from PIL import Image

from cbsn.data.stack_pairs import StackFiles, StackPairs, hold_stacks
from cbsn.errors import ConfigError, DataError, ImageError


@pytest.fixture
def write(tmp_path):
    """Writes an array to a TIFF file, with the axes given, or as plain pages."""

    def write(name, array, axes=None, **options):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if axes:
            options |= {"metadata": {"axes": axes}, "ome": name.endswith(".ome.tif")}
            options["imagej"] = not options["ome"]
        tifffile.imwrite(path, array, photometric="minisblack", **options)
        return path

    return write


@pytest.fixture
def series(random):
    """Two channels over three frames."""
    return random.integers(0, 5000, (3, 2, 20, 24)).astype("uint16")


def test_planes_of_any_formats_are_paired_by_name(write, series, tmp_path):
    write("noisy/cells.tif", series + 1, "TCYX")
    clean = series.swapaxes(0, 1).astype("float32")
    write("clean/cells.ome.tif", clean, "CTYX")
    write("clean/others.ome.tif", clean[:1], "CTYX")
    assert hold_stacks([tmp_path / "noisy", tmp_path / "clean"])
    pairs = StackPairs(tmp_path / "noisy", tmp_path / "clean")
    names = ["t0 c0", "t1 c0", "t2 c0", "t0 c1", "t1 c1", "t2 c1"]
    assert pairs.names == [f"cells {name}" for name in names]
    assert len(pairs) == 6 and pairs.keys == [("cells", 0)]
    assert pairs.plane("cells t2 c1").channel == 1
    for plane, (first, second) in zip(pairs.planes, pairs, strict=True):
        t, c = plane.position["T"], plane.position["C"]
        assert (first.dtype, second.dtype) == (np.uint16, np.float32)
        np.testing.assert_array_equal(first, series[t, c, ..., None] + 1)
        np.testing.assert_array_equal(second, series[t, c, ..., None])
    assert StackPairs(tmp_path / "noisy", None, 2).names == ["cells t0 c0", "cells t0 c1"]
    pairs.close()


def test_a_selection_keeps_the_numbers_of_the_file(write, series, tmp_path):
    path = write("a.tif", series, "TCYX")
    pairs = StackPairs(path, path, select="t=1:,c=-1,y=5:,x=:6")
    assert pairs.names == ["a t1 c1", "a t2 c1"]
    for number, (noisy, _) in zip((1, 2), pairs, strict=True):
        np.testing.assert_array_equal(noisy[..., 0], series[number, 1, 5:, :6])
    with pytest.raises(ConfigError, match=r"a\.tif: Nothing is selected on the axis T"):
        StackPairs(path, None, select="t=7")
    # Results of the same selection, or of all.
    plane = pairs.planes[1]
    write("some/a.tif", series[1:, 1:, 5:, :6], "TCYX")
    for folder in (path, tmp_path / "some"):
        others = StackFiles(folder)
        pairs.check_others(others)
        read = pairs.read_other(others, plane)
        np.testing.assert_array_equal(read[..., 0], series[2, 1, 5:, :6])
    write("some/a.tif", series[1:, 1:, 5:, :5], "TCYX")
    with pytest.raises(DataError, match=r"has T 2, Y 15, X 5, expected T 3, C 2, Y 20, X 24"):
        pairs.check_others(StackFiles(tmp_path / "some"))


def test_axes_of_one_position_do_not_matter(write, series, tmp_path):
    write("noisy/a.tif", series[:, :1], "TCYX")
    write("clean/a.tif", series[:, 0].astype("float32"))
    pairs = StackPairs(tmp_path / "noisy", tmp_path / "clean")
    assert pairs.names == ["a t0", "a t1", "a t2"]
    np.testing.assert_array_equal(*[*pairs][2])
    write("noisy/b.ome.tif", series[0, 0], "YX")
    write("clean/b.tif", series[0, 0].astype("float64"))
    pairs = StackPairs(tmp_path / "noisy" / "b*", tmp_path / "clean")
    assert pairs.names == ["b"]


def test_colours_lose_their_alpha(tmp_path, random):
    pixels = random.integers(0, 256, (2, 9, 8, 4), "uint8")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"])
    ((noisy, _), _) = StackPairs(path, None)
    np.testing.assert_array_equal(noisy, pixels[0, ..., :3])


def test_images_of_one_file(write, series, tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for array in (series, series[:, 0, :9]):
            file.write(array, metadata={"axes": "TCYX" if array.ndim == 4 else "TYX"})
    pairs = StackPairs(path, path)
    assert pairs.names[:2] == ["a image0 t0 c0", "a image0 t1 c0"]
    assert pairs.names[-1] == "a image1 t2"
    np.testing.assert_array_equal([*pairs][-1][0][..., 0], series[2, 0, :9])


def test_what_does_not_fit(write, series, tmp_path):
    noisy = write("noisy/a.tif", series[:, 0], "TYX")
    write("clean/a.tif", series[:2, 0], "TYX")
    with pytest.raises(DataError, match=r"T 3, Y 20, X 24\) and .*T 2, Y 20, X 24\) are not a pai"):
        StackPairs(noisy, tmp_path / "clean")
    write("clean/a.tif", series[:, 0], "ZYX")
    with pytest.raises(DataError, match=r"T 3, .* and .*Z 3, .* need the same axes and sizes"):
        StackPairs(noisy, tmp_path / "clean")
    assert StackPairs(noisy, tmp_path / "clean", axes="zyx").names == ["a z0", "a z1", "a z2"]
    write("noisy/b.tif", series[:, 0], "TYX")
    with pytest.raises(DataError, match=r"has none for 1 of 2, such as .*b\.tif"):
        StackPairs(tmp_path / "noisy", tmp_path / "clean")
    write("noisy/b.ome.tif", series[:, 0], "TYX")
    with pytest.raises(DataError, match="have the same name"):
        StackPairs(tmp_path / "noisy", None)
    write("noisy/c.tif", series[0, 0])
    with pytest.raises(
        DataError, match=r"stacks, such as .*a\.tif, and pictures, such as .*c\.tif"
    ):
        hold_stacks([tmp_path / "noisy"])
    assert not hold_stacks([tmp_path / "noisy" / "c.tif"])
    Image.new("L", (24, 20)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png is a picture, and its counterparts are stacks"):
        StackPairs(noisy, tmp_path / "a.png")


def test_names_of_planes_differ(write, series, tmp_path):
    write("a.tif", series[:, 0], "TYX")
    write("a t1.tif", series[0, 0].astype("int32"))
    with pytest.raises(DataError, match="Two planes have the same name, a t1"):
        StackPairs(tmp_path, None)


def test_missing_values(write, series):
    floats = series[:, 0].astype("float32")
    floats[1, 3, 4] = np.nan
    path = write("a.tif", floats, "TYX")
    with pytest.raises(ImageError, match=r"a\.tif: holds values that are not finite.*--nan fill"):
        [*StackPairs(path, path)]
    planes = [noisy for noisy, _ in StackPairs(path, None, nan="fill")]
    assert np.isfinite(planes[1]).all()
    np.testing.assert_array_equal(planes[2][..., 0], floats[2])


def test_single_files_are_a_pair_whatever_their_names(write, series, tmp_path):
    noisy = write("noisy/cells.tif", series + 1, "TCYX")
    clean = write("clean/truth.tif", series, "TCYX")
    for first, second in StackPairs(noisy, clean):
        np.testing.assert_array_equal(first, second + 1)
    with pytest.raises(DataError, match="needs a clean one of the same name"):
        StackPairs(tmp_path / "noisy", tmp_path / "clean")
