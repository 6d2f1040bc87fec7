"""Reports the noise in pictures, and how to train on them. See `--help`."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.cli.flags import MODEL, add_denoising, add_white, import_tensorflow, new_parser
from cbsn.data.pairs import spread
from cbsn.errors import CbsnError, ConfigError, DataError, check_number
from cbsn.evaluation.diagnosis import SMALLEST, Diagnosis, diagnose
from cbsn.files import write_json
from cbsn.images.finding import find_images
from cbsn.images.image_files import read_picture
from cbsn.inference.options import DenoiseOptions
from cbsn.noise.advice import advise
from cbsn.noise.estimate import estimate_noise, estimate_noise_of_residuals
from cbsn.value_range import check_white, value_range

Pairs = Iterator[tuple[np.ndarray, np.ndarray]]


def main(flags: argparse.Namespace) -> None:
    """Reports the noise of the pictures."""
    if flags.modelpath and flags.denoised:
        raise ConfigError(
            "Take the one or the other. Received: "
            f"--modelpath {flags.modelpath} --denoised {flags.denoised}"
        )
    if flags.figure:
        from cbsn.noise.report import check_figure, draw_noise  # with Matplotlib, which is slow

        check_figure(flags.figure)
    _check_output("--figure", flags.figure)
    _check_output("--json", flags.json)
    check_white(flags.white)
    check_number("--images", flags.images, 0)
    found = (path for pattern in flags.pictures for path in find_images(pattern))
    paths = spread([*dict.fromkeys(found)], flags.images)
    diagnoses: list[Diagnosis] = []
    if not (flags.denoised or flags.modelpath):
        estimate = estimate_noise(read_picture(path, white=flags.white).color for path in paths)
    else:
        pairs = _named_pairs(paths, flags) if flags.denoised else _denoised(paths, flags)
        estimate = estimate_noise_of_residuals(_diagnosed(pairs, diagnoses))
    advice = advise(estimate)
    numbers: dict[str, Any] = {"names": [str(path) for path in paths]}
    numbers |= {"noise": estimate.to_dict(), "advice": vars(advice)}
    print("\n".join([*estimate.lines(), "", *advice.lines()]))
    if diagnoses:
        diagnosis = Diagnosis.mean_of(diagnoses)
        numbers["diagnosis"] = diagnosis.to_dict()
        print("\n".join(["", "The denoised pictures:", *diagnosis.lines()]))
    if flags.json:
        try:
            write_json(flags.json, numbers)
        except OSError as error:
            raise ConfigError(f"--json {flags.json}: {error.strerror}.") from error
    if flags.figure:
        draw_noise(estimate, advice, flags.figure)


def _named_pairs(paths: Iterable[Path], flags: argparse.Namespace) -> Pairs:
    """Yields each picture and the denoised one of its name (suffix aside), in the same range."""
    denoised = {path.stem: path for path in find_images(flags.denoised)}
    for path in paths:
        if path.stem not in denoised:
            raise DataError(
                f"Every picture needs a denoised one of its name. --denoised {flags.denoised} has "
                f"none for {path}."
            )
    for path in paths:
        pair = (path, denoised[path.stem])
        first, second = (read_picture(each, white=flags.white) for each in pair)
        if first.pixels.dtype == second.pixels.dtype:
            second.range_in_file.change(second.color, first.range_in_file)
        yield first.color, second.color


def _denoised(paths: Iterable[Path], flags: argparse.Namespace) -> Pairs:
    """Yields each picture and a model's denoised version of it."""
    import_tensorflow()  # needed only here
    from cbsn.inference.denoiser import Denoiser

    denoise = Denoiser.load(flags.modelpath, DenoiseOptions.pop(vars(flags)))
    print(f"{denoise.recipe.name} ({flags.modelpath}): {denoise.choices}", flush=True)
    for path in paths:
        picture = read_picture(path, white=flags.white).color
        try:
            yield picture, denoise(picture, white=value_range(picture.dtype))
        except CbsnError as error:
            raise type(error)(f"{path}: {error}") from error


def _diagnosed(pairs: Pairs, diagnoses: list[Diagnosis]) -> Pairs:
    """Yields each pair, then diagnoses it: by then the consumer has rejected it if it is unfit."""
    for noisy, denoised in pairs:
        yield noisy, denoised
        if min(noisy.shape[:2]) >= SMALLEST:
            diagnoses.append(diagnose(noisy, denoised))


def _check_output(flag: str, path: Path | None) -> None:
    """Rejects output files that cannot be written, before the work rather than after it."""
    if not path:
        return
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"{flag} takes a file in a folder that exists. Received: {path}")
    if not path.exists():
        return
    with path.open("rb") as file:
        start = file.read(4096)
    # Only our JSON or a Matplotlib figure: a flag given no name would take the first picture.
    if start and b"Matplotlib" not in start and b'"names"' not in start:
        raise ConfigError(
            f"{flag} takes the name of a file to write, and this is none that the noise report "
            f"has written before. Received: {flag} {path}"
        )


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Says what noise is in pictures, without clean ones, and what to train with on them."
    )
    add = parser.add_argument
    add("pictures", nargs="+", metavar="PICTURES", help="noisy pictures: folders, globs or files")
    model = (
        f"a trained model, {MODEL}: the noise is seen in what it takes away, and not in the flat "
        "parts of the pictures"
    )
    add("--modelpath", metavar="MODEL", help=model)
    denoised = "the same, with pictures of the same names that are denoised already"
    add("--denoised", metavar="FOLDER", help=denoised)
    add("--images", type=int, default=0, help="how many pictures to take, evenly spread; 0: all")
    add_white(parser)
    add_denoising(parser)
    add("--figure", type=Path, metavar="FILE", help="file for a figure, such as noise.png")
    add("--json", type=Path, metavar="FILE", help="file for all numbers")
    return parser
