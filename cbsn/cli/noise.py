"""Reports the noise in pictures, and how to train on them. See `--help`."""

import argparse
from pathlib import Path

from cbsn.cli.flags import (
    MODEL,
    add_axes,
    add_denoising,
    add_model,
    add_normalize,
    add_white,
    start_tensorflow,
)
from cbsn.cli.parser import Parser, add_input, new_parser
from cbsn.inference.options import DenoiseOptions


def main(flags: argparse.Namespace) -> None:
    """Reports the noise of the pictures."""
    if flags.model_path is not None:
        start_tensorflow()  # needed only then
    from cbsn.evaluation.noise_report import report_noise
    from cbsn.inference.stack_options import StackOptions

    options = vars(flags)
    stacks = StackOptions.pop(options)
    report_noise(
        options.pop("pictures"), options=DenoiseOptions.pop(options), stacks=stacks, **options
    )


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Reports the noise in pictures, without clean ones: its strength in each channel and at "
        "each brightness, how far it is correlated, and how to train on them. Of stacks, also "
        "whether the noise of neighbouring frames or slices is correlated.",
        common=("pictures", "model_path", "denoised", "images", "figure", "json"),
        examples="""
  cbsn noise photos --figure noise.png
  cbsn noise photos --model photo-large        # of what a model removes
  cbsn noise cells.tif --select c=1
""",
    )
    add = parser.add_argument
    add_input(parser, "pictures", "noisy pictures or stacks: folders, files, or globs in quotes")
    model = (
        f"{MODEL}: take for noise what this model removes, rather than what varies in flat parts "
        "of the pictures"
    )
    add_model(parser, model)
    denoised = "the same for a folder of already denoised pictures of the same names"
    add("--denoised", metavar="DIR", help=denoised)
    images = (
        "number of pictures to take, evenly spread; 0: all; of stacks, planes of each channel, at "
        "most 64"
    )
    add("--images", type=int, default=0, metavar="N", help=images)
    add_axes(parser)
    add_normalize(
        parser,
        "what the model sees as 0 and 1 in a stack: deviation, percentile, range, dtype, or two "
        "values such as 100,4095; model: the values of the training; auto: as cbsn denoise",
    )
    add_white(parser)
    add_denoising(parser)
    add("--figure", type=Path, metavar="FILE", help="file for a figure, such as noise.png")
    add("--json", type=Path, metavar="FILE", help="file for all numbers")
    return parser
