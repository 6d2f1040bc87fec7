"""Denoises pictures, with the model that ships or another one. See `--help`."""

import argparse
import dataclasses
import warnings
from collections.abc import Iterable
from pathlib import Path

from cbsn.cli.flags import (
    MODEL,
    add_bare_weights,
    add_denoising,
    add_format,
    add_gpu,
    add_rounding,
    add_save_path,
    add_white,
    new_parser,
    run,
)
from cbsn.errors import LARGEST, CbsnWarning, ConfigError, TrainingError, check_number
from cbsn.files import expanded
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.folder import denoise_with
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.outputs import check_writable, find_sources, plan_outputs
from cbsn.models.loading import SHIPPED
from cbsn.orientations import NUM_ORIENTATIONS
from cbsn.precision import choose_precision
from cbsn.training.adaptation import adapted, check_folder, check_minutes, save
from cbsn.value_range import check_white


def adapt_and_denoise_files(
    model_path: str | Path,
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    minutes: float,
    adapt_save: str | Path | None = None,
    format: str = "auto",
    white: float | None = None,
    options: DenoiseOptions,
) -> int:
    """Adapts a model to pictures, as `adapt` does, and denoises these, as `denoise_files` does.

    What is wrong with the flags, the model or the folders is said before the minutes begin. If the
    adapted model cannot be kept all the same, the pictures are denoised with it first.

    Args:
        model_path: the model to adapt.
        image_paths: the pictures: folders, globs or files.
        save_path: folder for the results.
        minutes: float > 0, how long to adapt.
        adapt_save: folder to keep the adapted model in, as `adapt` has it. Default None: it goes.
        format: as for `denoise_files`.
        white: likewise.
        options: of `Denoiser.load`; the seed is that of the adaptation, too.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        TrainingError: if the adapted model cannot be kept.
        CbsnError: as `adapt` and `denoise_files` do.
    """
    check_minutes(minutes)
    check_number("--seed", options.seed, 0, LARGEST)
    check_white(white)
    image_paths = [*image_paths]
    save_path = expanded(save_path)
    folder = None if adapt_save is None else expanded(adapt_save)
    if folder:
        check_folder(folder)
    check_writable(save_path, f"--savepath {save_path}")
    plan_outputs(find_sources(image_paths), save_path, format)
    Denoiser.load(model_path, options)
    model = adapted(
        image_paths,
        minutes,
        model_path,
        precision=options.precision,
        seed=options.seed,
        white=white,
        recipe_name=options.recipe_name,
        channel=options.channel,
        num_block=options.num_block,
    )
    not_kept = None
    if folder:
        try:
            save(model, folder)
        except TrainingError as error:
            not_kept = error
            warnings.warn(f"{error} The pictures are denoised first.", CbsnWarning, stacklevel=2)

    def load() -> Denoiser:
        """As `Denoiser.load` would from a folder, which there may be none of."""
        precision, why = choose_precision(options.precision)
        network = model.recipe.build_network(precision)
        network.set_weights(model.network.get_weights())
        denoiser = Denoiser(model.recipe, network, options)
        denoiser.choices = f"Precision {precision}: {why}. {denoiser.choices}"
        return denoiser

    status = denoise_with(load, image_paths, save_path, format=format, white=white)
    if not_kept:
        raise not_kept
    return status


QUALITIES = {"fast": "photo", "default": "photo_large", "best": "photo_large"}
"""Which of the models that ship denoises; for "best" it is self-ensembled, too."""

FAST_SHARE = 0.3
"""Of the default's time, what "fast" takes: measured."""


def denoise(
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    model_path: str | Path | None = None,
    quality: str | None = None,
    adapt: float | None = None,
    adapt_save: str | Path | None = None,
    format: str = "auto",
    white: float | None = None,
    options: DenoiseOptions,
) -> int:
    """Denoises pictures, by default with the model that ships.

    Args:
        image_paths: folders, globs or files.
        save_path: folder for the results.
        model_path: as for `Denoiser.load`; None for a model that ships.
        quality: one of `QUALITIES`, which says what model that is. None for "default", or where
            there is a `model_path`.
        adapt: float > 0, minutes to adapt the model to the pictures first, as
            `cbsn.training.adaptation.adapted` does. None for not at all.
        adapt_save: folder to keep the adapted model in; None for not at all.
        format: as for `denoise_files`.
        white: as for `denoise_files`.
        options: as for `Denoiser.load`.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        ConfigError: if options do not go together.
        CbsnError: as `denoise_files` and `adapt` do.
    """
    if model_path is not None and quality is not None:
        raise ConfigError(
            "--quality chooses among the models that ship: give either that or --modelpath. "
            f"Received: --modelpath {model_path} --quality {quality}"
        )
    if adapt is None and adapt_save is not None:
        raise ConfigError(
            "--adapt_save keeps what --adapt MINUTES makes: give that, too. "
            f"Received: --adapt_save {adapt_save}"
        )
    if quality == "best":
        options = dataclasses.replace(options, self_ensemble=True)
    fast_share = None
    if model_path is None:
        model_path = SHIPPED / QUALITIES[quality or "default"]
        if quality != "fast":
            fast_share = FAST_SHARE / (NUM_ORIENTATIONS if options.self_ensemble else 1)
    if adapt is None:
        from cbsn.inference.folder import denoise_files

        return denoise_files(
            model_path,
            image_paths,
            save_path,
            format=format,
            white=white,
            fast_share=fast_share,
            options=options,
        )
    # It imports all that training needs.

    return adapt_and_denoise_files(
        model_path,
        image_paths,
        save_path,
        minutes=adapt,
        adapt_save=adapt_save,
        format=format,
        white=white,
        options=options,
    )


def main(flags: argparse.Namespace) -> int:
    """Denoises the pictures; returns 1 if some of them failed."""
    # TensorFlow comes with these; `--help` shall not wait for it.
    from cbsn.devices import select_gpus

    options = vars(flags)
    select_gpus(options.pop("gpu"), most=1)
    return denoise(options=DenoiseOptions.pop(options), **options)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags."""
    parser = new_parser(
        "Denoises pictures: with the model that ships, or with one that train.py has trained."
    )
    add = parser.add_argument
    unset = argparse.SUPPRESS
    add_gpu(parser)
    add(
        "--modelpath",
        dest="model_path",
        metavar="MODEL",
        help=f"{MODEL}; or a *.weights.h5 file; without the flag one that ships, by --quality",
    )
    add(
        "--quality",
        choices=("fast", "default", "best"),
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
    add(
        "--adapt_save",
        metavar="DIR",
        help="folder to keep the adapted model in, for --modelpath",
    )
    add(
        "--imagepath",
        dest="image_paths",
        metavar="GLOB",
        nargs="+",
        required=True,
        default=unset,
        help="pictures, folders or globs; in quotes, ** is any depth",
    )
    add_save_path(parser)
    add_bare_weights(parser)
    add_denoising(parser)
    add_rounding(parser)
    add_white(parser)
    add_format(parser)
    return parser


def command() -> None:
    """Runs the command."""
    run(main, make_parser())
