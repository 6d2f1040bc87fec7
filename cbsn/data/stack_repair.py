"""Repairs stacks as they are read: the pixels that are defective in all planes, and line noise."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from cbsn.data.pairs import spread
from cbsn.errors import ImageError
from cbsn.images.stacks.scaling import (
    NOT_FINITE,
    Scale,
    count_missing,
    fill_missing,
    without_alpha,
)
from cbsn.images.stacks.stack import Stack
from cbsn.noise.defects import MARGIN, Defects, repair, search_defects
from cbsn.noise.lines import LINES, REACH, line_offsets
from cbsn.noise.repair import parse_repairs, without_offsets

_PLANES = 64  # of a channel that are looked at, evenly spread
_FEWEST = 4  # planes that tell a defect from an outlier of one plane
_GLANCE, _SIDE = 32, 512  # planes and side of what is looked at to tell whether there are defects

Index = tuple[int, ...]


class StackRepair:
    """A stack that is repaired when it is read.

    Defects are measured in up to 64 planes of each channel, evenly spread over all of the stack, so
    that a part of it becomes what it becomes in the whole. The offsets of lines are those of each
    plane by itself, along the whole line.

    Args:
        stack: the whole stack, before any selection.
        repairs: what `--repair` states, see `cbsn.noise.repair.parse_repairs`; None for nothing.
        fills: bool, whether values that are not finite are filled later, rather than refused.
        scale_of: returns the scale of a channel: pixels that are far beyond its range are repaired,
            too, see `Scale.faulty`. Default None: they stay.

    Attributes:
        stack: the repaired stack.
        defects: dict from channels to their `Defects`, without those channels that have none.

    Raises:
        ConfigError: if `repairs` is none that there is.
        ImageError: if the file is damaged, or holds values that are not finite.

    Example:
        >>> with open_stacks("cells.tif") as (stack,):
        ...     plane = StackRepair(stack, "pixels").stack.read((0, 0))
    """

    def __init__(
        self,
        stack: Stack,
        repairs: str | None,
        *,
        fills: bool = False,
        scale_of: Callable[[int], Scale] | None = None,
    ):
        self._whole, self._repairs, self._fills = stack, parse_repairs(repairs), fills
        self._scale_of = scale_of
        # Of each plane, where values are far beyond the range. Parts are read with margins, which
        # overlap, so that numbers would not add up.
        self._beyond: dict[Index, np.ndarray] = {}
        self.defects: dict[int, Defects] = {}
        if "pixels" in self._repairs:
            for channel in range(stack.layout.size("C")):
                if stack.layout.held(channel) and (found := self.measure(channel)):
                    self.defects[channel] = found
        self.stack = Stack(stack.layout, self._read) if self._repairs else stack

    def notes(self, channels: Iterable[int]) -> Iterator[str]:
        """Yields what was repaired of some channels, or could be."""
        layout = self._whole.layout
        for channel in sorted(channels):
            where = f"channel {channel}: " * (layout.size("C") > 1)
            if channel in self.defects:
                yield f"{where}{self.defects[channel].describe()} repaired in all planes."
            elif "pixels" in self._repairs or layout.planes // layout.size("C") < _FEWEST:
                continue
            elif found := self._glance(channel):
                yield (
                    f"{where}{found.describe()} in the middle of all planes. To repair them, and "
                    "others: --repair pixels."
                )
        if beyond := sum(map(len, self._beyond.values())):
            values = f"{beyond} more value{'s' * (beyond > 1)}"
            yield f"{values} far beyond all others repaired, each in a single plane."

    def measure(self, channel: int) -> Defects:
        """Returns the defects of a channel, see the class."""
        return self._search(channel, _PLANES, fills=self._fills)

    def _glance(self, channel: int) -> Defects:
        """Returns the defects in the middle of a channel, 512 × 512 pixels, in a few planes."""
        height, width = (self._whole.layout.size(axis) for axis in "YX")
        sides = [(length, min(length, _SIDE)) for length in (height, width)]
        middle = [slice((n - side) // 2, (n + side) // 2) for n, side in sides]
        return self._search(channel, _GLANCE, *middle, fills=True)

    def _search(
        self,
        channel: int,
        most: int,
        rows: slice = slice(None),
        columns: slice = slice(None),
        *,
        fills: bool,
    ) -> Defects:
        """Returns the defects of a channel in a part of the planes."""
        layout = self._whole.layout
        chosen = spread(layout.held(channel), most)
        top, bottom, _ = rows.indices(layout.size("Y"))
        left, right, _ = columns.indices(layout.size("X"))

        def read(number: int, down: slice, across: slice) -> tuple[np.ndarray, np.ndarray | None]:
            part = self._whole.read(
                chosen[number],
                slice(top + down.start, top + down.stop),
                slice(left + across.start, left + across.stop),
            )
            part = without_alpha(part)
            if not count_missing(part):
                return part, None
            if not fills:
                raise ImageError(NOT_FINITE)
            return fill_missing(part), ~np.isfinite(part)

        samples = 1 if layout.samples == 1 else 3
        return search_defects(read, len(chosen), (bottom - top, right - left, samples))

    def _read(self, index: Index, rows: slice, columns: slice) -> np.ndarray:
        """Reads a part of a plane, and repairs it; values that are not finite stay."""
        layout = self._whole.layout
        channel = layout.channel(index)
        outer, inner = [], []
        for part, size in (rows, layout.size("Y")), (columns, layout.size("X")):
            start, stop = max(0, part.start - MARGIN), min(part.stop + MARGIN, size)
            outer.append(slice(start, stop))
            inner.append(slice(part.start - start, part.stop - start))
        plane = self._whole.read(index, *outer)
        if channel in self.defects:
            plane = repair(plane, self.defects[channel].within(*outer))
        if "pixels" in self._repairs and self._scale_of:
            fault = self._scale_of(channel).faulty(without_alpha(plane))
            if fault is not None:
                plane = plane.copy()
                without_alpha(plane)[...] = fault[1]
                places = np.argwhere(fault[0][tuple(inner)])
                places[:, :2] += (rows.start, columns.start)
                known = self._beyond.get(index, places[:0])
                self._beyond[index] = np.unique(np.concatenate([known, places]), axis=0)
        plane = plane[tuple(inner)]
        if set(self._repairs) & {*LINES}:
            plane = plane.copy()
            colors = without_alpha(plane)
            colors[...] = without_offsets(colors, *self._offsets(index, rows, columns, colors.ndim))
        return plane

    def _offsets(
        self, index: Index, rows: slice, columns: slice, axes: int
    ) -> Iterator[np.ndarray]:
        """Yields the offsets of a part's rows, and of its columns, each from the whole line."""
        sizes = [self._whole.layout.size(axis) for axis in "YX"]
        for axis, part in enumerate((rows, columns)):
            if LINES[axis] not in self._repairs:
                continue
            start, stop = max(0, part.start - REACH), min(part.stop + REACH, sizes[axis])
            spans = [slice(0, size) for size in sizes]
            spans[axis] = slice(start, stop)
            lines = without_alpha(self._whole.read(index, *spans))
            lines = np.moveaxis(lines.reshape(*lines.shape[:2], -1), axis, 0)
            found = line_offsets(lines)[part.start - start : part.stop - start]
            found = np.expand_dims(found, 1 - axis)
            yield found if axes == 3 else found[..., 0]
