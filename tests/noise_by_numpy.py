"""Measured noise as NumPy adds it, for what the training device adds to be compared with."""

import numpy as np
import scipy

from cbsn.colors import to_linear, to_srgb


def with_noise(model, picture, random, gain=1.0):
    """A picture, float [S, S, C] in [0, 1], with the noise of a `CorrelatedNoise`; float32."""
    size, _, channels = picture.shape
    white = random.standard_normal((channels, size, size), np.float32)
    spectrum = np.einsum("cdhw,dhw->chw", model.root(size), scipy.fft.fft2(white))
    field = scipy.fft.ifft2(spectrum).real.transpose(1, 2, 0)
    sigma = [np.interp(picture[..., c], *(curve.T / 255)) for c, curve in enumerate(model.levels)]
    noise = gain * np.stack(sigma, axis=-1) * field
    if not model.linear:
        return np.clip(picture + noise, 0, 1).astype(np.float32)
    light = to_linear(picture)
    slope = np.where(picture <= 0.04045, 1 / 12.92, 2.4 * light / (picture + 0.055))
    return to_srgb(np.clip(light + noise * slope, 0, 1)).astype(np.float32)
