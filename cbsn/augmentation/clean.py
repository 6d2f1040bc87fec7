"""Clean pictures out of pictures that are nearly clean, each drawn from random numbers."""

import itertools
from typing import Any

import keras
import numpy as np
from keras import ops

from cbsn.colors import LUMA

Tensor = Any

# TensorFlow computes with int32 in the host's memory, which a GPU would wait for, and looking
# something up takes a sum; JAX has no int64 unless it is asked for.
_INDEX = "int64" if keras.config.backend() == "tensorflow" else "int32"

DRAWS = 30  # random numbers that a picture takes, at most

_SHRINKS = (2, 3, 4)  # how many times smaller the pictures are made: neighbouring numbers

# Share of the crisp pictures of which single pixels are kept in place of means: they are sharper
# than a lens draws, with the jagged fine texture of pictures that were made smaller carelessly.
_POINTS = 0.6

_SOFT = 0.5  # share of the pictures that are blurred a little, as lenses do
_SHARP = 0.6  # share of the crisp ones sharpened, as cameras and programs do: by an unsharp mask
_SIGMA, _AMOUNT = (0.3, 1.0), (0.0, 2.0)  # σ of the blur in pixels; times the mask is added
_REACH = 3  # pixels, of the blur

_PATTERNED = 0.3  # share of the crisp ones with a pattern, as of fabric, fences and small print
_FREQUENCY = (0.08, 0.5)  # cycles per pixel of a pattern
_CONTRAST = (0.05, 0.7)  # how much darker and brighter it makes a picture
_HARD = 3.0  # times as steep as a sine wave its edges may be

_OTHER_LIGHT, _LIGHT = 0.5, (0.2, 1.0)  # share in another light, and how much of it is left
_TINT = (0.6, 1.0)  # how much of each channel is left in addition
_OTHER_ORDER = 0.5  # share of the pictures whose channels are put in another order
_OTHER_SATURATION, _SATURATION = 0.6, (0.5, 3.0)

_ORDERS = np.stack([np.eye(3, dtype="float32")[:, o] for o in itertools.permutations(range(3))])


class Draws:
    """Numbers drawn independently for each of `rows` pictures, `count` times.

    `random.uniform(shape)` gives them, float32 in [0, 1).
    """

    def __init__(self, random: Any, rows: int, count: int):
        # All at once: each draw of a step is an operation of its own.
        self._columns = iter(ops.unstack(random.uniform((rows, count)), axis=1))

    def uniform(self, low: Any = 0.0, high: Any = 1.0) -> Tensor:
        """Draws float32 [N] in [low, high)."""
        return low + (high - low) * next(self._columns)

    def log_uniform(self, low: Any, high: Any) -> Tensor:
        """Draws float32 [N] in [low, high), uniform in the logarithm."""
        return low * ops.power(ops.convert_to_tensor(high / low, "float32"), next(self._columns))

    def whole(self, count: Any) -> Tensor:
        """Draws integers [N] in [0, count), as float32; `count` is an int, or such numbers [N]."""
        number = ops.floor(next(self._columns) * count)
        return ops.minimum(number, count - 1)  # the product may be rounded up

    def index(self, count: int) -> Tensor:
        """Draws integers [N] in [0, count), as `ops.take` takes them."""
        return ops.cast(self.whole(count), _INDEX)

    def happens(self, share: Any) -> Tensor:
        """Draws bool [N], true with a probability of `share`."""
        return next(self._columns) < share


def each(values: Tensor) -> Tensor:
    """Returns one value for each picture, [N], as [N, 1, 1, 1]."""
    return ops.reshape(values, (-1, 1, 1, 1))


def shrink(pictures: Tensor, size: int, draws: Draws, crisp: Tensor | None = None) -> Tensor:
    """Cuts windows out of pictures, and makes them 2, 3 or 4 times smaller.

    A denoised photograph is soft, and still has faults. As the mean of 2 × 2 pixels or more it is
    sharp, and next to free of them: as clean as any. Of some `crisp` ones, bool [N], one pixel of
    each cell is taken, so that they are sharper still. Pictures float32 [N, P, P, C] become
    [N, size, size, C]; where P does not hold a window that is twice as large, they keep their
    scale. This takes four numbers a picture, without `crisp` three.
    """
    side = pictures.shape[1]
    shrinks = [times for times in _SHRINKS if times * size <= side] or [1]
    times = shrinks[0] + draws.whole(len(shrinks))
    room = side - size * times + 1
    points = None if crisp is None else ops.logical_and(crisp, draws.happens(_POINTS))
    # Cutting and averaging are one matrix for the rows, and one for the columns.
    rows, columns = (_cells(side, size, times, draws.whole(room), points) for _ in range(2))
    y = ops.einsum("nip,npqc->niqc", rows, pictures)
    return ops.einsum("njq,niqc->nijc", columns, y)


def turn(pictures: Tensor, draws: Draws) -> Tensor:
    """Turns each picture into one of its eight orientations; this takes three numbers a picture."""
    pictures = ops.where(each(draws.happens(0.5)), ops.flip(pictures, 1), pictures)
    pictures = ops.where(each(draws.happens(0.5)), ops.flip(pictures, 2), pictures)
    turned = ops.transpose(pictures, (0, 2, 1, 3))
    return ops.where(each(draws.happens(0.5)), turned, pictures)


def relight(pictures: Tensor, draws: Draws, light: tuple[float, float]) -> Tensor:
    """Puts half of the pictures into another light, less of it and of another colour.

    Of all channels `light` is left, at least and at most; of each in addition `_TINT`, as lamps
    differ. This takes 2 + C numbers a picture.
    """
    other_light = draws.happens(_OTHER_LIGHT)
    left = draws.uniform(*light)[:, None]
    left = left * ops.stack([draws.uniform(*_TINT) for _ in range(pictures.shape[-1])], axis=1)
    return ops.where(each(other_light), pictures * left[:, None, None], pictures)


def vary(pictures: Tensor, draws: Draws, crisp: Tensor) -> Tensor:
    """Makes some pictures softer, sharper, darker, of other colours, or gives them a pattern.

    Those that are `crisp`, bool [N], may be sharpened or given a pattern, the others softened. Gray
    has no colours to change. This takes 23 numbers a picture, for gray 17. All are in [0, 1].
    """
    blurred = _blur(pictures, draws.uniform(*_SIGMA))
    sharper = pictures + each(draws.uniform(*_AMOUNT)) * (pictures - blurred)
    changed = draws.happens(ops.where(crisp, _SHARP, _SOFT))
    other = ops.where(each(crisp), ops.clip(sharper, 0.0, 1.0), blurred)
    pictures = ops.where(each(changed), other, pictures)
    pattern = ops.clip(pictures * _pattern(pictures.shape[1], draws), 0.0, 1.0)
    patterned = ops.logical_and(crisp, draws.happens(_PATTERNED))
    pictures = ops.where(each(patterned), pattern, pictures)
    pictures = relight(pictures, draws, _LIGHT)
    if pictures.shape[-1] == 3:
        order = ops.take(_ORDERS, draws.index(len(_ORDERS)), axis=0)
        reordered = ops.sum(pictures[..., None] * order[:, None, None], axis=3)
        pictures = ops.where(each(draws.happens(_OTHER_ORDER)), reordered, pictures)
        saturation = each(draws.log_uniform(*_SATURATION))
        luma = ops.sum(pictures * np.array(LUMA, "float32"), axis=-1, keepdims=True)
        saturated = luma + saturation * (pictures - luma)
        pictures = ops.where(each(draws.happens(_OTHER_SATURATION)), saturated, pictures)
    return ops.clip(pictures, 0.0, 1.0)


def _pattern(size: int, draws: Draws) -> Tensor:
    """What gives a picture stripes, or a lattice of them, as a factor: [N, size, size, 1]."""
    y, x = np.mgrid[:size, :size].astype("float32")[..., None]

    def stripes() -> Tensor:
        frequency, angle = draws.log_uniform(*_FREQUENCY), draws.uniform(0.0, np.pi)
        down, right = each(frequency * ops.cos(angle)), each(frequency * ops.sin(angle))
        wave = ops.sin(2 * np.pi * (down * y + right * x + each(draws.uniform())))
        return ops.where(each(draws.happens(0.5)), ops.clip(_HARD * wave, -1.0, 1.0), wave)

    first, second = stripes(), stripes()
    wave = ops.where(each(draws.happens(0.5)), first * second, first)
    return 1 + each(draws.uniform(*_CONTRAST)) * wave


def _cells(side: int, size: int, times: Tensor, start: Tensor, points: Tensor | None) -> Tensor:
    """[N, size, side], which takes of cells of `times` neighbours, from `start` on, the mean.

    Where `points` is true, it takes the one in the middle.
    """
    # Integers, but float32: TensorFlow computes with int32 in the host's memory, which a GPU would
    # wait for. Those below 2^24 are exact; and half a pixel keeps each quotient so far from the
    # next integer that it does not matter how a device rounds it.
    place = np.arange(side, dtype="float32")[None] - start[:, None]
    cell = ops.floor((place + 0.5) / times[:, None])
    inside = ops.equal(cell[:, None], np.arange(size, dtype="float32")[None, :, None])
    inside = ops.cast(inside, "float32")
    means = inside / times[:, None, None]
    if points is None:
        return means
    middle = ops.equal(place - cell * times[:, None], ops.floor(times * 0.5)[:, None])
    single = inside * ops.cast(middle, "float32")[:, None]
    return ops.where(points[:, None, None], single, means)


def _blur(pictures: Tensor, sigma: Tensor) -> Tensor:
    """A Gaussian blur, float32 [N] pixels wide; beyond the border is what is at the border."""
    away = np.arange(-_REACH, _REACH + 1, dtype="float32")
    weights = ops.exp(-0.5 * ops.square(away / sigma[:, None]))
    weights = weights / ops.sum(weights, axis=1, keepdims=True)
    size = pictures.shape[1]
    places = np.clip(np.arange(-_REACH, size + _REACH), 0, size - 1)
    for axis in (1, 2):
        padded = ops.take(pictures, places, axis=axis)
        shifted = [ops.take(padded, i + np.arange(size), axis=axis) for i in range(len(away))]
        pictures = sum(each(weights[:, i]) * x for i, x in enumerate(shifted))
    return pictures
