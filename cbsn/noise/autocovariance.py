"""The autocovariance of noise, by blocks."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from cbsn.value_range import value_range

STEP = 16
"""Distance of neighbouring blocks in pixels: they overlap by half."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """What was measured on n blocks of 32 × 32 pixels, in C channels.

    Args:
        content: [n], energy of the smooth part, apart from brightness and shading, in units of
            the noise's variance. That is where content is, far above the noise. All other
            measurements are made without it, so that choosing by it does not bias them.
        quiet: [n, C], variance in 8-bit levels² that the quietest blocks of this brightness have
            in this picture: a first guess of the noise.
        brightness: [n, C], mean in 8-bit levels.
        covariance: [n, C, REACH + 1, 2·REACH + 1], from `autocovariance`, in 8-bit levels².
        picture: int [n], of which it is a block.
        corner: int [n, 2], row and column of the first pixel, in units of `STEP` pixels.
    """

    content: np.ndarray
    quiet: np.ndarray
    brightness: np.ndarray
    covariance: np.ndarray
    picture: np.ndarray
    corner: np.ndarray

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: np.ndarray | slice) -> "Blocks":
        return Blocks(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    @classmethod
    def joined(cls, parts: Sequence["Blocks"]) -> "Blocks":
        """Returns the blocks of several pictures together; at least one, of equal channels."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


BINS = 64
"""Of the histogram, from 0 to full scale."""


class Values:
    """Counts the values of pictures, one after the other."""

    def __init__(self) -> None:
        self._pixels = 0
        self._ends: Any = 0
        self._counts: Any = 0

    def add(self, picture: np.ndarray) -> np.ndarray:
        """Counts a picture.

        Args:
            picture: [H, W, C], uint8, uint16 or float.

        Returns:
            bool [H, W, C], where it is exactly at 0 or at full scale. Floats beyond are not.
        """
        scale = value_range(picture.dtype)
        black, white = picture == 0, picture == scale
        self._pixels += picture.shape[0] * picture.shape[1]
        self._ends += np.stack([black.sum(axis=(0, 1)), white.sum(axis=(0, 1))], axis=1)
        self._counts += np.stack(
            [
                np.histogram(np.clip(channel, 0, scale), BINS, (0, scale))[0]
                for channel in np.moveaxis(picture, 2, 0)
            ]
        )
        return black | white

    def shares(self) -> dict[str, np.ndarray]:
        """Returns `clipped` and `histogram` of `NoiseEstimate`; at least one picture was added."""
        return {"clipped": self._ends / self._pixels, "histogram": self._counts / self._pixels}


BLOCK = 32
"""Side of a block in pixels."""

REACH = 14
"""Largest distance in pixels, along each axis, that an autocovariance is taken at."""

_DEGREE = 4
_LINEAR = 3  # polynomials of degree 0 and 1: no block is free of brightness and shading
_FFT = 48  # BLOCK + REACH at least, so that nothing wraps around

FAR = 8
"""From this distance in pixels on, correlation is taken for bias or chance where they are told."""


@functools.cache
def polynomials() -> np.ndarray:
    """Returns an orthonormal basis of the polynomials in x and y up to degree 4.

    Returns:
        float32 [BLOCK², 15], by degree: the constant, the 2 of degree 1, the 3 of degree 2, …
    """
    t = np.linspace(-1, 1, BLOCK)
    terms = [
        np.outer(t**i, t ** (degree - i)).ravel()
        for degree in range(_DEGREE + 1)
        for i in range(degree + 1)
    ]
    return np.linalg.qr(np.stack(terms, axis=1))[0].astype(np.float32)


def split(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits blocks into what the polynomials can follow and the rest.

    Args:
        blocks: float32 [..., BLOCK²].

    Returns:
        The energy of the smooth part, that of degrees 2 to 4 alone, per polynomial [...]; and the
        rest [..., BLOCK²]. Of white noise of variance v, the energy is v on average.
    """
    # Less their mean first, as float32 holds large values less exactly.
    blocks = blocks - blocks.mean(axis=-1, keepdims=True)
    parts = blocks @ polynomials()
    return (parts[..., _LINEAR:] ** 2).mean(axis=-1), blocks - parts @ polynomials().T


def autocovariance(blocks: np.ndarray) -> np.ndarray:
    """Returns the mean product of two pixels of a block, by the way from the one to the other.

    Args:
        blocks: float [..., BLOCK²], the rest that `split` leaves.

    Returns:
        [..., REACH + 1, 2·REACH + 1]: down by 0 to `REACH`, right by −`REACH` to `REACH`. The
        other half is equal by symmetry.
    """
    blocks = blocks.reshape(*blocks.shape[:-1], BLOCK, BLOCK)
    power = np.abs(scipy.fft.rfft2(blocks, s=(_FFT, _FFT))) ** 2
    products = scipy.fft.irfft2(power, s=(_FFT, _FFT))[..., : REACH + 1, _offsets()[1][0]]
    return products / pairs()


def without_bias(covariance: np.ndarray) -> np.ndarray:
    """Undoes what the removal of the smooth part does to a mean autocovariance.

    With the polynomials, P n is taken away from the noise n. As they are smooth, that lowers the
    autocovariance by about S·g, where g is the mean of P's entries for pixels that far apart, and
    S the power of the noise at low frequencies. S is unknown, but from 8 pixels on the
    autocovariance is to be 0: S is what makes it so, by least squares over all directions. What
    was in the smooth part itself, mostly content, is not needed.

    Args:
        covariance: [..., REACH + 1, 2·REACH + 1], a mean of `autocovariance`.

    Returns:
        float64, same shape.
    """
    far = distances() >= FAR
    lowered = _lowered()
    power = -(covariance[..., far] @ lowered[far]) / np.sum(lowered[far] ** 2)
    return covariance + power[..., None, None] * lowered


def smooth_energy(covariance: np.ndarray) -> float:
    """Returns the energy, as `split` gives it, that noise of an autocovariance has on average.

    Args:
        covariance: [REACH + 1, 2·REACH + 1], from `without_bias`.
    """
    counted = np.where(distances() < FAR, 2.0, 0.0)
    counted[0, :REACH] = 0  # of the first row each way is there twice
    counted[0, REACH] = 1
    return float(np.sum(covariance * counted * _energies()))


def structure(covariance: np.ndarray) -> np.ndarray:
    """Tells blocks with edges, stripes or texture from noise, whatever that is like.

    In noise that is correlated nearby only, the squares of far correlations are
    Σρ² / (number of pairs) on average (Bartlett 1946).

    Args:
        covariance: [..., REACH + 1, 2·REACH + 1], of single blocks, not 0 everywhere.

    Returns:
        [...], how large they are, 1 being as large as chance makes them.
    """
    down, right = _offsets()
    near = (np.maximum(down, abs(right)) <= 5) & (distances() > 0)
    far = (distances() >= 7) & (distances() <= REACH)
    squares = (covariance / covariance[..., :1, REACH, None]) ** 2
    chance = 1 + 2 * squares[..., near].sum(axis=-1)
    return (squares[..., far] * pairs()[far]).mean(axis=-1) / chance


@functools.cache
def distances() -> np.ndarray:
    """Returns the distances that `autocovariance` is of, in pixels; 0 for ways that are repeated.

    Returns:
        float [REACH + 1, 2·REACH + 1].
    """
    down, right = _offsets()
    return np.where((down > 0) | (right > 0), np.hypot(down, right), 0)


@functools.cache
def pairs() -> np.ndarray:
    """Returns how many pairs of pixels a block has for each way; float32."""
    down, right = _offsets()
    return ((BLOCK - down) * (BLOCK - abs(right))).astype(np.float32)


@functools.cache
def _offsets() -> tuple[np.ndarray, np.ndarray]:
    down, right = np.mgrid[0 : REACH + 1, -REACH : REACH + 1]
    return down, right


@functools.cache
def _lowered() -> np.ndarray:
    return autocovariance(polynomials().T.astype(np.float64)).sum(axis=0)


@functools.cache
def _energies() -> np.ndarray:
    smooth = polynomials().T[_LINEAR:].astype(np.float64)
    return autocovariance(smooth).mean(axis=0) * pairs()
