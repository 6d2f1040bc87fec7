"""Denoising picture files with a model that is adapted to them first."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cbsn.adaptation.adapt import adapt, check_minutes
from cbsn.data.image_io import find_images
from cbsn.errors import ConfigError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.files import denoise_files
from cbsn.inference.outputs import plan_outputs


def adapt_and_denoise_files(
    model_path: str | Path,
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    minutes: float,
    adapt_save: str | Path | None = None,
    format: str = "auto",
    recipe_name: str | None = None,
    channel: int | None = None,
    num_block: int | None = None,
    precision: str = "auto",
    seed: int = 0,
    **options: Any,
) -> int:
    """Adapts a model to pictures, as `adapt` does, and denoises these, as `denoise_files` does.

    What is wrong with the flags, the model or the folders is said before the minutes begin.

    Args:
        model_path: the model to adapt.
        image_paths: the pictures: folders, globs or files.
        save_path: folder for the results.
        minutes: float > 0, how long to adapt.
        adapt_save: folder to keep the adapted model in, as `adapt` has it. Default None: it goes.
        format: as for `denoise_files`.
        recipe_name: as for `Denoiser.load`.
        channel: likewise.
        num_block: likewise.
        precision: likewise.
        seed: int ≥ 0, of the adaptation, and of R3.
        **options: of `Denoiser.load`.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        CbsnError: as `adapt` and `denoise_files` do.
    """
    check_minutes(minutes)
    image_paths = [*image_paths]
    save_path = Path(save_path).expanduser()
    bare = {"recipe_name": recipe_name, "channel": channel, "num_block": num_block}
    options = {"precision": precision, "seed": seed, **options}
    plan_outputs(sorted({p for each in image_paths for p in find_images(each)}), save_path, format)
    Denoiser.load(model_path, **bare, **options)
    try:
        save_path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"No folder can be made at {save_path}: {error.strerror}.") from error
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(adapt_save).expanduser() if adapt_save else Path(temporary) / "adapted"
        adapt(
            image_paths,
            folder,
            minutes,
            model_path,
            precision=precision,
            seed=seed,
            **bare,
        )
        return denoise_files(folder, image_paths, save_path, format=format, **options)
