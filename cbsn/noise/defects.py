"""Finds defective pixels of a camera, hot, dead or stuck ones, and repairs them.

Such a pixel is the same in all planes, and its neighbours know nothing of it. The image of a point,
such as a star or a bead, is at least as wide as optics make it, so its neighbours are bright, too.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy

from cbsn.noise.neighbours import gathered, middle_of_four, shifted
from cbsn.value_range import magnitude

KINDS = ("hot", "dead", "stuck")

MARGIN = 3
"""How many pixels around a defect its repair looks at, at most."""

# Least share of a point's brightness, above its surroundings, that the middle two of its four
# neighbours have. It is 0.23 for a Gaussian of 1.2 pixels (full width at half maximum) anywhere
# on the grid, and 0.54 for one of 2 pixels, as sampling by Nyquist has it.
_POINT = 0.2
_STRENGTH = 3.0  # least distance from the surroundings, in standard deviations of a plane's noise
_SURE = 3.0  # standard errors by which neighbours must be darker than those of a point
_MEAN_ERROR = 0.55  # of the middle two of four values, in standard deviations of one
_ALWAYS = 0.9  # share of the planes in which a defect lies on its side of its neighbours
_SHOWN = 0.5  # share of the planes that have a value there, at least
_ALIKE = 0.5  # least share of its mean height that a defect has without the plane of its largest
_AS_BRIGHT = 2  # other pixels among the 24 around, at most; none in a single picture
_CHANCE = 0.0025  # expected number of sound pixels in a search that are taken for defects
_FEW = 0.01  # share of the pixels that defects may be; more are what the picture shows
_STEPS = 1.1 ** np.arange(60)  # of the limit, up to 300 times the least one

_BLOCK = 16  # side of the blocks that tell how strong the noise is
_TRIMMED = 0.98  # share of a block's pixels that counts for it
_PART = 2048  # side in pixels of what is looked at together, a multiple of `_BLOCK`
_RIM = 2 * _BLOCK  # pixels around it that are looked at, too

_AROUND = np.array([(y, x) for y, x in np.ndindex(5, 5) if (y, x) != (2, 2)]) - 2
_IN_RING = abs(_AROUND).max(axis=1) == 2
_NEXT = _AROUND[~_IN_RING]


@dataclasses.dataclass(frozen=True, eq=False)
class Defects:
    """The defective pixels of a camera.

    Args:
        shape: the height and the width of a plane in pixels, and its channels (1, or 3 for RGB).
        places: int [n, 3], row, column and channel of each, sorted.
        kinds: int [n], the place of each one's kind in `KINDS`: brighter than its neighbours in all
            planes, darker, or of one value in all planes, whatever its neighbours do.
        planes: int, how many planes have been looked at.
    """

    shape: tuple[int, int, int]
    places: np.ndarray
    kinds: np.ndarray
    planes: int

    def __len__(self) -> int:
        return len(self.places)

    def within(self, rows: slice, columns: slice) -> "Defects":
        """Returns those in a part of the plane, as places in that part."""
        height, width, channels = self.shape
        (top, bottom, _), (left, right, _) = rows.indices(height), columns.indices(width)
        down, across, _ = self.places.T
        inside = (down >= top) & (down < bottom) & (across >= left) & (across < right)
        places = self.places[inside] - np.array([top, left, 0])
        shape = (bottom - top, right - left, channels)
        return Defects(shape, places, self.kinds[inside], self.planes)

    def counts(self) -> dict[str, int]:
        """Returns the number of each kind that there is."""
        numbers = np.bincount(self.kinds, minlength=len(KINDS))
        return {name: int(n) for name, n in zip(KINDS, numbers, strict=True) if n}

    def describe(self) -> str:
        """Says how many there are, such as `12 hot pixels and 1 dead pixel`."""
        told = [f"{n} {name} pixel{'s' * (n > 1)}" for name, n in self.counts().items()]
        return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as plain values that JSON can store."""
        kinds = [KINDS[kind] for kind in self.kinds]
        return {"planes": self.planes, "places": self.places.tolist(), "kinds": kinds}


def find_defects(planes: Sequence[np.ndarray]) -> Defects:
    """Finds pixels that are defective in all planes, or, of one picture, isolated outliers.

    A pixel is hot if

    - its mean over the planes is above its surroundings, a ring of 16 pixels, by three or more
      standard deviations of a plane's noise. This limit rises where noise might reach it: few
      planes, few photons, texture that stays. If the density of noise is log-concave, as those of
      normal, Poisson and exponential noise are, no larger a share is beyond t than the square of
      the share beyond t/2, and at most one pixel in a hundred searches may be beyond by chance;
    - it is above its neighbours in nine of ten planes, and without the plane in which it is highest
      above them, its mean height is half as much or more. So what moves is no defect, nor is a
      cosmic ray, even in two planes;
    - its four neighbours are darker, by three standard errors, than those of a point would be. Two
      defects side by side are found, but not those that demosaicing has spread;
    - at most two of the 24 pixels around are as bright; in a single picture, none is.

    In a single picture in colour, all of that holds for each colour. A dead pixel is the same with
    the signs reversed. A stuck one has a single value, where its neighbours' values repeat so
    seldom that it cannot be chance. Planes of a single value, such as black ones, do not count.

    Args:
        planes: [H, W] or [H, W, C], all of one shape; integers or floats, finite.

    Returns:
        The defects; none in parts of 2048 × 2048 pixels of which they would be more than 1 %.

    Raises:
        ValueError: if the planes have different shapes.

    References:
        An, "Logconcavity versus logconvexity", Journal of Economic Theory 80, 1998: survival
        functions of log-concave densities are new-better-than-used, S(a + b) ≤ S(a) · S(b).

    Example:
        >>> stack = np.random.default_rng(0).poisson(50, (8, 64, 64))
        >>> stack[:, 20, 30] = 4000
        >>> find_defects(stack).places.tolist()
        [[20, 30, 0]]
    """
    if len(shapes := {plane.shape for plane in planes}) > 1:
        raise ValueError(f"All planes need one shape. Received: {sorted(shapes)}")

    def read(number: int, rows: slice, columns: slice) -> tuple[np.ndarray, None]:
        return planes[number][rows, columns], None

    return search_defects(read, len(planes), planes[0].shape)


def search_defects(
    read: Callable[[int, slice, slice], tuple[np.ndarray, np.ndarray | None]],
    planes: int,
    shape: Sequence[int],
) -> Defects:
    """Does what `find_defects` does, for planes that are read part by part.

    Memory depends neither on the number of planes nor on their size.

    Args:
        read: returns rows and columns of the plane of a number, [h, w] or [h, w, C], and where
            they have no value but one that was filled in, bool of that shape; None for nowhere.
        planes: int ≥ 1, the number of planes.
        shape: of a plane, (H, W) or (H, W, C).
    """
    height, width, channels = (*shape, 1)[:3]
    places, kinds = [np.zeros((0, 3), int)], [np.zeros(0, int)]
    for top, left in itertools.product(range(0, height, _PART), range(0, width, _PART)):
        rows, columns = (
            slice(max(0, start - _RIM), min(start + _PART + _RIM, size))
            for start, size in ((top, height), (left, width))
        )
        sums = _Sums()
        for number in range(planes):
            sums.add(*read(number, rows, columns))
        for kind, found in enumerate(sums.find()):
            found = found + np.array([rows.start, columns.start, 0])
            inner = (found[:, :2] >= (top, left)) & (found[:, :2] < (top + _PART, left + _PART))
            places.append(found[inner.all(axis=1)])
            kinds.append(np.full(len(places[-1]), kind))
    every, each_kind = np.concatenate(places), np.concatenate(kinds)
    order = np.lexsort(every.T[::-1])
    return Defects((height, width, channels), every[order], each_kind[order], planes)


class _Sums:
    """Sums over planes, or over parts of planes, of one shape [H, W, C]."""

    def __init__(self) -> None:
        self._count = 0
        self._shape: tuple[int, ...] = ()
        self._last = self._rough = self._highest = self._lowest = np.zeros(0)

    def add(self, plane: np.ndarray, filled: np.ndarray | None = None) -> None:
        values = plane[..., None] if plane.ndim == 2 else plane
        if (filled is not None and filled.all()) or values.min() == values.max():
            return  # no defect would differ from its neighbours there
        if not self._count:
            self._shape = values.shape
            self._floor = 0.0 if values.dtype.kind == "f" else 1 / 12  # of the variance: rounding
            self._sum, self._squares = np.zeros((2, *values.shape))
            self._above, self._below, self._repeats = np.zeros((3, *values.shape), np.uint16)
            self._missing = np.zeros(values.shape, np.uint16)
            self._unit = magnitude(values) if values.dtype.kind == "f" else 1.0
        else:
            self._repeats += values == self._last
        self._count += 1
        self._last = values
        values = values.astype(np.float64) / self._unit
        rough = values - middle_of_four(values)
        self._sum += values
        self._squares += rough**2
        self._above += rough > 0
        self._below += rough < 0
        if self._count == 1:
            self._rough = self._highest = self._lowest = rough
        else:
            self._rough = self._rough + rough
            self._highest = np.maximum(self._highest, rough)
            self._lowest = np.minimum(self._lowest, rough)
        if filled is not None:
            self._missing += filled.reshape(values.shape)

    def find(self) -> list[np.ndarray]:
        """Returns the places of each kind of defect, int [n, 3]."""
        nothing = [np.zeros((0, 3), int)] * len(KINDS)
        if not self._count or min(self._shape[:2]) < 5:
            return nothing
        mean, variance = self._sum / self._count, self._variance()
        nearest, noise = middle_of_four(mean), self._noise(variance)
        above, below = self._is_always(self._above), self._is_always(self._below)
        above &= self._is_alike(self._rough, self._highest)
        below &= self._is_alike(-self._rough, -self._lowest)
        hot = self._outliers(mean, nearest, noise, variance, above)
        dead = self._outliers(-mean, -nearest, noise, variance, below)
        stuck = self._is_stuck()
        stuck[tuple(np.concatenate([hot, dead]).T)] = False
        found = [hot, dead, np.argwhere(stuck)]
        return nothing if sum(map(len, found)) > _FEW * mean.size else found

    def _outliers(
        self,
        mean: np.ndarray,
        nearest: np.ndarray,
        noise: np.ndarray,
        variance: np.ndarray,
        above: np.ndarray,
    ) -> np.ndarray:
        """Returns where the mean of the planes is far above its surroundings, int [n, 3].

        Args:
            mean: [H, W, C].
            nearest: the mean of the middle two of the four neighbours.
            noise: the standard deviation of a plane's noise there.
            variance: from `_variance`.
            above: bool [H, W, C], which pixels are above their neighbours in all planes.
        """
        n = self._count
        margin = _SURE / np.sqrt(n)
        least = max(_STRENGTH, 2 * _STRENGTH / np.sqrt(n))
        # No other pixels can pass what follows, not even for half of the limit.
        enough = (1 - _POINT) * least / 2
        places = np.argwhere(mean - nearest > enough * noise)
        at = tuple(places.T)
        unit = noise[at]
        if n > 1:  # bright structure has more noise than its block
            next_to_it = gathered(variance, places, _NEXT).mean(axis=1)
            unit = np.sqrt(np.maximum(unit**2, next_to_it))
        # How far it is above each pixel around.
        around = (mean[at][:, None] - gathered(mean, places, _AROUND)) / unit[:, None]
        ring = np.sort(around[:, _IN_RING], axis=1)
        around.sort(axis=1)
        # From the darker part of the surroundings, as there may be other points, too.
        excess, height = ring[:, 7], ring[:, 11]
        below_peak = height - (mean - nearest)[at] / unit
        # `noise` is that of differences; a pixel's own is weaker, so this errs on the safe side.
        may_be = below_peak < _POINT * height
        is_single = below_peak + _MEAN_ERROR * margin < _POINT * height
        if n == 1:
            is_single &= around[:, 0] > (1 - _POINT) * excess - margin
        is_single &= (around[:, _AS_BRIGHT] > margin) & above[at]
        limit = _limit(excess[may_be], excess[is_single], mean.size, least)
        found = places[is_single & (excess > limit)]
        if n > 1 or mean.shape[2] == 1:
            return found
        # Cameras interpolate colours, so what is an outlier in one of them only is no pixel's.
        _, where, count = np.unique(found[:, :2], axis=0, return_inverse=True, return_counts=True)
        return found[count[where.ravel()] == mean.shape[2]]

    def _is_always(self, planes: np.ndarray) -> np.ndarray:
        """Returns which pixels are on one side of their neighbours in all planes that show them.

        Args:
            planes: int [H, W, C], in how many planes each is.
        """
        shown = self._count - self._missing
        return (planes >= _ALWAYS * shown) & (shown >= _SHOWN * self._count)

    def _is_alike(self, heights: np.ndarray, highest: np.ndarray) -> np.ndarray:
        """Returns which pixels would be as high without the plane in which they are highest.

        Those that a cosmic ray hit in a single plane are not, though noise may well have them above
        their neighbours in the few others.

        Args:
            heights: [H, W, C], the sum over the planes of what each is above its neighbours.
            highest: [H, W, C], the largest of what is summed.
        """
        n = self._count
        return (heights - highest) * n >= _ALIKE * heights * (n - 1)

    def _variance(self) -> np.ndarray:
        """Returns the variance over the planes of pixels minus their neighbours, [H, W, C].

        Of a single picture it is the square of that difference.
        """
        n = self._count
        if n == 1:
            return self._squares
        return np.maximum(self._squares - self._rough**2 / n, 0) / (n - 1)

    def _noise(self, variance: np.ndarray) -> np.ndarray:
        """Returns the standard deviation in a plane of pixels minus their neighbours, [H, W, C].

        It is that of a block of 16 × 16 pixels, or of the noisiest block around it.
        """
        height, width, channels = variance.shape
        padding = [(0, -size % _BLOCK) for size in (height, width)]
        whole = np.pad(variance, [*padding, (0, 0)], mode="symmetric")
        rows, columns = (size // _BLOCK for size in whole.shape[:2])
        blocks = whole.reshape(rows, _BLOCK, columns, _BLOCK, channels).swapaxes(1, 2)
        values = blocks.reshape(rows, columns, _BLOCK**2, channels)
        count = int(_TRIMMED * _BLOCK**2)
        kept = np.partition(values, count, axis=2)[:, :, :count].mean(axis=2)
        # What trimming takes from the mean of χ² values, as squares of normal ones are.
        freedom = max(1, self._count - 1)
        end = scipy.special.gammaincinv(freedom / 2, _TRIMMED)
        kept /= scipy.special.gammainc(freedom / 2 + 1, end) / _TRIMMED
        strongest = scipy.ndimage.maximum_filter(kept, (3, 3, 1), mode="nearest")
        whole = np.repeat(np.repeat(strongest, _BLOCK, axis=0), _BLOCK, axis=1)
        floor = max(self._floor, np.finfo(np.float64).tiny)
        return np.sqrt(np.maximum(whole[:height, :width], floor))

    def _is_stuck(self) -> np.ndarray:
        """Returns which pixels have one value only, unless that may be chance; bool [H, W, C]."""
        most = self._count - 1
        if not most:
            return np.zeros(self._shape, bool)
        around = np.zeros(self._shape)
        for each in _NEXT:
            around += shifted(self._repeats, *each)
        often = (around + 1) / (len(_NEXT) * most + 1)
        return (self._repeats == most) & (often**most * often.size < _CHANCE)


def _limit(all_: np.ndarray, single: np.ndarray, pixels: int, least: float) -> float:
    """Returns the distance from which on single pixels are no noise; infinity if all may be.

    Args:
        all_: the distances of all pixels that may be single ones, in standard deviations.
        single: those of pixels that surely are.
        pixels: the number of all pixels.
        least: the least limit.
    """
    all_, single = np.sort(all_), np.sort(single)
    for limit in least * _STEPS:
        found = len(single) - np.searchsorted(single, limit, "right")
        if not found:
            break
        halfway = len(all_) - np.searchsorted(all_, limit / 2, "right") - found
        if halfway**2 / pixels <= _CHANCE * max(1, found):
            return float(limit)
    return float("inf")


def repair(plane: np.ndarray, defects: Defects) -> np.ndarray:
    """Returns a plane with the median of sound neighbours in place of each defect.

    These are the pixels within 3 × 3, or, if none of them is sound, within 5 × 5 or 7 × 7. All
    other pixels stay as they are. Values that are not finite are not sound.

    Args:
        plane: [H, W] or [H, W, C], of the shape of `defects`, or with alpha in addition.
        defects: from `find_defects`; of a part of a plane, `defects.within` that part.

    Example:
        >>> plane = np.full((5, 5), 7)
        >>> plane[2, 2] = 99
        >>> hot = Defects((5, 5, 1), np.array([[2, 2, 0]]), np.array([0]), 1)
        >>> int(repair(plane, hot)[2, 2])
        7
    """
    if not len(defects):
        return plane
    result = plane.copy()
    image = result[..., None] if result.ndim == 2 else result
    rows, columns, channels = defects.places.T
    (height, width), left = image.shape[:2], np.arange(len(defects))
    bad = {*map(tuple, defects.places.tolist())}
    for reach in range(1, MARGIN + 1):
        down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1, 1)
        y, x, c = np.broadcast_arrays(rows[left] + down, columns[left] + right, channels[left])
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        near = plane.reshape(image.shape)[y.clip(0, height - 1), x.clip(0, width - 1), c]
        flags = [tuple(each) in bad for each in np.stack([y, x, c], -1).reshape(-1, 3).tolist()]
        sound = inside & ~np.reshape(flags, y.shape) & np.isfinite(near)
        can = sound.any(axis=0)
        medians = np.nanmedian(np.where(sound, near, np.nan)[:, can], axis=0)
        done = left[can]
        if image.dtype.kind in "iu":
            medians = np.rint(medians)
        image[rows[done], columns[done], channels[done]] = medians
        left = left[~can]
        if not len(left):
            break
    return result
