"""Trains a denoiser from noisy pictures. See `--help`."""

import argparse
import contextlib
import dataclasses
from pathlib import Path

from cbsn.cli.flags import MODEL, add_gpu, add_noise, add_white, new_parser

_SETTINGS = {
    "maxiter": ("max_steps", 1),
    "channel": ("filters", 1),
    "block": ("num_modules", 1),
    "attention": ("num_attention", 0),
    "depth": ("depth", 1),
    "mask_cell": ("mask_cell", 2),
    "patchsize": ("patch_size", 1),
    "batchsize": ("batch_size", 1),
    "lr": ("learning_rate", 0),
    "lr_steps": ("lr_decay_steps", 1),
    "lmbda": ("lmbda", 0),
    "ramp_steps": ("ramp_steps", 0),
    "stride_b": ("stride_b", 1),
    "stride_i": ("stride_i", 1),
    "denoise_stride": ("denoise_stride", 1),
    "clip_norm": ("clip_norm", 0),
}
"""The recipe's settings by flag, with minima. The recipe itself rejects values too large."""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags, with the paper's authors' names and defaults if any."""
    flags = new_parser("Train a denoiser from noisy pictures.")
    what = flags.add_argument_group("what")
    add = what.add_argument
    add("--name", default="temp", help="name of the run, and of its folder")
    text = "SIDD, DND, a folder that prepare_dataset.py wrote, or pictures: a folder or a glob"
    add("--dataset", default="SIDD", help=text)
    add("--source", default="dataset", type=Path, help="folder of SIDD and DND")
    text = "another noisy shot of each picture of --dataset, by equal names (n2n-resunet)"
    add("--second_shots", help=text)
    add(
        "--teacher",
        metavar="MODEL",
        nargs="+",
        default=argparse.SUPPRESS,
        help="trained models to learn from, from the mean of their pictures (distill, photo, "
        f"photo-large): each {MODEL}; without the flag photo and photo-large take the small "
        "model that ships",
    )
    add(
        "--rounds",
        type=int,
        default=1,
        help="how often to train (photo, photo-large): in each further round the model of the one "
        "before is the teacher, and goes on with 0.4 times the steps and the learning rate",
    )
    add("--init", metavar="MODEL", help=f"start with the weights of a trained model: {MODEL}")
    add_white(what)
    add_noise(what, "noise to add to pictures that are clean, or to the teacher's")
    add(
        "--own_noise",
        metavar="GAIN",
        help="learn from the teacher's pictures with noise like that of --dataset, as measured, so "
        "many times as strong: 1, or a range such as 0.4-2.5",
    )
    add(
        "--recipe",
        default="cbsn",
        help="method, with all its settings: cbsn, apbsn, ssbsn, n2v-unet, dil-unet, n2n-resunet, "
        "distill, photo or photo-large",
    )
    add(
        "--gray",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="a network for gray pictures, which takes those with colours channel by channel; "
        "without the flag as the pictures of --dataset are",
    )
    add("--channel", type=int, help="channels of the network (C-BSN and its like: 128, U-Nets: 32)")
    add("--block", type=int, help="dilated modules in a branch (C-BSN and its like: 9)")
    add("--attention", type=int, help="how many of them, the last ones, have it (ssbsn: 3)")
    add("--depth", type=int, help="how often a U-Net halves the picture (U-Nets: 3)")

    how = flags.add_argument_group("how")
    add = how.add_argument
    text = "side of the training patches (C-BSN and its like: 120, U-Nets: 64, photo: 128)"
    add("--patchsize", "--patch_size", type=int, help=text)
    add(
        "--batchsize",
        "--batch_size",
        type=int,
        help="patches in a step, over all devices and machines (cbsn, ssbsn: 4, apbsn: 8, U-Nets: "
        "16, photo: 32)",
    )
    add(
        "--maxiter",
        type=int,
        help="training steps (cbsn: 500000, U-Nets: 100000); with fewer, the ramp and the steps of "
        "the learning rate shrink in proportion",
    )
    text = "passes over the patches, instead; 0: as the recipe has it (apbsn, ssbsn: 20)"
    add("--epochs", type=int, default=0, help=text)
    text = "learning rate at the start (C-BSN and its like: 1e-4, U-Nets: 1e-3)"
    add("--lr", "--learning_rate", type=float, help=text)
    add(
        "--lr_steps",
        type=int,
        help="steps from one rate to the next (cbsn: to 1/2 every 100000; U-Nets: every 20000; "
        "apbsn: to 1/10 every 8 epochs; ssbsn: every 16)",
    )
    add(
        "--lmbda",
        type=float,
        help="weight of the invariance term (cbsn, dil-unet: 2), or of the perceptual term "
        "(n2n-resunet: 0)",
    )
    text = "steps to the full weight of the invariance term (cbsn: 200000, dil-unet: 20000)"
    add("--ramp_steps", type=int, help=text)
    text = "file of VGG-16's weights for the perceptual term; without it Keras fetches them"
    add("--perceptual_weights", type=Path, help=text)
    text = "side of the cells in which one pixel each is masked (n2v-unet, dil-unet: 4)"
    add("--mask_cell", type=int, help=text)
    add(
        "--stride_b",
        type=_stride,
        metavar="S",
        help="downsampling of the blind term: distance at which the noise is no longer correlated; "
        "auto: as the patches show it, and --stride_i with it (cbsn, apbsn, ssbsn: 5, dil-unet: 1)",
    )
    add("--stride_i", type=int, help="cells of the random subsampler (cbsn, dil-unet: 2)")
    text = "downsampling to denoise with; kept with the model (apbsn, ssbsn: 2, all others: 1)"
    add("--denoise_stride", type=int, help=text)
    add("--seed", type=int, default=0, help="of everything random")
    text = "decay of averaged weights; 0: none (photo, photo-large: 0.999, others: none)"
    add("--ema", type=float, help=text)
    add(
        "--precision",
        default="auto",
        help="float32, mixed_bfloat16 or mixed_float16; auto: bfloat16 where the hardware has it, "
        "float16 on GPUs of compute capability 7",
    )
    add(
        "--accumulate",
        type=int,
        default=0,
        help="take the gradients of a batch in this many parts, one after the other: the same "
        "steps in less memory; 0: on a CPU parts that need about 1 GiB, on a GPU one",
    )
    add(
        "--xla",
        action=argparse.BooleanOptionalAction,
        help="compile the step with XLA: a minute or two at the start, then faster on a GPU "
        "(default: on a GPU)",
    )
    add("--clip_norm", type=float, help="longest gradient of all weights together; 0: any")
    text = "the same bits on every run, also on GPUs, where that is slower"
    add("--deterministic", action="store_true", help=text)
    text = "stop after this many steps in a row whose loss or gradients are not finite"
    add("--max_bad_steps", type=int, default=20, help=text)
    text = "go on without damaged records, and count them, instead of stopping at the first"
    add("--skip_bad_records", action="store_true", help=text)
    add("--cpu_devices", type=int, default=1, help="logical devices to split the CPU into")
    add_gpu(how, several=True)

    report = flags.add_argument_group("what is kept and shown")
    add = report.add_argument
    add("--checkpoints", default="checkpoints", type=Path, help="folder of runs")
    add("--save_path", type=Path, help="folder of the run, instead of --checkpoints and --name")
    text = "go on where the run of that name stopped"
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help=text)
    add("--val_noisy", help="noisy pictures to validate on: a folder or a glob")
    add(
        "--val_clean",
        help="clean pictures of the same names; with --noise… they are enough: they get that "
        "noise, always the same",
    )
    add("--val_images", type=int, default=0, help="number of pairs to take; 0: all")
    for flag, kind, steps in (
        ("print", "log lines", 1000),
        ("val", "validations", 10_000),
        ("save", "checkpoints (there is one every 15 minutes, too)", 10_000),
    ):
        text = f"steps between {kind}; 0: {steps} in 500000, in proportion"
        add(f"--{flag}_every", type=int, default=0, help=text)
    return flags


def _stride(text: str) -> int | str:
    with contextlib.suppress(ValueError):
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"a stride is a whole number, or auto. Received: {text}")


def main(flags: argparse.Namespace) -> None:
    """Trains as the flags say."""
    from cbsn.devices import select_gpus
    from cbsn.errors import ConfigError, check_number
    from cbsn.noise.synthetic import Noise, parse_range
    from cbsn.training.options import RunOptions
    from cbsn.training.run import train

    changes = {}
    for flag, (setting, least) in _SETTINGS.items():
        changes[setting] = value = getattr(flags, flag)
        if value not in (None, "auto"):
            check_number(f"--{flag}", value, least, above=flag == "lr")
    names = {field.name for field in dataclasses.fields(RunOptions)}
    given = {key: value for key, value in vars(flags).items() if key in names}
    given["noise"] = Noise.parse(flags.noise, flags.noise_sigma, flags.noise_peak)
    if flags.own_noise is not None:
        accepted = "times, above 0, to 1e9, such as 1, or their range, such as 0.4-2.5"
        given["own_noise"] = parse_range("--own_noise", flags.own_noise, accepted, positive=True)
    if flags.save_path:
        if (flags.checkpoints, flags.name) != (Path("checkpoints"), "temp"):
            raise ConfigError(
                "--save_path says what --checkpoints and --name say: omit them. "
                f"Received: --save_path {flags.save_path}"
            )
        given.update(checkpoints=flags.save_path.parent, name=flags.save_path.name)
    options = RunOptions(**given)
    select_gpus(flags.gpu)
    train(flags.recipe, changes, options)
