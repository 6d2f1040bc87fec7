"""Trains recipes for equal times on equal noisy data, and compares what they denoise. See `--help`.

Everything goes the way of users: a stack of noisy pictures on the disk, `cbsn train`, and the model
that it saves. Nothing clean is seen before the comparison.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import tifffile

from benchmarks import report
from benchmarks.settings import parse_list
from cbsn.cli.flags import run
from cbsn.cli.parser import new_parser
from cbsn.errors import ConfigError, DataError, check_number

Array = np.ndarray

_SIGMA = 25 / 255
_PHOTONS, _READ_NOISE = 30.0, 0.02  # at white, and in units of white
_WINDOW = 3  # pixels along a row that share noise
_OFFSETS = 0.4  # standard deviation of the offsets of rows, relative to that of white noise
_VOLUME = (48, 192, 192)  # to train on; a second one is denoised
_PROBES = (12, 12, 72)  # steps of short trainings; the last two tell how long a step takes
_SMALLEST = 128  # side in pixels of the pictures to train on
_LEAST = 64  # and of those to compare with

COLUMNS = (
    report.Column("steps", "steps", "d"),
    report.Column("minutes", "minutes", ".1f"),
    report.Column("noisy_psnr", "noisy dB", ".2f"),
    report.Column("psnr", "PSNR dB", ".2f"),
    report.Column("ssim", "SSIM", ".4f"),
    report.Column("checkerboard", "checkerboard", ".2f"),
    report.Column("finest", "finest", ".2f"),
    report.Column("seconds_per_megapixel", "s per MP", ".2f"),
)


def white(clean: Array, random: np.random.Generator) -> Array:
    """Adds white noise of a standard deviation of 25 of 255."""
    return clean + random.normal(0, _SIGMA, clean.shape)


def photons(clean: Array, random: np.random.Generator) -> Array:
    """Draws Poisson noise of 30 photons at white, and adds read noise of 0.02 of white."""
    counted = random.poisson(np.maximum(clean, 0) * _PHOTONS) / _PHOTONS
    return counted + random.normal(0, _READ_NOISE, clean.shape)


def rows(clean: Array, random: np.random.Generator) -> Array:
    """Adds noise of a standard deviation of 25 of 255 that 3 pixels of a row share."""
    noise = random.normal(0, _SIGMA, clean.shape)
    mean = scipy.ndimage.uniform_filter1d(noise, _WINDOW, axis=-1, mode="wrap")
    return clean + mean * np.sqrt(_WINDOW)  # as strong as before


def lines(clean: Array, random: np.random.Generator) -> Array:
    """Adds white noise of 25 of 255, and an offset of 0.4 times as much to each row."""
    offsets = random.normal(0, _OFFSETS * _SIGMA, (*clean.shape[:-1], 1))
    return white(clean, random) + offsets


class Method(NamedTuple):
    """A recipe, what is changed of it, and what is repaired before."""

    recipe: str = "n2v-unet"
    changes: Mapping[str, Any] = {}
    repair: str | None = None


class Case(NamedTuple):
    """A kind of noise, and the methods that it is denoised by."""

    noise: Callable[[Array, np.random.Generator], Array]
    methods: Mapping[str, Method]


_N2V, _N2V2, _DIL = Method(), Method("n2v2-unet"), Method("dil-unet")
_AUTO = Method(changes={"mask_shape": "auto"})

CASES = {
    "white": Case(white, {"n2v": _N2V, "n2v2": _N2V2, "dil": _DIL}),
    "photons": Case(
        photons, {"n2v": _N2V, "n2v2": _N2V2, "pn2v": Method("pn2v-unet"), "dil": _DIL}
    ),
    "rows": Case(
        rows,
        {
            "n2v": _N2V,
            "structn2v": Method(changes={"mask_shape": f"x:{_WINDOW - 1}"}),
            "auto": _AUTO,
            "dil": _DIL,
            "cbsn": Method("cbsn", {"stride_b": _WINDOW, "filters": 32, "num_modules": 5}),
        },
    ),
    "lines": Case(lines, {"n2v": _N2V, "auto": _AUTO, "repair": Method(repair="rows")}),
    "volume": Case(photons, {"n2v": _N2V, "n2v-3d": Method("n2v-unet-3d")}),
}
"""The cases by name. `volume` is synthetic; the others are of pictures."""


class Data(NamedTuple):
    """Noisy planes to train on, [N, H, W], and noisy and clean ones to compare, of any size."""

    train: Array
    noisy: Sequence[Array]
    clean: Sequence[Array]


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    flags = new_parser(
        "Train recipes for equal times on equal noisy data, and compare what they denoise. Give "
        "clean pictures, such as those of BSD400 and BSD68; gray is made of colours."
    )
    flags.prog = "python -m benchmarks.quality"
    flags.add_argument("--train", required=True, help="a folder of clean pictures to train on")
    flags.add_argument("--test", required=True, help="a folder of clean pictures to compare with")
    flags.add_argument("--work", type=Path, required=True, help="a folder for data and models")
    flags.add_argument("--minutes", default="5", help="of each training; several: 1,3,10 (5)")
    flags.add_argument("--cases", help=f"of {','.join(CASES)} (all)")
    flags.add_argument("--methods", help="only these, such as n2v,n2v2")
    flags.add_argument("--markdown", action="store_true", help="print a Markdown table")
    flags.add_argument("--json", type=Path, help="write the results to this file, too")
    return flags


def main(flags: argparse.Namespace) -> None:
    """Trains and compares; prints a table of each case as soon as it is done."""
    import tensorflow as tf

    from cbsn.files import write_json
    from cbsn.machine import describe

    tf.get_logger().setLevel("ERROR")
    minutes = [_minutes(text) for text in parse_list("--minutes", flags.minutes) or []]
    names = _chosen("--cases", flags.cases, CASES)
    every = dict.fromkeys(method for name in names for method in CASES[name].methods)
    methods = _chosen("--methods", flags.methods, every)
    train, test = (_pictures(folder) for folder in (flags.train, flags.test))
    flags.work.mkdir(parents=True, exist_ok=True)
    layout = report.MARKDOWN if flags.markdown else report.TEXT
    results: dict[str, Any] = {"machine": describe(), "cases": []}
    print(report.header(results["machine"], layout), flush=True)
    for name in names:
        data = make_data(name, train, test)
        save(data, flags.work, name)
        sides: list[dict[str, Any]] = []
        results["cases"].append({"case": name, "sides": sides})
        for method in methods:
            if method not in CASES[name].methods:
                continue
            for each in minutes:
                folder = flags.work / f"{name}-{method}-{each:g}"
                side = measure(name, method, data, each, folder)
                sides.append({"side": f"{method}, {each:g} min" if minutes[1:] else method, **side})
                print(f"{name}: {sides[-1]}", flush=True)
                if flags.json:
                    write_json(flags.json, results)
    print(report.table("Equal minutes", COLUMNS, results["cases"], layout))


def make_data(name: str, train: Sequence[Array], test: Sequence[Array]) -> Data:
    """Returns the data of a case, which is the same in every run.

    Args:
        name: a key of `CASES`.
        train: clean gray pictures [H, W] from 0 to 1 to train on; not used for volumes.
        test: the same, to compare with.
    """
    random = np.random.default_rng(1)
    noise = CASES[name].noise
    if name == "volume":
        train, test = ([simulate_volume(_VOLUME, seed)] for seed in (1, 2))
    else:
        height, width = _check_size("--train", train, _SMALLEST)
        _check_size("--test", test, _LEAST)
        train = [np.stack([picture[:height, :width] for picture in train])]
    noisy = noise(train[0], random).astype(np.float32)
    return Data(noisy, [noise(each, random).astype(np.float32) for each in test], test)


def _check_size(flag: str, pictures: Sequence[Array], least: int) -> tuple[int, int]:
    """Returns the least height and width of pictures. Raises ConfigError if they are too small."""
    height, width = (int(size) for size in np.min([each.shape for each in pictures], axis=0))
    if min(height, width) < least:
        raise ConfigError(
            f"The pictures of {flag} need {least} pixels in height and width. "
            f"Received: {height} × {width}"
        )
    return height, width


def save(data: Data, work: Path, name: str) -> None:
    """Writes the data of a case: a TIFF to train on, and arrays for other programs."""
    axes = "ZYX" if name == "volume" else "TYX"
    tifffile.imwrite(work / f"{name}.tif", data.train, imagej=True, metadata={"axes": axes})
    arrays = {
        f"{kind}{number}": each
        for kind, pictures in (("noisy", data.noisy), ("clean", data.clean))
        for number, each in enumerate(pictures)
    }
    np.savez(work / f"{name}.npz", train=data.train, **arrays)


def measure(name: str, method: str, data: Data, minutes: float, folder: Path) -> dict[str, Any]:
    """Trains a method for some minutes, and compares what it denoises with what is clean.

    Args:
        name: the case.
        method: one of its methods.
        data: that of the case, which lies in the folder above `folder`.
        minutes: how long to train.
        folder: the run's folder.

    Returns:
        What the table shows.
    """
    from cbsn.images.stacks.stack import array_stack
    from cbsn.inference.denoiser import Denoiser
    from cbsn.inference.options import DenoiseOptions
    from cbsn.inference.stack_options import StackOptions
    from cbsn.inference.stacks import denoise_stack

    chosen, stack = CASES[name].methods[method], folder.parent / f"{name}.tif"
    # The first one also writes the data set, and loads what the others find loaded.
    with tempfile.TemporaryDirectory(dir=folder.parent) as probes:
        _, few, many = (
            _train(chosen, stack, Path(probes, str(number)), steps)
            for number, steps in enumerate(_PROBES)
        )
    step = max(1e-3, (many - few) / (_PROBES[2] - _PROBES[1]))
    beginning = max(0.0, few - _PROBES[1] * step)
    steps = max(1, round((60 * minutes - beginning) / step))
    took = _train(chosen, stack, folder, steps)
    denoiser = Denoiser.load(folder, DenoiseOptions(engine="tensorflow", repair=chosen.repair))
    axes = "ZYX" if name == "volume" else "YX"
    results = []
    for pictures in (data.noisy[:1], data.noisy):  # the first time is not counted
        start = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = [
                denoise_stack(array_stack(each, axes), [denoiser], StackOptions())
                for each in pictures
            ]
        passed = time.perf_counter() - start
    pixels = sum(each.size for each in data.noisy)
    return {
        "steps": steps,
        "minutes": took / 60,
        "step_seconds": step,
        **_scores(data, results),
        "seconds_per_megapixel": passed / (pixels / 1e6),
    }


def finest(result: Array, clean: Array) -> float:
    """Returns how much of an error's power lies at the finest frequencies: pixel by pixel.

    That of white errors is 1: the power in the band around half a period per pixel along both axes,
    relative to the mean over all frequencies. Checkerboards that do not keep step over a picture
    are seen here only, not by the diagnosis.

    Args:
        result: [..., H, W], at least 8 pixels high and wide.
        clean: the same without errors.
    """
    error = result - clean
    height, width = (size // 2 * 2 for size in error.shape[-2:])
    error = error[..., :height, :width]
    power = np.abs(np.fft.fft2(error - error.mean(axis=(-2, -1), keepdims=True))) ** 2
    near = [np.abs(np.fft.fftfreq(size)) > 0.4 for size in (height, width)]
    return float(power[..., near[0][:, None] & near[1]].mean() / power.mean())


def simulate_volume(shape: tuple[int, int, int], seed: int) -> Array:
    """Returns a volume of fibres and cells as a microscope sees it, from 0 to 1.

    Planes lie twice as far apart as pixels, and are blurred as much along z as in plane.
    """
    random = np.random.default_rng(seed)
    volume = np.zeros(shape)
    spacing = np.array([2.0, 1.0, 1.0])
    extent = np.array(shape) * spacing
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing
    for _ in range(12):
        center, radii = random.uniform(0, extent), random.uniform(8, 20, 3)
        radius = np.sqrt((((places - center) / radii) ** 2).sum(-1))
        volume += random.uniform(0.15, 0.4) * ((radius < 1) + (np.abs(radius - 1) < 0.08))
    for _ in range(40):
        place, direction = random.uniform(0, extent), random.normal(0, 1, 3)
        strength = random.uniform(2, 6)
        for _ in range(300):
            direction += random.normal(0, 0.15, 3)
            direction /= np.linalg.norm(direction)
            place = place + 0.5 * direction
            index = np.floor(place / spacing).astype(int)
            if np.all(index >= 0) and np.all(index < shape):
                volume[tuple(index)] += strength
    volume = scipy.ndimage.gaussian_filter(volume, (0.75, 1.1, 1.1))
    return 0.1 + 0.9 * np.clip(volume / np.percentile(volume, 99.8), 0, 1)


def _scores(data: Data, results: Sequence[Array]) -> dict[str, float]:
    """Returns the means over all pictures, or over all planes of volumes; nothing is clipped."""
    from cbsn.evaluation.conventions import psnr, ssim
    from cbsn.evaluation.diagnosis import diagnose

    scores = []
    for noisy, clean, result in zip(data.noisy, data.clean, results, strict=True):
        planes = [each.reshape(-1, *each.shape[-2:], 1) for each in (noisy, clean, result)]
        for before, true, after in zip(*planes, strict=True):
            true, before, after = (each.astype(np.float64) for each in (true, before, after))
            seen = diagnose(before, after).checkerboard
            scores.append(
                {
                    "noisy_psnr": psnr(true, before, 1.0),
                    "psnr": psnr(true, after, 1.0),
                    "ssim": ssim(true, after, 1.0, "gaussian"),
                    "checkerboard": max(0.0, *(each for each in seen.values() if each is not None)),
                    "finest": finest(after[..., 0], true[..., 0]),
                }
            )
    return {key: float(np.mean([each[key] for each in scores])) for key in scores[0]}


def _train(method: Method, stack: Path, folder: Path, steps: int) -> float:
    """Trains as `cbsn train` does, from the start, and returns how many seconds that took."""
    from cbsn.training.options import RunOptions
    from cbsn.training.run import train

    options = RunOptions(
        dataset=str(stack.resolve()),
        checkpoints=folder.parent.resolve(),
        name=folder.name,
        resume=False,
        repair=method.repair,
    )
    before = Path.cwd()
    os.chdir(stack.parent)  # as patches are written to the folder `dataset` where one is
    start = time.perf_counter()
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            train(method.recipe, {**method.changes, "max_steps": steps}, options)
    finally:
        os.chdir(before)
    return time.perf_counter() - start


def _pictures(folder: str) -> list[Array]:
    from cbsn.colors import luma
    from cbsn.images.image_files import read_picture
    from cbsn.inference.outputs import find_sources
    from cbsn.value_range import to_unit

    pictures = []
    for path in find_sources([folder]):
        pixels = to_unit(read_picture(path).pixels)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        gray = luma(pixels[..., :3]) if pixels.shape[-1] > 2 else pixels[..., :1]
        pictures.append(gray[..., 0])
    if not pictures:
        raise DataError(f"There are no pictures. Received: {folder}")
    return pictures


def _chosen(flag: str, value: str | None, known: Mapping[str, Any]) -> list[str]:
    names = parse_list(flag, value) or [*known]
    for name in names:
        if name not in known:
            raise ConfigError(f"{flag} are of {', '.join(known)}. Received: {name}")
    return names


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"--minutes takes numbers. Received: {text}") from None
    check_number("--minutes", value, 0, 10_000, above=True)
    return value


if __name__ == "__main__":
    run(main, make_parser())
