"""Denoises pictures, with a model that ships or another one. See `--help`."""

import argparse
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from cbsn.cli.flags import (
    MODEL,
    add_denoiser,
    add_files,
    add_gpu,
    add_model,
    add_out,
    add_repair,
    add_stacks,
)
from cbsn.cli.parser import Parser, add_input, new_parser
from cbsn.errors import CbsnWarning, ConfigError, TrainingError
from cbsn.files import expanded
from cbsn.inference.options import QUALITIES
from cbsn.orientations import NUM_ORIENTATIONS

_FAST_SHARE = 0.2
"""The share of the default's time that "fast" takes, as measured."""


def main(flags: argparse.Namespace) -> int:
    """Denoises the pictures; returns 1 if some of them failed.

    Mistakes in the flags, the model or the folders are reported before any work begins. If an
    adapted model still cannot be saved, the pictures are denoised with it before the error.
    """
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.devices import select_gpus
    from cbsn.images.stacks.opening import is_stack
    from cbsn.inference.denoiser import Denoiser
    from cbsn.inference.folder import denoise_files, plan_files
    from cbsn.inference.options import DenoiseOptions, Strength
    from cbsn.inference.outputs import default_folder, plan_uncertainty
    from cbsn.inference.stack_options import StackOptions, refuse_white
    from cbsn.inference.stacks import denoise_stacks
    from cbsn.inference.uncertainty import check_strength

    select_gpus(flags.gpu, most=1)
    options = DenoiseOptions.pop(vars(flags))
    stack_options = StackOptions.pop(vars(flags))
    models = _chosen_models(flags)
    minutes = flags.adapt
    if minutes is None and flags.adapt_save is not None:
        raise ConfigError(
            "--adapt_save keeps the model that --adapt MINUTES makes; give --adapt, too. "
            f"Received: --adapt_save {flags.adapt_save}"
        )
    if flags.quality == "best" or flags.uncertainty:
        options = dataclasses.replace(options, self_ensemble=True)
    if flags.uncertainty:
        check_strength(Strength(options.strength, options.color_strength))
    fast_share = None
    if flags.model_path is None and flags.quality != "fast" and minutes is None:
        fast_share = _FAST_SHARE / (NUM_ORIENTATIONS if options.self_ensemble else 1)
    keep = None if flags.adapt_save is None else expanded(flags.adapt_save)
    if minutes is not None:
        # This imports everything that training needs.
        from cbsn.training.adaptation import adapt, check_adaptation, save_adapted

        check_adaptation(minutes, options.seed, keep)
    out = flags.save_path
    if out is None:
        out = default_folder(flags.image_paths)
    files = {"white": flags.white, "jpeg_quality": flags.jpeg_quality}
    axes = stack_options.axes
    outputs = plan_files(
        flags.image_paths, out, format=flags.format, recursive=flags.recursive, axes=axes, **files
    )
    uncertainties = plan_uncertainty(outputs, axes) if flags.uncertainty else None
    stacks = {source: target for source, target in outputs.items() if is_stack(source, axes)}
    pictures = {source: target for source, target in outputs.items() if source not in stacks}
    if not stacks:
        stack_options.refuse_for_pictures()
    elif not pictures:
        refuse_white(flags.white)
    denoiser, *others = (Denoiser.load(model, options) for model in models)
    _check_models(models, pictures, minutes)
    not_kept = None
    if minutes is not None:
        how = {"white": flags.white, "stack_options": stack_options, "seed": options.seed}
        adapted = adapt(outputs, denoiser, minutes, **how)
        if keep is not None:
            try:
                save_adapted(adapted, keep)
            except TrainingError as error:
                not_kept = error
                text = f"{error} The pictures are denoised first."
                warnings.warn(text, CbsnWarning, stacklevel=2)
        denoiser = denoiser.with_model(adapted.recipe, adapted.network)
    status = 0
    if pictures:
        more = {"fast_share": fast_share, "uncertainties": uncertainties, **files}
        status = denoise_files(denoiser, pictures, out, **more)
    if stacks:
        status |= denoise_stacks([denoiser, *others], stacks, stack_options, uncertainties)
    if not_kept:
        raise not_kept
    return status


def _chosen_models(flags: argparse.Namespace) -> list[str]:
    """Returns the models that the flags say, one or, for the channels of stacks, several.

    Further ones may follow the first without `--model`, and then stand among the pictures.
    """
    from cbsn.models.loading import is_model

    if flags.model_path is None:
        return [chosen_model(flags)]
    given = flags.model_path
    flags.model_path = given[0]
    first = chosen_model(flags)
    further = [name for name in flags.image_paths if is_model(expanded(name))]
    flags.image_paths = [name for name in flags.image_paths if name not in further]
    if further and not flags.image_paths:
        raise ConfigError(
            "There are no pictures: give a folder, a glob in quotes, or files. "
            f"Received: the models {' '.join([*given, *further])}"
        )
    return [first, *given[1:], *further]


def _check_models(
    models: Sequence[str], pictures: Mapping[Path, Path], minutes: float | None
) -> None:
    """Raises a `ConfigError` for several models where there must be one."""
    if pictures and len(models) > 1:
        raise ConfigError(
            "Several models are for the channels of stacks, and there are pictures: give one. "
            f"Received: --model {' '.join(models)}"
        )
    if len(models) > 1 and minutes is not None:
        raise ConfigError(
            "--adapt adapts one model: select a channel with --select c=0, and give one --model. "
            f"Received: --model {' '.join(models)}"
        )


def chosen_model(flags: argparse.Namespace) -> str:
    """Returns the model that `--model`, `--quality` or neither of them says."""
    if flags.model_path is None:
        return QUALITIES[flags.quality or "default"]
    if flags.quality is not None:
        raise ConfigError(
            "--quality chooses among the shipped models: omit it, or --model. "
            f"Received: --model {flags.model_path} --quality {flags.quality}"
        )
    return flags.model_path


def add_quality(parser: argparse._ActionsContainer, *, best: bool = True) -> None:
    """Adds `--model`, which defaults to a shipped model, and `--quality`, which chooses among them.

    `best` says whether the command can denoise by self-ensemble.
    """
    # Bare weights need flags for what network they are of.
    bare = "; or a *.weights.h5 file; several: one for each channel of a stack" if best else ""
    several = {"action": "append"} if best else {}
    add_model(parser, f"{MODEL}{bare} (default: by --quality)", **several)
    what = "fast: the small shipped model, five times as fast; default: the large one"
    if best:
        what += "; best: the large one in eight orientations, which takes eight times as long"
    choices = [name for name in QUALITIES if best or name != "best"]
    parser.add_argument("--quality", choices=choices, help=what)


def make_parser() -> Parser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Denoises pictures, with a model that ships or with one of your own. Results are PNG for "
        "JPEG pictures; others keep their format.",
        common=(
            *("image_paths", "save_path", "model_path", "quality", "strength", "adapt"),
            *("recursive", "format", "gpu"),
        ),
        examples="""
  cbsn denoise photos                                 # a folder; results in denoised
  cbsn denoise 'photos/*.jpg' --out clean --strength 0.7
  cbsn denoise photos --quality best                  # slower, a little better
  cbsn denoise photos --adapt 10                      # learn from these pictures first
  cbsn denoise cells.tif --model checkpoints/cells    # a microscope's stack
""",
    )
    add = parser.add_argument
    what = "folders, files, or globs in quotes (** is any depth), of pictures and of stacks"
    add_input(parser, "image_paths", what, "--imagepath")
    add_out(parser)
    add_quality(parser)
    add(
        "--adapt",
        type=float,
        metavar="MINUTES",
        help="first train the model on these pictures for this many minutes; it stays as it is "
        "where that does not help, or where no noise is seen",
    )
    text = "folder to keep the adapted model in, for --model"
    add("--adapt_save", metavar="DIR", help=text)
    sure = (
        "also write, as NAME.uncertainty.tif next to each result, how far each of its pixels is "
        "likely to be from the truth (standard deviation, in the file's units); results are those "
        "of --self_ensemble: eight times as long, and a while for the calibration"
    )
    add("--uncertainty", action="store_true", help=sure)
    add_denoiser(parser)
    add_files(parser)
    add_stacks(parser)
    add_repair(parser)
    add_gpu(parser)
    return parser
