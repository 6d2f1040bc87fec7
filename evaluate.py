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
    cli.add_gpu(parser)
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
    cli.add_noise(parser, "instead of --noisy, noise for the clean pictures, always the same")
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
    cli.add_denoising(parser)
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
