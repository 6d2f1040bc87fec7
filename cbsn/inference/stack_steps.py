"""The steps in which a stack is denoised, so that memory does not depend on its size."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cbsn.images.stacks.stack import Layout
from cbsn.inference.volumes import slabs

if TYPE_CHECKING:  # it loads TensorFlow, which is not needed to check the flags
    from cbsn.inference.denoiser import Denoiser

_BLOCK = 4096  # side of the parts of a large plane, in pixels, a multiple of `_GRID`
# Parts begin at multiples of this: of what networks halve and downsample, and of R3's period. So a
# part is computed as it is within the plane.
_GRID = 512
_AT_ONCE = 2**22  # pixels of the planes that are denoised together, if they are small
_VOXELS = 2**26  # of a part of a volume, with what the network sees around it

Index = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """What is denoised at a time: planes of one channel, or a part of a large plane or a volume.

    Args:
        indices: of the planes to denoise.
        rows, columns: the part of them to denoise.
        seen: indices of the planes that the network sees. Of a volume these may be more.
        margin: int, how many pixels it sees around the part.
    """

    indices: tuple[Index, ...]
    rows: slice
    columns: slice
    seen: tuple[Index, ...]
    margin: int

    @property
    def own(self) -> slice:
        """Where the planes to denoise are among those that are seen."""
        first = self.seen.index(self.indices[0])
        return slice(first, first + len(self.indices))


def plan_steps(
    layout: Layout,
    denoiser_of: Callable[[Index], "Denoiser"],
    indices: Iterable[Index] | None = None,
) -> Iterator[Step]:
    """Yields what to denoise of a stack, one after the other; channel by channel.

    Args:
        layout: the stack's.
        denoiser_of: what denoises a plane, by its index.
        indices: of the planes to denoise; of volumes, all planes. Default None: all of the stack.
    """
    ordered = sorted(layout.indices() if indices is None else indices, key=layout.channel)
    for _, each in itertools.groupby(ordered, layout.channel):
        planes = [*each]
        denoiser = denoiser_of(planes[0])
        yield from (_of_volumes if denoiser.of_volumes else _of_planes)(layout, planes, denoiser)


def _of_planes(layout: Layout, planes: Sequence[Index], denoiser: "Denoiser") -> Iterator[Step]:
    height, width = layout.size("Y"), layout.size("X")
    recipe, network = denoiser.recipe, denoiser.network
    reach = (network.halo + recipe.denoise_pad) * recipe.denoise_stride
    reach += (network.halo + 2) * denoiser.r3  # the second pass sees results of the first
    margin = math.ceil(max(1, reach) / _GRID) * _GRID
    together = max(1, _AT_ONCE // (height * width))
    for start in range(0, len(planes), together):
        some = tuple(planes[start : start + together])
        for rows, columns in itertools.product(_parts(height, _BLOCK), _parts(width, _BLOCK)):
            yield Step(some, rows, columns, some, margin)


def _of_volumes(layout: Layout, planes: Sequence[Index], denoiser: "Denoiser") -> Iterator[Step]:
    place = layout.outer.index("Z")

    def volume(index: Index) -> Index:
        return index[:place] + index[place + 1 :]

    network = denoiser.network
    count, side = _slab_size(layout, network.halo, network.z_halo, network.z_grid)
    parts = [_parts(layout.size(axis), side) for axis in "YX"]
    for _, each in itertools.groupby(sorted(planes, key=volume), volume):
        whole = [*each]  # in the order of z, as sorting keeps it
        for slab in slabs(len(whole), count, network.z_halo):
            filled, seen = (tuple(whole[z] for z in part) for part in slab)
            for rows, columns in itertools.product(*parts):
                yield Step(filled, rows, columns, seen, network.halo)


def _slab_size(layout: Layout, halo: int, z_halo: int, z_grid: int) -> tuple[int, int]:
    """Returns the planes and the side of the parts of a volume of which most is not margin."""
    depth, *size = map(layout.size, "ZYX")
    best, most = (z_grid, _GRID), 0.0
    side = _BLOCK
    while side >= _GRID:
        area = math.prod(min(length, side + 2 * halo) for length in size)
        seen = _VOXELS // (area * layout.samples)
        planes = depth if seen >= depth else (seen - 2 * z_halo) // z_grid * z_grid
        share = planes / min(seen, depth) if seen else 0.0
        share *= math.prod(min(length, side) / min(length, side + 2 * halo) for length in size)
        if share > most:
            best, most = (planes, side), share
        side //= 2
    return best


def _parts(length: int, block: int) -> list[slice]:
    """Divides an axis into parts that begin at multiples of `_GRID`."""
    count = max(1, math.ceil(length / block))
    side = math.ceil(length / count / _GRID) * _GRID
    return [slice(start, min(start + side, length)) for start in range(0, length, side)]
