"""Synthetic noise, for pictures whose clean side is known."""

import dataclasses
import hashlib

import numpy as np
import scipy

from cbsn.colors import to_linear, to_srgb
from cbsn.errors import ConfigError
from cbsn.orientations import NUM_ORIENTATIONS, orient
from cbsn.value_range import to_unit, value_range

BAYER = ((0, 1), (1, 2))  # colour that each pixel of a 2 × 2 cell of the sensor sees: RGGB
WHITE_BALANCE = (2.0, 1.0, 1.6)  # gains of red, green and blue, as in daylight

_QUARTERS = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4  # red and blue: every fourth pixel
_HALVES = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4  # green: every second


def expose(
    image: np.ndarray, *, shot: float, read: float, random: np.random.Generator
) -> np.ndarray:
    """Photographs a picture anew, with a noisy camera.

    The picture, sRGB in floats, is made linear, seen through a Bayer mosaic, given Poisson-Gaussian
    noise, demosaiced (bilinearly), white-balanced, clipped and given the sRGB curve; it comes back
    in float64, not rounded. The demosaicing smears the noise, so that it is correlated between
    neighbours like that of a real sRGB photograph, and its strength depends on the brightness.

    In units of saturation, `shot` is the variance of the shot noise of a pixel that the light just
    saturates (the reciprocal of its electrons), and `read` the standard deviation of the read
    noise, which is drawn last. With 0 for both, the result is the picture to compare with.
    """
    if image.dtype.kind != "f" or image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 2:
        raise ValueError(
            "The camera takes float [H, W, 3] with sides of 2 or more. "
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
    """Photographs a picture anew, as `expose` does, from 8 bits to 8 bits.

    The same seed gives the same noise.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"simulate_camera takes uint8 pictures. Received: {image.dtype}")
    random = np.random.default_rng(seed)
    exposed = expose(image / 255.0, shot=shot, read=read, random=random)
    return np.rint(exposed * 255).astype(np.uint8)


# The settings that each kind has, as its flags would give them.
_DEFAULTS = {
    "gaussian": {"sigma": "25"},
    "poisson": {"peak": "30"},
    "poisson-gaussian": {"peak": "30", "sigma": "5"},
    "camera": {"peak": "100", "sigma": "5.1"},
}
NOISES = tuple(_DEFAULTS)

_ACCEPTED = {
    "sigma": "8-bit levels (of 255), 0 to 1e9, such as 25, or their range, such as 5-50",
    "peak": "photons of a white pixel, above 0, to 1e9, such as 30, or their range, such as 10-100",
}
_MOST = 1e9  # NumPy draws no Poisson noise of much brighter light

_SHRINKS = (2, 3, 4)  # how many times smaller `retake` makes pictures
_OTHER_LIGHT = 0.5  # share that it takes in another light
_DARKEST, _TINT = 0.3, 0.6  # what is left of that at least, and of each colour in addition


@dataclasses.dataclass(frozen=True)
class Noise:
    """Synthetic noise, added to clean pictures in float, before any rounding or clipping.

    `gaussian` noise is the same everywhere; `poisson` noise is that of the photons alone;
    `poisson-gaussian` noise is both. These are independent from pixel to pixel and channel to
    channel. `camera` noise is both on the sensor, correlated by what `expose` makes of it. For each
    picture the settings are drawn anew between their lowest and highest value: σ uniformly, the
    peak uniformly in its logarithm, as a camera's sensitivity is set.

    Args:
        kind: one of `NOISES`; settings that it does not have are None.
        sigma: standard deviation of the Gaussian noise (the camera's read noise), in 8-bit levels
            (of 255), lowest and highest ≥ 0.
        peak: photons of a white pixel (electrons, in the camera), lowest and highest > 0.
    """

    kind: str
    sigma: tuple[float, float] | None = None
    peak: tuple[float, float] | None = None

    @classmethod
    def parse(cls, kind: str | None, sigma: str | None, peak: str | None) -> "Noise | None":
        """Returns the noise that the flags --noise, --noise_sigma and --noise_peak ask for, if any.

        Without a kind it is the one that has just the settings given. A setting is a number or a
        range, such as `25` or `5-50`, or None for the kind's default. Anything else, or a setting
        that the kind has no use for, is a ConfigError.
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
                f"--noise {kind} has no use for --noise_{name}: omit it, or take --noise "
                f"poisson-gaussian, which has both. Received: --noise_{name} {given[name]}"
            )
        ranges = {
            name: parse_range(f"--noise_{name}", text, _ACCEPTED[name], positive=name == "peak")
            for name, text in {**_DEFAULTS[kind], **given}.items()
        }
        return cls(kind, **ranges)

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns a picture with noise: float32, 1.0 being white; only the camera clips it.

        The picture, [H, W, 1 or 3], is noise-free. `random` draws the peak, σ, the Poisson noise
        and the Gaussian noise, in this order, each where the kind has it. Camera noise for a gray
        picture is a ConfigError.
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
        """Returns what the noisy picture is to be compared with: the same without noise.

        That is float32 in [0, 1]: the picture itself, or the camera's photograph of it.
        """
        self.check(image.shape[-1])
        image = to_unit(image)
        if self.kind == "camera":
            unused = np.random.default_rng(0)
            return expose(image, shot=0, read=0, random=unused).astype(np.float32)
        return image

    def fixed(self, image: np.ndarray, seed: int, name: str) -> np.ndarray:
        """Returns a picture with noise that is a function of the seed and the name alone.

        This makes the fixed-seed noisy test set: which other pictures there are, and in which
        order they come, does not matter. The seed is in [0, 2⁶⁴).
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
        """Raises `ConfigError` if it cannot be added to pictures of this number of channels."""
        if self.kind == "camera" and channels != 3:
            raise ConfigError(
                "--noise camera needs pictures in colour; take another noise for gray ones. "
                f"Received: {channels} channels"
            )


def retake(picture: np.ndarray, size: int, noise: Noise, random: np.random.Generator) -> np.ndarray:
    """Takes a picture anew: float32 [size, size, 2·C] in [0, 1], with noise, then without.

    This does with NumPy what `OwnNoiseAugmentation` does on the device that trains: the picture is
    made 2, 3 or 4 times smaller; turned; half of the time put into another light, as lamps differ;
    and given noise. Simulated cameras draw from Poisson's distribution, which devices do not have.

    The picture, [P, P, C], keeps its scale if it is not twice as large as the result.
    """
    times = min(int(random.choice(_SHRINKS)), len(picture) // size)
    side = size * times
    room = len(picture) - side + 1
    top, left, orientation = random.integers(0, (room, room, NUM_ORIENTATIONS))
    window = orient(picture[top : top + side, left : left + side], orientation)
    cells = window.reshape(size, times, size, times, -1)
    clean = np.zeros((size, size, picture.shape[-1]), np.float32)
    for i in range(times):  # NumPy's mean over this few pixels takes five times as long
        for j in range(times):
            clean += cells[:, i, :, j].astype(np.float32)
    clean /= np.float32(times**2 * value_range(picture.dtype))
    if random.random() < _OTHER_LIGHT:
        tint = random.uniform(_DARKEST, 1), random.uniform(_TINT, 1, clean.shape[-1])
        clean *= np.multiply(*tint).astype(np.float32)
    return np.concatenate([noise(clean, random), noise.clean(clean)], axis=-1)


def neighbour_correlation(noise: np.ndarray, lags: int = 5) -> np.ndarray:
    """Returns the correlation of noise [H, W, C] between pixels 1 to `lags` apart in a row.

    All channels count together. The noise may be that of noisy less clean pictures.
    """
    noise = noise.astype(np.float64)
    noise = noise - noise.mean(axis=(0, 1))
    products = [np.mean(noise[:, lag:] * noise[:, :-lag]) for lag in range(1, lags + 1)]
    return np.array(products) / np.mean(noise**2)


def parse_range(
    flag: str, text: str, accepted: str, *, positive: bool = False
) -> tuple[float, float]:
    """Returns the lowest and the highest value of a flag's text: a number, or two with `-` between.

    Anything else is a ConfigError, saying what is `accepted`; so is 0 if it is to be `positive`.
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
    """Returns a range as `parse_range` takes it: `5-50`, or `25` where both ends are equal."""
    return "-".join(f"{value:g}" for value in dict.fromkeys(bounds))
