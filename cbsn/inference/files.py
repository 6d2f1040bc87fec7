"""Denoising a folder or glob of picture files."""

import collections
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cbsn.data.image_io import (
    SUFFIX_OF_FORMAT,
    find_images,
    format_of_suffix,
    pixel_bytes,
    read_picture,
    write_picture,
)
from cbsn.data.picture import Picture
from cbsn.errors import CbsnError, ConfigError, ImageError
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.overlap import overlap

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

    Says what it computes with, shows a progress bar, and at the end names the pictures that failed,
    with the reasons. While one picture is denoised, the next is read and the previous written, as
    `overlap` says.

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
    print(denoiser.choices, flush=True)
    failures = []
    with tqdm(total=len(outputs), unit="image") as progress:

        def compute(source: Path, picture: Picture, pause: Callable[[], None]) -> Picture:
            return _denoise(denoiser, source, picture, progress, pause)

        def write(source: Path, picture: Picture, cancelled: Callable[[], bool]) -> list[str]:
            target = outputs[source]
            target.parent.mkdir(parents=True, exist_ok=True)
            return write_picture(target, picture, cancelled=cancelled)

        def report(source: Path, losses: list[str] | None, error: Exception | None) -> None:
            if error is not None:
                failures.append(_describe(source, error, progress))
            for loss in losses or ():
                progress.write(f"{outputs[source]}: {loss}.", file=sys.stderr)
            progress.update()

        overlap(
            outputs,
            size=pixel_bytes,
            read=read_picture,
            compute=compute,
            write=write,
            report=report,
        )
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


def _denoise(
    denoiser: Denoiser, source: Path, picture: Picture, progress: tqdm, pause: Callable[[], None]
) -> Picture:
    """Denoises one picture, whose pixels are overwritten: there may be no room for two."""
    done = 0.0

    def on_tile(share: float) -> None:
        nonlocal done
        done += share
        progress.set_postfix_str(f"{source.name} {done:.0%}")
        pause()

    try:
        return picture.with_pixels(denoiser(picture.pixels, on_tile, in_place=True))
    except CbsnError as error:
        raise type(error)(f"{source}: {error}") from error


def _describe(source: Path, error: Exception, progress: tqdm) -> str:
    """Why a picture failed, in a line; of what was not foreseen, the traceback is shown."""
    if isinstance(error, CbsnError):
        return str(error)
    if isinstance(error, MemoryError | OSError):
        return f"{source}: {str(error) or 'not enough memory; try a smaller --tile'}"
    progress.write("".join(traceback.format_exception(error)), file=sys.stderr)
    return f"{source}: {type(error).__name__}: {error}"
