"""Denoising a folder or glob of picture files."""

import collections
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cbsn.data.image_io import (
    SUFFIX_OF_FORMAT,
    find_images,
    format_of_suffix,
    read_picture,
    write_picture,
)
from cbsn.errors import CbsnError, ConfigError, ImageError
from cbsn.inference.denoiser import Denoiser

FORMATS = ("auto", *(format.lower() for format in SUFFIX_OF_FORMAT))
"""What `--format` takes. `auto` keeps the source's, but writes PNG where that is JPEG."""


def denoise_files(
    model_path: str | Path,
    image_paths: Iterable[str | Path],
    save_path: str | Path,
    *,
    format: str = "auto",
    **options: Any,
) -> int:
    """Denoises every picture of folders or globs; a broken one does not stop the others.

    Shows a progress bar, and at the end names the pictures that failed, with the reasons.

    Args:
        model_path: as for `Denoiser.load`.
        image_paths: folders, globs or files, each as for `find_images`.
        save_path: folder for the results, made if it is not there; see `plan_outputs`.
        format: one of `FORMATS`.
        **options: of `Denoiser.load`.

    Returns:
        Exit status: 0, or 1 if a picture failed.

    Raises:
        DataError: if there is no picture.
        ConfigError: if a result would overwrite a source, or the results' folder cannot be
            made; nothing has been done then.
        ModelError: if the model cannot be loaded.
    """
    save_path = Path(save_path).expanduser()
    sources = sorted({path for pattern in image_paths for path in find_images(pattern)})
    outputs = plan_outputs(sources, save_path, format)
    denoiser = Denoiser.load(model_path, **options)
    try:
        save_path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"No folder can be made at {save_path}: {error.strerror}.") from error
    failures = []
    with tqdm(outputs.items(), unit="image") as progress:
        for source, target in progress:
            try:
                losses = _denoise_file(denoiser, source, target, progress)
            except CbsnError as error:
                failures.append(str(error))
            except (MemoryError, OSError) as error:
                reason = str(error) or "not enough memory; try a smaller --tile"
                failures.append(f"{source}: {reason}")
            except Exception as error:  # not foreseen: show where, and go on with the others
                progress.write(traceback.format_exc(), file=sys.stderr)
                failures.append(f"{source}: {type(error).__name__}: {error}")
            else:
                for loss in losses:
                    progress.write(f"{target}: {loss}.", file=sys.stderr)
    print(f"{len(outputs) - len(failures)} of {len(outputs)} pictures denoised, in {save_path}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def plan_outputs(
    sources: list[Path], save_path: str | Path, format: str = "auto"
) -> dict[Path, Path]:
    """Decides where the result of each picture goes, so that none overwrites another.

    A result keeps its source's name, with the suffix of its format. Where two files of one
    folder would get the same name, those of another format keep their full one (`a.jpg.png`).
    Where files of several folders would, they go into sub-folders, by their paths below the
    folder that all sources have in common.

    Args:
        sources: files, as from `find_images`.
        save_path: folder for the results.
        format: one of `FORMATS`.

    Returns:
        Source to target.

    Raises:
        ConfigError: if a result would overwrite a source, or two results each other all the
            same, or the format is unknown.
    """
    if format not in FORMATS:
        raise ConfigError(f"format is one of {', '.join(FORMATS)}. Received: {format!r}")
    save_path = Path(save_path)
    suffixes = {source: _suffix(source, format) for source in sources}
    names = {source: source.stem + suffixes[source] for source in sources}
    in_folder = collections.Counter((source.parent, names[source]) for source in sources)
    for source, suffix in suffixes.items():
        if in_folder[source.parent, names[source]] > 1 and source.suffix != suffix:
            names[source] = source.name + suffix

    # Names that differ in case only are one on some file systems.
    anywhere = collections.Counter(name.casefold() for name in names.values())
    common = os.path.commonpath([source.parent.absolute() for source in sources])
    targets = {}
    for source, name in names.items():
        below = source.parent.absolute().relative_to(common)
        targets[source] = save_path / (below if anywhere[name.casefold()] > 1 else "") / name
    _check_overwriting(targets)
    return targets


def _suffix(source: Path, format: str) -> str:
    """The suffix of the result; the source's own where that says the right format."""
    try:
        own = format_of_suffix(source.suffix)
    except ImageError:
        own = None
    if format == "auto":
        format = "PNG" if own in (None, "JPEG") else own
    return source.suffix if own == format.upper() else SUFFIX_OF_FORMAT[format.upper()]


def _check_overwriting(targets: dict[Path, Path]) -> None:
    by_file = {source.resolve(): source for source in targets}
    writers: dict[Path, Path] = {}
    for source, target in targets.items():
        file = target.resolve()
        if file in by_file:
            raise ConfigError(
                f"The result of {source} would overwrite {by_file[file]}. "
                "Give another folder as --savepath."
            )
        if file in writers:
            raise ConfigError(
                f"The results of {writers[file]} and {source} would both be {target}. "
                "Denoise them into two folders, or rename one."
            )
        writers[file] = source


def _denoise_file(denoiser: Denoiser, source: Path, target: Path, progress: tqdm) -> list[str]:
    """Denoises one file; returns what the target's format could not hold."""
    picture = read_picture(source)
    total = picture.pixels.shape[0] * picture.pixels.shape[1]
    done = 0

    def on_tile(pixels: int) -> None:
        nonlocal done
        done += pixels
        progress.set_postfix_str(f"{source.name} {done / total:.0%}")

    try:
        pixels = denoiser(picture.pixels, on_tile)
    except CbsnError as error:
        raise type(error)(f"{source}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_picture(target, picture.with_pixels(pixels))
