"""A stack in memory or in a file: an image with named axes, of which planes are read on demand."""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cbsn.errors import ConfigError, ImageError
from cbsn.images.stacks.units import unit_name

AXES = "TZCYXS"
"""Time, depth, channel, row, column, and sample (the red, green and blue of an RGB image)."""

_MOST = 2**62  # values of a stack: more is a damaged header, and does not fit into 64 bits of bytes
_KINDS = "iuf"  # integers and floats
_WIDEST = {"i": 4, "u": 4, "f": 8}  # bytes


@dataclasses.dataclass(frozen=True)
class Spacing:
    """The distance between neighbours along an axis.

    Args:
        size: float > 0, the distance.
        unit: the unit's name in UDUNITS-2, as OME-Zarr has it, such as `micrometer` or `second`, or
            its symbol, which becomes the name; empty if the file does not say.
    """

    size: float
    unit: str = ""

    def __post_init__(self):
        object.__setattr__(self, "unit", unit_name(self.unit))


@dataclasses.dataclass(frozen=True)
class Channel:
    """A channel's name and its colour in viewers, `#RRGGBB`; each is empty if it is unknown."""

    name: str = ""
    color: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Everything about a stack but its pixels.

    Args:
        axes: letters of `AXES`, in the order of `shape`; Y and X are last, or Y, X and S.
        shape: the sizes of the axes.
        dtype: of the pixels: integers of at most 32 bits, or floats; native byte order.
        format: the file format, such as `ImageJ`, `OME-TIFF` or `OME-Zarr`.
        name: of the image within its file, if there are several.
        spacing: by axis, of those that the file tells.
        channels: as many as the stack has, or none if the file says nothing about them.
        metadata: what only the format's own writer understands.
        taken: by axis, the positions in the file that a selection has taken.
        lost: what of the file's metadata is in no result, as a sentence for a note; or empty.
        lacks: the planes that the file lacks, by their positions on the outer axes in the file.

    Raises:
        ImageError: if the axes, the shape or the dtype are none that a stack can have.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    format: str
    name: str = ""
    spacing: Mapping[str, Spacing] = dataclasses.field(default_factory=dict)
    channels: tuple[Channel, ...] = ()
    metadata: Any = None
    taken: Mapping[str, range] = dataclasses.field(default_factory=dict)
    lost: str = ""
    lacks: frozenset[tuple[int, ...]] = frozenset()

    def __post_init__(self):
        check_axes(self.axes)
        if self.axes != "".join(sorted(self.axes, key="YXS".find)):
            raise ImageError(f"has rows and columns that are not the last axes ({self.axes}).")
        if len(self.axes) != len(self.shape):
            raise ImageError(
                f"has {len(self.shape)} axes, of the sizes {self.shape}. Received: axes {self.axes}"
            )
        if "S" in self.axes and self.shape[-1] not in (1, 3, 4):
            raise ImageError(
                f"has {self.shape[-1]} colour samples (axis S), which are not 3 (RGB) or 4 (and "
                "alpha): they may be channels (C)."
            )
        if min(self.shape) < 1 or math.prod(self.shape) > _MOST:
            raise ImageError(f"claims to have the shape {self.shape}: the file is damaged.")
        dtype = np.dtype(self.dtype)
        if dtype.kind not in _KINDS or dtype.itemsize > _WIDEST[dtype.kind]:
            raise ImageError(
                f"has {dtype} values; convert them to integers of at most 32 bits, or to floats."
            )
        object.__setattr__(self, "dtype", dtype.newbyteorder("="))

    @property
    def outer(self) -> str:
        """The axes other than Y, X and S, which number the planes."""
        return "".join(axis for axis in self.axes if axis not in "YXS")

    @property
    def outer_shape(self) -> tuple[int, ...]:
        """The sizes of the outer axes."""
        return tuple(self.size(axis) for axis in self.outer)

    @property
    def samples(self) -> int:
        """Values of a pixel: 1, or 3 (RGB) or 4 with the axis S."""
        return self.size("S")

    @property
    def planes(self) -> int:
        """The number of planes."""
        return math.prod(self.outer_shape)

    @property
    def nbytes(self) -> int:
        """The memory that all pixels would take."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def plane_bytes(self) -> int:
        """The memory that a plane would take."""
        return self.nbytes // self.planes

    def size(self, axis: str) -> int:
        """Returns the size of an axis; 1 if there is no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Yields the positions of each plane on the outer axes, the last one changing fastest."""
        yield from itertools.product(*map(range, self.outer_shape))

    def in_file(self, index: Sequence[int]) -> tuple[int, ...]:
        """Returns the position of a plane in the file, before any selection."""
        pairs = zip(self.outer, index, strict=True)
        return tuple(self.taken[axis][n] if axis in self.taken else n for axis, n in pairs)

    def held(self, channel: int) -> list[tuple[int, ...]]:
        """Returns the positions of a channel's planes, without those that the file lacks."""
        indices = (each for each in self.indices() if self.channel(each) == channel)
        return [each for each in indices if self.in_file(each) not in self.lacks]

    def check_planes(self) -> None:
        """Raises an ImageError if the file lacks planes that are selected."""
        lacking = [each for each in self.indices() if self.in_file(each) in self.lacks]
        if not lacking:
            return
        index, first = lacking[0], self.in_file([0] * len(self.outer))
        axis, place = self.outer[0].lower(), self.in_file(index)
        part = f", such as {axis}={first[0]}:{place[0]}" if index[0] else ""
        text = ", ".join(f"{axis} {n}" for axis, n in zip(self.outer, place, strict=True))
        raise ImageError(
            f"lacks {len(lacking)} of {self.planes} planes, the first one at {text}: leave them "
            f"out by --select{part}."
        )

    def channel(self, index: Sequence[int]) -> int:
        """Returns the channel of the plane at this index; 0 if there is no such axis."""
        return index[self.outer.index("C")] if "C" in self.outer else 0

    def file_channel(self, index: Sequence[int]) -> int:
        """Returns the channel of a plane in the file, before any selection."""
        channel = self.channel(index)
        return self.taken["C"][channel] if "C" in self.taken else channel

    def describe(self) -> str:
        """Returns the sizes in words, such as `T 40, C 2, Y 512, X 512, uint16`."""
        sizes = [f"{axis} {size}" for axis, size in zip(self.axes, self.shape, strict=True)]
        return ", ".join([*sizes, str(self.dtype)])


Read = Callable[[tuple[int, ...], slice, slice], np.ndarray]
"""Reads a part of a plane: by its index, its rows and its columns, both with start and stop."""


class Stack:
    """A stack, of which planes are read on demand.

    Args:
        layout: everything but the pixels.
        read: see `Read`; the result may be of any byte order.

    Example:
        >>> with open_stacks("cells.tif") as stacks:
        ...     first = stacks[0].read((0, 0))
    """

    def __init__(self, layout: Layout, read: Read):
        self.layout = layout
        self._read = read

    def read(
        self,
        index: Sequence[int],
        rows: slice = slice(None),
        columns: slice = slice(None),
    ) -> np.ndarray:
        """Returns a plane, or a part of one, [h, w] or [h, w, S], in native byte order.

        Args:
            index: positions on the outer axes.
            rows: the part's rows, without a step. Default: all.
            columns: the part's columns, without a step. Default: all.

        Raises:
            ImageError: if the file is damaged there.
        """
        layout = self.layout
        spans = [
            range(*each.indices(layout.size(axis))) for axis, each in (("Y", rows), ("X", columns))
        ]
        if layout.in_file(index) in layout.lacks:
            layout.check_planes()
        slices = []
        for axis, span in zip("YX", spans, strict=True):
            first = layout.taken[axis].start if axis in layout.taken else 0
            slices.append(slice(first + span.start, first + span.stop))
        part = np.asarray(self._read(layout.in_file(index), *slices))
        expected = (*map(len, spans), *layout.shape[len(layout.axes.rstrip("S")) :])
        if part.shape != expected:
            raise ImageError(
                f"holds {part.shape} pixels where {expected} should be: it is damaged."
            )
        return part.astype(layout.dtype, copy=False)

    def selected(self, selection: Mapping[str, slice]) -> "Stack":
        """Returns a part of the stack, which keeps all axes.

        Args:
            selection: by axis, a slice of its positions, with a step of 1 for Y and X.

        Raises:
            ConfigError: if there is no such axis, or nothing is left of one.

        Example:
            >>> first_frames = stack.selected({"T": slice(0, 10)})
        """
        layout = self.layout
        taken, shape = dict(layout.taken), [*layout.shape]
        for axis, each in selection.items():
            if axis in "TZC" and axis not in layout.axes and len(range(1)[each]):
                continue  # an axis that a stack lacks has one position
            if axis not in layout.axes or axis == "S":
                raise ConfigError(
                    f"There is no axis {axis} to select from. The stack has {layout.describe()}."
                )
            before = taken.get(axis, range(layout.size(axis)))
            taken[axis] = before[each]
            if not taken[axis]:
                raise ConfigError(
                    f"Nothing is selected on the axis {axis}, which has {len(before)} positions. "
                    f"Received: {axis.lower()}={_text(each)}"
                )
            shape[layout.axes.index(axis)] = len(taken[axis])
        channels = layout.channels
        if channels and "C" in selection:
            channels = tuple(channels[selection["C"]])
        chosen = dataclasses.replace(layout, shape=tuple(shape), taken=taken, channels=channels)
        return Stack(chosen, self._read)


def check_axes(axes: str) -> None:
    """Raises an ImageError unless these are axes that a stack can have."""
    is_known = not set(axes) - set(AXES) and len(set(axes)) == len(axes)
    if not is_known or not {"Y", "X"} <= set(axes):
        raise ImageError(
            f"Axes are letters of {AXES} (time, depth, channel, row, column, colour sample), each "
            f"at most once, always with Y and X. Received: {axes}"
        )


def array_stack(array: np.ndarray, axes: str) -> Stack:
    """Returns an array as a stack, whose last axes are Y and X, or Y, X and S.

    Args:
        array: of the dtypes that a `Layout` may have.
        axes: letters of `AXES`, one for each axis of the array.

    Raises:
        ImageError: if the axes or the dtype do not fit.
    """
    if not array.size:
        raise ImageError(f"The array has no pixels. Received: shape {array.shape}")
    if len(axes) != array.ndim:
        raise ImageError(
            f"The array has {array.ndim} axes, of the sizes {array.shape}. Received: axes {axes}"
        )
    check_axes(axes)
    order = sorted(axes, key="YXS".find)
    turned = array.transpose([axes.index(axis) for axis in order])
    layout = Layout("".join(order), turned.shape, array.dtype, "array")

    def read(index: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        return turned[index][rows, columns]

    return Stack(layout, read)


_PART = re.compile(r"([tzcyx])=(-?\d+)?(?:(:)(-?\d+)?)?", re.IGNORECASE)


def parse_selection(text: str | None, region: str | None = None) -> dict[str, slice]:
    """Returns the selection that `--select` and `--roi` state, for `Stack.selected`.

    Args:
        text: such as `t=0:10,c=1`; counted from 0, without the end, as in Python.
        region: rows and columns, such as `100:600,200:700`.

    Raises:
        ConfigError: if one of them cannot be understood.

    Example:
        >>> parse_selection("t=0:10,c=1")
        {'T': slice(0, 10, None), 'C': slice(1, 2, None)}
    """
    selection = {}
    for part in text.split(",") if text else ():
        found = _PART.fullmatch(part.strip())
        if not found or (found[2] is None and not found[3]):
            raise ConfigError(
                "--select takes positions by axis, counted from 0, such as t=0:10,c=1 for the "
                f"first ten frames of the second channel. Received: --select {text}"
            )
        axis, first, is_span, stop = found[1].upper(), *found.groups()[1:]
        if axis in selection:
            raise ConfigError(f"--select names {axis.lower()} twice. Received: --select {text}")
        start = None if first is None else int(first)
        if not is_span:
            assert start is not None  # as there is neither a start nor a colon
            selection[axis] = slice(start, None if start == -1 else start + 1)
        else:
            selection[axis] = slice(start, None if stop is None else int(stop))
    parts = region.split(",") if region else []
    for axis, part in zip("YX", parts, strict=False):
        span = re.fullmatch(r"(\d+)?:(\d+)?", part.strip())
        if not span or len(parts) != 2:
            raise ConfigError(
                f"--roi takes rows and columns, such as 100:600,200:700. Received: --roi {region}"
            )
        if axis in selection:
            raise ConfigError(f"--roi and --select both name {axis.lower()}: omit one of them.")
        selection[axis] = slice(*(None if end is None else int(end) for end in span.groups()))
    return selection


def _text(each: slice) -> str:
    if each.start is not None and each.stop == each.start + 1:
        return str(each.start)
    return ":".join("" if end is None else str(end) for end in (each.start, each.stop))
