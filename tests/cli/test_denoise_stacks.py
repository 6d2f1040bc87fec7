"""Stacks as other programs write them go through the command, and come back as what they were."""

import json
import runpy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage
import tifffile

SAMPLES = runpy.run_path(str(Path(__file__).parents[1] / "images" / "stacks" / "samples.py"))
FIVE = SAMPLES["FIVE"]
FAST = ("--precision", "float32", "--engine", "tensorflow", "--nan", "fill")


_RESOLUTION = {282: (1, 1), 283: (1, 1), 296: 1}


@pytest.fixture
def infer(run_here, model):
    """Runs `infer.py` with a tiny model on a folder, and returns the folder of the results."""

    def begin(folder):
        run = run_here("infer.py", folder, "--modelpath", model, "--out", "results", *FAST)
        assert run.returncode == 0, run.stderr
        return folder.parent / "results"

    return begin


def _voxel(file):
    """Returns what tifffile reads of a file's voxel size and units."""
    if file.is_imagej:
        names = ("spacing", "unit", "finterval")
        kept = [file.imagej_metadata.get(name) for name in names]
    else:
        kept = []
        if file.is_ome:
            images = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
            for image in images if isinstance(images, list) else [images]:
                pixels = image["Pixels"]
                names = [f"PhysicalSize{axis}{end}" for axis in "XYZ" for end in ("", "Unit")]
                kept += [pixels.get(name) for name in (*names, "TimeIncrement")]
    page = file.pages.first  # without these tags a pixel has the size 1, without a unit
    x, y, unit = (page.tags.valueof(code, default) for code, default in _RESOLUTION.items())
    return [*kept, Fraction(*x), Fraction(*y), unit]


def _check(source, target):
    with tifffile.TiffFile(source) as before, tifffile.TiffFile(target) as after:
        assert (before.is_imagej, before.is_ome) == (after.is_imagej, after.is_ome)
        assert _voxel(before) == _voxel(after)
        for one, two in zip(before.series, after.series, strict=True):
            # The colours of a pixel lie together in what is written, whatever they did before.
            axes = one.axes.replace("S", "") + "S" * ("S" in one.axes)
            assert two.axes == axes and two.dtype == one.dtype
            sizes = dict(zip(one.axes, one.shape, strict=True))
            assert two.shape == tuple(sizes[axis] for axis in axes)
            pixels = two.asarray()
            assert np.isfinite(pixels).all() and pixels.std() > 0


def test_tiff_by_tifffile_and_scikit_image(infer, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, write in SAMPLES["SAMPLES"].items():
        write(folder / name)
    for name in ("multipage.tif", "multipage_rgb.tif"):
        shipped = Path(skimage.__file__).parent / "data" / name
        if shipped.exists():
            (folder / name).write_bytes(shipped.read_bytes())
    results = infer(folder)
    for source in folder.iterdir():
        _check(source, results / source.name)


def test_ome_tiff_by_bioio(infer, tmp_path):
    writers = pytest.importorskip("bioio_ome_tiff.writers")
    types = pytest.importorskip("bioio_base.types")
    folder = tmp_path / "in"
    folder.mkdir()
    writers.OmeTiffWriter.save(
        FIVE,
        folder / "a.ome.tiff",
        dim_order="TZCYX",
        channel_names=["DAPI", "GFP"],
        physical_pixel_sizes=types.PhysicalPixelSizes(2.0, 0.25, 0.25),
    )
    _check(folder / "a.ome.tiff", infer(folder) / "a.ome.tiff")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_by_ome_zarr(infer, tmp_path, version):
    pytest.importorskip("zarr")
    writer = pytest.importorskip("ome_zarr.writer")
    formats = pytest.importorskip("ome_zarr.format")
    reader, io = pytest.importorskip("ome_zarr.reader"), pytest.importorskip("ome_zarr.io")
    folder = tmp_path / "in"
    folder.mkdir()
    units = (None, None, "micrometer", "micrometer", "micrometer")
    axes = [
        {"name": name, "type": kind, **({"unit": unit} if unit else {})}
        for name, kind, unit in zip(
            "tczyx", ("time", "channel", "space", "space", "space"), units, strict=True
        )
    ]
    array = FIVE.transpose(0, 2, 1, 3, 4)
    writer.write_image(
        array,
        str(folder / "a.ome.zarr"),
        axes=axes,
        fmt={"0.4": formats.FormatV04, "0.5": formats.FormatV05}[version](),
    )
    # The argument for it has another name in each version.
    place = folder / "a.ome.zarr" / {"0.4": ".zattrs", "0.5": "zarr.json"}[version]
    content = json.loads(place.read_text())
    ome = content if version == "0.4" else content["attributes"]["ome"]
    for level, dataset in enumerate(ome["multiscales"][0]["datasets"]):
        scale = [1.0, 1.0, 2.0, 0.25 * 2**level, 0.5 * 2**level]
        dataset["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    place.write_text(json.dumps(content))

    def read(path):
        node = next(iter(reader.Reader(io.parse_url(path))()))
        (scale,) = (
            each["scale"]
            for each in node.metadata["coordinateTransformations"][0]
            if each["type"] == "scale"
        )
        return node.data[0], node.metadata["axes"], scale

    (before, axes_before, scale), (after, axes_after, scale_after) = map(
        read, (folder / "a.ome.zarr", infer(folder) / "a.ome.zarr")
    )
    assert axes_before == axes_after and scale == scale_after == [1.0, 1.0, 2.0, 0.25, 0.5]
    assert before.shape == after.shape and before.dtype == after.dtype
    assert np.asarray(after).std() > 0


def test_czi_by_zeiss(infer, tmp_path):
    """CZI is only read: the result is OME-TIFF."""
    czi = pytest.importorskip("pylibCZIrw.czi")
    folder = tmp_path / "in"
    folder.mkdir()
    with czi.create_czi(str(folder / "a.czi")) as file:
        for channel in range(2):
            for depth in range(2):
                plane = FIVE[0, depth, channel][..., None]
                file.write(data=plane, plane={"T": 0, "Z": depth, "C": channel})
        file.write_metadata("a", channel_names={0: "DAPI", 1: "GFP"}, scale_x=2e-7, scale_y=2e-7)
    with tifffile.TiffFile(infer(folder) / "a.ome.tif") as file:
        series = file.series[0]
        assert dict(zip(series.axes, series.shape, strict=True)) == {
            "Z": 2,
            "C": 2,
            "Y": 20,
            "X": 26,
        }
        assert series.dtype == np.uint16
        assert 'PhysicalSizeX="0.2' in file.ome_metadata and 'Name="GFP"' in file.ome_metadata
