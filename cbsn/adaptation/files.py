"""Denoising picture files with a model that is adapted to them first."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cbsn.adaptation.adapt import adapted, check_folder, check_minutes, save
from cbsn.errors import LARGEST, CbsnWarning, TrainingError, check_number
from cbsn.files import expanded
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import choose_engine
from cbsn.inference.files import denoise_with
from cbsn.inference.outputs import check_writable, find_sources, plan_outputs
from cbsn.precision import choose_precision
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
    recipe_name: str | None = None,
    channel: int | None = None,
    num_block: int | None = None,
    precision: str = "auto",
    engine: str = "auto",
    seed: int = 0,
    **options: Any,
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
        recipe_name: as for `Denoiser.load`.
        channel: likewise.
        num_block: likewise.
        precision: likewise.
        engine: likewise.
        seed: int ≥ 0, of the adaptation, and of R3.
        **options: of `Denoiser.load`.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        TrainingError: if the adapted model cannot be kept.
        CbsnError: as `adapt` and `denoise_files` do.
    """
    check_minutes(minutes)
    check_number("--seed", seed, 0, LARGEST)
    check_white(white)
    image_paths = [*image_paths]
    save_path = expanded(save_path)
    folder = None if adapt_save is None else expanded(adapt_save)
    if folder:
        check_folder(folder)
    check_writable(save_path, f"--savepath {save_path}")
    plan_outputs(find_sources(image_paths), save_path, format)
    bare = {"recipe_name": recipe_name, "channel": channel, "num_block": num_block}
    options = {"seed": seed, **options}
    Denoiser.load(model_path, precision=precision, engine=engine, **bare, **options)
    model = adapted(
        image_paths, minutes, model_path, precision=precision, seed=seed, white=white, **bare
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
        policy, why_precision = choose_precision(precision)
        network = model.recipe.build_network(policy)
        network.set_weights(model.network.get_weights())
        chosen, why_engine = choose_engine(engine, policy, has_loop=network.has_loop)
        denoiser = Denoiser(model.recipe, network, engine=chosen, **options)
        denoiser.choices = f"Precision {policy}: {why_precision}. Engine {chosen}: {why_engine}."
        return denoiser

    status = denoise_with(load, image_paths, save_path, format=format, white=white)
    if not_kept:
        raise not_kept
    return status
