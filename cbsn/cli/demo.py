"""Makes the demo's noisy pictures; `make demo` denoises them and compares the results.

`cbsn demo FOLDER` writes FOLDER/noisy and FOLDER/clean: photographs from scikit-image, retaken by a
simulated noisy camera. With `--stack` it writes a time series of a simulated microscope.
"""

import argparse
import contextlib
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cbsn.cli.parser import Parser, new_parser
from cbsn.errors import ConfigError, check_number
from cbsn.files import atomic_path, expanded
from cbsn.noise.cells import simulate_cells
from cbsn.noise.synthetic import neighbour_correlation, simulate_camera
from cbsn.progress import progress_bar

_FRAMES, _SIZE = 200, 512  # of the time series
_KINDS = ("noisy", "clean")
# How the demo knows its own files. What other commands make of them does not have these.
_MARK = "cbsn demo"
_SOFTWARE = 305  # a tag of TIFF
_CHUNK = b"cbSN"  # of PNG; a program that changes pixels must drop what ends in upper case
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def main(flags: argparse.Namespace) -> None:
    """Writes pictures of equal names into the two folders."""
    frames = _FRAMES if flags.frames is None else flags.frames
    size = _SIZE if flags.size is None else flags.size
    check_number("--frames", frames, 1, 100_000)
    check_number("--size", size, 32, 16_384)
    folder = expanded(flags.folder)
    if flags.stack:
        _prepare(folder, ["cells.tif"])
        _write_stack(folder, frames, size)
        return
    for flag, value in ("--frames", flags.frames), ("--size", flags.size):
        if value is not None:
            raise ConfigError(f"{flag} is for the time series: give --stack, too, or omit it.")
    _prepare(folder, [f"{name}.png" for name in PHOTOGRAPHS])
    marked = PngInfo()
    marked.add(_CHUNK, _MARK.encode())
    correlations = []
    for seed, name in enumerate(PHOTOGRAPHS):
        photograph = getattr(skimage.data, name)()
        clean = simulate_camera(photograph, shot=0, read=0)
        noisy = simulate_camera(photograph, seed=seed)
        correlations.append(neighbour_correlation(noisy.astype(float) - clean))
        for kind, pixels in zip(_KINDS, (noisy, clean), strict=True):
            path = folder / kind / f"{name}.png"
            with atomic_path(path) as temporary:
                Image.fromarray(pixels).save(temporary, pnginfo=marked)
    lags = " ".join(f"{value:.2f}" for value in np.mean(correlations, axis=0))
    print(f"{len(PHOTOGRAPHS)} photographs in {folder}; noise correlated at 1 to 5 px by {lags}")
    print(f"Denoise them with: cbsn denoise {shlex.quote(str(folder / 'noisy'))}")


def _prepare(folder: Path, names: Iterable[str]) -> None:
    """Makes the folders. Raises a ConfigError if they have files that the demo has not written."""
    try:
        for kind in _KINDS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The folders for the demo cannot be made ({error.strerror}): give another folder. "
            f"Received: {folder}"
        ) from error
    for path in (folder / kind / name for kind in _KINDS for name in names):
        if path.exists() and not _is_own(path):
            raise ConfigError(
                f"{path} is there already, and not by cbsn demo: give another folder. "
                f"Received: {folder}"
            )


def _is_own(path: Path) -> bool:
    """Returns whether the demo has written a file."""
    if not path.is_file():  # a pipe would block
        return False
    if path.suffix == ".png":
        with path.open("rb") as png:
            return _CHUNK + _MARK.encode() in png.read(100)
    # Damaged bytes make decoders raise almost anything.
    with contextlib.suppress(Exception), tifffile.TiffFile(path) as tiff:
        return tiff.pages.first.tags.valueof(_SOFTWARE) == _MARK
    return False


def _write_stack(folder: Path, frames: int, size: int) -> None:
    """Writes a time series as ImageJ hyperstacks, frame by frame."""
    options: dict[str, Any] = {"imagej": True, "resolution": (5.0, 5.0), "software": _MARK}
    metadata = {"axes": "TYX", "unit": "um", "finterval": 0.5, "fps": 2.0}
    shape = (frames, size, size)
    for part, (kind, dtype) in enumerate(zip(_KINDS, (np.uint16, np.float32), strict=True)):
        series = (each[part] for each in simulate_cells(frames, size, size))
        with atomic_path(folder / kind / "cells.tif") as path:
            options |= {"shape": shape, "dtype": dtype, "metadata": metadata}
            tifffile.imwrite(path, iter(progress_bar(series, total=frames, desc=kind)), **options)
    noisy = folder / "noisy" / "cells.tif"
    print(f"{noisy}: T {frames}, Y {size}, X {size}, uint16; without noise in {folder / 'clean'}")
    command = f"cbsn train {shlex.quote(str(noisy))} --recipe n2v-unet --name demo --steps 4000"
    print(f"Train on it with: {command}")


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Makes noisy pictures to try the other commands on, and their clean sides: photographs, or "
        "a time series of a microscope."
    )
    what = "where to write the folders noisy and clean"
    parser.add_argument("folder", nargs="?", default="demo", metavar="DIR", help=what)
    add = parser.add_argument
    what = "cells.tif, a simulated time series of moving cells, in place of photographs"
    add("--stack", action="store_true", help=what)
    add("--frames", type=int, metavar="N", help=f"frames of the time series (default: {_FRAMES})")
    add("--size", type=int, metavar="N", help=f"side of a frame in pixels (default: {_SIZE})")
    return parser
