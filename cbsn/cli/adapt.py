"""Adapts a model to pictures, and saves it. See `--help`."""

import argparse
from pathlib import Path

from cbsn.cli.denoise import add_quality, chosen_model
from cbsn.cli.flags import add_axes, add_gpu, add_normalize, add_white
from cbsn.cli.parser import Parser, add_input, new_parser
from cbsn.files import expanded


def main(flags: argparse.Namespace) -> None:
    """Adapts the model and saves the result."""
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.devices import select_gpus
    from cbsn.images.stacks.opening import is_stack
    from cbsn.inference.denoiser import Denoiser
    from cbsn.inference.options import DenoiseOptions
    from cbsn.inference.outputs import find_sources
    from cbsn.inference.stack_options import StackOptions, refuse_white
    from cbsn.progress import say
    from cbsn.training.adaptation import adapt, check_adaptation, save_adapted
    from cbsn.value_range import check_white

    select_gpus(flags.gpu, most=1)
    out = expanded(flags.out)
    check_adaptation(flags.minutes, flags.seed, out)
    check_white(flags.white)
    stack_options = StackOptions.pop(vars(flags))
    pictures = find_sources(flags.image_paths, recursive=flags.recursive)
    are_stacks = [is_stack(each, stack_options.axes) for each in pictures]
    if not any(are_stacks):
        stack_options.refuse_for_pictures()
    if all(are_stacks):
        refuse_white(flags.white)
    model = Denoiser.load(chosen_model(flags), DenoiseOptions(precision=flags.precision))
    how = {"white": flags.white, "stack_options": stack_options, "seed": flags.seed}
    adapted = adapt(pictures, model, flags.minutes, **how)
    save_adapted(adapted, out)
    say(f"Denoise with: cbsn denoise PICTURES --model {out}")


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Trains a model further on noisy pictures, which needs nothing clean, and saves it for "
        "cbsn denoise --model. Give pictures of one camera and its settings together.",
        common=("image_paths", "out", "model_path", "quality", "minutes", "recursive", "gpu"),
        examples="""
  cbsn adapt photos --minutes 10 --out adapted
  cbsn denoise photos --model adapted
""",
    )
    add = parser.add_argument
    add_input(parser, "image_paths", "noisy pictures: folders, files, or globs in quotes")
    add("--minutes", type=float, default=10.0, metavar="N", help="how long to train")
    what = "folder of the adapted model; it may replace an earlier one"
    add("--out", "--adapt_save", type=Path, default="adapted", metavar="DIR", help=what)
    add_quality(parser, best=False)
    add("--recursive", action="store_true", help="also take pictures in sub-folders")
    add_white(parser)
    add_axes(parser)
    add_normalize(parser)
    what = "float32, mixed_bfloat16 or mixed_float16; auto: by the hardware"
    add("--precision", default="auto", metavar="P", help=what)
    add("--seed", type=int, default=0, help="seed of everything random")
    add_gpu(parser)
    return parser
