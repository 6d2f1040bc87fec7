"""Says what noise is in pictures, and what to train with on them. See `--help`."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cbsn.cli.flags import MODEL, add_denoising, add_white, new_parser, run
from cbsn.data.picture_pairs import spread
from cbsn.errors import CbsnError, ConfigError, DataError, check_number
from cbsn.evaluation.diagnosis import SMALLEST, Diagnosis, diagnose
from cbsn.images.image_files import find_images, read_picture
from cbsn.inference.options import DenoiseOptions
from cbsn.value_range import value_range


def find_pictures(patterns: Iterable[str], images: int = 0) -> list[Path]:
    """Returns the files that folders, globs and names stand for, each once.

    Args:
        patterns: as for `find_images`.
        images: int, take that many, spread evenly over all; 0 for all.

    Raises:
        ConfigError: if `images` is below 0, or more than there can be.
        DataError: if a pattern finds nothing.
    """
    check_number("--images", images, 0)
    paths = [*dict.fromkeys(path for pattern in patterns for path in find_images(pattern))]
    return spread(paths, images)


def read_pictures(paths: Sequence[Path], white: float | None = None) -> Iterator[np.ndarray]:
    """Yields the pictures [H, W, 1] or [H, W, 3] one by one.

    Args:
        paths: their files.
        white: as for `read_picture`.

    Raises:
        ImageError: if one cannot be read.
    """
    for path in paths:
        yield read_picture(path, white=white).color


def read_pairs(
    paths: Sequence[Path], folder: str, white: float | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields each picture with the one of its name, but for the suffix, in a folder.

    Args:
        paths: the pictures.
        folder: of the others, which are taken in the range of values of the first.
        white: as for `read_picture`.

    Raises:
        DataError: if one is not there, or of another size or depth.
        ImageError: if one cannot be read.
    """
    denoised = {path.stem: path for path in find_images(folder)}
    for path in paths:
        if path.stem not in denoised:
            raise DataError(
                f"Every picture needs a denoised one of its name. --denoised {folder} has none "
                f"for {path}."
            )
    for path in paths:
        first, second = (read_picture(each, white=white) for each in (path, denoised[path.stem]))
        if first.pixels.dtype == second.pixels.dtype:
            second.range_in_file.change(second.color, first.range_in_file)
        yield first.color, second.color


def denoise_pictures(
    paths: Sequence[Path], model_path: str, options: DenoiseOptions, white: float | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields each picture with what a model makes of it.

    Args:
        paths: the pictures.
        model_path: as for `Denoiser.load`.
        options: as for `Denoiser.load`.
        white: as for `read_picture`.

    Raises:
        ModelError: if the model cannot be loaded.
        ImageError: if a picture cannot be read or denoised.
    """
    # TensorFlow comes with it, and nothing else here needs that.
    from cbsn.inference.denoiser import Denoiser

    denoise = Denoiser.load(model_path, options)
    print(f"{denoise.recipe.name} ({model_path}): {denoise.choices}", flush=True)
    for path, picture in zip(paths, read_pictures(paths, white), strict=True):
        try:
            yield picture, denoise(picture, white=value_range(picture.dtype))
        except CbsnError as error:
            raise type(error)(f"{path}: {error}") from error


def main(flags: argparse.Namespace) -> None:
    """Looks at the pictures."""
    from cbsn.files import write_json
    from cbsn.noise import advise, estimate_noise, estimate_noise_of_residuals
    from cbsn.noise.report import check_figure, draw_noise
    from cbsn.value_range import check_white

    if flags.modelpath and flags.denoised:
        raise ConfigError(
            "Take the one or the other. Received: "
            f"--modelpath {flags.modelpath} --denoised {flags.denoised}"
        )
    if flags.figure:
        check_figure(flags.figure)
    for flag in ("figure", "json"):
        _check_folder(flag, getattr(flags, flag))
    check_white(flags.white)
    paths = find_pictures(flags.pictures, flags.images)
    diagnoses: list[Diagnosis] = []
    if flags.denoised:
        pairs = read_pairs(paths, flags.denoised, flags.white)
        estimate = estimate_noise_of_residuals(_diagnosed(pairs, diagnoses))
    elif flags.modelpath:
        options = DenoiseOptions.pop(vars(flags))
        pairs = denoise_pictures(paths, flags.modelpath, options, flags.white)
        estimate = estimate_noise_of_residuals(_diagnosed(pairs, diagnoses))
    else:
        estimate = estimate_noise(read_pictures(paths, flags.white))
    advice = advise(estimate)
    found = {"noise": estimate.to_dict(), "advice": advice.to_dict()}
    print("\n".join([*estimate.lines(), "", *advice.lines()]))
    if diagnoses:
        diagnosis = Diagnosis.mean_of(diagnoses)
        found["diagnosis"] = diagnosis.to_dict()
        print("\n".join(["", "The denoised pictures:", *diagnosis.lines()]))
    if flags.json:
        try:
            write_json(flags.json, {"names": [str(path) for path in paths], **found})
        except OSError as error:
            raise ConfigError(f"--json {flags.json}: {error.strerror}.") from error
    if flags.figure:
        draw_noise(estimate, advice, flags.figure)


def _diagnosed(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], diagnoses: list[Diagnosis]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Passes pairs on, and then diagnoses them: those that do not fit were refused meanwhile."""
    for noisy, denoised in pairs:
        yield noisy, denoised
        if min(noisy.shape[:2]) >= SMALLEST:
            diagnoses.append(diagnose(noisy, denoised))


def _check_folder(flag: str, path: Path | None) -> None:
    """Before the work rather than after it."""
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise ConfigError(f"--{flag} takes a file in a folder that exists. Received: {path}")
    # Without a name, the flag takes the first of the pictures.
    if path and path.exists() and not _is_own(path):
        raise ConfigError(
            f"--{flag} takes the name of a file to write, and this is none that the noise report "
            f"has written before. Received: --{flag} {path}"
        )


def _is_own(path: Path) -> bool:
    """Whether a file is an earlier report's: JSON of ours, or a figure of Matplotlib."""
    with path.open("rb") as file:
        start = file.read(4096)
    return b"Matplotlib" in start or b'"names"' in start or not start


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Says what noise is in pictures, without clean ones, and what to train with on them."
    )
    add = parser.add_argument
    add("pictures", nargs="+", metavar="PICTURES", help="noisy pictures: folders, globs or files")
    add(
        "--modelpath",
        metavar="MODEL",
        help=f"a trained model, {MODEL}: the noise is seen in what it takes away, and not in "
        "the flat parts of the pictures",
    )
    add(
        "--denoised",
        metavar="FOLDER",
        help="the same, with pictures of the same names that are denoised already",
    )
    add("--images", type=int, default=0, help="how many pictures to take, evenly spread; 0: all")
    add_white(parser)
    add_denoising(parser)
    add("--figure", type=Path, metavar="FILE", help="file for a figure, such as noise.png")
    add("--json", type=Path, metavar="FILE", help="file for all numbers")
    return parser


def command() -> None:
    """Runs the command."""
    # The flags are parsed after this: without a model, there is no need to wait for TensorFlow.
    model = any(argument.startswith("--modelpath") for argument in sys.argv)
    run(main, make_parser(), tensorflow=model)
