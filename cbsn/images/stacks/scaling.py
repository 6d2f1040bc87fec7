"""The scaling of a stack: which of its values a network sees as 0 and as 1.

A photograph's black and white are known; the values of a microscope's detector have any range. All
planes of a channel are scaled alike, so that a series does not flicker.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from cbsn.errors import ConfigError, ImageError
from cbsn.images.stacks.stack import Stack
from cbsn.value_range import magnitude

METHODS = ("deviation", "percentile", "range", "dtype")
"""How 0 and 1 are chosen: mean and mean + standard deviation; the `_PERCENTILES`; the lowest and
the highest value, except for single pixels; or what the dtype can hold."""

_PERCENTILES = (0.1, 99.9)
_PLANES = 64  # of a channel that are looked at, evenly spread
_VALUES = 2**24  # of a channel that are looked at
_WINDOW = 256  # side in pixels of the parts that are looked at of large planes
_FAR = 4.0  # ranges above the highest value and below the lowest: single pixels there are faulty
_FEW = 1e-3  # of the values, that faulty pixels may be
NOT_FINITE = (
    "holds values that are not finite (NaN or infinity). To replace them by their neighbours: "
    "--nan fill."
)

Fault = tuple[np.ndarray, np.ndarray]
"""Where a plane's faulty pixels are, bool, and the plane with others in their place."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scaling of one channel.

    Args:
        low, high: float, the values that a network sees as 0 and as 1.
        mean, deviation: float, the mean and the standard deviation of the channel's values.
        least, most: float, the values beyond which a single pixel is faulty, such as a hot pixel of
            a camera. Default: none is.
    """

    low: float
    high: float
    mean: float
    deviation: float
    least: float = -math.inf
    most: float = math.inf

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Returns values of any dtype as float32, 0 for `low` and 1 for `high`."""
        # Large integers and floats keep their differences only in float64.
        return ((values.astype(np.float64) - self.low) / (self.high - self.low)).astype(np.float32)

    def undo(self, scaled: np.ndarray) -> np.ndarray:
        """Returns scaled values as float64 in the file's own units."""
        return scaled.astype(np.float64) * (self.high - self.low) + self.low

    def faulty(self, plane: np.ndarray) -> Fault | None:
        """Finds single pixels far beyond all others, which would mislead a network far around.

        Args:
            plane: [H, W] or [H, W, S].

        Returns:
            Where they are, bool, and the plane with the medians of 3 × 3 pixels in their place; or
            None if there are none. Structure as bright is none: there the median is as bright.
        """
        beyond = (plane < self.least) | (plane > self.most)
        if not beyond.any():
            return None
        medians = _medians(plane)
        beyond &= (medians >= self.least) & (medians <= self.most)
        return beyond, np.where(beyond, medians.astype(plane.dtype), plane)


@dataclasses.dataclass(frozen=True)
class Scaling:
    """The scaling of a stack.

    Args:
        method: one of `METHODS`, or `given`.
        channels: the scale of each channel; a single one may hold for all.

    Example:
        >>> scaling = measure_scaling(stack, "percentile")
        >>> scaled = scaling.of(0).apply(stack.read((0, 0)))
    """

    method: str
    channels: tuple[Scale, ...]

    def of(self, channel: int) -> Scale:
        """Returns the scale of a channel."""
        return self.channels[channel if len(self.channels) > 1 else 0]

    def to_dict(self) -> dict[str, Any]:
        """Returns the scaling as plain values that JSON can hold."""
        channels = [
            {
                name: value
                for name, value in dataclasses.asdict(each).items()
                if math.isfinite(value)
            }
            for each in self.channels
        ]
        return {"method": self.method, "channels": channels}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scaling":
        """Rebuilds a scaling from `to_dict`.

        Raises:
            ConfigError: if it is none.
        """
        try:
            channels = tuple(
                Scale(**{name: float(value) for name, value in each.items()})
                for each in values["channels"]
            )
            numbers = [n for each in channels for n in dataclasses.astuple(each)[:4]]
            if not channels or not np.isfinite(numbers).all():
                raise ValueError("it has no channels, or numbers that are not finite")
            if any(each.low >= each.high or each.deviation < 0 for each in channels):
                raise ValueError("a range is empty")
            return cls(str(values["method"]), channels)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"Not a scaling: {error}. Received: {values}") from error


def parse_scaling(text: str) -> str | tuple[float, float]:
    """Returns what `--normalize` states: a method, or the values of 0 and 1.

    Raises:
        ConfigError: if it is neither.

    Example:
        >>> parse_scaling("100,4095")
        (100.0, 4095.0)
    """
    if text in METHODS or text in ("auto", "model"):
        return text
    low, comma, high = text.partition(",")
    try:
        ends = float(low), float(high)
        if comma and -math.inf < ends[0] < ends[1] < math.inf:
            return ends
    except ValueError:
        pass
    raise ConfigError(
        f"--normalize takes {', '.join(('auto', 'model', *METHODS))}, or the values that a network "
        f"sees as 0 and 1, such as 100,4095. Received: --normalize {text}"
    )


def measure_scaling(
    stack: Stack, method: str | tuple[float, float], *, ignore_nan: bool = False
) -> Scaling:
    """Measures the scaling of a stack from some of its planes, evenly spread.

    Args:
        stack: the stack, before any selection, so that parts of it are scaled alike.
        method: one of `METHODS`; or the values of 0 and 1, for all channels.
        ignore_nan: whether values that are not finite are ignored. Default False.

    Returns:
        The scaling, with one scale for each channel. All samples of RGB have the same.

    Raises:
        ImageError: if the file is damaged, or holds values that are not finite.
    """
    name = method if isinstance(method, str) else "given"
    scales = []
    for channel in range(stack.layout.size("C")):
        windows = [*_windows(stack, channel)]
        values = np.concatenate([window.ravel() for window in windows])
        finite = np.isfinite(values)
        if not finite.all():
            if not ignore_nan:
                raise ImageError(NOT_FINITE)
            values = values[finite]
            if not values.size:
                values = np.zeros(1, values.dtype)
        bottom, top = _range(windows, values)
        least, most = bottom - _FAR * (top - bottom), top + _FAR * (top - bottom)
        usual = values[(values >= least) & (values <= most)]
        if usual.size >= (1 - _FEW) * values.size:
            values = usual
        else:  # more than a few: they are what there is to see
            least, most = -math.inf, math.inf
        mean = float(values.mean(dtype=np.float64))
        unit = magnitude(values)
        deviation = float((values.astype(np.float64) / unit).std()) * unit
        if isinstance(method, tuple):
            low, high = method
        elif method == "dtype":
            low, high = _whole_range(stack.layout.dtype)
        elif method == "deviation":
            low, high = mean, mean + deviation
        elif method == "percentile":
            low, high = map(float, np.percentile(values.astype(np.float64), _PERCENTILES))
        else:
            low, high = bottom, top
        scales.append(Scale(low, _above(low, high), mean, deviation, least, most))
    return Scaling(name, tuple(scales))


def pooled_scaling(scalings: Sequence[Scaling], values: Sequence[int]) -> Scaling:
    """Returns one scaling for several stacks, all measured by the same method.

    The means and deviations are those of all values together. Ranges become the one that holds all;
    percentiles, their mean.

    Args:
        scalings: those of the stacks, with equal numbers of channels.
        values: how many values a channel of each stack has.
    """
    method = scalings[0].method
    weights = np.array(values, np.float64) / sum(values)
    channels = []
    for scales in zip(*(each.channels for each in scalings), strict=True):
        numbers = np.array([dataclasses.astuple(each) for each in scales])
        lows, highs, means, deviations, leasts, mosts = numbers.T
        mean = float(weights @ means)
        deviation = math.sqrt(weights @ (deviations**2 + (means - mean) ** 2))
        if method == "deviation":
            low, high = mean, mean + deviation
        elif method == "percentile":
            low, high = float(weights @ lows), float(weights @ highs)
        else:
            low, high = float(lows.min()), float(highs.max())
        limits = float(leasts.min()), float(mosts.max())
        channels.append(Scale(low, _above(low, high), mean, deviation, *limits))
    return Scaling(method, tuple(channels))


def without_alpha(plane: np.ndarray) -> np.ndarray:
    """Returns the values or colours of a plane [H, W] or [H, W, S]."""
    return plane[..., :3] if plane.ndim == 3 else plane


def count_missing(values: np.ndarray) -> int:
    """Returns how many values are not finite."""
    if values.dtype.kind != "f":
        return 0
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def fill_missing(plane: np.ndarray) -> np.ndarray:
    """Returns a plane [H, W] or [H, W, S] with values that are not finite filled.

    Each takes the mean of the finite values around it, in the smallest neighbourhood that has any;
    a plane without any becomes 0.
    """
    missing = ~np.isfinite(plane)
    if not missing.any():
        return plane
    filled = np.where(missing, 0, plane).astype(np.float64)
    weight = (~missing).astype(np.float64)
    result, left, side = filled.copy(), missing.copy(), 3
    while left.any() and side < 4 * max(plane.shape):
        size = (side, side) + (1,) * (plane.ndim - 2)
        share = scipy.ndimage.uniform_filter(weight, size, mode="nearest")
        sums = scipy.ndimage.uniform_filter(filled, size, mode="nearest")
        # A single finite value has the share 1/side²; rounding leaves less.
        found = left & (share > 0.5 / side**2)
        result[found] = sums[found] / share[found]
        left &= ~found
        side = 2 * side + 1
    return result.astype(plane.dtype)


def filled(stack: Stack) -> Stack:
    """Returns a whole stack, of which planes are read with `fill_missing`."""

    def read(index: tuple[int, ...], rows: slice, columns: slice) -> np.ndarray:
        return fill_missing(stack.read(index, rows, columns))

    return Stack(stack.layout, read)


def _windows(stack: Stack, channel: int) -> Iterator[np.ndarray]:
    """Yields parts of some planes of a channel, evenly spread; at most `_VALUES` values.

    Alpha is omitted.
    """
    layout = stack.layout
    indices = layout.held(channel)
    if not indices:  # nothing of it can be denoised
        yield np.zeros((1, 1), layout.dtype)
        return
    count = min(_PLANES, len(indices))
    most = _VALUES // (count * layout.samples)
    height, width = layout.size("Y"), layout.size("X")
    rows, columns = [slice(0, height)], [slice(0, width)]
    if height * width > most:
        side = math.isqrt(most // _WINDOW**2)
        rows, columns = _spread(height, side), _spread(width, side)
    for number in range(count):
        index = indices[number * len(indices) // count]
        for row, column in itertools.product(rows, columns):
            yield without_alpha(stack.read(index, row, column))


def _spread(length: int, count: int) -> list[slice]:
    """Returns windows, evenly spread over an axis; all of it if it is short."""
    room = length - _WINDOW
    if room < _WINDOW * (count - 1):
        return [slice(0, length)]
    starts = [number * room // max(1, count - 1) for number in range(count)]
    return [slice(start, start + _WINDOW) for start in starts]


def _range(windows: Sequence[np.ndarray], values: np.ndarray) -> tuple[float, float]:
    """Returns the lowest and the highest value, except for single pixels, of parts of planes.

    If there is nothing but single pixels, returns the lowest and the highest of all finite values.
    """
    low, high = math.inf, -math.inf
    for window in windows:
        if not (finite := np.isfinite(window)).any():
            continue
        middle = _medians(np.where(finite, window, np.median(window[finite])))
        low, high = min(low, float(middle.min())), max(high, float(middle.max()))
    return (low, high) if low < high else (float(values.min()), float(values.max()))


def _medians(plane: np.ndarray) -> np.ndarray:
    """Returns the median of 3 × 3 pixels at each pixel of a plane [H, W] or [H, W, S]."""
    if plane.dtype == np.float16:  # which SciPy does not know
        plane = plane.astype(np.float32)
    return scipy.ndimage.median_filter(plane, (3, 3) + (1,) * (plane.ndim - 2))


def _above(low: float, high: float) -> float:
    """Returns the upper end of a range; of an empty one, as of a flat channel, a higher value.

    It is as near as float32 can tell apart well, so that a flat channel stays flat.
    """
    return high if low < high else low + (abs(low) * 2.0**-10 or 2.0**-20)


def _whole_range(dtype: np.dtype) -> tuple[float, float]:
    if dtype.kind == "f":
        return 0.0, 1.0
    limits = np.iinfo(dtype)
    return float(limits.min), float(limits.max)
