"""Pairs of noisy and clean stacks, of which planes are read one at a time."""

import collections
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from cbsn.data.pairs import spread
from cbsn.errors import ConfigError, DataError, ImageError
from cbsn.images.finding import are_single, find_images
from cbsn.images.stacks.opening import are_stacks, is_stack, open_stacks, suffix_of
from cbsn.images.stacks.scaling import NOT_FINITE, count_missing, fill_missing
from cbsn.images.stacks.stack import Layout, Stack, parse_selection

_TIFF = (".tif", ".tiff")


def hold_stacks(patterns: Iterable[str | Path], axes: str | None = None) -> bool:
    """Returns whether folders, globs and files hold stacks. For `axes`, see `is_stack`.

    Raises:
        DataError: if nothing was found, or one of them holds both.
    """
    # Each must be of one kind, so all are looked at.
    found = [
        are_stacks(find_images(pattern), axes)
        for pattern in patterns
        if not str(pattern).lower().endswith(".mat")  # of SIDD's blocks
    ]
    return any(found)


@dataclasses.dataclass(frozen=True)
class Plane:
    """A plane of a stack of which there are noisy and clean ones.

    Args:
        stack: the name of the stack's file, without its suffix.
        image: the number of the stack in the file.
        position: by axis, the number of the plane in the file, before any selection; of the axes
            with several positions.
        name: of the plane, such as `cells t3 c1`.
    """

    stack: str
    image: int
    position: Mapping[str, int]
    name: str

    @property
    def channel(self) -> int:
        """The number of its channel in the file."""
        return self.position.get("C", 0)

    @property
    def key(self) -> tuple[str, int]:
        """What is the same for all planes of a stack."""
        return self.stack, self.image


class StackFiles:
    """The stacks of a folder, a glob or a file, by the names that pair them with others.

    A name is that of the file without its suffix: `cells` for `cells.tif` and for `cells.ome.zarr`.
    One file is open at a time, until `close`.

    Args:
        pattern: see `cbsn.images.finding.find_images`.
        axes: letters of the axes of TIFF files that do not say. Default None.
        fills: whether values that are not finite are filled, rather than refused. Default False.

    Raises:
        DataError: if there is none, or several have the same name.
    """

    def __init__(self, pattern: str | Path, *, axes: str | None = None, fills: bool = False):
        found: dict[str, Path] = {}
        for path in find_images(pattern):
            if not (is_stack(path) or path.suffix.lower() in _TIFF):
                raise DataError(f"{path} is a picture, and its counterparts are stacks.")
            name = path.name.removesuffix(suffix_of(path))
            if other := found.get(name):
                raise DataError(f"{path} and {other} have the same name: keep only one of them.")
            found[name] = path
        self.paths = dict(sorted(found.items()))
        self.fills = fills
        self._axes = axes
        self._now = ""  # the name of the file that is open
        self._stacks: list[Stack] = []
        self._file = contextlib.ExitStack()

    def name_as(self, name: str) -> None:
        """Gives the only file another name, that of the one it belongs to."""
        [path] = self.paths.values()
        self.paths = {name: path}

    def stacks(self, name: str) -> list[Stack]:
        """Returns the stacks of a file, which can be read until those of another one are."""
        if not self._stacks or self._now != name:
            self.close()
            path = self.paths[name]
            axes = self._axes if path.suffix.lower() in _TIFF else None
            self._stacks = self._file.enter_context(open_stacks(path, axes))
            self._now = name
        return self._stacks

    def stack(self, key: tuple[str, int]) -> Stack:
        """Returns one of them."""
        return self.stacks(key[0])[key[1]]

    def close(self) -> None:
        """Closes the file that is open."""
        self._stacks = []
        self._file.close()

    def read(self, stack: Stack, name: str, position: Mapping[str, int]) -> np.ndarray:
        """Returns a plane, [H, W, 1 or 3]; alpha is omitted.

        Args:
            stack: one of the file's.
            name: of the file.
            position: by axis, on which axes other than these have one position.

        Raises:
            ImageError: if the file is damaged, or has values that are not finite.
        """
        plane = stack.read([position.get(axis, 0) for axis in stack.layout.outer])
        plane = plane[..., None] if plane.ndim == 2 else plane[..., :3]
        if self.fills:
            return fill_missing(plane)
        if count_missing(plane):
            raise ImageError(f"{self.paths[name]}: {NOT_FINITE}")
        return plane


class StackPairs:
    """The planes of noisy and clean stacks of the same names (except for the suffix).

    A single file on each side is a pair whatever the names.

    Args:
        noisy: the noisy stacks, a folder, a glob or a file; or None.
        clean: the clean stacks, of which there may be more; or None.
        limit: number of planes to take, spread evenly over the list; 0 for all.
        axes: letters of the axes of TIFF files that do not say. Default None.
        select: the planes to take, such as `t=0:10,c=1`. Default None: all.
        nan: `"refuse"` files with values that are not finite, or `"fill"` them. Default `"refuse"`.

    Attributes:
        planes: list of `Plane`, file by file, and in each channel by channel.
        names: list of str, theirs.
        noisy, clean: `StackFiles` or None.

    Raises:
        ConfigError: if `axes` or `select` do not fit the files.
        DataError: if a noisy stack has no clean one of the same axes and sizes.
        ImageError: if a file cannot be read.

    Example:
        >>> pairs = StackPairs("noisy", "clean", select="c=0")
        >>> for name, (noisy, clean) in zip(pairs.names, pairs):
        ...     print(name, noisy.mean(), clean.mean())
    """

    def __init__(
        self,
        noisy: str | Path | None,
        clean: str | Path | None,
        limit: int = 0,
        *,
        axes: str | None = None,
        select: str | None = None,
        nan: str = "refuse",
    ):
        axes = axes.upper() if axes else None
        self.axes, self.fills = axes, nan == "fill"
        self._selection = parse_selection(select)
        self._part = {axis: each for axis, each in self._selection.items() if axis in "YX"}
        self.noisy, self.clean = (
            None if side is None else StackFiles(side, axes=axes, fills=self.fills)
            for side in (noisy, clean)
        )
        named = self.noisy or self.clean
        if named is None:
            raise ConfigError("Stacks need a noisy or a clean side.")
        if self.noisy and self.clean:
            if are_single(noisy, clean):
                self.clean.name_as(*self.noisy.paths)
            missing = [name for name in named.paths if name not in self.clean.paths]
            if missing:
                raise DataError(
                    f"Every noisy stack needs a clean one of the same name. {clean} has none for "
                    f"{len(missing)} of {len(named.paths)}, such as {named.paths[missing[0]]}."
                )
        if axes and not any(
            path.suffix.lower() in _TIFF
            for side in (self.noisy, self.clean)
            for path in (side.paths.values() if side else ())
        ):
            raise ConfigError(f"--axes is for TIFF files: omit it. Received: --axes {axes}")
        planes = [plane for name in named.paths for plane in self._planes(named, name)]
        if len({plane.name for plane in planes}) < len(planes):
            twice = collections.Counter(plane.name for plane in planes).most_common(1)[0][0]
            raise DataError(f"Two planes have the same name, {twice}: rename their files.")
        self.planes = spread(planes, limit)
        self.names = [plane.name for plane in self.planes]
        self._by_name = {plane.name: plane for plane in self.planes}

    def _planes(self, named: StackFiles, name: str) -> Iterator[Plane]:
        """Yields the planes of a file, after checking that its pair fits."""
        stacks = named.stacks(name)
        if self.noisy and self.clean:
            pair = [[sizes(stack.layout) for stack in side.stacks(name)] for side in self._sides()]
            if pair[0] != pair[1]:
                files = [side.paths[name] for side in self._sides()]
                told = ["; ".join(map(_text, each)) for each in pair]
                raise DataError(
                    f"{files[0]} ({told[0]}) and {files[1]} ({told[1]}) are not a pair: they need "
                    "the same axes and sizes. For TIFF files, --axes can name the axes."
                )
        for image, stack in enumerate(stacks):
            try:
                layout = stack.selected(self._selection).layout
            except ConfigError as error:
                raise ConfigError(f"{named.paths[name]}: {error}") from None
            several = [axis for axis in layout.outer if stack.layout.size(axis) > 1]
            part = [f"image{image}"] if len(stacks) > 1 else []
            for index in sorted(layout.indices(), key=layout.channel):
                position = {
                    axis: layout.taken[axis][number] if axis in layout.taken else number
                    for axis, number in zip(layout.outer, index, strict=True)
                    if axis in several
                }
                places = [f"{axis.lower()}{number}" for axis, number in position.items()]
                yield Plane(name, image, position, " ".join([name, *part, *places]))

    def _sides(self) -> list[StackFiles]:
        return [side for side in (self.noisy, self.clean) if side]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """The `Plane.key` of each stack that planes are taken of."""
        return [*dict.fromkeys(plane.key for plane in self.planes)]

    def plane(self, name: str) -> Plane:
        """Returns a plane by its name."""
        return self._by_name[name]

    def __len__(self) -> int:
        return len(self.planes)

    def __iter__(self) -> Iterator[tuple[np.ndarray | None, np.ndarray | None]]:
        """Yields (noisy, clean), each [H, W, 1 or 3] in the file's own values and dtype, or None.

        Raises ImageError if a file is damaged, or has values that are not finite.
        """
        for plane in self.planes:
            noisy = self.read(plane) if self.noisy else None
            clean = self._read(self.clean, plane) if self.clean else None
            yield noisy, clean

    def read(self, plane: Plane) -> np.ndarray:
        """Returns a plane of the noisy stacks, [H, W, 1 or 3], or of the clean ones without them.

        Raises ImageError if the file is damaged, or has values that are not finite.
        """
        side = self.noisy or self.clean
        assert side is not None
        return self._read(side, plane)

    def _read(self, side: StackFiles, plane: Plane) -> np.ndarray:
        stack = side.stack(plane.key).selected(self._part)
        return side.read(stack, plane.stack, plane.position)

    def check_others(self, side: StackFiles) -> None:
        """Raises a DataError unless other stacks have the planes of these, or all of the file."""
        ours = self.noisy or self.clean
        assert ours is not None
        for key in self.keys:
            whole = ours.stack(key)
            accepted = [sizes(each.layout) for each in (whole, whole.selected(self._selection))]
            stacks = side.stacks(key[0])
            found = sizes(stacks[key[1]].layout) if key[1] < len(stacks) else {}
            if found not in accepted:
                raise DataError(
                    f"{side.paths[key[0]]} is not the denoised stack of {ours.paths[key[0]]}: it "
                    f"has {_text(found)}, expected {_text(accepted[0])}."
                )

    def read_other(self, side: StackFiles, plane: Plane) -> np.ndarray:
        """Returns a plane of other stacks, which hold all of the file, or what is selected."""
        ours = self.noisy or self.clean
        assert ours is not None
        whole = ours.stack(plane.key)
        stack = side.stack(plane.key)
        if sizes(stack.layout) == sizes(whole.layout):
            return self._read(side, plane)
        taken = whole.selected(self._selection).layout.taken
        position = {
            axis: taken[axis].index(number) if axis in taken else number
            for axis, number in plane.position.items()
        }
        return side.read(stack, plane.stack, position)

    def close(self) -> None:
        """Closes the files that are open."""
        for side in self._sides():
            side.close()


def sizes(layout: Layout) -> dict[str, int]:
    """Returns the sizes of Y, X and all axes with several positions; alpha is omitted."""
    found = {axis: size for axis, size in zip(layout.axes, layout.shape, strict=True) if size > 1}
    if "S" in found:
        found["S"] = 3
    return {"Y": 1, "X": 1} | found


def _text(found: Mapping[str, int]) -> str:
    ordered = sorted(found.items(), key=lambda each: "TZCYXS".index(each[0]))
    return ", ".join(f"{axis} {size}" for axis, size in ordered) or "no such image"
