"""Synthetic noise for clean pictures."""

import dataclasses
import hashlib

import numpy as np
import scipy

from cbsn.colors import to_linear, to_srgb
from cbsn.errors import ConfigError
from cbsn.orientations import NUM_ORIENTATIONS, orient
from cbsn.value_range import to_unit, value_range

BAYER = ((0, 1), (1, 2))  # colour seen by each pixel of a 2 × 2 cell of the sensor: RGGB
WHITE_BALANCE = (2.0, 1.0, 1.6)  # gains of red, green and blue, as in daylight

_QUARTERS = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4  # red and blue: every fourth pixel
_HALVES = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4  # green: every second


def expose(
    image: np.ndarray, *, shot: float, read: float, random: np.random.Generator
) -> np.ndarray:
    """Simulates a photograph of a picture, taken with a noisy camera.

    The picture, sRGB in floats, is converted to linear light, sampled through a Bayer mosaic, given
    Poisson-Gaussian noise, demosaiced bilinearly, white-balanced, clipped and converted back to
    sRGB. The result is float64, not rounded. Demosaicing smears the noise, so it is correlated
    between neighbours as in a real sRGB photograph, and its strength depends on the brightness.

    In units of saturation, `shot` is the shot noise variance of a pixel that the light just
    saturates (the reciprocal of its electrons), and `read` is the standard deviation of the read
    noise, which is drawn last. With 0 for both, the result is the clean picture to compare with.
    """
    if image.dtype.kind != "f" or image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 2:
        raise ValueError(
            "The camera needs float [H, W, 3] with sides of at least 2. "
            f"Received: {image.dtype} {image.shape}"
        )
    if shot < 0 or read < 0:
        raise ValueError(f"shot and read must be 0 or above. Received: shot={shot}, read={read}")
    rows, columns = np.indices(image.shape[:2]) % 2
    seen = np.eye(3)[np.array(BAYER)[rows, columns]]  # [H, W, 3], 1 where the sensor sees it
    signal = (to_linear(image) / WHITE_BALANCE * seen).sum(axis=-1)
    if shot > 0:
        # Float pictures may lie a little below black, where there is no light.
        signal = random.poisson(np.maximum(signal, 0) / shot) * shot
    if read > 0:
        signal = signal + random.normal(0.0, 1.0, signal.shape) * read
    mosaic = signal[..., None] * seen
    planes = [
        # "mirror" keeps the mosaic's parity beyond the edge.
        scipy.ndimage.convolve(mosaic[..., c], _HALVES if c == 1 else _QUARTERS, mode="mirror")
        for c in range(3)
    ]
    return to_srgb(np.clip(np.stack(planes, axis=-1) * WHITE_BALANCE, 0.0, 1.0))


def simulate_camera(
    image: np.ndarray, *, shot: float = 0.01, read: float = 0.02, seed: int = 0
) -> np.ndarray:
    """Simulates a photograph of an 8-bit picture, as `expose` does, and rounds it to 8 bits.

    The same seed gives the same noise.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"simulate_camera needs uint8 pictures. Received: {image.dtype}")
    random = np.random.default_rng(seed)
    exposed = expose(image / 255.0, shot=shot, read=read, random=random)
    return np.rint(exposed * 255).astype(np.uint8)


# The settings of each kind with their defaults, as written in flags.
_DEFAULTS = {
    "gaussian": {"sigma": "25"},
    "poisson": {"peak": "30"},
    "poisson-gaussian": {"peak": "30", "sigma": "5"},
    "camera": {"peak": "100", "sigma": "5.1"},
}
NOISES = tuple(_DEFAULTS)

_ACCEPTED = {
    "sigma": "8-bit levels (of 255), 0 to 1e9, such as 25, or a range, such as 5-50",
    "peak": "photons of a white pixel, above 0 to 1e9, such as 30, or a range, such as 10-100",
}
_MOST = 1e9  # NumPy cannot draw Poisson noise for much brighter light

_SHRINKS = (2, 3, 4)  # factors by which `retake` downscales pictures
_OTHER_LIGHT = 0.5  # share of pictures whose light it changes
_DARKEST, _TINT = 0.3, 0.6  # smallest factor on all values, and on each channel in addition


@dataclasses.dataclass(frozen=True)
class Noise:
    """Synthetic noise, added to clean pictures in float, before any rounding or clipping.

    `gaussian` noise is equally strong everywhere, `poisson` noise is that of the photons alone, and
    `poisson-gaussian` noise is both. These are independent between pixels and between channels.
    `camera` noise is both on the sensor, then correlated by the processing in `expose`. The
    settings are drawn anew for each picture, between their lowest and highest value: σ uniformly,
    the peak uniformly in its logarithm, in the way a camera's sensitivity is set.

    Args:
        kind: one of `NOISES`; settings that it does not have are None.
        sigma: lowest and highest standard deviation of the Gaussian noise (the camera's read
            noise), in 8-bit levels (of 255), ≥ 0.
        peak: lowest and highest number of photons of a white pixel (electrons, in the camera), > 0.
    """

    kind: str
    sigma: tuple[float, float] | None = None
    peak: tuple[float, float] | None = None

    @classmethod
    def parse(cls, kind: str | None, sigma: str | None, peak: str | None) -> "Noise | None":
        """Returns the noise that the flags --noise, --noise_sigma and --noise_peak ask for, if any.

        Without a kind, takes the one that has exactly the given settings. A setting is a number or
        a range, such as `25` or `5-50`, or None for the kind's default. Raises ConfigError for
        anything else, and for a setting that the kind does not use.
        """
        flags = {"sigma": sigma, "peak": peak}
        given = {name: text for name, text in flags.items() if text is not None}
        if kind is None:
            if not given:
                return None
            kind = next(k for k in NOISES if _DEFAULTS[k].keys() == given.keys())
        if kind not in NOISES:
            known = ", ".join(NOISES)
            raise ConfigError(f"--noise must be one of {known}. Received: --noise {kind}")
        for name in given.keys() - _DEFAULTS[kind].keys():
            raise ConfigError(
                f"--noise {kind} does not use --noise_{name}: omit it, or use --noise "
                f"poisson-gaussian, which uses both. Received: --noise_{name} {given[name]}"
            )
        ranges = {
            name: parse_range(f"--noise_{name}", text, _ACCEPTED[name], positive=name == "peak")
            for name, text in {**_DEFAULTS[kind], **given}.items()
        }
        return cls(kind, **ranges)

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns a picture with noise: float32, white at 1.0; only camera noise is clipped.

        The picture, [H, W, 1 or 3], is noise-free. `random` draws the peak, σ, the Poisson noise
        and the Gaussian noise in this order, if the kind has them. Raises ConfigError for
        camera noise on a gray picture.
        """
        self.check(image.shape[-1])
        noisy = to_unit(image)
        peak = sigma = 0.0
        if self.peak:
            low, high = self.peak
            peak = low * (high / low) ** random.random()
        if self.sigma:
            sigma = random.uniform(*self.sigma) / 255
        if self.kind == "camera":
            return expose(noisy, shot=1 / peak, read=sigma, random=random).astype(np.float32)
        if self.peak:
            # Float pictures may lie a little below black, where there is no light.
            light = peak * np.maximum(noisy, 0)
            noisy = (random.poisson(light) / peak).astype(np.float32)
        if self.sigma:
            normal = random.standard_normal(noisy.shape, dtype=np.float32)
            noisy = noisy + np.float32(sigma) * normal
        return noisy

    def clean(self, image: np.ndarray) -> np.ndarray:
        """Returns the noise-free picture to compare the noisy one with, float32 in [0, 1].

        This is the picture itself or, for camera noise, the camera's photograph of it.
        """
        self.check(image.shape[-1])
        image = to_unit(image)
        if self.kind == "camera":
            unused = np.random.default_rng(0)
            return expose(image, shot=0, read=0, random=unused).astype(np.float32)
        return image

    def fixed(self, image: np.ndarray, seed: int, name: str) -> np.ndarray:
        """Returns a picture with noise that depends only on the seed and the name.

        This makes a fixed-seed noisy test set, which does not depend on the other pictures or on
        their order. The seed is in [0, 2⁶⁴).
        """
        # Philox takes 128 bits of key: the seed in one half, the name in the other.
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
        bits = np.random.Philox(key=(seed << 64) + int.from_bytes(digest[:8], "little"))
        return self(image, np.random.Generator(bits))

    def __str__(self) -> str:
        settings = {"peak": self.peak, "σ": self.sigma}.items()
        shown = [f"{name} {range_text(bounds)}" for name, bounds in settings if bounds]
        return ", ".join([f"{self.kind} noise", *shown])

    def check(self, channels: int) -> None:
        """Raises `ConfigError` if pictures with this number of channels cannot have this noise."""
        if self.kind == "camera" and channels != 3:
            raise ConfigError(
                "--noise camera needs pictures in colour: use another noise for gray ones. "
                f"Received: {channels} channels"
            )


def retake(picture: np.ndarray, size: int, noise: Noise, random: np.random.Generator) -> np.ndarray:
    """Makes a pair from a picture: float32 [size, size, 2·C], noisy then clean, white at 1.

    This does with NumPy what `OwnNoiseAugmentation` does on the training device. It downscales the
    picture 2, 3 or 4 times, turns it, changes its light half of the time, because lamps differ, and
    adds noise. Simulated cameras draw from the Poisson distribution, which devices do not have.

    The picture, [P, P, C], keeps its scale unless it is at least twice as large as the result.
    """
    times = min(int(random.choice(_SHRINKS)), len(picture) // size)
    side = size * times
    room = len(picture) - side + 1
    top, left, orientation = random.integers(0, (room, room, NUM_ORIENTATIONS))
    window = orient(picture[top : top + side, left : left + side], orientation)
    cells = window.reshape(size, times, size, times, -1)
    clean = np.zeros((size, size, picture.shape[-1]), np.float32)
    for i in range(times):  # NumPy's mean over so few pixels takes five times as long
        for j in range(times):
            clean += cells[:, i, :, j].astype(np.float32)
    clean /= np.float32(times**2 * value_range(picture.dtype))
    if random.random() < _OTHER_LIGHT:
        tint = random.uniform(_DARKEST, 1), random.uniform(_TINT, 1, clean.shape[-1])
        clean *= np.multiply(*tint).astype(np.float32)
    return np.concatenate([noise(clean, random), noise.clean(clean)], axis=-1)


def neighbour_correlation(noise: np.ndarray, lags: int = 5) -> np.ndarray:
    """Returns the correlation of noise [H, W, C] between pixels 1 to `lags` apart in a row.

    All channels are pooled. The noise may be the difference between noisy and clean pictures.
    """
    noise = noise.astype(np.float64)
    noise = noise - noise.mean(axis=(0, 1))
    products = [np.mean(noise[:, lag:] * noise[:, :-lag]) for lag in range(1, lags + 1)]
    return np.array(products) / np.mean(noise**2)


def parse_range(
    flag: str, text: str, accepted: str, *, positive: bool = False
) -> tuple[float, float]:
    """Returns the lowest and highest value in a flag's text: a number, or two joined by `-`.

    Raises ConfigError for anything else, or for 0 if `positive`, and says what is `accepted`.
    """
    try:
        numbers = [float(part) for part in text.split("-")]
        low, high = numbers * 2 if len(numbers) == 1 else numbers
    except ValueError:
        low = high = float("nan")
    if not 0 <= low <= high <= _MOST or (positive and low == 0):
        raise ConfigError(f"{flag} takes {accepted}. Received: {flag} {text}")
    return low, high


def range_text(bounds: tuple[float, float]) -> str:
    """Returns a range as text for `parse_range`: `5-50`, or `25` if both ends are equal."""
    return "-".join(f"{value:g}" for value in dict.fromkeys(bounds))
