"""Tests of OME-TIFF sets, `cbsn.images.stacks.ome_sets`: files that are read as one."""

import shutil
import warnings

import numpy as np
import pytest
import tifffile

from cbsn.errors import CbsnWarning, ImageError
from cbsn.images.finding import find_images
from cbsn.images.stacks.ome_sets import files_read_with, without_repeats
from cbsn.images.stacks.opening import open_stacks
from cbsn.inference.beam import job
from cbsn.inference.outputs import find_sources

PLANES = np.random.default_rng(3).integers(0, 999, (6, 20, 26)).astype(np.uint16)
HEAD = '<?xml version="1.0" encoding="UTF-8"?><OME UUID="urn:uuid:{uuid}" '
HEAD += 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
NAMES = ("a.ome.tif", "b.ome.tif")
EACH = "in each"
COMPANION = "cells.companion.ome"


def metadata(uuid, ids="ab"):
    """OME-XML of three frames and two channels, three planes in each of two files."""
    data = "".join(
        f'<TiffData FirstT="{n // 2}" FirstC="{n % 2}" IFD="{n % 3}" PlaneCount="1">'
        f'<UUID FileName="{NAMES[n // 3]}">urn:uuid:{ids[n // 3]}</UUID></TiffData>'
        for n in range(6)
    )
    channels = "".join(f'<Channel ID="Channel:0:{n}" Name="{n}"/>' for n in range(2))
    return (
        f'{HEAD.format(uuid=uuid)}<Image ID="Image:0"><Pixels ID="Pixels:0" PhysicalSizeX="0.2" '
        'DimensionOrder="XYCZT" Type="uint16" SizeX="26" SizeY="20" SizeC="2" SizeZ="1" SizeT="3">'
        f"{channels}{data}</Pixels></Image></OME>"
    )


def write_set(folder, place=EACH, compression=None, ids="ab"):
    """Writes a set of two files; `place` says which file has the metadata."""
    folder.mkdir(exist_ok=True)
    for name, uuid, planes in zip(NAMES, ids, np.split(PLANES, 2), strict=True):
        text = metadata(uuid, ids)
        if place not in (EACH, name):
            other = f'<BinaryOnly MetadataFile="{place}" UUID="urn:uuid:c"/>'
            text = f"{HEAD.format(uuid=uuid)}{other}</OME>"
        options = {"metadata": None, "photometric": "minisblack", "compression": compression}
        tifffile.imwrite(folder / name, planes, description=text.encode(), **options)
    if place == COMPANION:
        (folder / place).write_text(metadata("c", ids), encoding="utf-8")
    return folder


@pytest.fixture(params=[EACH, *NAMES, COMPANION])
def files(request, tmp_path):
    return write_set(tmp_path / "set", request.param)


@pytest.mark.parametrize("name", NAMES)
def test_any_file_of_a_set_is_the_whole_set(files, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_stacks(files / name) as (stack,):
            found = [stack.read(index) for index in stack.layout.indices()]
    np.testing.assert_array_equal(found, PLANES)
    assert (stack.layout.axes, stack.layout.shape) == ("TCYX", (3, 2, 20, 26))
    assert [channel.name for channel in stack.layout.channels] == ["0", "1"]
    assert stack.layout.spacing["X"].size == 0.2


def test_compressed_files_of_a_set_are_read_without_warnings(tmp_path):
    write_set(tmp_path, compression="zlib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_stacks(tmp_path / "b.ome.tif") as (stack,):
            found = [stack.read(index) for index in stack.layout.indices()]
    np.testing.assert_array_equal(found, PLANES)


def test_a_set_is_found_once(files):
    with pytest.warns(CbsnWarning, match=r"left out: .*b\.ome\.tif, read with a\.ome\.tif as one"):
        assert find_images(files) == [files / "a.ome.tif"]
    with pytest.warns(CbsnWarning, match="left out"):  # each given by its name
        assert find_sources([files / name for name in NAMES]) == [files / "a.ome.tif"]
    with pytest.warns(CbsnWarning, match="left out"):
        found = job._find_sources([str(files / name) for name in NAMES], str(files / "out"))
    assert [*found] == [str(files / "a.ome.tif")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_images(files / "b.ome.tif") == [files / "b.ome.tif"]


def test_all_files_of_a_set_are_named_by_any(files):
    for name in NAMES:
        assert sorted(files_read_with(files / name)) == sorted(files.iterdir())
    assert files_read_with(files / "c.czi") == [files / "c.czi"]
    tifffile.imwrite(files / "alone.tif", PLANES[0])
    assert files_read_with(files / "alone.tif") == [files / "alone.tif"]


def test_files_without_metadata_of_their_own_belong_to_the_one_that_names_them(tmp_path):
    write_set(tmp_path)
    options = {"metadata": None, "photometric": "minisblack", "ome": False}
    tifffile.imwrite(tmp_path / "b.ome.tif", PLANES[3:], **options)
    with pytest.warns(CbsnWarning, match="left out"):
        assert find_images(tmp_path) == [tmp_path / "a.ome.tif"]


@pytest.mark.parametrize("place", [EACH, COMPANION])
def test_copies_and_other_sets_of_the_same_names_are_kept(tmp_path, place):
    folder = write_set(tmp_path / "one", place)
    other = write_set(tmp_path / "two", place)  # the same in another folder
    renamed = shutil.copy(folder / "a.ome.tif", folder / "copy.ome.tif")
    later = folder / "b.ome.tif"  # of a later measurement
    shutil.copy(write_set(tmp_path / "three", ids="de") / "b.ome.tif", later)
    paths = [folder / "a.ome.tif", later, renamed, other / "a.ome.tif"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert without_repeats(paths) == paths


def test_metadata_elsewhere_must_be_there(tmp_path):
    write_set(tmp_path, COMPANION)
    (tmp_path / COMPANION).unlink()
    path = tmp_path / "a.ome.tif"
    with pytest.raises(ImageError, match=rf"{COMPANION}, which is not next to it.*--axes TYX"):
        open_stacks(path).__enter__()
    with open_stacks(path, "TYX") as (stack,):
        assert stack.layout.shape == (3, 20, 26)
        np.testing.assert_array_equal(stack.read((1,)), PLANES[1])


def test_metadata_elsewhere_must_name_the_file(tmp_path):
    folder = write_set(tmp_path, COMPANION)
    shutil.move(folder / "a.ome.tif", folder / "renamed.ome.tif")
    with pytest.raises(ImageError, match=r"which does not name it.*--axes"):
        open_stacks(folder / "renamed.ome.tif").__enter__()


@pytest.mark.parametrize("content", ["", "text", "<OME>"])
def test_a_companion_may_be_damaged(tmp_path, content):
    write_set(tmp_path, COMPANION)
    (tmp_path / COMPANION).write_text(content)
    with pytest.raises(ImageError, match=r"a\.ome\.tif: has .*copy it anew.*--axes TYX"):
        open_stacks(tmp_path / "a.ome.tif").__enter__()


@pytest.mark.parametrize("fault", ["damaged", "other pixels"])
def test_axes_are_asked_for_where_metadata_are_of_no_use(tmp_path, fault):
    text = metadata("a").replace("b.ome.tif", "a.ome.tif").replace("urn:uuid:b", "urn:uuid:a")
    if fault == "damaged":
        text = text.replace("</Pixels>", "")
    else:
        text = text.replace('SizeX="26"', 'SizeX="13"')
    options = {"metadata": None, "photometric": "minisblack"}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PLANES, description=text.encode(), **options)
    with pytest.raises(ImageError, match=r"OME-XML.*--axes TYX"):
        open_stacks(path).__enter__()
    with open_stacks(path, "ZYX") as (stack,):
        assert stack.layout.shape == (6, 20, 26)
        np.testing.assert_array_equal(stack.read((5,)), PLANES[5])
