"""PSNR and SSIM, and the conventions in which published figures differ."""

import dataclasses
from typing import Any

import numpy as np
import scipy  # scipy and skimage load their submodules on use: some take a second
import skimage

from cbsn.errors import ConfigError, check_number, check_texts
from cbsn.value_range import ValueRange, to_unit, value_range

_GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

SSIMS: dict[str, tuple[dict[str, Any], int]] = {
    # scikit-image's default, which the AP-BSN and SS-BSN code uses: 7×7, sample covariance.
    "uniform": ({"win_size": 7}, 7),
    # Wang et al. (2004) and later MATLAB code (ssim_index.m): 11×11, Gaussian weights of σ 1.5.
    "gaussian": (_GAUSSIAN, 11),
    # Wang's later ssim.m: the same, after downscaling pictures of 384 px or more.
    "matlab": (_GAUSSIAN, 11),
}
"""By name: scikit-image's keyword arguments, and the side of the window in pixels."""

_SQUARABLE = 1e100  # numbers between its inverse and itself have squares in float64
_LARGEST_RANGE = 1e9  # beyond any value in a file
_FLOAT_STEPS = 255.0  # float pictures are rounded to these steps, as if saved in 8 bits
_ROUNDINGS = {"round": np.rint, "floor": np.floor, "none": None}


def psnr(clean: np.ndarray, denoised: np.ndarray, data_range: float | None = None) -> float:
    """Returns the peak signal-to-noise ratio in dB, infinite for equal pictures.

    The pictures are [H, W, C] of the same dtype, uint8, uint16 or float; others raise a ValueError.
    The peak is `data_range` or, by default, that of the dtype (1 for floats).
    """
    check_comparable("PSNR", clean, denoised)
    peak = data_range or value_range(clean.dtype)
    clean, denoised, peak = _squarable(clean, denoised, peak)
    with np.errstate(divide="ignore"):
        return float(skimage.metrics.peak_signal_noise_ratio(clean, denoised, data_range=peak))


def _squarable(
    clean: np.ndarray, denoised: np.ndarray, peak: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns pictures and their peak, in units of the peak if its square is beyond float64."""
    if 1 / _SQUARABLE < peak < _SQUARABLE:
        return clean, denoised, peak
    return clean / peak, denoised / peak, 1.0


def ssim(
    clean: np.ndarray, denoised: np.ndarray, data_range: float, flavour: str = "uniform"
) -> float:
    """Returns the structural similarity (Wang et al. 2004) of comparable pictures, 1 if equal.

    It is the mean over the channels and over all windows that lie inside the picture. `flavour` is
    a key of `SSIMS`. Others, and pictures smaller than a window, raise a ValueError.
    """
    check_comparable("SSIM", clean, denoised)
    settings, window = SSIMS[flavour]
    if flavour == "matlab":
        clean, denoised = _made_smaller(clean), _made_smaller(denoised)
    if min(clean.shape[:2]) < window:
        raise ValueError(
            f"SSIM needs pictures of at least {window} px a side. Received: {clean.shape}"
        )
    clean, denoised, data_range = _squarable(clean, denoised, data_range)
    similarity = skimage.metrics.structural_similarity
    return float(similarity(clean, denoised, data_range=data_range, channel_axis=-1, **settings))


def check_comparable(metric: str, clean: np.ndarray, denoised: np.ndarray) -> None:
    """Raises ValueError unless two pictures have the same shape and dtype, and finite values."""
    if clean.shape != denoised.shape or clean.dtype != denoised.dtype:
        raise ValueError(
            f"{metric} compares pictures of the same shape and dtype. Received: "
            f"{clean.shape} {clean.dtype} and {denoised.shape} {denoised.dtype}"
        )
    if not (np.isfinite(clean).all() and np.isfinite(denoised).all()):
        raise ValueError(f"{metric} needs finite values. Received: NaN or infinity")


def _made_smaller(picture: np.ndarray) -> np.ndarray:
    """Averages f × f pixels around every f-th one; f is the shorter side / 256, rounded."""
    factor = max(1, int(min(picture.shape[:2]) / 256 + 0.5))
    if factor == 1:
        return picture
    # MATLAB's even-sided filters reach one pixel less to the left, SciPy's one less to the right.
    origin = -1 if factor % 2 == 0 else 0
    averaged = scipy.ndimage.uniform_filter(
        picture.astype(np.float64), (factor, factor, 1), mode="reflect", origin=(origin, origin, 0)
    )
    return averaged[::factor, ::factor]


@dataclasses.dataclass(frozen=True)
class Conventions:
    """How a denoised picture is made comparable with the clean one, and compared.

    Args:
        rounding: how float results are rounded: `"round"` to the nearest level of the clean picture
            (8-bit levels if that is float), as AP-BSN's code and `cbsn denoise` do; `"floor"` to
            the level below, as the C-BSN code does; or `"none"`. Default `"round"`.
        clip: whether to clip values to the range. Default True.
        data_range: the peak of PSNR, and of the constants of SSIM: `"dtype"`, the full range (255,
            65535, or 1 for floats); `"clean"`, the highest minus the lowest value of each clean
            picture, as is usual in microscopy; `"stack"`, see `for_stacks`; or a number in the
            units of the pictures, such as 4095 for 12 bits in 16-bit files. Default `"dtype"`.
        color: `"rgb"`, all channels together, or `"luma"`, Y of BT.601 from 16 to 235, as MATLAB's
            `rgb2ycbcr` computes it, but not rounded. Default `"rgb"`.
        ssim: a key of `SSIMS`. Default `"uniform"`.
        border: int ≥ 0, pixels to cut off on each side. Default 0.

    Raises:
        ConfigError: if a value is none of these.
    """

    rounding: str = "round"
    clip: bool = True
    data_range: str = "dtype"
    color: str = "rgb"
    ssim: str = "uniform"
    border: int = 0

    def __post_init__(self):
        check_texts({name: getattr(self, name) for name in ("rounding", "color", "ssim")})
        for field, known in (("rounding", _ROUNDINGS), ("color", ("rgb", "luma")), ("ssim", SSIMS)):
            value = getattr(self, field)
            if value not in known:
                accepted = ", ".join(known)
                raise ConfigError(
                    f"--{field} must be one of {accepted}. Received: --{field} {value}"
                )
        check_number("--border", self.border, 0, whole=True)
        if self.data_range not in ("dtype", "clean", "stack"):
            try:
                peak = float(self.data_range)
            except (TypeError, ValueError):
                peak = np.nan
            if not 0 < peak <= _LARGEST_RANGE:
                raise ConfigError(
                    "--data_range must be dtype, clean, or a number above 0 in the units of the "
                    f"pictures, such as 255. Received: --data_range {self.data_range}"
                )

    @classmethod
    def choose(cls, synthetic: bool, **settings: str | bool | int | None) -> "Conventions":
        """Returns the usual conventions for real or synthetic noise, changed by settings not None.

        With synthetic noise, floats stand for no file, so they are neither rounded nor clipped.
        """
        given: dict[str, Any] = {"rounding": "none", "clip": False} if synthetic else {}
        given.update((name, value) for name, value in settings.items() if value is not None)
        return cls(**given)

    def __str__(self) -> str:
        cut = f", {self.border} px cut off" if self.border else ""
        return (
            f"rounding {self.rounding}, {'clipped' if self.clip else 'not clipped'}, data range "
            f"{self.data_range}, {self.color}, SSIM {self.ssim}{cut}"
        )

    def unrounded(self, picture: np.ndarray) -> np.ndarray:
        """Returns a picture as floats, or unchanged if results are to be rounded as in files."""
        is_fit = picture.dtype.kind == "f" or self.rounding == "round"
        return picture if is_fit else to_unit(picture)

    def levels(self, picture: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Returns a denoised picture as float64 in the units of the clean one, rounded and clipped.

        The picture has the clean one's `dtype`, or is float in units of [0, 1].
        """
        peak = value_range(dtype)
        values = picture.astype(np.float64)
        if picture.dtype.kind == "f":
            steps = peak if peak > 1 else _FLOAT_STEPS
            rounded = _ROUNDINGS[self.rounding]
            values = rounded(values * steps) * (peak / steps) if rounded else values * peak
        elif picture.dtype != dtype:
            raise ValueError(
                f"a result of {picture.dtype} cannot be compared with a clean picture of {dtype}"
            )
        return np.clip(values, 0, peak) if self.clip else values

    def stretched(self, found: ValueRange, dtype: np.dtype) -> "Conventions":
        """Returns the conventions for pictures stretched from the range `found` to a dtype's."""
        if self.data_range in ("dtype", "clean") or found.is_of(dtype):
            return self
        peak = float(self.data_range) * value_range(dtype) / (found.white - found.black)
        return dataclasses.replace(self, data_range=repr(peak))

    def for_stacks(self) -> "Conventions":
        """Returns the conventions for stacks, whose values have any range and are never clipped.

        The data range of the dtype is replaced by `"stack"`: the highest less the lowest value of
        a channel of the clean stack, one for all its planes.

        Raises:
            ConfigError: if they are for pictures only.
        """
        for field, refused in (("rounding", "floor"), ("color", "luma")):
            if getattr(self, field) == refused:
                raise ConfigError(f"--{field} {refused} is for pictures, not for stacks: omit it.")
        data_range = "stack" if self.data_range == "dtype" else self.data_range
        return dataclasses.replace(self, data_range=data_range, clip=False)

    def psnr_and_ssim(self, clean: np.ndarray, denoised: np.ndarray) -> tuple[float, float]:
        """Returns PSNR in dB (infinite if equal) and SSIM of two pictures [H, W, 1 or 3].

        Raises ValueError if they cannot be compared, or if the range of a flat picture is needed.
        """
        white = value_range(clean.dtype)
        clean, denoised = self.compared(clean, denoised)
        peak = self.peak(clean, white)
        return psnr(clean, denoised, peak), ssim(clean, denoised, peak, self.ssim)

    def compared(self, clean: np.ndarray, denoised: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns two pictures [H, W, 1 or 3] as they are compared, in float64.

        The units are those of the clean picture. The denoised one is rounded and clipped, the
        border of both is cut off, and luma is [H, W, 1]. Raises ValueError if they differ in shape,
        hold values that are not finite; of these a ConfigError if the border leaves nothing.
        """
        denoised, reference = self.levels(denoised, clean.dtype), clean.astype(np.float64)
        check_comparable("PSNR", reference, denoised)
        white = value_range(clean.dtype)
        reference, denoised = self.cut(reference), self.cut(denoised)
        if reference.size == 0:
            raise ConfigError(
                f"--border {self.border} leaves nothing of a picture of {clean.shape}: use a "
                f"smaller one. Received: --border {self.border}"
            )
        if self.color == "luma" and clean.shape[-1] == 3:
            reference, denoised = (
                skimage.color.rgb2ycbcr(each / white)[..., :1] * (white / 255)
                for each in (reference, denoised)
            )
        return reference, denoised

    def peak(self, clean: np.ndarray, white: float) -> float:
        """Returns the peak of PSNR and SSIM for a clean picture as it is compared.

        `white` is that of its dtype. Raises ValueError if the range of a flat picture is needed.
        """
        if self.data_range == "dtype":
            return white
        if self.data_range != "clean":
            return float(self.data_range)
        peak = float(np.ptp(clean))
        if peak == 0:
            raise ValueError("the clean picture is flat, so --data_range clean is undefined")
        return peak

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Returns a picture [H, W, C] without its border."""
        border = self.border
        return picture[border:-border, border:-border] if border else picture
