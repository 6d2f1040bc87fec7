"""Synthetic noise, for pictures whose clean side is known, and what noise is like."""

import dataclasses
import hashlib

import numpy as np

from cbsn.errors import ConfigError
from cbsn.noise.camera import expose
from cbsn.value_range import value_range

NOISES = ("gaussian", "poisson", "poisson-gaussian", "camera")

_DEFAULTS = {
    "gaussian": {"sigma": "25"},
    "poisson": {"peak": "30"},
    "poisson-gaussian": {"peak": "30", "sigma": "5"},
    "camera": {"peak": "100", "sigma": "5.1"},
}
"""The settings that each kind has, as its flags would give them."""

_ACCEPTED = {
    "sigma": "8-bit levels (of 255), 0 to 1e9, such as 25, or their range, such as 5-50",
    "peak": "photons of a white pixel, above 0, to 1e9, such as 30, or their range, such as 10-100",
}
_MOST = 1e9  # NumPy draws no Poisson noise of much brighter light


@dataclasses.dataclass(frozen=True)
class Noise:
    """Synthetic noise, added to clean pictures in float, before any rounding or clipping.

    `gaussian` noise is the same everywhere; `poisson` noise is that of the photons alone;
    `poisson-gaussian` noise is both. These are independent from pixel to pixel and channel to
    channel. `camera` noise is both on the sensor, correlated by what `expose` makes of it. For each
    picture the settings are drawn anew between their lowest and highest value: σ uniformly, the
    peak uniformly in its logarithm, as a camera's sensitivity is set.

    Args:
        kind: one of `NOISES`.
        sigma: standard deviation of the Gaussian noise (the camera's read noise), in 8-bit levels
            (of 255), lowest and highest ≥ 0; None where the kind has no such noise.
        peak: photons of a white pixel (electrons, in the camera), lowest and highest > 0;
            likewise.
    """

    kind: str
    sigma: tuple[float, float] | None = None
    peak: tuple[float, float] | None = None

    @classmethod
    def parse(cls, kind: str | None, sigma: str | None, peak: str | None) -> "Noise | None":
        """Returns the noise that the flags --noise, --noise_sigma and --noise_peak ask for.

        Args:
            kind: one of `NOISES`, or None for the one that has just the settings given.
            sigma: a number or a range, such as `25` or `5-50`, or None for the kind's default.
            peak: likewise.

        Returns:
            The noise, or None if all are None.

        Raises:
            ConfigError: for anything else, or a setting that the kind has no use for.
        """
        given = {"sigma": sigma, "peak": peak}
        given = {name: text for name, text in given.items() if text is not None}
        if kind is None:
            if not given:
                return None
            kind = next(k for k in NOISES if _DEFAULTS[k].keys() == given.keys())
        if kind not in NOISES:
            raise ConfigError(
                f"--noise must be one of {', '.join(NOISES)}. Received: --noise {kind}"
            )
        for name in given.keys() - _DEFAULTS[kind].keys():
            raise ConfigError(
                f"--noise {kind} has no use for --noise_{name}: omit it, or take --noise "
                f"poisson-gaussian, which has both. Received: --noise_{name} {given[name]}"
            )
        settings = {**_DEFAULTS[kind], **given}
        ranges = {
            name: parse_range(f"--noise_{name}", text, _ACCEPTED[name], positive=name == "peak")
            for name, text in settings.items()
        }
        return cls(kind, **ranges)

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns a picture with noise.

        Args:
            image: [H, W, C], noise-free, uint8, uint16 or float in [0, 1]; C is 1 or 3, for the
                camera 3.
            random: draws the peak, σ, the Poisson noise and the Gaussian noise, in this order,
                each where the kind has it.

        Returns:
            float32, same shape, in units of [0, 1], not rounded; nor clipped, but by the camera.

        Raises:
            ConfigError: camera noise for a gray picture.
        """
        noisy = self._unit(image)
        peak = None
        if self.peak:
            low, high = self.peak
            peak = low * (high / low) ** random.random()
        sigma = random.uniform(*self.sigma) / 255 if self.sigma else None
        if self.kind == "camera":
            return expose(noisy, shot=1 / peak, read=sigma, random=random).astype(np.float32)
        if peak is not None:
            # Float pictures may lie a little below black, where there is no light.
            light = peak * np.maximum(noisy, 0)
            noisy = (random.poisson(light) / peak).astype(np.float32)
        if sigma is not None:
            normal = random.standard_normal(noisy.shape, dtype=np.float32)
            noisy = noisy + np.float32(sigma) * normal
        return noisy

    def clean(self, image: np.ndarray) -> np.ndarray:
        """Returns what the noisy picture is to be compared with: the same without noise.

        Args:
            image: as for `__call__`.

        Returns:
            float32, same shape, in [0, 1]: the picture itself, or the camera's photograph of it.

        Raises:
            ConfigError: likewise.
        """
        image = self._unit(image)
        if self.kind == "camera":
            return expose(image, shot=0, read=0).astype(np.float32)
        return image

    def fixed(self, image: np.ndarray, seed: int, name: str) -> np.ndarray:
        """Returns a picture with noise that is a function of the seed and the name alone.

        This makes the fixed-seed noisy test set: which other pictures there are, and in which
        order they come, does not matter.

        Args:
            image: as for `__call__`.
            seed: int in [0, 2⁶⁴).
            name: of the picture; pictures of equal names get the same noise.

        Returns:
            As `__call__`.

        Raises:
            ConfigError: likewise.
        """
        # Philox takes 128 bits of key: the seed in one half, the name in the other.
        digest = int.from_bytes(
            hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8], "little"
        )
        bits = np.random.Philox(key=(seed << 64) + digest)
        return self(image, np.random.Generator(bits))

    def __str__(self) -> str:
        settings = (("peak", self.peak), ("σ", self.sigma))
        shown = [
            f"{name} {'-'.join(f'{value:g}' for value in dict.fromkeys(bounds))}"
            for name, bounds in settings
            if bounds
        ]
        return ", ".join([f"{self.kind} noise", *shown])

    def check(self, channels: int) -> None:
        """Refuses pictures that the kind cannot be added to.

        Raises:
            ConfigError: camera noise for pictures of other than 3 channels.
        """
        if self.kind == "camera" and channels != 3:
            raise ConfigError(
                "--noise camera needs pictures in colour; take another noise for gray ones. "
                f"Received: {channels} channels"
            )

    def _unit(self, image: np.ndarray) -> np.ndarray:
        """The picture in float32, 1.0 being white."""
        self.check(image.shape[-1])
        return image.astype(np.float32) / np.float32(value_range(image.dtype))


def neighbour_correlation(noise: np.ndarray, lags: int = 5) -> np.ndarray:
    """Returns the correlation of noise between horizontal neighbours.

    Args:
        noise: float [H, W, C] with mean 0, such as noisy less clean.
        lags: int, largest distance in pixels.

    Returns:
        float64 [lags], for the distances 1 to `lags`, over all channels together.
    """
    noise = noise.astype(np.float64)
    noise = noise - noise.mean(axis=(0, 1))
    power = np.mean(noise**2)
    return (
        np.array([np.mean(noise[:, lag:] * noise[:, :-lag]) for lag in range(1, lags + 1)]) / power
    )


def parse_range(
    flag: str, text: str, accepted: str, *, positive: bool = False
) -> tuple[float, float]:
    """Returns the lowest and the highest value that a flag gives.

    Args:
        flag: its name, for the error.
        text: a number, or two with `-` in between, of 0 to 1e9.
        accepted: what it takes, for the error.
        positive: whether 0 is none of it.

    Raises:
        ConfigError: for anything else.
    """
    try:
        numbers = [float(part) for part in text.split("-")]
        low, high = numbers * 2 if len(numbers) == 1 else numbers
    except ValueError:
        low = high = float("nan")
    if not 0 <= low <= high <= _MOST or (positive and low == 0):
        raise ConfigError(f"{flag} takes {accepted}. Received: {flag} {text}")
    return low, high
