import numpy as np
import pytest
import tifffile

from cbsn.images.exif import read_block
from cbsn.images.image_files import read_picture, write_picture
from tests.images.samples import GEO, XMP, ome


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tags_of_a_tiff_stay(tmp_path, rgb, byteorder, big):
    tifffile.imwrite(
        tmp_path / "in.tif",
        rgb,
        byteorder=byteorder,
        bigtiff=big,
        photometric="rgb",
        metadata=None,
        description="a description",
        resolution=((231, 25), (462, 25)),
        resolutionunit=3,
        extratags=[*GEO, (271, "s", 0, "Cam", True), (700, "B", len(XMP), XMP, True)],
    )
    picture = read_picture(tmp_path / "in.tif")
    assert write_picture(tmp_path / "out.tif", picture) == []
    expected = {270: "a description", 282: (231, 25), 283: (462, 25), 296: 3, 271: "Cam", 700: XMP}
    expected |= {code: value for code, _, _, value, _ in GEO}
    for name in ("in.tif", "out.tif"):
        found = tifffile.TiffFile(tmp_path / name).pages[0].tags
        assert {code: found.valueof(code) for code in expected} == expected
    losses = write_picture(tmp_path / "out.png", picture)
    assert len(losses) == 1 and "ModelPixelScaleTag" in losses[0] and "Make" not in losses[0]
    np.testing.assert_array_equal(read_picture(tmp_path / "out.png").resolution, (924, 1848))


def test_descriptions_of_microscopes_stay(tmp_path, gray):
    options = {"resolution": (9.24, 9.24), "metadata": {"unit": "um", "axes": "YX"}}
    tifffile.imwrite(tmp_path / "imagej.tif", gray, imagej=True, **options)
    tifffile.imwrite(tmp_path / "ome.tif", gray, description=ome(20, 16), metadata=None)
    for name in ("imagej.tif", "ome.tif"):
        write_picture(tmp_path / f"out_{name}", read_picture(tmp_path / name))
        before, after = (tifffile.TiffFile(tmp_path / each) for each in (name, f"out_{name}"))
        assert after.pages[0].description == before.pages[0].description
        assert after.is_imagej == before.is_imagej and after.is_ome == before.is_ome
        # Some versions of tifffile write a fraction of 9.24 whose denominator, up to 2³² / 9.24, is
        # rounded.
        written, kept = (each.pages[0].tags.valueof(282) for each in (before, after))
        assert kept[0] / kept[1] == pytest.approx(written[0] / written[1], rel=9.24 * 2**-32)
        np.testing.assert_array_equal(after.asarray(), gray)


def test_tifffiles_own_description_does_not_outlive_the_layout(tmp_path, rgb):
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    tifffile.imwrite(tmp_path / "in.tif", planes, photometric="rgb", planarconfig="separate")
    write_picture(tmp_path / "out.tif", read_picture(tmp_path / "in.tif"))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), rgb)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_caption_next_to_tifffiles_own_description_stays(tmp_path, rgb, byteorder):
    path = tmp_path / "in.tif"
    options = {"photometric": "rgb", "byteorder": byteorder}
    tifffile.imwrite(path, rgb, description="a caption", **options)
    assert tifffile.TiffFile(path).is_shaped
    picture = read_picture(path)
    write_picture(tmp_path / "out.tif", picture)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert [tag.value for tag in file.pages.first.tags.getall(270)] == ["a caption"]
    assert read_block(picture.exif)[270].content == b"a caption\0"
    tifffile.imwrite(path, rgb, **options)
    assert read_picture(path).exif is None or 270 not in read_block(read_picture(path).exif)
