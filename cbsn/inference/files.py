"""Denoising a folder or glob of picture files with a model."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cbsn.data.picture import Picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.duration import say_duration, seconds_per_pixel
from cbsn.inference.each_picture import Denoise, denoise_each
from cbsn.inference.outputs import find_sources
from cbsn.value_range import value_range


def denoise_files(
    model_path: str | Path,
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    format: str = "auto",
    white: float | None = None,
    fast_share: float | None = None,
    **options: Any,
) -> int:
    """Denoises every picture of folders or globs, as `denoise_each` does, with one model.

    Says first what it computes with.

    Args:
        model_path: as for `Denoiser.load`.
        image_paths: folders, globs or files, each as for `find_images`.
        save_path: folder for the results, made if it is not there; see
            `cbsn.inference.outputs.plan_outputs`.
        format: one of `cbsn.inference.outputs.FORMATS`.
        white: float > 0, the value of white in the files, as for `read_picture`. Default None.
        fast_share: as for `cbsn.inference.duration.say_duration`. Default None.
        **options: of `Denoiser.load`.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        DataError: if there is no picture.
        ConfigError: if a result would overwrite a source, the results' folder cannot be made or
            written to, or `white` is none; nothing has been done then.
        ModelError: if the model cannot be loaded.
    """
    return denoise_with(
        lambda: Denoiser.load(model_path, **options),
        image_paths,
        save_path,
        format=format,
        white=white,
        fast_share=fast_share,
    )


def denoise_with(
    load: Callable[[], Denoiser],
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    fast_share: float | None = None,
    **options: Any,
) -> int:
    """Denoises the pictures of folders or globs, as `denoise_files` does, with any denoiser.

    Args:
        load: returns it.
        image_paths: as for `denoise_files`.
        save_path: as for `denoise_files`.
        fast_share: as for `denoise_files`.
        **options: `format` and `white`, as for `denoise_files`.

    Returns:
        As `denoise_files`.

    Raises:
        CbsnError: as `denoise_files` and `load` do.
    """
    image_paths = [*image_paths]

    def start() -> Denoise:
        denoiser = load()
        say_duration(denoiser, find_sources(image_paths), fast_share, measure=_measure)
        print(denoiser.choices, flush=True)

        def denoise(picture: Picture, on_tile: Callable[[float], None]) -> Picture:
            try:
                white = value_range(picture.pixels.dtype)
                pixels = denoiser(picture.pixels, on_tile, in_place=True, white=white)
                return picture.with_pixels(pixels)
            except MemoryError as error:
                reason = str(error) or "not enough memory"
                raise MemoryError(f"{reason}; try a smaller --tile, or another device") from error

        return denoise

    return denoise_each(image_paths, save_path, start, name_losses=True, **options)


def _measure(denoiser: Denoiser) -> float:
    """As `seconds_per_pixel`, but on a GPU without pictures of sizes that nobody needs."""
    return denoiser.seconds_per_pixel() or seconds_per_pixel(denoiser)
