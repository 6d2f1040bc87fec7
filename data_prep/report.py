"""What a preparation tells its user."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cbsn.data.manifest import Failure, Manifest, Source
from cbsn.errors import in_one_line

_TOLD_SHARE = 0.005
_TOLD_RANGES = 8


@dataclasses.dataclass(frozen=True)
class Report:
    """What to tell the user at the end.

    Args:
        out: the folder that was written to.
        summary: one line.
        failed: the files that could not be converted.
        notes: what else one should know, a line each.
    """

    out: Path
    summary: str
    failed: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [in_one_line(f"  {each.path}: {each.reason}") for each in self.failed]
        return "\n".join(
            [self.summary, *self.notes, *(["Not converted:", *lines] if lines else [])]
        )


def describe(
    manifest: Manifest, files: int, *, skipped: int, out: Path, notes: Sequence[str] = ()
) -> Report:
    """Describes a data set that has just been prepared.

    Args:
        manifest: the data set.
        files: int, how many pictures there are.
        skipped: int, how many of them were converted before.
        out: its folder.
        notes: lines that are to be told, too.
    """
    size = manifest.patch_size
    patches = sum(source.patches for source in manifest.sources)
    padded = sum(source.padded for source in manifest.sources)
    summary = (
        f"{out}: {patches} patches of {size}x{size} {manifest.dtype} from "
        f"{len(manifest.sources)} of {files} images (shards: {len(manifest.shards)}, "
        f"images smaller than a patch, reflect-padded: {padded}, already done: {skipped}, "
        f"failed: {len(manifest.failed)})."
    )
    notes = (*_describe_margins(manifest), *_describe_ranges(manifest), *notes)
    return Report(out, summary, manifest.failed, notes)


def _describe_margins(manifest: Manifest) -> list[str]:
    pixels = sum(source.pixels for source in manifest.sources)
    share = sum(source.uncovered for source in manifest.sources) / max(1, pixels)
    if share < _TOLD_SHARE:
        return []
    return [
        f"{share:.0%} of the pixels lie in no patch: the margins that {manifest.patch_size} pixels "
        f"every {manifest.stride} leave. prepare_dataset.py with a smaller --stride covers more."
    ]


def _describe_ranges(manifest: Manifest) -> list[str]:
    """Says what was taken for black and white where that is not the whole range of a file."""
    groups: dict[str, list[Source]] = collections.defaultdict(list)
    for source in manifest.sources:
        if source.dtype:
            groups[_range_of(source, manifest.white)].append(source)
    whole = groups.pop("", [])
    if not groups:
        return []
    found = sorted(groups.items(), key=lambda item: len(item[1]), reverse=True)
    texts = [
        f"{len(each)} with {text}, such as {in_one_line(each[0].path)}" for text, each in found
    ]
    if len(texts) > _TOLD_RANGES:
        texts[_TOLD_RANGES:] = [f"{len(texts) - _TOLD_RANGES} more"]
    if whole:
        texts.append(f"{len(whole)} with the whole range of their files")
    line = f"Values of the images: {'; '.join(texts)}."
    if len(texts) > 1:
        line += " So the ranges are mixed, and one value is not the same brightness in all."
    if manifest.white is None:
        line += " If a white is another one, say --white N."
    return [line]


def _range_of(source: Source, white: float | None) -> str:
    """The range of a picture in words; empty if it is the whole one of its file's dtype."""
    if source.value_range.is_of(source.dtype):
        return ""
    if white is None and source.dtype == "float32":
        return "black and white at their lowest and highest value"
    return str(source.value_range)
