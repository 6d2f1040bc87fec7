"""Stacks as the source of a data set: how they are read, and one scaling for all of them."""

import contextlib
import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from cbsn.data.manifest import STACK, Manifest, Source
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
from data_prep.cutting import Grid, cut, padded, uncovered
from data_prep.sources import RawData, file_stat, root_of

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

    Raises:
        ConfigError: if one of them cannot be understood.
    """

    axes: str | None = None
    select: str | None = None
    normalize: str = "auto"
    nan: str = "refuse"

    def __post_init__(self):
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
        return {f"--{k}": v for k, v in vars(self).items() if v != defaults[k]}

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

        Raises ImageError if the file is broken.
        """
        assert self.scaling is not None
        found = []
        size, mtime_ns = file_stat(path)
        with open_stacks(path, self.options.axes) as stacks:
            for image, whole in enumerate(stacks):
                stack = _selected(path, whole, self.options)
                layout = stack.layout
                count = filled = lost = 0
                is_padded = False
                for index in layout.indices():
                    plane = stack.read(index)
                    if missing := count_missing(plane):
                        if self.options.nan != "fill":
                            raise ImageError(NOT_FINITE)
                        plane = fill_missing(plane)
                        filled += missing
                    plane = plane[..., None] if plane.ndim == 2 else plane[..., :3]
                    scale = self.scaling.of(layout.channel(index))
                    if fault := scale.faulty(plane):  # nothing is to be learned from it
                        plane = fault[1]
                    scaled = padded(scale.apply(plane), grid.size)
                    is_padded = scaled.shape != plane.shape
                    # A plane may be hardly larger than a patch, so margins would be most of it.
                    lost += uncovered(scaled.shape[0], scaled.shape[1], *grid, to_edge=True)
                    for patch in cut(scaled, *grid, to_edge=True):
                        yield patch
                        count += 1
                source = Source(
                    path=self.name(path),
                    size=size,
                    mtime_ns=mtime_ns,
                    patches=count,
                    padded=is_padded,
                    chunk=chunk,
                    first=first,
                    pixels=layout.planes * scaled.shape[0] * scaled.shape[1],
                    uncovered=lost,
                    image=image,
                    stack=layout.describe(),
                    axes=layout.outer,
                    shape=layout.outer_shape,
                    filled=filled,
                )
                found.append(source)
                first += count
        return found


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
        return stack.selected(parse_selection(options.select))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
