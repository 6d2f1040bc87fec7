"""Where the results of picture files go, and whether earlier ones have the same settings."""

import collections
import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

from cbsn.errors import ConfigError, ImageError
from cbsn.files import expanded, shortened, with_checksum
from cbsn.images.finding import (
    RESULTS,
    SUFFIX_OF_FORMAT,
    find_images,
    format_of_suffix,
    literal_part,
)
from cbsn.images.stacks.ome_sets import without_repeats
from cbsn.images.stacks.opening import is_stack, suffix_of, target_suffix

# Values of `--format`. `same` keeps the source's, but writes PNG for those that are only read, and
# for unknown suffixes; `auto` writes PNG for JPEG, too.
FORMATS = ("auto", "same", *(format.lower() for format in SUFFIX_OF_FORMAT), "zarr")


def find_sources(
    image_paths: Iterable[str | Path],
    recursive: bool = False,
    *,
    outside: str | Path | None = None,
) -> list[Path]:
    """Returns the picture files that paths stand for, each once, sorted.

    The arguments are those of `find_images`, for several paths.

    Raises:
        DataError: if there is no picture at one of the paths.
    """
    found: dict[tuple[str, str], Path] = {}
    for pattern in image_paths:
        for path in find_images(pattern, recursive, outside=outside):
            # A folder can be written in several ways. A file with several names counts each time.
            found.setdefault((os.path.realpath(path.parent), path.name), path)
    return without_repeats(sorted(found.values()))


def default_folder(image_paths: Iterable[str | Path]) -> Path:
    """Returns the folder for the results where none is given: `denoised`, next to the pictures.

    It lies next to a folder or file, in the last folder of a glob that has no wildcard, and in the
    folder that several of these share. For the current folder, one above it, the home folder or a
    whole drive, it lies inside.

    Args:
        image_paths: folders, globs or files, each as for `find_images`; they need not exist.

    Raises:
        ConfigError: if they lie on several drives.
    """
    places = set()
    for path in map(expanded, image_paths):
        place = path.parent
        with contextlib.suppress(OSError):  # finding the pictures reports it
            place = literal_part(path)
            if place.is_file() or (place == path and not _is_a_whole(place)):
                place = place.parent
        places.add(place)
    return (places.pop() if len(places) == 1 else _shared(places)) / RESULTS


def top_folder(image_paths: Iterable[str | Path]) -> Path:
    """Returns the folder whose tree the results keep: the one given, or the one that all share.

    The folder of a file is the one that holds it; that of a glob is its part without wildcards.
    """
    places = (literal_part(expanded(path)) for path in image_paths)
    return _shared(place.parent if place.is_file() else place for place in places)


def _is_a_whole(folder: Path) -> bool:
    """Returns whether something next to a folder would not be expected, or not be allowed."""
    home = os.path.expanduser("~")  # noqa: PTH111
    return folder.name in ("", "..") or os.path.ismount(folder) or os.path.abspath(folder) == home  # noqa: PTH100


def _shared(folders: Iterable[str | Path]) -> Path:
    """Returns the innermost folder that holds all folders."""
    try:
        # Without "..", which would lead out of the folder for the results.
        return Path(os.path.commonpath([os.path.abspath(each) for each in folders]))  # noqa: PTH100
    except ValueError as error:
        raise ConfigError(
            "The pictures lie on several drives, which share no folder. Give those of one drive at "
            "a time, or --out."
        ) from error


def check_writable(folder: Path, received: str) -> None:
    """Raises ConfigError if a trial, which leaves nothing behind, cannot write to a folder.

    The folder need not exist yet. `received` is its flag and value, for the message.
    """
    there = folder
    try:
        while not (there.is_symlink() or there.exists()) and there != there.parent:
            there = there.parent
        with tempfile.TemporaryDirectory(prefix=".cbsn-", dir=there):
            pass
    except OSError as error:
        what = "written to" if there == folder else "created"
        reason = error.strerror
        # Unlike those of Path, these do not raise the same error again.
        if os.path.islink(there) and not os.path.exists(there):  # noqa: PTH110, PTH114
            reason = f"{there} is a link that leads nowhere"
        raise ConfigError(
            f"The folder {folder} cannot be {what}: {reason}. Use another one. Received: {received}"
        ) from error


def plan_outputs(
    sources: list[Path],
    save_path: str | Path,
    format: str = "auto",
    *,
    top: Path | None = None,
    axes: str | None = None,
) -> dict[Path, Path]:
    """Maps each source to the target of its result, so that no result overwrites another.

    A result keeps its source's name, with the suffix of its format. If two files of one folder
    would get the same name, those in another format keep their full name (`a.jpg.png`). If files
    of several folders would, their results go into sub-folders, named as their paths below the
    folder that all sources share. With `top`, all results go into sub-folders, named as the paths
    below it. Names that differ only in case or in the codes of accents count as the same, as they
    are on some file systems; where two files of one folder still have such names, the second
    ends in eight characters of its checksum before the suffix. So does a name too long for a file,
    which is cut.

    Args:
        sources: picture files.
        save_path: folder for the results.
        format: one of `FORMATS`.
        top: a folder that holds all sources, whose tree of folders the results keep. Default None.
        axes: of TIFF files, see `is_stack`. Default None.

    Raises:
        ConfigError: if a result would overwrite a source or, despite these rules, another result,
            or any file in a folder that holds sources; if the format is unknown, or if sub-folders
            are needed for sources on several drives.
    """
    if format not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}. Received: {format!r}")
    save_path = Path(save_path)
    suffixes, names = {}, {}
    stacks = {source for source in sources if is_stack(source, axes)}
    if format == "zarr" and sources and not stacks:
        raise ConfigError(
            f"--format zarr is for stacks, and {sources[0]} is a picture. Received: --format zarr"
        )
    for source in sources:
        if source in stacks:
            suffixes[source] = target_suffix(source, format)
            stem = source.name.removesuffix(suffix_of(source))
        else:
            suffixes[source], stem = _suffix(source, format), source.stem
        names[source] = stem + suffixes[source]
    in_folder = collections.Counter((each.parent, _folded(name)) for each, name in names.items())
    for source, suffix in suffixes.items():
        same = in_folder[source.parent, _folded(names[source])]
        if same > 1 and not source.name.endswith(suffix):
            names[source] = source.name + suffix
        names[source] = shortened(names[source], suffix)
    spellings: dict[tuple[Path, str], str] = {}
    for source, suffix in suffixes.items():
        name = names[source]
        if name != spellings.setdefault((source.parent, _folded(name)), name):
            names[source] = with_checksum(name, suffix)

    anywhere = collections.Counter(map(_folded, names.values()))
    nested = {source for source in sources if top or anywhere[_folded(names[source])] > 1}
    if nested:
        common = _shared([*(source.parent for source in sources), *([top] if top else [])])
    targets = {}
    for source, name in names.items():
        below = os.path.relpath(source.parent, common) if source in nested else ""
        targets[source] = save_path / below / name
    _check_overwriting(targets)
    _check_new(targets.values(), targets, f"--out {save_path}")
    return targets


def plan_uncertainty(outputs: Mapping[Path, Path], axes: str | None = None) -> dict[Path, Path]:
    """Maps each source to the file that says how far its result may be from the truth.

    It lies next to the result: `a.uncertainty.tif` for `a.png`, and `b.uncertainty.ome.zarr` for
    the stack `b.ome.zarr`. Where two results would share one, it keeps the result's full name
    (`a.png.uncertainty.tif`).

    Args:
        outputs: source to target, from `plan_outputs`.
        axes: of TIFF files, see `is_stack`. Default None.

    Raises:
        ConfigError: if one would overwrite a source, a result or another one, or any file in a
            folder that holds sources.
    """
    names = {}
    for source, target in outputs.items():
        suffix = suffix_of(target) if is_stack(source, axes) else SUFFIX_OF_FORMAT["TIFF"]
        stem = target.name.removesuffix(suffix_of(target))
        names[source] = stem, f".uncertainty{suffix}"

    def place(source: Path, stem: str, suffix: str) -> tuple[Path, str]:
        return outputs[source].parent, _folded(stem + suffix)

    count = collections.Counter(place(source, *name) for source, name in names.items())
    planned: dict[Path, Path] = {}
    for source, (stem, suffix) in names.items():
        if count[place(source, stem, suffix)] > 1:
            stem = outputs[source].name
        planned[source] = outputs[source].with_name(shortened(stem + suffix, suffix))
    files = {_file(path): path for path in (*outputs, *outputs.values())}
    for source, path in planned.items():
        file = _file(path)
        if file in files:
            raise ConfigError(
                f"{path}, for the uncertainty of {source}, would overwrite {files[file]}. Give "
                "another --out, or rename one. Received: --uncertainty"
            )
        files[file] = path
    _check_new(planned.values(), outputs, "--uncertainty")
    return planned


def _suffix(source: Path, format: str) -> str:
    """Returns the suffix of a picture's result, the source's own if that fits the format."""
    format = "auto" if format == "zarr" else format  # which is for the stacks next to it
    own = None
    with contextlib.suppress(ImageError):
        own = format_of_suffix(source.suffix)
    if format in ("auto", "same"):
        format = "PNG" if own is None or (own, format) == ("JPEG", "auto") else own
    return source.suffix if own == format.upper() else SUFFIX_OF_FORMAT[format.upper()]


def _folded(name: str) -> str:
    """Returns what is the same for names that are the same on some file system.

    There, names may differ in case or in accents' codes.
    """
    return normalize("NFC", name).casefold()


def _file(path: Path) -> tuple[str, str]:
    """Returns the folder and the folded name of what a path leads to."""
    # Not Path.resolve, which fails on links that lead to themselves.
    folder, name = os.path.split(os.path.realpath(path))
    return folder, _folded(name)


def _check_overwriting(targets: dict[Path, Path]) -> None:
    by_file = {_file(source): source for source in targets}
    writers: dict[tuple[str, str], Path] = {}
    for source, target in targets.items():
        file = _file(target)
        if file in by_file:
            raise ConfigError(
                f"The result of {source} would overwrite {by_file[file]}. Give another --out."
            )
        if file in writers:
            raise ConfigError(
                f"The results of {writers[file]} and {source} would both be {target}. "
                "Denoise them into two folders, or rename one."
            )
        writers[file] = source


def _check_new(targets: Iterable[Path], sources: Iterable[Path], received: str) -> None:
    """Raises a ConfigError if a target is already there, next to a source.

    In a folder of results alone, it would be an earlier result, which is replaced. Next to the
    sources, nobody knows whose it is.
    """
    sources = [*sources]
    folders = {os.path.realpath(source.parent) for source in sources}
    folders |= {os.path.dirname(os.path.realpath(source)) for source in sources}  # noqa: PTH120
    there = [
        target
        for target in targets
        if os.path.lexists(target) and os.path.realpath(target.parent) in folders
    ]
    if there:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise ConfigError(
            f"{there[0]}{more} is there already, and next to the pictures to denoise no file is "
            "replaced. Give another --out, or remove or rename what is there. "
            f"Received: {received}"
        )


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lists how the settings of earlier results, JSON values by name, differ from those now.

    Of the `model`, with `path` and `sha256`, only the latter counts, as a model may have moved.
    """
    changes = []
    if before["model"]["sha256"] != now["model"]["sha256"]:
        models = (each["model"] for each in (before, now))
        was, this = (f"{model['path']}, SHA-256 {model['sha256'][:12]}" for model in models)
        changes.append(f"model {was} (now {this})")
    for key in sorted({*before, *now} - {"model"}):
        if before.get(key) != now.get(key):
            was, this = (each.get(key, "not given") for each in (before, now))
            changes.append(f"{key} {was} (now {this})")
    return changes
