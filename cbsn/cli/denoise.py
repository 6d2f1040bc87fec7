"""Denoises pictures, with a model that ships or another one. See `--help`."""

import argparse
import dataclasses
import warnings

from cbsn.cli.flags import MODEL, add_denoiser, add_files, add_gpu, add_save_path, new_parser
from cbsn.errors import CbsnWarning, ConfigError, TrainingError
from cbsn.files import expanded
from cbsn.orientations import NUM_ORIENTATIONS

_QUALITIES = {"fast": "photo", "default": "photo_large", "best": "photo_large"}
"""The shipped model by `--quality`; "best" also uses the self-ensemble."""

_FAST_SHARE = 0.3
"""The share of the default's time that "fast" takes, as measured."""


def main(flags: argparse.Namespace) -> int:
    """Denoises the pictures; returns 1 if some of them failed.

    Mistakes in the flags, the model or the folders are reported before any work begins. If an
    adapted model still cannot be saved, the pictures are denoised with it before the error.
    """
    # These import TensorFlow; `--help` need not wait for it.
    from cbsn.devices import select_gpus
    from cbsn.inference.denoiser import Denoiser
    from cbsn.inference.folder import denoise_files, plan_files
    from cbsn.inference.options import DenoiseOptions
    from cbsn.models.loading import SHIPPED

    select_gpus(flags.gpu, most=1)
    options = DenoiseOptions.pop(vars(flags))
    model, quality, minutes = flags.model_path, flags.quality, flags.adapt
    if model is not None and quality is not None:
        raise ConfigError(
            "--quality chooses among the models that ship: give either that or --modelpath. "
            f"Received: --modelpath {model} --quality {quality}"
        )
    if minutes is None and flags.adapt_save is not None:
        raise ConfigError(
            "--adapt_save keeps what --adapt MINUTES makes: give that, too. "
            f"Received: --adapt_save {flags.adapt_save}"
        )
    if quality == "best":
        options = dataclasses.replace(options, self_ensemble=True)
    fast_share = None
    if model is None:
        model = SHIPPED / _QUALITIES[quality or "default"]
        if quality != "fast" and minutes is None:
            fast_share = _FAST_SHARE / (NUM_ORIENTATIONS if options.self_ensemble else 1)
    keep = None if flags.adapt_save is None else expanded(flags.adapt_save)
    if minutes is not None:
        # This imports everything that training needs.
        from cbsn.training.adaptation import adapt, check_adaptation, save_adapted

        check_adaptation(minutes, options.seed, keep)
    outputs = plan_files(flags.image_paths, flags.save_path, format=flags.format, white=flags.white)
    denoiser = Denoiser.load(model, options)
    not_kept = None
    if minutes is not None:
        adapted = adapt(outputs, denoiser, minutes, white=flags.white, seed=options.seed)
        if keep is not None:
            try:
                save_adapted(adapted, keep)
            except TrainingError as error:
                not_kept = error
                text = f"{error} The pictures are denoised first."
                warnings.warn(text, CbsnWarning, stacklevel=2)
        choices = denoiser.choices
        denoiser = Denoiser(adapted.recipe, adapted.network, options)
        denoiser.choices = choices
    status = denoise_files(
        denoiser, outputs, flags.save_path, white=flags.white, fast_share=fast_share
    )
    if not_kept:
        raise not_kept
    return status


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Denoises pictures: with the model that ships, or with one that train.py has trained."
    )
    add = parser.add_argument
    add_gpu(parser)
    text = f"{MODEL}; or a *.weights.h5 file; without the flag one that ships, by --quality"
    add("--modelpath", dest="model_path", metavar="MODEL", help=text)
    add(
        "--quality",
        choices=[*_QUALITIES],
        help="without --modelpath: fast is the small network that ships (photo), three times as "
        "fast as the default, the large one (photo_large); best is the large one on each picture "
        "in its eight orientations, eight times as long",
    )
    add(
        "--adapt",
        type=float,
        metavar="MINUTES",
        help="train the model on these very pictures first, for that many minutes; its weights "
        "stay where that makes it no better by its own loss, or where no noise is seen",
    )
    text = "folder to keep the adapted model in, for --modelpath"
    add("--adapt_save", metavar="DIR", help=text)
    add(
        "--imagepath",
        dest="image_paths",
        metavar="GLOB",
        nargs="+",
        required=True,
        default=argparse.SUPPRESS,
        help="pictures, folders or globs; in quotes, ** is any depth",
    )
    add_save_path(parser)
    add_denoiser(parser)
    add_files(parser)
    return parser
