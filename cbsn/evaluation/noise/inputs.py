"""The pictures that the command is given."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cbsn.data.image_io import find_images, read_picture
from cbsn.errors import CbsnError, DataError, check_number
from cbsn.evaluation.named_pictures import spread
from cbsn.value_range import value_range


def find_pictures(patterns: Iterable[str], images: int = 0) -> list[Path]:
    """Returns the files that folders, globs and names stand for, each once.

    Args:
        patterns: as for `find_images`.
        images: int, take that many, spread evenly over all; 0 for all.

    Raises:
        ConfigError: if `images` is below 0, or more than there can be.
        DataError: if a pattern finds nothing.
    """
    check_number("--images", images, 0)
    paths = [*dict.fromkeys(path for pattern in patterns for path in find_images(pattern))]
    return spread(paths, images)


def read_pictures(paths: Sequence[Path], white: float | None = None) -> Iterator[np.ndarray]:
    """Yields the pictures [H, W, 1] or [H, W, 3] one by one.

    Args:
        paths: their files.
        white: as for `read_picture`.

    Raises:
        ImageError: if one cannot be read.
    """
    for path in paths:
        yield read_picture(path, white=white).color


def read_pairs(
    paths: Sequence[Path], folder: str, white: float | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields each picture with the one of its name, but for the suffix, in a folder.

    Args:
        paths: the pictures.
        folder: of the others, which are taken in the range of values of the first.
        white: as for `read_picture`.

    Raises:
        DataError: if one is not there, or of another size or depth.
        ImageError: if one cannot be read.
    """
    denoised = {path.stem: path for path in find_images(folder)}
    for path in paths:
        if path.stem not in denoised:
            raise DataError(
                f"Every picture needs a denoised one of its name. --denoised {folder} has none "
                f"for {path}."
            )
    for path in paths:
        first, second = (read_picture(each, white=white) for each in (path, denoised[path.stem]))
        if first.pixels.dtype == second.pixels.dtype:
            second.range_in_file.change(second.color, first.range_in_file)
        yield first.color, second.color


def denoise_pictures(
    paths: Sequence[Path], model_path: str, white: float | None = None, **options: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields each picture with what a model makes of it.

    Args:
        paths: the pictures.
        model_path: as for `Denoiser.load`.
        white: as for `read_picture`.
        **options: likewise.

    Raises:
        ModelError: if the model cannot be loaded.
        ImageError: if a picture cannot be read or denoised.
    """
    # TensorFlow comes with it, and nothing else here needs that.
    from cbsn.inference.denoiser import Denoiser

    denoise = Denoiser.load(model_path, **options)
    print(f"{denoise.recipe.name} ({model_path}): {denoise.choices}", flush=True)
    for path, picture in zip(paths, read_pictures(paths, white), strict=True):
        try:
            yield picture, denoise(picture, white=value_range(picture.dtype))
        except CbsnError as error:
            raise type(error)(f"{path}: {error}") from error
