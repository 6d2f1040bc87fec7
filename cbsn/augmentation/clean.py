"""Makes clean pictures from nearly clean ones, with random variations."""

import itertools
from typing import Any

import keras
import numpy as np
from keras import ops

from cbsn.colors import LUMA

Tensor = Any

# TensorFlow computes int32 in host memory, and a look-up includes a sum, so a GPU would wait for
# the host. JAX has no int64 unless it is enabled.
_INDEX = "int64" if keras.config.backend() == "tensorflow" else "int32"

DRAWS = 30  # random numbers per picture, at most

_SHRINKS = (2, 3, 4)  # factors by which pictures are downscaled: consecutive integers

# Share of the crisp pictures that are downscaled by keeping single pixels instead of means. They
# are sharper than a lens draws, with the jagged fine texture of carelessly downscaled pictures.
_POINTS = 0.6

_SOFT = 0.5  # share of the pictures, crisp ones excluded, that are blurred slightly, as by lenses
_SHARP = 0.6  # share of the crisp ones sharpened by an unsharp mask, as by cameras and programs
_SIGMA, _AMOUNT = (0.3, 1.0), (0.0, 2.0)  # σ of the blur in pixels; weight of the unsharp mask
_REACH = 3  # reach of the blur in pixels

_PATTERNED = 0.3  # share of the crisp ones that get a pattern, like fabric, fences or small print
_FREQUENCY = (0.08, 0.5)  # cycles per pixel of a pattern
_CONTRAST = (0.05, 0.7)  # relative amplitude of a pattern
_HARD = 3.0  # steepness of its hard edges, relative to a sine wave

_OTHER_LIGHT, _LIGHT = 0.5, (0.2, 1.0)  # share in another light, and factor of its brightness
_TINT = (0.6, 1.0)  # additional factor of each channel
_OTHER_ORDER = 0.5  # share of the pictures whose channels are permuted
_OTHER_SATURATION, _SATURATION = 0.6, (0.5, 3.0)

_ORDERS = np.stack([np.eye(3, dtype="float32")[:, o] for o in itertools.permutations(range(3))])


class Draws:
    """Draws numbers independently for each of `rows` pictures, up to `count` times.

    `random.uniform(shape)` provides them, float32 in [0, 1).
    """

    def __init__(self, random: Any, rows: int, count: int):
        # All in one call, because each draw of a step is a separate operation.
        self._columns = iter(ops.unstack(random.uniform((rows, count)), axis=1))

    def uniform(self, low: Any = 0.0, high: Any = 1.0) -> Tensor:
        """Draws float32 [N] in [low, high)."""
        return low + (high - low) * next(self._columns)

    def log_uniform(self, low: Any, high: Any) -> Tensor:
        """Draws float32 [N] in [low, high), log-uniformly."""
        return low * ops.power(ops.convert_to_tensor(high / low, "float32"), next(self._columns))

    def whole(self, count: Any) -> Tensor:
        """Draws integers [N] in [0, count), as float32; `count` is an int or float32 [N]."""
        number = ops.floor(next(self._columns) * count)
        return ops.minimum(number, count - 1)  # the product may be rounded up

    def index(self, count: int) -> Tensor:
        """Draws integers [N] in [0, count), as indices for `ops.take`."""
        return ops.cast(self.whole(count), _INDEX)

    def happens(self, share: Any) -> Tensor:
        """Draws bool [N], true with probability `share`."""
        return next(self._columns) < share


def each(values: Tensor) -> Tensor:
    """Reshapes one value per picture, [N], to [N, 1, 1, 1]."""
    return ops.reshape(values, (-1, 1, 1, 1))


def shrink(pictures: Tensor, size: int, draws: Draws, crisp: Tensor | None = None) -> Tensor:
    """Cuts windows out of pictures and downscales them by 2, 3 or 4.

    A denoised photograph is soft and still has faults. The means of cells of 2 × 2 pixels or more
    are sharp and almost free of faults: as clean as any picture. For some `crisp` pictures, bool
    [N], one pixel of each cell is taken instead, which is even sharper. Pictures float32
    [N, P, P, C] become [N, size, size, C]. If P is less than 2 · size, they keep their scale. Uses
    four random numbers per picture, or three without `crisp`.
    """
    side = pictures.shape[1]
    shrinks = [times for times in _SHRINKS if times * size <= side] or [1]
    times = shrinks[0] + draws.whole(len(shrinks))
    room = side - size * times + 1
    points = None if crisp is None else ops.logical_and(crisp, draws.happens(_POINTS))
    # One matrix cuts and averages the rows, another one the columns.
    rows, columns = (_cells(side, size, times, draws.whole(room), points) for _ in range(2))
    y = ops.einsum("nip,npqc->niqc", rows, pictures)
    return ops.einsum("njq,niqc->nijc", columns, y)


def turn(pictures: Tensor, draws: Draws) -> Tensor:
    """Puts each picture in one of eight orientations. Uses three random numbers per picture."""
    pictures = ops.where(each(draws.happens(0.5)), ops.flip(pictures, 1), pictures)
    pictures = ops.where(each(draws.happens(0.5)), ops.flip(pictures, 2), pictures)
    turned = ops.transpose(pictures, (0, 2, 1, 3))
    return ops.where(each(draws.happens(0.5)), turned, pictures)


def relight(pictures: Tensor, draws: Draws, light: tuple[float, float]) -> Tensor:
    """Puts half of the pictures into another light, darker and of another colour.

    All channels are multiplied by one factor from the range `light`, and each of them by another
    factor from `_TINT`, as lamps differ. Uses 2 + C random numbers per picture.
    """
    other_light = draws.happens(_OTHER_LIGHT)
    left = draws.uniform(*light)[:, None]
    left = left * ops.stack([draws.uniform(*_TINT) for _ in range(pictures.shape[-1])], axis=1)
    return ops.where(each(other_light), pictures * left[:, None, None], pictures)


def vary(pictures: Tensor, draws: Draws, crisp: Tensor) -> Tensor:
    """Makes some pictures softer, sharper, darker or of other colours, or gives them a pattern.

    Those that are `crisp`, bool [N], may be sharpened or get a pattern; others may be softened.
    Gray has no colours to change. Results are in [0, 1]. Uses 23 numbers per picture, 17 for gray.
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
    """Returns the factor [N, size, size, 1] that gives a picture stripes or a lattice of them."""
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
    """Returns a matrix [N, size, side] that averages cells of `times` neighbours from `start` on.

    Where `points` is true, it takes the middle one of each cell instead.
    """
    # Integers in float32, because TensorFlow computes int32 in host memory, which a GPU would wait
    # for. They are exact below 2^24, and the half pixel keeps each quotient so far from the next
    # integer that a device's rounding does not matter.
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
    """Blurs by Gaussians with σ float32 [N] in pixels; the border's pixels continue beyond it."""
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
