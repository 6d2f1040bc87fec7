"""The autocovariance of noise in blocks of 32 × 32 pixels, apart from their smooth content.

Maps of it, [..., REACH + 1, 2·REACH + 1], say how pixels go with those down by 0 to `REACH` and
right by −`REACH` to `REACH`; the other half is equal by symmetry.
"""

import functools

import numpy as np
import scipy

BLOCK = 32  # side of a block in pixels
REACH = 14  # largest distance in pixels, along each axis, that an autocovariance is taken at
FAR = 8  # from this distance on, correlation is taken for bias or chance where they are told

_DEGREE = 4
_LINEAR = 3  # polynomials of degree 0 and 1: no block is free of brightness and shading
_FFT = 48  # BLOCK + REACH at least, so that nothing wraps around

_DOWN, _RIGHT = np.mgrid[: REACH + 1, -REACH : REACH + 1]

# A map, in pixels; 0 for ways that are there a second time, turned round.
DISTANCES = np.where((_DOWN > 0) | (_RIGHT > 0), np.hypot(_DOWN, _RIGHT), 0)

# How many pairs of pixels a block has for each way.
PAIRS = ((BLOCK - _DOWN) * (BLOCK - abs(_RIGHT))).astype(np.float32)


@functools.cache
def polynomials() -> np.ndarray:
    """An orthonormal basis of the polynomials in x and y up to degree 4, float32 [BLOCK², 15].

    By degree: the constant, the 2 of degree 1, the 3 of degree 2, …
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

    The energy [...] is that of degrees 2 to 4 alone, per polynomial. Of white noise of variance v
    it is v on average.
    """
    # Less their mean first, as float32 holds large values less exactly.
    blocks = blocks - blocks.mean(axis=-1, keepdims=True)
    parts = blocks @ polynomials()
    return (parts[..., _LINEAR:] ** 2).mean(axis=-1), blocks - parts @ polynomials().T


def autocovariance(blocks: np.ndarray) -> np.ndarray:
    """Returns a map of the mean product of two pixels, of blocks [..., BLOCK²] from `split`."""
    blocks = blocks.reshape(*blocks.shape[:-1], BLOCK, BLOCK)
    power = np.abs(scipy.fft.rfft2(blocks, s=(_FFT, _FFT))) ** 2
    products = scipy.fft.irfft2(power, s=(_FFT, _FFT))
    return products[..., : REACH + 1, _RIGHT[0]] / PAIRS


def without_bias(covariance: np.ndarray) -> np.ndarray:
    """Undoes what the removal of the smooth part does to a mean `autocovariance`.

    With the polynomials, P n is taken away from the noise n. As they are smooth, that lowers the
    autocovariance by about S·g, where g is the mean of P's entries for pixels that far apart, and
    S the power of the noise at low frequencies. S is unknown, but from 8 pixels on the
    autocovariance is to be 0: S is what makes it so, by least squares over all directions. What
    was in the smooth part itself, mostly content, is not needed.
    """
    far = DISTANCES >= FAR
    lowered = _lowered()
    power = -(covariance[..., far] @ lowered[far]) / np.sum(lowered[far] ** 2)
    return covariance + power[..., None, None] * lowered


def smooth_energy(covariance: np.ndarray) -> float:
    """Returns the energy, as `split` has it, that noise of a map `without_bias` has on average."""
    counted = np.where(DISTANCES < FAR, 2.0, 0.0)
    counted[0, :REACH] = 0  # of the first row each way is there twice
    counted[0, REACH] = 1
    return float(np.sum(covariance * counted * _energies()))


def structure(covariance: np.ndarray) -> np.ndarray:
    """Tells single blocks with edges, stripes or texture from noise, whatever that is like.

    In noise that is correlated nearby only, the squares of far correlations are
    Σρ² / (number of pairs) on average (Bartlett 1946). This returns how large they are, [...], 1
    being as large as chance makes them.
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
