"""Volumes, which networks of three dimensions denoise: what they may be, tiles, and slabs.

Keras is not loaded here.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cbsn.errors import ConfigError, ImageError
from cbsn.inference.tiling import Tiling
from cbsn.orientations import orient

if TYPE_CHECKING:  # it loads Keras
    from cbsn.images.stacks.stack import Layout
    from cbsn.recipes import Recipe

VOLUME_BYTES = 4_000_000_000
"""Memory that a tile of a volume may take by `Engine.bytes_per_pixel`; in float32 it takes about
60 % of that. Tiles of volumes have rims on six sides, so small ones cost more than of pictures."""

TYPICAL = (64, 2048, 2048)
"""The size of a volume where it is not known yet."""


def check_volumes(recipe: "Recipe", network: Any, r3: bool) -> None:
    """Raises a ConfigError if a recipe asks for what there is only for pictures."""
    for unfit, what in (
        (r3, "no R3: omit --r3"),
        (recipe.denoise_stride > 1 or recipe.denoise_pad > 0, "no sub-images"),
        (recipe.border != "zeros" or not network.is_local, "a border of zeros, and are local"),
    ):
        if unfit:
            raise ConfigError(
                f"Networks of volumes have {what}. Received: recipe={recipe.name!r}, r3={r3}, "
                f"denoise_stride={recipe.denoise_stride}, denoise_pad={recipe.denoise_pad}, "
                f"border={recipe.border!r}"
            )


def not_for_pictures(what: str) -> str:
    """Returns the message for a picture, or what else has no planes along z."""
    return (
        f"This model denoises volumes, which are stacks with the axis Z, and {what}. If a file "
        "holds planes along z, name its axes: --axes ZYX (in Python axes='ZYX'). For pictures, use "
        "another model, such as --model photo-large."
    )


def check_z(layout: "Layout") -> None:
    """Raises an ImageError if a stack has no planes along z."""
    if "Z" not in layout.axes:
        raise ImageError(not_for_pictures(f"this one has none ({layout.describe()})"))


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a picture [H, W, C], or each plane of a volume [Z, H, W, C], as `orient` does.

    A volume is not turned upside down: sixteen orientations take twice as long as eight, and gain
    little (on a simulated volume, the error fell from 3.76 to 2.42 with eight, to 2.29 with all).
    """
    if image.ndim == 3:
        return orient(image, orientation)
    return np.moveaxis(orient(np.moveaxis(image, 0, 2), orientation), 2, 0)


def tile_sides(network: Any, size: Sequence[int], voxels: int) -> tuple[int, ...]:
    """Returns how many planes, rows and columns the tiles of a volume should have.

    Of tiles that have at most `voxels` voxels with their halo, these take the least work. They are
    not smaller than the halo, unless the volume is, because more than rims should be computed.

    Args:
        network: gives the halos and the grids.
        size: planes, rows and columns of the volume.
        voxels: int, the most voxels of a tile with its halo.
    """
    in_plane = network.halo, network.grid
    ways = [
        [*_divisions(length, *each)]
        for length, each in zip(
            size, ((network.z_halo, network.z_grid), in_plane, in_plane), strict=True
        )
    ]
    *_, smallest = zip(*(each[-1] for each in ways), strict=True)
    voxels = max(voxels, math.prod(smallest))
    best, least = None, math.inf
    for z, y in itertools.product(*ways[:2]):
        room = voxels // (z.window * y.window)
        x = next((each for each in ways[2] if each.window <= room), None)
        if x is not None:
            counts, sides, windows = zip(z, y, x, strict=True)
            work = math.prod(counts) * math.prod(windows)
            if work < least:
                best, least = sides, work
    assert best is not None
    return best


class _Division(NamedTuple):
    """An axis in tiles of one size: how many, their size, and that with what they see around."""

    tiles: int
    side: int
    window: int


def _divisions(length: int, halo: int, grid: int) -> Iterator[_Division]:
    """Yields the ways to divide an axis, from one tile to tiles as small as the halo."""
    yield _Division(1, -(-length // grid) * grid, length)
    # The first and the last tile have a halo on one side only.
    inside = max(1, length - 2 * halo)
    for count in range(2, inside // max(1, halo) + 1):
        side = -(-inside // (count * grid)) * grid
        yield _Division(count, side, side + 2 * halo)


def volume_tilings(
    network: Any, sides: Sequence[int | None], *, windows: bool
) -> tuple[Tiling, ...]:
    """Returns the tilings of planes, rows and columns.

    Args:
        network: gives the halos and the grids.
        sides: of the tiles, such as from `tile_sides`; None for one tile.
        windows: whether all tiles of a volume have one size, see `Tiling`.
    """
    z, in_plane = (network.z_halo, network.z_grid), (network.halo, network.grid)
    return tuple(
        Tiling(
            "zeros",
            side,
            halo,
            multiple=grid,
            grid=grid if windows else None,
            even=windows,
            fill=network.padding_mode,
        )
        for side, (halo, grid) in zip(sides, (z, in_plane, in_plane), strict=True)
    )


class Slab(NamedTuple):
    """Some planes of a volume to denoise, and those that the network has to see for that."""

    filled: range
    seen: range

    @property
    def own(self) -> slice:
        """Where the planes to denoise are among those that are seen."""
        first = self.filled.start - self.seen.start
        return slice(first, first + len(self.filled))


def slabs(depth: int, planes: int, halo: int) -> Iterator[Slab]:
    """Divides a volume into slabs, which are computed as they are within the whole.

    Args:
        depth: int, planes of the volume.
        planes: int, those of a slab; a multiple of the network's `z_grid`.
        halo: int, the network's `z_halo`.
    """
    for start in range(0, depth, planes):
        stop = min(start + planes, depth)
        yield Slab(range(start, stop), range(max(0, start - halo), min(stop + halo, depth)))
