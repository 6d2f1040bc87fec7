"""Where the results of picture files go, and whether those there are of the same settings."""

import collections
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cbsn.errors import ConfigError, ImageError
from cbsn.images.finding import SUFFIX_OF_FORMAT, find_images, format_of_suffix

# What `--format` takes. `auto` keeps the source's, but writes PNG where that is JPEG.
FORMATS = ("auto", *(format.lower() for format in SUFFIX_OF_FORMAT))

_LONGEST = 255  # bytes that Linux, macOS and Windows allow for a file name


def find_sources(image_paths: Iterable[str | Path]) -> list[Path]:
    """Returns the picture files of paths as for `find_images`, each file once, sorted.

    Raises:
        DataError: if one of the paths stands for no picture.
    """
    found: dict[tuple[str, str], Path] = {}
    for pattern in image_paths:
        for path in find_images(pattern):
            # Folders may be written in several ways. A file with several names is several pictures.
            found.setdefault((os.path.realpath(path.parent), path.name), path)
    return sorted(found.values())


def check_writable(folder: Path, received: str) -> None:
    """Raises ConfigError if a trial, of which nothing is left, shows that a folder is not writable.

    It may not exist yet. `received` is the flag that it comes from with its value, for the message.
    """
    there = folder
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        with tempfile.TemporaryDirectory(prefix=".cbsn-", dir=there):
            pass
    except OSError as error:
        what = "Nothing can be written to" if there == folder else "No folder can be made at"
        raise ConfigError(f"{what} {folder}: {error.strerror}. Received: {received}") from error


def plan_outputs(
    sources: list[Path], save_path: str | Path, format: str = "auto"
) -> dict[Path, Path]:
    """Decides where the result of each picture goes (source to target); none overwrites another.

    A result keeps its source's name, with the suffix of its format. Where two files of one
    folder would get the same name, those of another format keep their full one (`a.jpg.png`).
    Where files of several folders would, they go into sub-folders, by their paths below the
    folder that all sources have in common. A name that would be too long for a file ends in eight
    characters of its own checksum instead.

    Args:
        sources: files.
        save_path: folder for the results.
        format: one of `FORMATS`.

    Raises:
        ConfigError: if a result would overwrite a source, or two results each other all the
            same, or the format is unknown.
    """
    if format not in FORMATS:
        raise ConfigError(f"format is one of {', '.join(FORMATS)}. Received: {format!r}")
    save_path = Path(save_path)
    suffixes = {source: _suffix(source, format) for source in sources}
    names = {source: source.stem + suffix for source, suffix in suffixes.items()}
    in_folder = collections.Counter((source.parent, name) for source, name in names.items())
    for source, suffix in suffixes.items():
        if in_folder[source.parent, names[source]] > 1 and source.suffix != suffix:
            names[source] = source.name + suffix
        names[source] = _shortened(names[source], suffix)

    # Names that differ in case only are one on some file systems.
    anywhere = collections.Counter(name.casefold() for name in names.values())
    # Without "..", which would lead out of the folder of the results.
    folders = {source: os.path.normpath(source.parent.absolute()) for source in sources}
    common = os.path.commonpath(folders.values())
    targets = {}
    for source, name in names.items():
        below = os.path.relpath(folders[source], common)
        targets[source] = save_path / (below if anywhere[name.casefold()] > 1 else "") / name
    _check_overwriting(targets)
    return targets


def _suffix(source: Path, format: str) -> str:
    """The suffix of the result; the source's own where that says the right format."""
    own = None
    with contextlib.suppress(ImageError):
        own = format_of_suffix(source.suffix)
    if format == "auto":
        format = "PNG" if own in (None, "JPEG") else own
    return source.suffix if own == format.upper() else SUFFIX_OF_FORMAT[format.upper()]


def _shortened(name: str, suffix: str) -> str:
    """The name of a result, so short that a file can have it."""
    if len(os.fsencode(name)) <= _LONGEST:
        return name
    ending = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{suffix}"
    stem = name
    while len(os.fsencode(stem + ending)) > _LONGEST:
        stem = stem[:-1]
    return stem + ending


def _check_overwriting(targets: dict[Path, Path]) -> None:
    # Not Path.resolve, which fails at links that lead to themselves.
    by_file = {os.path.realpath(source): source for source in targets}
    writers: dict[str, Path] = {}
    for source, target in targets.items():
        file = os.path.realpath(target)
        if file in by_file:
            raise ConfigError(
                f"The result of {source} would overwrite {by_file[file]}. "
                "Give another folder for the results."
            )
        if file in writers:
            raise ConfigError(
                f"The results of {writers[file]} and {source} would both be {target}. "
                "Denoise them into two folders, or rename one."
            )
        writers[file] = source


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Says how the settings of earlier results, JSON values by name, differ from those of now.

    One is the `model`, its `path` and `sha256`: it may have moved.
    """
    changes = []
    if before["model"]["sha256"] != now["model"]["sha256"]:
        models = (each["model"] for each in (before, now))
        was, this = (f"{model['path']}, SHA-256 {model['sha256'][:12]}" for model in models)
        changes.append(f"model {was} (now {this})")
    for key in sorted({*before, *now} - {"model"}):
        if before.get(key) != now.get(key):
            changes.append(f"{key} {before.get(key)} (now {now.get(key)})")
    return changes
