"""Scores denoisers on noisy pictures. See `--help`."""

import argparse
from pathlib import Path
from typing import Any

from cbsn.cli.flags import (
    MODEL,
    add_axes,
    add_denoising,
    add_gpu,
    add_noise,
    add_normalize,
    add_white,
)
from cbsn.cli.parser import Parser, add_input, new_parser


def main(flags: argparse.Namespace) -> None:
    """Scores the denoisers."""
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.devices import select_gpus
    from cbsn.evaluation.evaluate import evaluate, parse_settings

    values = vars(flags)
    select_gpus(values.pop("gpu"), most=1)
    evaluate(**parse_settings(values))


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Scores denoisers on noisy pictures and stacks: PSNR, SSIM and LPIPS with clean ones, time "
        "and a diagnosis without them.",
        common=(
            *("noisy", "clean", "model_paths", "denoised", "baselines", "noise_sigma", "images"),
            *("out", "gpu"),
        ),
        examples="""
  cbsn evaluate noisy --clean clean --model photo photo-large --out results
  cbsn evaluate --clean clean --noise_sigma 25 --model checkpoints/mine --baselines noisy,nlm
  cbsn evaluate photos --model photo-large --out results         # without clean pictures
  cbsn evaluate cells.tif --clean clean.ome.zarr --select c=1 --model checkpoints/cells
""",
    )
    what = parser.add_argument_group("what is scored")
    add = what.add_argument
    several: dict[str, Any] = {"nargs": "*", "default": argparse.SUPPRESS}
    models = f"models: each {MODEL}"
    add("--model", "--modelpath", dest="model_paths", metavar="MODEL", help=models, **several)
    folders = "folders of pictures of the same names, denoised before by any program"
    add("--denoised", metavar="DIR", help=folders, **several)
    classic = (
        "classic denoisers, separated by commas: noisy (the pictures as they are), bm3d, nlm "
        "(non-local means) (default: noisy, where there are clean pictures)"
    )
    add("--baselines", metavar="NAMES", help=classic)
    sigma = (
        "σ in 8-bit levels for bm3d and nlm; best: the best of 1, 1.5, 2 and 3 times the true one, "
        "by the clean pictures (default: that of --noise_sigma, or an estimate)"
    )
    add("--baseline_sigma", metavar="S", help=sigma)
    add_denoising(what)
    add_gpu(what)

    on = parser.add_argument_group("on which pictures")
    add = on.add_argument
    noisy = (
        "noisy pictures: a folder, a glob in quotes, a .mat file of SIDD's blocks, or stacks, of "
        "which each plane counts as a picture"
    )
    add_input(parser, "noisy", noisy, "--noisy", several=False, required=False)
    add("--clean", metavar="PICTURES", help="clean pictures of the same names; or one for one")
    add_noise(on, "instead of noisy pictures, noise for the clean ones, the same on every run")
    add("--seed", type=int, default=0, metavar="N", help="seed of that noise, and of --r3")
    add_white(on)
    images = "number of pictures to take, evenly spread; 0: all"
    add("--images", type=int, default=0, metavar="N", help=images)
    add_axes(on)
    add_normalize(
        on,
        "what models see as 0 and 1 in a stack: deviation, percentile, range, dtype, or two values "
        "such as 100,4095; model: the values of the training; auto: as cbsn denoise",
    )

    add = parser.add_argument_group("metrics").add_argument
    names = (
        "of the results, separated by commas: psnr, ssim; and for microscopy, where brightness is "
        "arbitrary and fitted to each picture, si_psnr (scale-invariant PSNR) and micro_ssim "
        "(MicroSSIM) (default: psnr,ssim; for stacks psnr,ssim,si_psnr)"
    )
    add("--metrics", metavar="NAMES", help=names)
    either: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": None}
    add(
        "--lpips",
        help="compute LPIPS, also of gray pictures, and fetch its weights (64 MB) if needed "
        "(default: of colour pictures, if the weights are there)",
        **either,
    )
    weights = "file of the weights of LPIPS, .npz (default: those in the cache)"
    add("--lpips_weights", type=Path, metavar="FILE", help=weights)

    add = parser.add_argument_group("conventions, in which published figures differ").add_argument
    add(
        "--rounding",
        help="of the results before they are compared: round, as cbsn denoise and the AP-BSN code "
        "do; floor, as the C-BSN code does; or none (round; with synthetic noise: none)",
    )
    clip = "clip to the pictures' range; matters for noisy floats (yes; with synthetic noise: no)"
    add("--clip", help=clip, **either)
    add(
        "--data_range",
        metavar="R",
        help="peak of PSNR and SSIM: dtype (white: 255, 65535 or that of fewer bits, or 1 for "
        "floats; of stacks the highest less the lowest value of the clean stack's channel), clean "
        "(the same of each clean picture or plane), or a number in units of the pictures (dtype)",
    )
    add(
        "--color",
        help="rgb: all channels together; luma: Y of BT.601, 16 to 235, as MATLAB's rgb2ycbcr "
        "(rgb)",
    )
    add(
        "--ssim",
        help="uniform: windows of 7×7, as scikit-image by default and the AP-BSN code; gaussian: "
        "11×11 with σ 1.5, as Wang et al.; matlab: the same, large pictures made smaller first, as "
        "Wang's ssim.m does (uniform)",
    )
    add("--border", type=int, metavar="N", help="pixels to omit on each side (0)")

    add = parser.add_argument_group("results").add_argument
    add(
        "--out",
        metavar="DIR",
        help="folder for results.json, results.csv, results.md, report.html (to open in a browser) "
        "and contact_sheet.png",
    )
    pictures = "pictures in the report, evenly spread; 0: no report"
    add("--report_images", type=int, default=12, metavar="N", help=pictures)
    return parser
