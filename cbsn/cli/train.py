"""Trains a denoiser from noisy pictures. See `--help`."""

import argparse
import contextlib
import functools
from pathlib import Path

from cbsn.cli.flags import (
    MODEL,
    add_axes,
    add_gpu,
    add_noise,
    add_normalize,
    add_repair,
    add_white,
    start_tensorflow,
)
from cbsn.cli.parser import Parser, add_input, new_parser
from cbsn.errors import ConfigError, TrainingStopped
from cbsn.files import expanded

_RECIPES = (
    "cbsn, apbsn, ssbsn, tmbsn, cbsn-hole, n2v-unet, n2v2-unet, n2v-unet-3d, dil-unet, "
    "pn2v-unet, n2n-resunet, distill, photo or photo-large"
)


def make_parser() -> Parser:
    """Returns the parser of the flags; the paper's authors' names and defaults are accepted."""
    parser = new_parser(
        "Trains a denoiser from noisy pictures or stacks. The run's folder holds the model, and "
        "everything to go on with after an interruption: the same command does so.",
        common=(
            *("dataset", "name", "recipe", "steps", "channels", "modules", "patch_size"),
            *("batch_size", "learning_rate", "val_noisy", "val_clean", "noise_sigma"),
            *("second_shots", "teacher", "resume", "gpu"),
        ),
        examples="""
  cbsn train photos --name holiday --channels 16 --steps 4000 --learning_rate 2e-3 --ema 0.995
                                              # a small network, for a CPU
  cbsn train cells.tif --name cells --recipe n2v-unet --steps 4000
                                              # a stack of a microscope
  cbsn train SIDD --name sidd --gpu           # as in the paper
  cbsn denoise more --model checkpoints/holiday
""",
    )
    what = parser.add_argument_group("what to train, and on what")
    add = what.add_argument
    pictures = (
        "a folder, a glob in quotes, one picture or stack, a folder from cbsn prepare, or SIDD or "
        "DND (SIDD)"
    )
    add_input(parser, "dataset", pictures, "--dataset", several=False, required=False)
    add("--name", default="temp", help="name of the run and of its folder in checkpoints")
    text = f"method, with all its settings: {_RECIPES}"
    add("--recipe", default="cbsn", metavar="NAME", help=text)
    add("--source", default="dataset", type=Path, metavar="DIR", help="folder of SIDD and DND")
    text = (
        "another noisy shot of each picture, by equal names (n2n-resunet); next: of stacks, the "
        "next frame in time"
    )
    add("--second_shots", metavar="DIR", help=text)
    add(
        "--teacher",
        metavar="MODEL",
        nargs="+",
        default=argparse.SUPPRESS,
        help="trained models whose results, averaged, are learned from (distill, photo, "
        "photo-large; the latter two by default: the small shipped model)",
    )
    add(
        "--teacher_holes",
        type=int,
        metavar="N",
        nargs="+",
        default=argparse.SUPPRESS,
        help="of teachers of the recipes tmbsn and cbsn-hole: widths of the hole, with each of "
        "which they denoise, such as 1 3 5 7 9 (that of the model)",
    )
    add(
        "--targets",
        choices=("mean", "one"),
        default="mean",
        help="what is learned of several teachers or holes: the mean of their pictures, or for "
        "each crop one of them, drawn at random",
    )
    add(
        "--rounds",
        type=int,
        default=1,
        metavar="N",
        help="how often to train (photo, photo-large): each further round learns from the model "
        "before, with 0.4 times the steps and the learning rate",
    )
    add("--init", metavar="MODEL", help=f"start with the weights of a trained model: {MODEL}")
    add_white(what)
    add_axes(what)
    add_normalize(
        what,
        "what the network sees as 0 and 1 in stacks: deviation (mean, and mean + standard "
        "deviation), percentile, range, dtype, or two values such as 100,4095; auto: deviation, "
        "or range for recipes that do not standardize (apbsn, ssbsn, n2n-resunet)",
    )
    add_repair(what)
    text = (
        "share of the planes of stacks, or of the patches of volumes, to hold out, and to validate "
        "the loss on; 0: none"
    )
    add("--hold_out", type=float, default=0.1, metavar="SHARE", help=text)
    add_noise(what, "noise to add to clean pictures, or to the teacher's")
    add(
        "--own_noise",
        metavar="GAIN",
        help="learn from the teacher's pictures with noise like that of the noisy ones, as "
        "measured, this many times as strong: 1, or a range such as 0.4-2.5",
    )
    add(
        "--gray",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="a network for gray pictures, which denoises each colour channel by itself (default: "
        "as the pictures are)",
    )
    add(
        "--channels",
        "--channel",
        type=int,
        metavar="N",
        help="channels of the network (cbsn, apbsn, ssbsn: 128, photo: 16, tmbsn, cbsn-hole, "
        "distill: 24, others: 32)",
    )
    text = "dilated modules in each branch (cbsn, apbsn, ssbsn: 9)"
    add("--modules", "--block", "--num_block", type=int, metavar="N", help=text)
    text = "number of the last modules that have attention (ssbsn: 3)"
    add("--attention", type=int, metavar="N", help=text)
    text = "number of times that a U-Net halves the picture (3; photo-large: 4, n2v-unet-3d: 2)"
    add("--depth", type=int, metavar="N", help=text)
    add(
        "--z_halvings",
        type=int,
        metavar="N",
        help="how many of these also halve the planes of a volume: fewer where planes lie far "
        "apart (n2v-unet-3d: 1)",
    )

    how = parser.add_argument_group("how to train")
    add = how.add_argument
    add(
        "--steps",
        "--maxiter",
        type=int,
        metavar="N",
        help="training steps (cbsn: 500000, tmbsn, cbsn-hole: 200000, photo: 26000, photo-large: "
        "29000, other U-Nets: 100000); schedules shrink in proportion",
    )
    text = "passes over the patches, instead of --steps; 0: as the recipe has it (apbsn, ssbsn: 20)"
    add("--epochs", type=int, default=0, metavar="N", help=text)
    add(
        "--patch_size",
        "--patchsize",
        type=int,
        metavar="N",
        help="side of the training patches (cbsn, apbsn, ssbsn, tmbsn, cbsn-hole: 120, photo: "
        "128, other U-Nets: 64)",
    )
    text = "planes of a training patch of volumes (n2v-unet-3d: 16)"
    add("--patch_depth", type=int, metavar="N", help=text)
    add(
        "--batch_size",
        "--batchsize",
        type=int,
        metavar="N",
        help="patches in a step, over all devices and machines (cbsn, ssbsn: 4, apbsn, tmbsn, "
        "cbsn-hole: 8, photo: 32, other U-Nets: 16)",
    )
    add(
        "--learning_rate",
        "--lr",
        type=float,
        metavar="R",
        help="learning rate at the start (cbsn, apbsn, ssbsn: 1e-4, tmbsn, cbsn-hole: 3e-4, "
        "other U-Nets: 1e-3)",
    )
    add(
        "--lr_steps",
        type=int,
        metavar="N",
        help="steps from one learning rate to the next (cbsn: 1/2 every 100000; tmbsn, cbsn-hole: "
        "1/2 every 40000; apbsn: 1/10 every 8 epochs; ssbsn: 1/10 every 16; photo: along a cosine; "
        "other U-Nets: 1/2 every 20000)",
    )
    add(
        "--lmbda",
        type=float,
        metavar="W",
        help="weight of the invariance term (cbsn, cbsn-hole, dil-unet: 2), or of the perceptual "
        "term (n2n-resunet: 0)",
    )
    add(
        "--ramp_steps",
        type=int,
        metavar="N",
        help="steps to the full weight of the invariance term (cbsn: 200000, cbsn-hole: 80000, "
        "dil-unet: 20000)",
    )
    add(
        "--noise_model",
        metavar="M",
        help="how noise is described: gmm, a mixture of normal distributions, or histogram "
        "(pn2v-unet: gmm)",
    )
    text = "number of values that are predicted for a pixel (pn2v-unet: 32)"
    add("--samples", type=int, metavar="N", help=text)
    add(
        "--bootstrap_steps",
        type=int,
        metavar="N",
        help="steps of Noise2Void, after which the noise model is learned (pn2v-unet: 20000); 0: "
        "that of --init is kept",
    )
    text = "file of VGG-16's weights for the perceptual term (default: Keras fetches them)"
    add("--perceptual_weights", type=Path, metavar="FILE", help=text)
    text = "least side of the cells in each of which one pixel is masked (n2v, dil-unet: 4)"
    add("--mask_cell", type=int, metavar="N", help=text)
    add(
        "--struct_mask",
        metavar="SHAPE",
        help="pixels around the masked one that share its noise, and are masked, too (n2v, "
        "dil-unet): x:N, y:N or z:N, to each side; cross:N; square:N; several, joined by +; "
        "offsets such as '0,1;0,-1'; auto: as the noise is correlated (point: none)",
    )
    add(
        "--stride_b",
        type=_stride,
        metavar="N",
        help="downsampling of the blind term: distance at which noise is no longer correlated; "
        "auto: measured, with --stride_i (cbsn, apbsn, ssbsn: 5, dil-unet: 1)",
    )
    text = "side of the cells of the random subsampler (cbsn, cbsn-hole: 2, dil-unet: 1)"
    add("--stride_i", type=int, metavar="N", help=text)
    add(
        "--hole",
        type=_hole,
        metavar="N",
        help="width in pixels of the diamond that the network does not see, odd: as far as noise "
        "is correlated, to both sides; auto: measured (tmbsn, cbsn-hole: 9)",
    )
    text = (
        "the same to denoise with, where a smaller one keeps more detail; 0: none; saved with the "
        "model (tmbsn: 3, cbsn-hole: 0)"
    )
    add("--denoise_hole", type=int, metavar="N", help=text)
    text = "downsampling to denoise with; saved with the model (apbsn, ssbsn: 2, others: 1)"
    add("--denoise_stride", type=int, metavar="N", help=text)
    add("--seed", type=int, default=0, metavar="N", help="seed of everything random")
    text = "decay of averaged weights; 0: none (photo, photo-large: 0.999, others: none)"
    add("--ema", type=float, metavar="D", help=text)
    add(
        "--precision",
        default="auto",
        metavar="P",
        help="float32, mixed_bfloat16 or mixed_float16; auto: bfloat16 where the hardware supports "
        "it, float16 on GPUs of compute capability 7, else float32",
    )
    add(
        "--accumulate",
        type=int,
        default=0,
        metavar="N",
        help="compute the gradients of a batch in this many parts: the same steps in less memory; "
        "0: on a CPU parts that need about 1 GiB, on a GPU one",
    )
    add(
        "--xla",
        action=argparse.BooleanOptionalAction,
        help="compile the step with XLA: a minute or two at the start, then faster on a GPU "
        "(default: on a GPU)",
    )
    text = "longest gradient, of all weights together; 0: any"
    add("--clip_norm", type=float, metavar="L", help=text)
    text = "compute the same bits on every run, also on GPUs, where that is slower"
    add("--deterministic", action="store_true", help=text)
    text = "stop after this many steps in a row whose loss or gradients are not finite"
    add("--max_bad_steps", type=int, default=20, metavar="N", help=text)
    text = "skip and count damaged records, instead of stopping at the first"
    add("--skip_bad_records", action="store_true", help=text)
    text = "logical devices to split the CPU into"
    add("--cpu_devices", type=int, default=1, metavar="N", help=text)
    add_gpu(how, several=True)

    report = parser.add_argument_group("what is kept and shown")
    add = report.add_argument
    text = "folder of runs"
    add("--checkpoints", default="checkpoints", type=Path, metavar="DIR", help=text)
    text = "folder of the run, instead of --checkpoints and --name"
    add("--out", "--save_path", dest="save_path", metavar="DIR", help=text)
    text = "continue the run of that name, or start over; an earlier run is set aside, not deleted"
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help=text)
    add("--val_noisy", metavar="DIR", help="noisy pictures to validate on: a folder or a glob")
    add(
        "--val_clean",
        metavar="DIR",
        help="clean pictures of the same names; with --noise_sigma and the like they suffice: they "
        "get that noise",
    )
    text = "number of pairs to validate on; 0: all"
    add("--val_images", type=int, default=0, metavar="N", help=text)
    for flag, kind, steps in (
        ("print", "log lines", 1000),
        ("val", "validations", 10_000),
        ("save", "checkpoints (there is one every 15 minutes, too)", 10_000),
    ):
        text = f"steps between {kind}; 0: {steps} in 500000, in proportion"
        add(f"--{flag}_every", type=int, default=0, metavar="N", help=text)
    return parser


def _number_or_auto(what: str, text: str) -> int | str:
    with contextlib.suppress(ValueError):
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"{what} is a whole number, or auto. Received: {text}")


_stride = functools.partial(_number_or_auto, "a stride")
_hole = functools.partial(_number_or_auto, "a hole")


def main(flags: argparse.Namespace) -> None:
    """Trains as the flags say."""
    try:
        _train(flags)
    except KeyboardInterrupt as error:  # before the first step, or a second time while saving
        raise TrainingStopped(
            "Stopped at once. Run the same command again to continue from what is saved."
        ) from error


def _train(flags: argparse.Namespace) -> None:
    start_tensorflow()
    from cbsn.devices import select_gpus
    from cbsn.training.options import parse_settings
    from cbsn.training.run import train

    values = {"dataset": "SIDD", **vars(flags)}
    recipe, gpu, out = (values.pop(name) for name in ("recipe", "gpu", "save_path"))
    if out is not None:
        out = expanded(out)
        if (flags.checkpoints, flags.name) != (Path("checkpoints"), "temp"):
            raise ConfigError(
                f"--out says what --checkpoints and --name say: omit them. Received: --out {out}"
            )
        values.update(checkpoints=out.parent, name=out.name)
    changes, options = parse_settings(values)
    select_gpus(gpu)
    train(recipe, changes, options)
