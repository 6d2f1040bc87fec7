"""The autocovariance of the noise in blocks of 32 × 32 pixels, without their smooth content.

A map [..., REACH + 1, 2·REACH + 1] holds the covariance of a pixel with those 0 to `REACH` pixels
further down and −`REACH` to `REACH` to the right. The other half is equal by symmetry.
"""

import functools

import numpy as np
import scipy

BLOCK = 32  # side of a block in pixels
REACH = 14  # largest distance in an autocovariance along each axis, in pixels
FAR = 8  # estimates of bias and chance attribute all correlation from this distance on to them

_DEGREE = 4
_LINEAR = 3  # number of polynomials of degree 0 and 1: every block has brightness and shading
_FFT = 48  # at least BLOCK + REACH, so that nothing wraps around

_DOWN, _RIGHT = np.mgrid[: REACH + 1, -REACH : REACH + 1]

# Map of the distances in pixels; 0 where an offset repeats another one in the opposite direction.
DISTANCES = np.where((_DOWN > 0) | (_RIGHT > 0), np.hypot(_DOWN, _RIGHT), 0)

# Map of the number of pixel pairs in a block at each offset.
PAIRS = ((BLOCK - _DOWN) * (BLOCK - abs(_RIGHT))).astype(np.float32)


@functools.cache
def polynomials() -> np.ndarray:
    """Returns an orthonormal basis of polynomials in x and y up to degree 4, float32 [BLOCK², 15].

    They are sorted by degree: the constant, the 2 of degree 1, the 3 of degree 2, …
    """
    t = np.linspace(-1, 1, BLOCK)
    terms = [
        np.outer(t**i, t ** (degree - i)).ravel()
        for degree in range(_DEGREE + 1)
        for i in range(degree + 1)
    ]
    return np.linalg.qr(np.stack(terms, axis=1))[0].astype(np.float32)


def split(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the energy of the smooth part of blocks, float32 [..., BLOCK²], and their rest.

    The energy [...] is the mean per polynomial, over degrees 2 to 4 only. For white noise of
    variance v, it is v on average.
    """
    # Subtract the mean first, because float32 holds large values less exactly.
    blocks = blocks - blocks.mean(axis=-1, keepdims=True)
    parts = blocks @ polynomials()
    return (parts[..., _LINEAR:] ** 2).mean(axis=-1), blocks - parts @ polynomials().T


def autocovariance(blocks: np.ndarray) -> np.ndarray:
    """Returns a map of the mean product of two pixels, for blocks [..., BLOCK²] from `split`."""
    blocks = blocks.reshape(*blocks.shape[:-1], BLOCK, BLOCK)
    power = np.abs(scipy.fft.rfft2(blocks, s=(_FFT, _FFT))) ** 2
    products = scipy.fft.irfft2(power, s=(_FFT, _FFT))
    return products[..., : REACH + 1, _RIGHT[0]] / PAIRS


def without_bias(covariance: np.ndarray) -> np.ndarray:
    """Corrects a mean `autocovariance` for the bias that removing the smooth part causes.

    Removing the polynomials subtracts P n from the noise n. Because they are smooth, this lowers
    the autocovariance by about S·g, where g is the mean of P's entries for pixels that far apart,
    and S is the power of the noise at low frequencies. S is unknown, but from 8 pixels on the
    autocovariance should be 0, so S is fitted to that by least squares over all directions. The
    smooth part itself, which is mostly content, is not needed.
    """
    far = DISTANCES >= FAR
    lowered = _lowered()
    power = -(covariance[..., far] @ lowered[far]) / np.sum(lowered[far] ** 2)
    return covariance + power[..., None, None] * lowered


def smooth_energy(covariance: np.ndarray) -> float:
    """Returns the average energy, as in `split`, of noise with a map from `without_bias`."""
    counted = np.where(DISTANCES < FAR, 2.0, 0.0)
    counted[0, :REACH] = 0  # the first row holds each offset twice
    counted[0, REACH] = 1
    return float(np.sum(covariance * counted * _energies()))


def structure(covariance: np.ndarray) -> np.ndarray:
    """Returns a score [...] that tells blocks with edges, stripes or texture from any noise.

    In noise that is only correlated nearby, the squares of far correlations average
    Σρ² / (number of pairs) (Bartlett 1946). The score is their size relative to that, so 1 means
    as large as chance makes them.
    """
    near = (np.maximum(_DOWN, abs(_RIGHT)) <= 5) & (DISTANCES > 0)
    far = (DISTANCES >= 7) & (DISTANCES <= REACH)
    squares = (covariance / covariance[..., :1, REACH, None]) ** 2
    chance = 1 + 2 * squares[..., near].sum(axis=-1)
    return (squares[..., far] * PAIRS[far]).mean(axis=-1) / chance


@functools.cache
def _lowered() -> np.ndarray:
    return autocovariance(polynomials().T.astype(np.float64)).sum(axis=0)


@functools.cache
def _energies() -> np.ndarray:
    smooth = polynomials().T[_LINEAR:].astype(np.float64)
    return autocovariance(smooth).mean(axis=0) * PAIRS
