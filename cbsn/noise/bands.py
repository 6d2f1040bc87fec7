"""Bands: a regular pattern of lines across the whole picture, and its period.

The hum of the mains makes them in scanners, and lamps that flicker in cameras that read out row by
row.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import scipy

from cbsn.noise.lines import LINES, REACH, is_lost, known_median, mean_step

_STRIPS = (4, 16)  # fewest and most strips that a plane is cut into across the bands
_STRIP = 64  # least width of a strip in pixels, where there are more than the fewest
_SIDE = 4096  # pixels of a plane that are looked at along each axis, in its middle
_FEWEST_PERIODS = 8  # that fit into the plane
_NEAR = 31  # frequencies around one whose median tells what is usual there
_CHANCE = 1e-3  # probability that noise without bands shows some
_UNCERTAIN = 2  # factor on the limit, as what is usual is the median of few values
_EVERYWHERE = 0.3  # of the mean of all strips, that nearly every strip has of a band
_MATTERS = 0.1  # amplitude in standard deviations of the noise


@dataclasses.dataclass(frozen=True)
class Bands:
    """A regular pattern of rows or of columns.

    Args:
        lines: "rows" for bands along the rows, or "columns".
        period: float, in pixels.
        amplitude: float, half the distance from the darkest to the brightest of a sine wave, in the
            units of the planes.
        relative: float, the amplitude in standard deviations of the noise of a pixel.
    """

    lines: str
    period: float
    amplitude: float
    relative: float

    def describe(self) -> str:
        """Says in a sentence what it is."""
        kind = "Horizontal" if self.lines == "rows" else "Vertical"
        told = (
            f"{kind} bands every {self.period:.4g} px, of {self.relative:.2f} times the standard "
            "deviation of the noise: hum, a lamp that flickers, or a regular pattern in what the "
            "picture shows."
        )
        if self.period <= 2 * REACH:
            told += f" cbsn denoise --repair {self.lines} removes them."
        return told

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as plain values that JSON can store."""
        values = dataclasses.asdict(self)
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


class BandSearch:
    """Looks for bands, plane by plane.

    A plane is cut into strips across the bands. The differences of neighbouring lines, averaged
    within each strip, have a spectrum, which is divided by what is usual at similar frequencies.
    What the strips have in common adds up with its phase: bands do, and content does not, unless
    it crosses the picture. A frequency stands out if noise would be as strong there once in 1000
    searches. The phase may differ from plane to plane.

    Example:
        >>> search, noise = BandSearch(), np.random.default_rng(0)
        >>> wave = np.sin(np.arange(256) * 2 * np.pi / 12.5)[:, None, None]
        >>> search.add(noise.normal(size=(256, 256, 1)) + 0.5 * wave)
        >>> round(search.result()[0].period, 1)
        12.5
    """

    def __init__(self) -> None:
        self._found = {lines: _Spectrum() for lines in LINES}

    def add(self, plane: np.ndarray) -> None:
        """Adds a plane or picture [H, W, C] of finite values, of which clipped ones do not count.

        Bands along the rows are looked for in those that are as high as the first one, and bands
        along the columns in those that are as wide.
        """
        middle = tuple(
            slice(max(0, (size - _SIDE) // 2), max(0, (size - _SIDE) // 2) + _SIDE)
            for size in plane.shape[:2]
        )
        gray = plane[middle].mean(axis=-1, dtype=np.float32)
        gray[is_lost(plane[middle]).any(axis=-1)] = np.nan
        self._found["rows"].add(gray)
        self._found["columns"].add(gray.T)

    def result(self) -> list[Bands]:
        """Returns the strongest bands along rows and along columns, if there are any."""
        found = (self._found[lines].result(lines) for lines in LINES)
        return [each for each in found if each]


class _Spectrum:
    """Collects the spectra of what changes from row to row."""

    def __init__(self) -> None:
        self._length = 0
        self._power = self._common = np.zeros(0)  # relative to what is usual, and of the amplitude
        self._aligned = np.zeros((0, 0))  # of each strip: the part in phase with the others
        self._told = np.zeros(0, bool)  # of which strips there is any
        self._deviations: list[float] = []

    def add(self, plane: np.ndarray) -> None:
        height, width = plane.shape
        length = height - 1
        # As many strips as the first plane has, as planes need not be of the same width.
        strips = len(self._aligned) or int(np.clip(width // _STRIP, *_STRIPS))
        if length < 4 * _FEWEST_PERIODS or width < strips or self._length not in (0, length):
            return
        differences = np.diff(plane, axis=0)
        kept = ~np.isnan(differences)
        if not kept.any():
            return
        apart = abs(differences - known_median(differences))
        deviation = 1.4826 * float(np.median(apart[kept]))
        if not deviation > 0:
            return
        window = np.hanning(length + 2)[1:-1]
        steps = np.stack([mean_step(each) for each in _strips(differences, strips)])
        told = steps.any(axis=1)  # of strips that are clipped everywhere, nothing is
        count = np.count_nonzero(told)
        if count < _STRIPS[0] // 2:
            return
        spectra = np.fft.rfft(window * steps)
        size = np.abs(spectra) ** 2
        usual = scipy.ndimage.median_filter(size, (1, _NEAR), mode="mirror") / math.log(2)
        unit = spectra / np.sqrt(np.where(usual > 0, usual, np.inf))
        if not self._length:
            self._length = length
            self._power = self._common = np.zeros(size.shape[1])
            self._aligned = np.zeros(size.shape)
            self._told = np.zeros(strips, bool)
        self._told |= told
        total = unit.sum(axis=0)
        others = total - unit
        phase = others / np.where(others == 0, 1, np.abs(others))
        self._aligned += (unit * phase.conj()).real
        self._power = self._power + np.abs(total) ** 2 / count
        common = np.abs(spectra.sum(axis=0)) ** 2 - size.sum(axis=0)
        self._common = self._common + common / (count * (count - 1) * window.sum() ** 2)
        self._deviations.append(deviation / math.sqrt(2))

    def result(self, lines: str) -> Bands | None:
        if not self._deviations:
            return None
        usual = scipy.ndimage.median_filter(self._power, _NEAR, mode="mirror") / math.log(2)
        power = np.divide(self._power, usual, out=np.zeros_like(usual), where=usual > 0)
        frequencies = np.arange(len(power)) / self._length
        power[frequencies < _FEWEST_PERIODS / self._length] = 0
        # The powers of noise at one frequency are exponentially distributed, however many planes
        # there are, as all of them may show the same.
        limit = -_UNCERTAIN * math.log(_CHANCE / len(power))
        top = int(np.argmax(power))
        aligned = np.sort(self._aligned[self._told, top])
        aligned = aligned[len(aligned) // 8 :]
        if power[top] < limit or aligned[0] < _EVERYWHERE * aligned.mean():
            return None
        near = slice(max(top - 1, 1), min(top + 2, len(power)))
        common = np.maximum(self._common[near], 0) / len(self._deviations)
        if not common.sum() > 0:
            return None
        # The window spreads a wave over three frequencies, with 1/4, 1 and 1/4 of its power, in
        # each half of the spectrum. Both halves meet at a period of 2.
        if top < len(power) - 1:
            frequency = float(np.average(frequencies[near], weights=common))
            wave = 2 * math.sqrt(common.sum() / 1.5)
        else:
            frequency = 0.5
            wave = math.sqrt(common.sum() / (0.75 if self._length % 2 else 1.25))
        amplitude = wave / (2 * math.sin(math.pi * frequency))
        relative = amplitude / float(np.median(self._deviations))
        if relative < _MATTERS:
            return None
        return Bands(lines, round(1 / frequency, 2), amplitude, relative)


def _strips(values: np.ndarray, count: int) -> list[np.ndarray]:
    return np.array_split(values, count, axis=1)
