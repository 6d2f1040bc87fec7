"""TIFF files of many kinds, as other programs write them."""

import numpy as np
import tifffile

_RANDOM = np.random.default_rng(5)
FIVE = _RANDOM.integers(0, 4000, (3, 2, 2, 20, 26)).astype(np.uint16)  # TZCYX
RGB = _RANDOM.integers(0, 256, (3, 20, 26, 3)).astype(np.uint8)

_TABLE = np.zeros((3, 256), np.uint8)
_TABLE[1] = np.arange(256)


def _imagej(path):
    metadata = {
        **{"axes": "TZCYX", "spacing": 1.5, "unit": "um", "finterval": 0.25, "loop": False},
        **{"Labels": [f"plane {n}" for n in range(12)], "LUTs": [_TABLE, _TABLE[::-1].copy()]},
        **{"Ranges": (0.0, 4000.0, 100.0, 2000.0), "Info": "objective 63x\nexposure 20 ms"},
        "mode": "composite",
    }
    tifffile.imwrite(path, FIVE, imagej=True, resolution=(5.0, 4.0), metadata=metadata)


def _imagej_float(path):
    tifffile.imwrite(path, FIVE[0, :, 0].astype(np.float32) - 2000, imagej=True)


def _imagej_rgb(path):
    tifffile.imwrite(path, RGB, imagej=True, metadata={"axes": "TYXS"})


def _ome(path):
    metadata = {
        **{"axes": "TZCYX", "Name": "embryo", "PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "µm"},
        **{"PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 1.5},
        **{"PhysicalSizeZUnit": "µm", "TimeIncrement": 0.1, "TimeIncrementUnit": "s"},
        "Channel": {"Name": ["DAPI", "GFP"], "Color": [65535, 16711935]},
        "Plane": {"PositionX": [1.5] * 12, "PositionXUnit": ["µm"] * 12},
    }
    tifffile.imwrite(path, FIVE, ome=True, metadata=metadata)


def _ome_series(path):
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as file:
        options = {"compression": "zlib", "tile": (16, 16)}
        file.write(FIVE[:, 0, 0], metadata={"axes": "TYX", "Name": "one"}, **options)
        file.write(FIVE[0].astype(np.float32), metadata={"axes": "ZCYX", "Name": "two"})


def _ome_pyramid(path):
    with tifffile.TiffWriter(path, ome=True, byteorder=">") as file:
        options = {"tile": (16, 16), "compression": "lzw"}
        file.write(FIVE[0, 0], subifds=1, metadata={"axes": "CYX"}, **options)
        file.write(FIVE[0, 0][:, ::2, ::2], subfiletype=1, **options)


def _ome_rgb(path):
    options = {"photometric": "rgb", "planarconfig": "separate"}
    array = np.moveaxis(RGB, -1, 1).copy()
    tifffile.imwrite(path, array, ome=True, metadata={"axes": "TSYX"}, **options)


def _shaped(path):
    tifffile.imwrite(path, FIVE[:, :, 0].astype(np.int16) - 2000, metadata={"axes": "TZYX"})


def _plain(path):
    array = FIVE.reshape(12, 20, 26)
    options = {"photometric": "minisblack", "description": "microscope A", "metadata": None}
    options |= {"resolution": (100, 100), "resolutionunit": 3}
    tifffile.imwrite(path, array, byteorder=">", **options)


def _float64(path):
    options = {"metadata": {"axes": "ZYX"}, "photometric": "minisblack", "compression": "zstd"}
    tifffile.imwrite(path, FIVE[:, 0, 0] * 1e9, **options)


def _one_int32(path):
    tifffile.imwrite(path, FIVE[0, 0, 0].astype(np.int32) * -100000)


SAMPLES = {
    "imagej.tif": _imagej,
    "imagej_float.tif": _imagej_float,
    "imagej_rgb.tif": _imagej_rgb,
    "ome.ome.tif": _ome,
    "series.ome.tif": _ome_series,
    "pyramid.ome.tif": _ome_pyramid,
    "rgb.ome.tif": _ome_rgb,
    "shaped.tif": _shaped,
    "plain.tif": _plain,
    "float64.tif": _float64,
    "one.tif": _one_int32,
}
"""Functions that write such a file, by its name."""
