"""The manifest of a prepared data set: what it was made from and what it contains."""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from cbsn.errors import DataError
from cbsn.files import write_json
from cbsn.images.stacks.scaling import Scaling
from cbsn.value_range import ValueRange

MANIFEST_NAME = "manifest.json"
STACK = "stack"  # the kind of data sets of stacks
# The dtypes of patches: integers over their full range, floats in [0, 1] or, of stacks, scaled.
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("uint8", "uint16", "float32")}

_FORMAT = {"format": "cbsn-patches", "version": 1}
_SHUFFLE_SEED = 0
_MOST, _LARGEST_FLOAT = 2**62, 1e300  # limits of the numbers in a manifest
# What only the entries of stacks, of repaired files or of volumes have, of the data set and of each
# source: other entries stay as earlier versions wrote them.
_OF_STACKS = ("channels", "axes", "select", "normalize", "scaling")
_OF_STACK = ("image", "stack", "axes", "shape", "filled")
_OF_REPAIRED = ("repair",), ("repaired",)
_OF_VOLUMES = ("patch_depth",)
_OF_VOLUME = ("corners",)
_LARGEST_PATCH = 2**48  # pixels, so that 64 bits can count a record's bytes
MOST_DEPTH = 2**13  # planes of a patch


def patch_order(chunk: int, patches: int) -> np.ndarray:
    """Returns the order in which the `patches` patches of chunk number `chunk` are stored."""
    return np.random.default_rng((_SHUFFLE_SEED, chunk)).permutation(patches)


@dataclasses.dataclass(frozen=True)
class Source:
    """A picture file, or an image of a file of stacks, whose patches are in the data set.

    The patches of a stack are numbered plane by plane, in the order of `Layout.indices`; those of
    volumes volume by volume, and from the first planes of each to the last. Z is their last axis.

    The defaults are for data sets from earlier versions, which did not store these fields.
    """

    path: str  # relative to the manifest's root if the file is below it, with forward slashes
    size: int  # of the file, in bytes
    mtime_ns: int  # time of the last modification, in nanoseconds since 1970
    patches: int  # number of patches cut from it
    padded: bool  # whether it was smaller than a patch and was reflect-padded
    chunk: int  # number of the group of files that share shards
    first: int = -1  # index of its first patch in the chunk, before shuffling
    dtype: str = ""  # of the pixels in the file, a key of `DTYPES`
    black: float = 0.0  # the value in the file that became 0 in the patches
    white: float = 1.0  # the value in the file that became the largest integer, or 1 in floats
    pixels: int = 0  # number of pixels, including padding
    height: int = 0  # of the picture, or of a stack's planes, in pixels without padding
    width: int = 0
    uncovered: int = 0  # number of pixels that lie in no patch
    image: int = 0  # of stacks: number of the image in its file
    stack: str = ""  # its sizes and dtype in words, as selected
    axes: str = ""  # the axes that number its planes, such as "TC"
    shape: tuple[int, ...] = ()  # the sizes of these axes
    filled: int = 0  # number of values that were not finite and took those of their neighbours
    repaired: int = 0  # number of its defective pixels that took the values of their neighbours
    # of volumes: where the patches begin along Z, Y and X
    corners: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        # Lists in JSON.
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "corners", tuple(map(tuple, self.corners)))

    @property
    def planes(self) -> int:
        """The number of planes; 1 for a picture."""
        return math.prod(self.shape)

    @property
    def steps(self) -> tuple[int, ...]:
        """The number of places that patches have along each of `axes`."""
        return (*self.shape[:-1], len(self.corners[0])) if self.corners else self.shape

    @property
    def patches_at_once(self) -> int:
        """The number of patches of the same planes, which differ in Y and X only."""
        return self.patches // math.prod(self.steps)

    @property
    def value_range(self) -> ValueRange | None:
        """The values of black and white in the file; None if an old manifest lacks them."""
        return ValueRange(self.black, self.white, "values") if self.dtype else None


@dataclasses.dataclass(frozen=True)
class Shard:
    """A record file: its name in the data set's folder, its contents, and its chunk."""

    name: str
    records: int
    bytes: int
    sha256: str
    chunk: int


@dataclasses.dataclass(frozen=True)
class Failure:
    """A source file that could not be converted, and why."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a prepared data set was made from and what it contains; stored as JSON."""

    kind: str  # `SIDD`, `DND`, `folder` or `stack`
    root: str  # folder that the source paths are relative to
    patch_size: int  # height and width of a patch, in pixels
    stride: int  # distance between neighbouring patches, in pixels
    offset: int  # distance of the first patch from the top and left edges, in pixels
    dtype: str  # a key of `DTYPES`
    sources: tuple[Source, ...] = ()  # the converted files
    shards: tuple[Shard, ...] = ()  # the record files
    failed: tuple[Failure, ...] = ()  # the files that could not be converted
    white: float | None = None  # in the files, as given by the user; None: determined from each
    channels: int = 3  # of a patch: 1 for stacks, but 3 for RGB
    axes: str | None = None  # of stacks, this and the next two: as given by the user
    select: str | None = None
    normalize: str = ""
    # of stacks: a `Scaling` as a dictionary, with one scale for each channel that was selected
    scaling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    patch_depth: int = 1  # planes of a patch along Z; 1 for patches [P, P, C]
    repair: str = ""  # what was repaired, see `cbsn.noise.repair.parse_repairs`

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """The shape of a patch: [P, P, C], or of a volume [D, P, P, C]."""
        depth = (self.patch_depth,) if self.patch_depth > 1 else ()
        return (*depth, self.patch_size, self.patch_size, self.channels)

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "Manifest":
        """Reads the manifest of a prepared folder. Raises DataError if it is missing or damaged."""
        path = Path(folder) / MANIFEST_NAME
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            found = {key: fields.pop(key) for key in _FORMAT}
            if found != _FORMAT:
                raise ValueError(f"its format is {found}, expected {_FORMAT}")
            for key, entry in (("sources", Source), ("shards", Shard), ("failed", Failure)):
                fields[key] = tuple(entry(**values) for values in fields[key])
            manifest = cls(**fields)
            manifest._check()
            return manifest
        except Exception as error:  # damaged JSON may raise almost anything
            raise DataError(
                f"{path} cannot be used as the manifest of a prepared data set "
                f"({' '.join(str(error).split()) or type(error).__name__}). "
                "Prepare the data set again: cbsn prepare --force."
            ) from error

    def write(self, folder: str | os.PathLike) -> None:
        """Writes the manifest into `folder`, atomically."""
        values = {**_FORMAT, **dataclasses.asdict(self)}
        omitted: list[str] = []  # of the data set, and next, of each source
        of_sources: list[str] = []
        if self.patch_depth == 1:
            omitted += _OF_VOLUMES
            of_sources += _OF_VOLUME
        if not self.repair:
            omitted += _OF_REPAIRED[0]
            of_sources += _OF_REPAIRED[1]
        if self.kind != STACK:
            omitted += _OF_STACKS
            of_sources += _OF_STACK
        for entry, names in ((values, omitted), *((s, of_sources) for s in values["sources"])):
            for name in names:
                del entry[name]
        write_json(Path(folder) / MANIFEST_NAME, values)

    def patches_of(self, shard: str) -> list[tuple[Source, int]]:
        """Returns picture and number there for each patch of a shard. DataError if unknown."""
        chunk = next((entry.chunk for entry in self.shards if entry.name == shard), None)
        records = {entry.name: entry.records for entry in self.shards if entry.chunk == chunk}
        sources = [each for each in self.sources if each.chunk == chunk and each.first >= 0]
        sources.sort(key=lambda source: source.first)
        total = sum(records.values())
        if chunk is None or sum(source.patches for source in sources) != total:
            raise DataError(
                f"The manifest does not say which pictures the patches in {shard} come from. "
                "Prepare the data set again: cbsn prepare --force."
            )
        cut = [(source, number) for source in sources for number in range(source.patches)]
        start = sum(count for name, count in records.items() if name < shard)
        return [cut[i] for i in patch_order(chunk, total)[start : start + records[shard]]]

    def _check(self) -> None:
        """Raises ValueError for values that no valid manifest has; the file may be damaged."""
        for entry in (self, *self.sources, *self.shards, *self.failed):
            _check_types(entry)
        if self.dtype not in DTYPES:
            raise ValueError(f"its dtype is {self.dtype!r}, expected one of {[*DTYPES]}")
        white = 1 if self.white is None else self.white
        if min(self.patch_size, self.patch_depth, self.stride, white) <= 0:
            raise ValueError("its patch_size, patch_depth, stride and white must be above 0")
        if self.patch_depth * self.patch_size**2 > _LARGEST_PATCH:
            raise ValueError(f"its patch_size is {self.patch_size}")
        if self.patch_depth > (MOST_DEPTH if self.kind == STACK else 1):
            raise ValueError(f"its patch_depth is {self.patch_depth}")
        for shard in self.shards:
            # By the rules of any system, because a data set may come from another one.
            names = {shard.name, PurePosixPath(shard.name).name, PureWindowsPath(shard.name).name}
            if len(names) > 1 or names & {"", ".."}:
                raise ValueError(f"its shard {shard.name!r} is not a plain file name")
        if len({shard.name for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is listed twice")
        for source in self.sources:
            if source.dtype not in ("", *DTYPES) or not source.black < source.white:
                raise ValueError(f"its value range of {source.path!r} is not valid")
        if self.kind == STACK:
            self._check_stacks()
        elif self.channels != 3:
            raise ValueError(f"its channels are {self.channels}")

    def _check_stacks(self) -> None:
        if self.channels not in (1, 3) or self.dtype != "float32":
            raise ValueError(f"its patches have {self.channels} channels of {self.dtype}")
        if self.sources:
            Scaling.from_dict(self.scaling)
        for source in self.sources:
            shape = source.shape
            if not all(type(size) is int and 0 < size <= _MOST for size in shape):
                raise ValueError(f"its shape of {source.path!r} is not valid")
            if len(shape) != len(source.axes) or not self._fits(source):
                raise ValueError(f"its planes of {source.path!r} do not fit its patches")

    def _fits(self, source: Source) -> bool:
        """Returns whether a stack's planes and the places of its patches give their number."""
        if self.patch_depth == 1:
            return not source.corners and source.patches % source.planes == 0
        are_numbers = all(type(each) is int for axis in source.corners for each in axis)
        if len(source.corners) != 3 or not all(source.corners) or not are_numbers:
            return False
        return (
            source.axes.endswith("Z")
            and all(axis[0] >= 0 and sorted({*axis}) == [*axis] for axis in source.corners)
            and source.corners[0][-1] + self.patch_depth <= max(source.shape[-1], self.patch_depth)
            and source.patches == math.prod(source.shape[:-1]) * math.prod(map(len, source.corners))
        )


def _check_types(entry: Any) -> None:
    """Checks the fields of a dataclass against their annotations."""
    for field in dataclasses.fields(entry):
        value, kind, good = getattr(entry, field.name), field.type, False
        if kind is int:
            lowest = {"first": -1, "mtime_ns": -_MOST}.get(field.name, 0)
            good = type(value) is int and lowest <= value <= _MOST
        elif kind is bool:
            good = type(value) is bool
        elif kind in (str, str | None):
            good = value is None and kind is not str
            with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate
                good |= type(value) is str and b"\0" not in os.fsencode(value)  # as in file names
        elif kind in (float, float | None):
            number = type(value) in (int, float) and abs(value) < _LARGEST_FLOAT
            good = number or (value is None and kind is not float)
        else:
            continue
        if not good:
            shown = repr(value)
            raise ValueError(f"its {field.name} is {shown[:80]}{'…' * (len(shown) >= 80)}")
