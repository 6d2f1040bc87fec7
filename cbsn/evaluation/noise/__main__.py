"""Says what noise is in pictures, and what to train with on them. See `--help`."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cbsn import cli
from cbsn.errors import ConfigError
from cbsn.evaluation.diagnosis import SMALLEST, Diagnosis, diagnose


def main(flags: argparse.Namespace) -> None:
    """Looks at the pictures."""
    from cbsn.evaluation.noise.figure import check_figure, draw_noise
    from cbsn.evaluation.noise.inputs import (
        denoise_pictures,
        find_pictures,
        read_pairs,
        read_pictures,
    )
    from cbsn.files import write_json
    from cbsn.noise import advise, estimate_noise, estimate_noise_of_residuals
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
        how = ("r3", "self_ensemble", "strength", "color_strength", "tile", "precision", "engine")
        options = {name: getattr(flags, name) for name in ("white", *how)}
        pairs = denoise_pictures(paths, flags.modelpath, **options)
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
    parser = cli.make_parser(
        "Says what noise is in pictures, without clean ones, and what to train with on them."
    )
    parser.prog = "python -m cbsn.evaluation.noise"
    add = parser.add_argument
    add("pictures", nargs="+", metavar="PICTURES", help="noisy pictures: folders, globs or files")
    add(
        "--modelpath",
        metavar="MODEL",
        help=f"a trained model, {cli.MODEL}: the noise is seen in what it takes away, and not in "
        "the flat parts of the pictures",
    )
    add(
        "--denoised",
        metavar="FOLDER",
        help="the same, with pictures of the same names that are denoised already",
    )
    add("--images", type=int, default=0, help="how many pictures to take, evenly spread; 0: all")
    cli.add_white(parser)
    cli.add_denoising(parser)
    add("--figure", type=Path, metavar="FILE", help="file for a figure, such as noise.png")
    add("--json", type=Path, metavar="FILE", help="file for all numbers")
    return parser


if __name__ == "__main__":
    # The flags are parsed after this: without a model, there is no need to wait for TensorFlow.
    model = any(argument.startswith("--modelpath") for argument in sys.argv)
    cli.run(main, make_parser(), tensorflow=model)
