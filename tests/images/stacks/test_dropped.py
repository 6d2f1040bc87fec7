"""Tests of `cbsn.images.stacks.dropped`."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from cbsn.images.stacks.dropped import dropped_metadata
from cbsn.images.stacks.ome_zarr import OmeZarrFacts
from cbsn.images.stacks.opening import open_stacks
from cbsn.images.stacks.stack import Layout, Spacing

ZARR, TIFF = Path("out.ome.zarr"), Path("out.ome.tif")
PLANES = np.zeros((2, 8, 8), np.uint16)


def notes_of_file(path, target):
    with open_stacks(path) as stacks:
        return [note for stack in stacks for note in dropped_metadata(stack.layout, target)]


def notes_of_zarr(target, facts, **more):
    layout = Layout("TYX", PLANES.shape, PLANES.dtype, "OME-Zarr", metadata=facts, **more)
    return [*dropped_metadata(layout, target)]


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("imagej.tif", "Info, Labels, display ranges"),
        ("imagej_float.tif", None),
        ("ome.ome.tif", "name of the image, PositionX"),
        ("plain.tif", "resolution (100 x 100 pixels per centimeter), ImageDescription"),
        ("shaped.tif", None),
        ("series.ome.tif", None),
    ],
)
def test_what_zarr_does_not_take_from_tiff(write_sample, name, dropped):
    path = write_sample(name)
    assert notes_of_file(path, TIFF) == []
    notes = notes_of_file(path, ZARR)
    assert len(notes) == bool(dropped)
    if dropped:
        expected = {*dropped.split(", ")}
        text = notes[0].removesuffix(". To keep them, omit --format.")
        start, found = text.split(": ")
        assert {*found.split(", ")} == expected
        assert start == "the result in OME-Zarr lacks some metadata of the source"


def test_only_the_image_itself_counts(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(PLANES, metadata={"axes": "TYX", "Name": "one"})
        file.write(PLANES, metadata={"axes": "TYX", "Name": "two", "Description": "dark"})
    with open_stacks(tmp_path / "a.ome.tif") as (one, two):
        assert not [*dropped_metadata(one.layout, ZARR)]
        (note,) = dropped_metadata(two.layout, ZARR)
    assert "source: Description." in note


@pytest.mark.parametrize("version", [2, 3])
def test_what_tiff_does_not_take_from_zarr(version):
    window = {"start": 1, "end": 9}
    ome = {"multiscales": [{}], "omero": {"channels": [{"label": "GFP", "window": window}, 7]}}
    others = {"mine": 1, "cbsn": {"holds": [], "sha256": ""}}
    attributes = {"ome": ome, **others} if version == 3 else {**ome, **others}
    facts = OmeZarrFacts(attributes, version, {}, {"Y": 3.5, "X": 0.0})
    spacing = {"Y": Spacing(1.0, "micrometer"), "X": Spacing(1.0, "furlong")}
    assert notes_of_zarr(ZARR, facts, spacing=spacing) == []
    (note,) = notes_of_zarr(TIFF, facts, spacing=spacing)
    assert note == (
        "the result in TIFF lacks some metadata of the source: origin (translation), voxel size in "
        "X (furlong), display ranges, mine. To keep them, omit --format."
    )
    assert notes_of_zarr(TIFF, OmeZarrFacts({}, version, {}, {"Y": 0.0})) == []


def test_what_else_a_zarr_folder_holds_is_in_no_result():
    facts = OmeZarrFacts({}, 3, {}, {}, ("labels (cells)", "1 other multiscale image"))
    for target in ZARR, TIFF:
        assert notes_of_zarr(target, facts) == [
            "not in the result: labels (cells), 1 other multiscale image."
        ]


def test_long_lists_are_cut(tmp_path):
    attributes = {f"key{number}": 1 for number in range(9)}
    (note,) = notes_of_zarr(TIFF, OmeZarrFacts(attributes, 2, {}, {}))
    assert "key6, key7, …. To keep" in note and "key8" not in note


@pytest.mark.parametrize(
    ("xml", "named"),
    [
        ("<OME>", "OME-XML"),
        ("<OME><Instrument/><Image Name='n'><Description/></Image></OME>", "Instrument, Descr"),
    ],
)
def test_the_xml_of_a_microscope(xml, named):
    layout = Layout("TYX", PLANES.shape, PLANES.dtype, "CZI", metadata=xml)
    assert not [*dropped_metadata(layout, TIFF)]
    (note,) = dropped_metadata(layout, ZARR)
    assert f"source: {named}" in note
