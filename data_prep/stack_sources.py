"""Stacks as the source of a data set: how they are read, and one scaling for all of them."""

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from cbsn.data.manifest import STACK, Manifest, Source
from cbsn.data.stack_repair import StackRepair
from cbsn.errors import ConfigError, DataError, ImageError
from cbsn.images.stacks.opening import are_stacks, open_stacks, with_path
from cbsn.images.stacks.scaling import (
    NOT_FINITE,
    Scaling,
    count_missing,
    fill_missing,
    measure_scaling,
    parse_scaling,
    pooled_scaling,
)
from cbsn.images.stacks.stack import Layout, Stack, check_axes, parse_selection
from cbsn.noise.repair import parse_repairs
from data_prep.cutting import Grid, corners, cut, padded, uncovered
from data_prep.sources import RawData, file_stat, root_of
from data_prep.volumes import check_depth, first_planes, slabs

NAN = ("refuse", "fill")
PATCH_SIZE = 128
_DEFAULT = "deviation"


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """How stacks are read.

    Args:
        axes: letters of their axes, for files that do not say. Default None.
        select: a part of them, such as `t=0:10,c=1`. Default None: all.
        normalize: `auto`, one of `cbsn.images.stacks.scaling.METHODS`, or the values that a network
            sees as 0 and 1, such as `100,4095`. Default `auto`, which is `deviation`.
        nan: whether files with values that are not finite are refused (`refuse`), or these values
            take those of their neighbours (`fill`). Default `refuse`.
        repair: what is repaired, also of pictures, see `cbsn.noise.repair.parse_repairs`. Default
            None: nothing.

    Raises:
        ConfigError: if one of them cannot be understood.
    """

    axes: str | None = None
    select: str | None = None
    normalize: str = "auto"
    nan: str = "refuse"
    repair: str | None = None

    def __post_init__(self):
        parse_repairs(self.repair)
        if self.axes is not None:
            object.__setattr__(self, "axes", self.axes.upper())
            with _as_config_error():
                check_axes(self.axes)
        parse_selection(self.select)
        if self.select is not None:  # in one form, as it is compared with that of an earlier set
            parts = (part.strip().lower() for part in self.select.split(","))
            object.__setattr__(self, "select", ",".join(sorted(parts)) or None)
        if parse_scaling(self.normalize) == "model":
            raise ConfigError(
                "--normalize model is for denoising: a model that is trained has no scaling yet."
            )
        if self.nan not in NAN:
            raise ConfigError(f"--nan takes {' or '.join(NAN)}. Received: --nan {self.nan}")

    @property
    def given(self) -> dict[str, str]:
        """The flags that differ from their defaults, and so are for stacks only."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        values = {k: v for k, v in vars(self).items() if k != "repair"}
        return {f"--{k}": v for k, v in values.items() if v != defaults[k]}

    @property
    def method(self) -> str:
        """The method of the scaling, or its two values, as text."""
        return _DEFAULT if self.normalize == "auto" else self.normalize

    @property
    def settings(self) -> dict[str, str | None]:
        """What makes a data set another one, as the fields of its manifest."""
        return {"axes": self.axes, "select": self.select, "normalize": self.method}


@contextlib.contextmanager
def _as_config_error():
    try:
        yield
    except ImageError as error:
        raise ConfigError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class RawStacks(RawData):
    """The files of stacks, and how to read them; the scaling comes when it is measured."""

    options: ReadingOptions = dataclasses.field(default_factory=ReadingOptions)
    scaling: Scaling | None = None  # of the channels that are selected

    def longest_side(self, path: Path) -> int:
        """Returns the larger of height and width; any error if the file is broken."""
        with open_stacks(path, self.options.axes) as stacks:
            return max(max(s.layout.size("Y"), s.layout.size("X")) for s in stacks)

    def patches(
        self, path: Path, grid: Grid, chunk: int, first: int
    ) -> Generator[np.ndarray, None, list[Source]]:
        """Yields the patches of a file, plane by plane, and returns its entries for the manifest.

        With a `patch_depth` above 1 they are volumes, of some planes at a time, and the values of
        one may be gone when the next one comes. Raises ImageError if the file is broken.
        """
        found = []
        size, mtime_ns = file_stat(path)
        depth = self.patch_depth
        with open_stacks(path, self.options.axes) as stacks:
            for image, whole in enumerate(stacks):
                mended = StackRepair(whole, self.repair or None, fills=self.options.nan == "fill")
                stack = _selected(path, mended.stack, self.options)
                layout = stack.layout
                read = _PlaneReader(self, stack, grid.size)
                if depth > 1:
                    check_depth(layout, depth)
                    blocks = slabs(layout, depth, read)
                else:
                    blocks = map(read, layout.indices())
                count = 0
                for block in blocks:
                    # A plane may be hardly larger than a patch, so margins would be most of it.
                    for patch in cut(block, *grid, to_edge=True):
                        yield patch
                        count += 1
                height, width = block.shape[-3:-1]
                planes = layout.planes // layout.size("Z") * max(layout.size("Z"), depth)
                source = Source(
                    path=self.name(path),
                    size=size,
                    mtime_ns=mtime_ns,
                    patches=count,
                    padded=read.is_padded or layout.size("Z") < depth,
                    chunk=chunk,
                    first=first,
                    pixels=planes * height * width,
                    height=layout.size("Y"),
                    width=layout.size("X"),
                    uncovered=planes * uncovered(height, width, *grid, to_edge=True),
                    image=image,
                    stack=layout.describe(),
                    axes=layout.outer,
                    shape=layout.outer_shape,
                    filled=read.filled,
                    repaired=sum(map(len, mended.defects.values())),
                )
                if depth > 1:
                    others = layout.outer.replace("Z", "")
                    places = [
                        first_planes(layout.size("Z"), depth),
                        corners(height, *grid, to_edge=True),
                        corners(width, *grid, to_edge=True),
                    ]
                    source = dataclasses.replace(
                        source,
                        axes=f"{others}Z",
                        shape=(*map(layout.size, others), layout.size("Z")),
                        corners=tuple(map(tuple, places)),
                    )
                found.append(source)
                first += count
        return found


class _PlaneReader:
    """Reads the planes of a stack as a network sees them.

    Attributes:
        filled: number of values that were not finite so far, and took those of their neighbours.
        is_padded: whether planes are smaller than a patch, and so are reflect-padded.
    """

    def __init__(self, raw: RawStacks, stack: Stack, patch_size: int):
        self._raw = raw
        self._stack = stack
        self._patch_size = patch_size
        self.filled = 0
        self.is_padded = False

    def __call__(self, index: tuple[int, ...]) -> np.ndarray:
        """Returns a plane, float32 [H, W, 1 or 3]."""
        assert self._raw.scaling is not None
        plane = self._stack.read(index)
        if missing := count_missing(plane):
            if self._raw.options.nan != "fill":
                raise ImageError(NOT_FINITE)
            plane = fill_missing(plane)
            self.filled += missing
        plane = plane[..., None] if plane.ndim == 2 else plane[..., :3]
        scale = self._raw.scaling.of(self._stack.layout.channel(index))
        if fault := scale.faulty(plane):  # nothing is to be learned from it
            plane = fault[1]
        scaled = padded(scale.apply(plane), self._patch_size)
        self.is_padded = scaled.shape != plane.shape
        return scaled


def find_stacks(
    pattern: str | Path, files: Sequence[Path], options: ReadingOptions
) -> RawStacks | None:
    """Returns the stacks among files that were found, or None if all are pictures.

    Raises:
        DataError: if some are stacks, and others pictures.
    """
    if not are_stacks(files, options.axes):
        return None
    return RawStacks(STACK, root_of(pattern, files), tuple(files), "float32", options=options)


def check_depths(raw: RawStacks) -> list[int]:
    """Returns the planes along Z of all stacks that patches of `raw.patch_depth` can be cut from.

    Raises:
        ConfigError: if there are none, or a selection does not fit a stack.
    """
    found, reason = [], ""
    for path in raw.files:
        # A file that cannot be read is reported by the conversion, with the reason.
        with contextlib.suppress(ImageError), open_stacks(path, raw.options.axes) as stacks:
            for stack in stacks:
                layout = _selected(path, stack, raw.options).layout
                try:
                    check_depth(layout, raw.patch_depth)
                    found.append(layout.size("Z"))
                except ImageError as error:
                    reason = reason or str(with_path(error, path))
    if reason and not found:
        raise ConfigError(f"{reason} Received: --patch_depth {raw.patch_depth}")
    return found


def with_scaling(raw: RawStacks, done: Manifest) -> tuple[RawStacks, Manifest]:
    """Measures the scaling of all stacks together, unless all of them are done.

    Returns the stacks with it, and the data set, without what was scaled otherwise.

    Raises:
        ConfigError: if a selection does not fit a stack, or the stacks have different channels.
        DataError: if none of them can be read.
    """
    if raw.options.nan != "fill":
        dropped = {source.chunk for source in done.sources if source.filled}
        done = _without(done, dropped)
    if {source.path for source in done.sources} == {*raw.names()}:
        scaling = Scaling.from_dict(done.scaling)
        return dataclasses.replace(raw, scaling=scaling, channels=done.channels), done
    scaling, channels = _measure(raw)
    if done.sources and (done.scaling, done.channels) != (scaling.to_dict(), channels):
        done = _without(done, {source.chunk for source in done.sources})
    done = dataclasses.replace(done, scaling=scaling.to_dict(), channels=channels)
    return dataclasses.replace(raw, scaling=scaling, channels=channels), done


def _without(manifest: Manifest, dropped: set[int]) -> Manifest:
    return dataclasses.replace(
        manifest,
        sources=tuple(each for each in manifest.sources if each.chunk not in dropped),
        shards=tuple(each for each in manifest.shards if each.chunk not in dropped),
    )


def _measure(raw: RawStacks) -> tuple[Scaling, int]:
    """Returns the scaling of the selected channels of all stacks, and the channels of a patch."""
    method = parse_scaling(raw.options.method)
    scalings: list[Scaling] = []
    values: list[int] = []
    kinds: dict[tuple[int, int], Path] = {}
    chosen = slice(None)
    reason = ""
    for path in raw.files:
        # A file that cannot be read is reported by the conversion, with the reason.
        try:
            with open_stacks(path, raw.options.axes) as stacks:
                for stack in stacks:
                    layout = stack.layout
                    _selected(path, stack, raw.options)
                    kinds.setdefault(_kind(layout), path)
                    scaling = measure_scaling(stack, method, ignore_nan=raw.options.nan == "fill")
                    scalings.append(scaling)
                    values.append(layout.nbytes // layout.dtype.itemsize // layout.size("C"))
        except ImageError as error:
            reason = reason or str(with_path(error, path))
    if not scalings:
        raise DataError(reason)
    if len(kinds) > 1:
        (_, first), (_, second) = [*kinds.items()][:2]
        both = " and ".join(_channels(each) for each in [*kinds][:2])
        raise ConfigError(
            f"The stacks of a data set need the same channels, as each has its own scale: {first} "
            f"and {second} have {both}. Train on them separately."
        )
    (_, samples) = next(iter(kinds))
    pooled = pooled_scaling(scalings, values)
    chosen = parse_selection(raw.options.select).get("C", chosen)
    return dataclasses.replace(pooled, channels=pooled.channels[chosen]), samples


def _kind(layout: Layout) -> tuple[int, int]:
    return layout.size("C"), 1 if layout.samples == 1 else 3


def _channels(kind: tuple[int, int]) -> str:
    count, samples = kind
    return "RGB" if samples == 3 else f"{count} channel{'s' * (count > 1)}"


def _selected(path: Path, stack: Stack, options: ReadingOptions) -> Stack:
    try:
        part = stack.selected(parse_selection(options.select))
        part.layout.check_planes()
        return part
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
