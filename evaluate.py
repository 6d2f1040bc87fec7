"""Scores denoisers on pairs of noisy and clean pictures. See `--help`."""

import argparse
from pathlib import Path

from cbsn import cli


def main(flags: argparse.Namespace) -> None:
    """Scores them."""
    # TensorFlow comes with these; `--help` shall not wait for it.
    from cbsn.data.noise import Noise
    from cbsn.devices import select_gpus
    from cbsn.evaluation.evaluate import evaluate

    options = vars(flags)
    settings = (options.pop(name) for name in ("noise", "noise_sigma", "noise_peak"))
    noise = Noise.parse(*settings)
    select_gpus(options.pop("gpu"))
    evaluate(noise=noise, **options)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = cli.make_parser("Scores denoisers on pairs of noisy and clean pictures.")
    add = parser.add_argument
    unset = argparse.SUPPRESS
    add(
        "--gpu",
        nargs="?",
        const="all",
        help="GPUs to use: alone all of them, with numbers (0 or 0,1) these; without the flag "
        "whatever there is",
    )
    add(
        "--modelpath",
        dest="model_paths",
        metavar="MODEL",
        nargs="*",
        default=unset,
        help="models, each a run's folder, a saved-model folder, the name of a shipped model, or "
        "the prefix of an original TensorFlow 1.15 checkpoint",
    )
    add(
        "--clean",
        metavar="GLOB",
        required=True,
        default=unset,
        help="clean pictures: a folder or a glob",
    )
    add("--noisy", metavar="GLOB", help="noisy pictures of the same names: a folder or a glob")
    add(
        "--noise",
        help="instead of --noisy, noise for the clean pictures, always the same: gaussian, "
        "poisson, poisson-gaussian or camera",
    )
    add(
        "--noise_sigma",
        help="standard deviation of the Gaussian noise, or of the camera's read noise, in 8-bit "
        "levels: 25, or a range such as 5-50 (gaussian: 25, poisson-gaussian: 5, camera: 5.1)",
    )
    add(
        "--noise_peak",
        help="photons of a white pixel: 30, or a range such as 10-100 (poisson, "
        "poisson-gaussian: 30, camera: 100)",
    )
    add("--seed", type=int, default=0, help="of that noise")
    add(
        "--baselines",
        default="noisy",
        help="what to score as well, with commas: noisy (the pictures as they are), bm3d",
    )
    add("--images", type=int, default=0, help="take so many pairs, evenly spread; 0: all")
    add(
        "--lpips",
        action=argparse.BooleanOptionalAction,
        help="take LPIPS, of gray pictures too, and fetch its weights (64 MB) if they are not "
        "there; without the flag, of colour pictures if the weights are there",
    )
    add(
        "--lpips_weights",
        type=Path,
        metavar="FILE",
        help="the weights of LPIPS (an .npz); without the flag those in the cache",
    )
    add(
        "--tile",
        default="auto",
        help="how much is denoised at a time: auto, the side of a square in pixels, or 0 for the "
        "whole picture; smaller takes less memory. The results are equal, but for ssbsn and "
        "n2n-resunet, parts of which see the tile and its rim, and no more",
    )
    add(
        "--precision",
        default="auto",
        help="float32, mixed_bfloat16 or mixed_float16; auto: bfloat16 where the hardware has it, "
        "which changes a pixel by a level here and there",
    )
    add(
        "--json",
        dest="json_path",
        type=Path,
        metavar="FILE",
        help="file for the scores, with those of each picture",
    )
    return parser


if __name__ == "__main__":
    cli.run(main, make_parser())
