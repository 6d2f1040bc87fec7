"""Turns raw pictures into a data set of patches, and reports on it."""

import collections
import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cbsn.data.manifest import MANIFEST_NAME, MOST_DEPTH, STACK, Failure, Manifest, Source
from cbsn.data.stack_records import describe_stacks
from cbsn.errors import ConfigError, DataError, check_number, in_one_line
from cbsn.files import expanded
from cbsn.noise.repair import parse_repairs
from cbsn.value_range import check_white
from data_prep.convert import alone, convert_rest, is_of, keep_done
from data_prep.cutting import is_too_small
from data_prep.sources import RawData, find_raw, write_pairs
from data_prep.stack_sources import PATCH_SIZE as STACK_PATCH_SIZE
from data_prep.stack_sources import (
    RawStacks,
    ReadingOptions,
    check_depths,
    find_stacks,
    with_scaling,
)

DATASET_FOLDER = Path("dataset")  # holds raw data sets and prepared ones
PATCH_SIZE, STRIDE = 256, 200  # of pictures, by default
_MOST_WORKERS = 1024
_LONGEST_NAME = 200  # bytes of a picture folder's name that are used to name its data set
_REPORTED_SHARE = 0.005  # smallest share of pixels outside all patches that is reported
_REPORTED_RANGES = 8


@dataclasses.dataclass(frozen=True)
class Report:
    """What to tell the user at the end; `str` gives the whole text."""

    out: Path  # the folder that was written to
    summary: str  # one line
    failed: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()  # further information, a line each

    def __str__(self) -> str:
        lines = [in_one_line(f"  {each.path}: {each.reason}") for each in self.failed]
        failed = ["Not converted:", *lines] if lines else []
        return "\n".join([self.summary, *self.notes, *failed])


def prepare(
    dataset: str | Path,
    *,
    source: str | Path = DATASET_FOLDER,
    out: str | Path | None = None,
    patch_size: int | None = None,
    patch_depth: int = 1,
    stride: int | None = None,
    offset: int | None = None,
    white: float | None = None,
    axes: str | None = None,
    select: str | None = None,
    normalize: str = "auto",
    nan: str = "refuse",
    repair: str | None = None,
    workers: int | None = None,
    force: bool = False,
) -> Report:
    """Cuts the pictures of a data set into patches and writes them as sharded TFRecord files.

    Stacks are cut plane by plane, or into volumes, and become float32 with one scaling for all of
    them.

    Running it again, also after an interruption, converts only new, changed or failed files, and
    those in one chunk with changed or removed ones. Files that a training run is reading stay until
    it ends. `SIDD_VAL` gives folders of PNG pairs, for which only `source`, `out` and `force` are.

    Args:
        dataset: `SIDD`, `DND` or `SIDD_VAL`, in upper or lower case, or a folder, glob or picture;
            or the same of stacks.
        source: folder that holds SIDD or DND; only for these, and for SIDD_VAL.
        out: folder to write to, created with its parents. Default: the data set's name and patch
            size, such as `dataset/SIDD256` (`dataset/SIDD_VAL` for pairs); if that holds other
            pictures, with a hash of the pictures' path appended.
        patch_size: height and width of a patch, in pixels. Smaller pictures are reflect-padded, to
            more than 256 pixels only if they are at least half as large. Default: 256, of stacks
            128.
        patch_depth: planes of a patch along the axis Z of stacks, for networks in three dimensions.
            Patches follow each other along Z up to the last plane. A thinner volume is reflected
            there, if it has more than half of these planes. Default 1: every plane by itself.
        stride: distance between neighbouring patches, in pixels. Default: 200, of stacks the patch
            size. Stacks also have patches at the lower and right edges, so that none has margins.
        offset: distance of the first patch from the edges. Default: 10 for SIDD, else 0.
        white: value of white in a folder's pictures, see `read_picture`. Default: from each file.
        axes: of stacks, letters of their axes. For it and the next three arguments, see
            `data_prep.stack_sources.ReadingOptions`.
        select: the part of the stacks to take.
        normalize: how the stacks are scaled.
        nan: whether stacks with values that are not finite are refused, or these are filled.
        repair: what to repair, also of pictures, see `cbsn.noise.repair.parse_repairs`. Default:
            nothing.
        workers: number of processes. If a picture crashes one, it is reported, and the others go
            on. A script then needs `if __name__ == "__main__":`. Default: only this process.
        force: whether to convert everything, even into a folder that holds another data set.

    Raises:
        ConfigError: an argument is out of range, or `out` holds another data set.
        DataError: there are no pictures, or `out` cannot be written.
    """
    out = None if out is None else expanded(out)
    check_number("--patch_size", 1 if patch_size is None else patch_size, 1)
    check_number("--patch_depth", patch_depth, 1, MOST_DEPTH)
    check_number("--stride", 1 if stride is None else stride, 1)
    check_number("--offset", offset or 0, 0)
    check_number("--workers", 1 if workers is None else workers, 1, _MOST_WORKERS)
    check_white(white)
    stacks = ReadingOptions(axes, select, normalize, nan, repair)
    kind = str(dataset).upper()
    is_benchmark = kind in ("SIDD", "DND", "SIDD_VAL")
    if Path(source) != DATASET_FOLDER and not is_benchmark:
        raise ConfigError(
            "--source is the folder of SIDD, DND or SIDD_VAL, and other pictures are named by "
            f"themselves: omit it. Received: --source {source} with the pictures {dataset}"
        )
    if white is not None and is_benchmark:
        raise ConfigError(
            f"The white of {kind} is known: omit --white. Received: --white {white:g}"
        )
    try:
        if kind == "SIDD_VAL":
            _refuse_depth(dataset, patch_depth)
            cutting = {"--patch_size": patch_size, "--stride": stride, "--offset": offset}
            others = {**cutting, "--repair": repair, **stacks.given}
            if unused := {flag: value for flag, value in others.items() if value is not None}:
                received = " ".join(f"{flag} {value}" for flag, value in unused.items())
                raise ConfigError(
                    "The blocks of SIDD_VAL are written as they are, as PNG pairs: omit "
                    f"{', '.join(unused)}. Received: {received}"
                )
            out = out or DATASET_FOLDER / "SIDD_VAL"
            return Report(out, write_pairs(source, out, force=force))
        raw = _find(dataset, source, stacks, patch_depth, white)
        given_size, given_stride = patch_size, stride
        patch_size = patch_size or _patch_size(raw)
        stride = stride or (patch_size if raw.kind == STACK else STRIDE)
        _check_sides(raw, patch_size)
        if isinstance(raw, RawStacks) and patch_depth > 1:
            check_depths(raw)
        if out and os.path.realpath(out) == os.path.realpath(raw.root):
            raise ConfigError(
                "The folder of the pictures cannot hold their data set: use another one with "
                f"cbsn prepare --out. Received: {out}"
            )
        flags = {
            "--input": dataset,
            "--out": out,
            "--offset": offset,
            "--white": white,
            "--source": None if source == DATASET_FOLDER else source,
            "--patch_size": given_size,
            "--patch_depth": patch_depth if patch_depth > 1 else None,
            "--stride": given_stride,
            "--repair": repair,
            **stacks.given,
        }
        given = [f"{flag} {shlex.quote(str(v))}" for flag, v in flags.items() if v is not None]
        anew = " ".join(["cbsn prepare", *given, "--force"])
        out = out or _default_out(dataset, raw, patch_size)
        out.mkdir(parents=True, exist_ok=True)
        grid = patch_size, stride, raw.offset if offset is None else offset
        wanted = Manifest(raw.kind, str(raw.root), *grid, raw.dtype, white=white, repair=raw.repair)
        if isinstance(raw, RawStacks):
            settings: dict[str, Any] = stacks.settings
            wanted = dataclasses.replace(wanted, patch_depth=patch_depth, **settings)
        with alone(out):
            done = wanted if force else keep_done(wanted, raw, out, anew)
            if isinstance(raw, RawStacks):
                raw, done = with_scaling(raw, done)
            manifest, notes = convert_rest(done, raw, out, workers)
    except OSError as error:
        where = f" in {out}" if out else ""
        if error.errno == errno.ENOSPC:
            advice = "Free some space, then run the same command again, which goes on."
        else:
            advice = "To use another folder: cbsn prepare --out FOLDER, then cbsn train FOLDER."
        raise DataError(f"The data set cannot be prepared{where}: {error}. {advice}") from error
    sources = manifest.sources
    shape = "x".join(map(str, manifest.patch_shape[:-1]))
    summary = (
        f"{out}: {sum(each.patches for each in sources)} patches of {shape} "
        f"{manifest.dtype} from {_files(sources)} of {len(raw.files)} images (shards: "
        f"{len(manifest.shards)}, images smaller than a patch, reflect-padded: "
        f"{sum(each.padded for each in sources)}, already done: {_files(done.sources)}, failed: "
        f"{len(manifest.failed)})."
    )
    if raw.kind == STACK:
        ranges = [*_describe_filled(manifest), *describe_stacks(manifest)] if sources else []
    else:
        ranges = _describe_ranges(manifest)
    ranges += _describe_repaired(manifest)
    notes = [*_describe_margins(manifest), *ranges, *notes]
    return Report(out, summary, manifest.failed, tuple(notes))


def prepared_folder(
    dataset: str | Path,
    patch_size: int | None = None,
    stacks: ReadingOptions | None = None,
    patch_depth: int = 1,
) -> Path:
    """Returns where `prepare` puts the patches of a folder or glob of pictures by default."""
    raw = _find(dataset, DATASET_FOLDER, stacks or ReadingOptions(), patch_depth)
    return _default_out(dataset, raw, patch_size or _patch_size(raw))


def depth_for(dataset: str | Path, depth: int, stacks: ReadingOptions) -> int:
    """Returns the depth of patches from which crops of `depth` planes are to be cut.

    It is that of the thinnest stack, but at least `depth`, which that may be padded to, and at most
    twice as much, so that crops begin at any plane without much else being read.

    Raises:
        ConfigError: if these are pictures, or all stacks are too thin.
    """
    raw = _find(dataset, DATASET_FOLDER, stacks)
    if not isinstance(raw, RawStacks):
        raise ConfigError(_no_depth(dataset, f"crops of {depth} planes"))
    raw = dataclasses.replace(raw, patch_depth=depth)
    return max(depth, min([2 * depth, *check_depths(raw)]))


def _refuse_depth(dataset: str | Path, patch_depth: int) -> None:
    if patch_depth > 1:
        raise ConfigError(_no_depth(dataset, f"--patch_depth {patch_depth}"))


def _no_depth(dataset: str | Path, received: str) -> str:
    return (
        f"{dataset} holds pictures, which have no depth: use a recipe in two dimensions, and omit "
        f"--patch_depth, or give stacks with the axis Z. Received: {received}"
    )


def _find(
    dataset: str | Path,
    source: str | Path,
    stacks: ReadingOptions,
    patch_depth: int = 1,
    white: float | None = None,
) -> RawData:
    """Finds the pictures or stacks. Raises a ConfigError for flags that are for the others."""
    raw = find_raw(dataset, source, white, functools.partial(find_stacks, options=stacks))
    if raw.kind == STACK:
        raw = dataclasses.replace(raw, patch_depth=patch_depth)
    else:
        _refuse_depth(dataset, patch_depth)
    raw = dataclasses.replace(raw, repair=",".join(parse_repairs(stacks.repair)))
    if raw.repair and raw.kind in ("SIDD", "DND"):
        raise ConfigError(
            f"{raw.kind} is a benchmark, whose pictures stay as they are: omit --repair. "
            f"Received: --repair {stacks.repair}"
        )
    if raw.kind != STACK and stacks.given:
        flags = " ".join(f"{flag} {value}" for flag, value in stacks.given.items())
        raise ConfigError(
            f"{dataset} holds pictures; {', '.join(stacks.given)} are for stacks: omit them. "
            f"Received: {flags}"
        )
    if raw.kind == STACK and white is not None:
        raise ConfigError(
            "Stacks are scaled by --normalize, which also takes the values of black and white, "
            f"such as --normalize 0,{white:g}: omit --white. Received: --white {white:g}"
        )
    return raw


def _patch_size(raw: RawData) -> int:
    return STACK_PATCH_SIZE if raw.kind == STACK else PATCH_SIZE


def _files(sources: Sequence[Source]) -> int:
    return len({source.path for source in sources})


def _check_sides(raw: RawData, patch_size: int) -> None:
    """Raises ConfigError if patches are too large for all pictures, before decoding any."""
    largest = 0
    for path in raw.files:
        with contextlib.suppress(Exception):  # a broken file is reported when it is read
            largest = max(largest, raw.longest_side(path))
        if largest and not is_too_small(largest, patch_size):
            return
    if largest:
        raise ConfigError(
            f"--patch_size must be at most twice the size of the pictures; the largest has "
            f"{largest} pixels on its longer side. Received: --patch_size {patch_size}"
        )


def _default_out(dataset: str | Path, raw: RawData, patch_size: int) -> Path:
    if raw.kind in ("SIDD", "DND"):
        return DATASET_FOLDER / f"{raw.kind}{patch_size}"
    name = os.fsdecode(os.fsencode(raw.root.resolve().name)[:_LONGEST_NAME])
    depth = f"{raw.patch_depth}x" if raw.patch_depth > 1 else ""
    plain = DATASET_FOLDER / f"{name}{depth}{patch_size}"
    place = os.fsencode(os.path.realpath(Path(dataset).expanduser()))
    settings = raw.options.settings if isinstance(raw, RawStacks) else {}
    if settings:
        place += repr(settings).encode()
    place += raw.repair.encode()
    own = plain.with_name(f"{plain.name}-{hashlib.sha256(place).hexdigest()[:8]}")
    if (own / MANIFEST_NAME).exists():
        return own
    # The next step that reads a damaged manifest reports it, unless it is replaced.
    with contextlib.suppress(DataError):
        if (plain / MANIFEST_NAME).exists():
            earlier = Manifest.read(plain)
            differs = any(getattr(earlier, name) != value for name, value in settings.items())
            differs |= earlier.repair != raw.repair
            if differs or not is_of(earlier, raw):
                return own
    return plain


def _describe_margins(manifest: Manifest) -> list[str]:
    pixels = sum(source.pixels for source in manifest.sources)
    share = sum(source.uncovered for source in manifest.sources) / max(1, pixels)
    if share < _REPORTED_SHARE:
        return []
    return [
        f"{share:.0%} of the pixels are in no patch: patches of {manifest.patch_size} pixels "
        f"every {manifest.stride} leave margins. cbsn prepare with a smaller --stride covers more."
    ]


def _describe_filled(manifest: Manifest) -> list[str]:
    return [
        f"{in_one_line(each.path)}: {each.filled} values that are not finite (NaN or infinity) "
        "were filled from their neighbours."
        for each in manifest.sources
        if each.filled
    ]


def _describe_repaired(manifest: Manifest) -> list[str]:
    return [
        f"{in_one_line(each.path)}: defective pixels repaired: {each.repaired}."
        for each in manifest.sources
        if each.repaired
    ]


def _describe_ranges(manifest: Manifest) -> list[str]:
    """Says which values were taken as black and white, if not the whole range of a file."""
    groups: dict[str, list[Source]] = collections.defaultdict(list)
    for source in manifest.sources:
        if value_range := source.value_range:
            text = "" if value_range.is_of(source.dtype) else str(value_range)
            if text and manifest.white is None and source.dtype == "float32":
                text = "black and white at their lowest and highest value"
            groups[text].append(source)
    whole = groups.pop("", [])
    if not groups:
        return []
    texts = [
        f"{len(each)} with {text}, such as {in_one_line(each[0].path)}"
        for text, each in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
    if len(texts) > _REPORTED_RANGES:
        texts[_REPORTED_RANGES:] = [f"{len(texts) - _REPORTED_RANGES} more"]
    if whole:
        texts.append(f"{len(whole)} with the whole range of their files")
    line = f"Values of the images: {'; '.join(texts)}."
    if len(texts) > 1:
        line += " The ranges differ, so the same value is not the same brightness in all of them."
    if manifest.white is None:
        line += " If white is another value, use --white N."
    return [line]
