"""Where the results of picture files go."""

import collections
import os
from pathlib import Path

from cbsn.data.image_io import SUFFIX_OF_FORMAT, format_of_suffix
from cbsn.errors import ConfigError, ImageError

FORMATS = ("auto", *(format.lower() for format in SUFFIX_OF_FORMAT))
"""What `--format` takes. `auto` keeps the source's, but writes PNG where that is JPEG."""


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
