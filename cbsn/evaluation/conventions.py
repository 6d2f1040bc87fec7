"""PSNR and SSIM, and the conventions in which published figures differ."""

import dataclasses
from typing import Any

import numpy as np
import scipy  # these two load their parts when they are used: some take a second
import skimage

from cbsn.errors import ConfigError, check_number
from cbsn.value_range import ValueRange, to_unit, value_range

_GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

SSIMS: dict[str, tuple[dict[str, Any], int]] = {
    # scikit-image's default, which the AP-BSN and SS-BSN code uses: 7×7, sample covariance.
    "uniform": ({"win_size": 7}, 7),
    # Wang et al. (2004), and MATLAB code since (ssim_index.m): 11×11, Gaussian weights of σ 1.5.
    "gaussian": (_GAUSSIAN, 11),
    # Wang's later ssim.m: the same, after pictures of 384 px or more were made smaller.
    "matlab": (_GAUSSIAN, 11),
}
"""By name: what scikit-image is told, and the side of the window in pixels."""

_LARGEST_RANGE = 1e9  # beyond all that files hold
_FLOAT_STEPS = 255.0  # to which pictures of floats are rounded, as if they were saved in 8 bits
_ROUNDINGS = {"round": np.rint, "floor": np.floor, "none": None}


def psnr(clean: np.ndarray, denoised: np.ndarray, data_range: float | None = None) -> float:
    """Returns the peak signal-to-noise ratio in dB, infinite where equal.

    The pictures, [H, W, C], are of one dtype: uint8, uint16 or float. The peak is that of the dtype
    ([0, 1] for floats), unless a `data_range` is given. Others are a ValueError.
    """
    check_comparable("PSNR", clean, denoised)
    peak = data_range or value_range(clean.dtype)
    with np.errstate(divide="ignore"):
        return float(skimage.metrics.peak_signal_noise_ratio(clean, denoised, data_range=peak))


def ssim(
    clean: np.ndarray, denoised: np.ndarray, data_range: float, flavour: str = "uniform"
) -> float:
    """Returns the structural similarity (Wang et al. 2004), 1 where equal, of comparable pictures.

    It is the mean over all windows that lie in the picture, and over the channels. The flavour is a
    key of `SSIMS`. Pictures smaller than a window raise a ValueError.
    """
    settings, window = SSIMS[flavour]
    if flavour == "matlab":
        clean, denoised = _made_smaller(clean), _made_smaller(denoised)
    if min(clean.shape[:2]) < window:
        raise ValueError(
            f"SSIM needs pictures of at least {window} px a side. Received: {clean.shape}"
        )
    similarity = skimage.metrics.structural_similarity
    return float(similarity(clean, denoised, data_range=data_range, channel_axis=-1, **settings))


def check_comparable(metric: str, clean: np.ndarray, denoised: np.ndarray) -> None:
    """Raises ValueError unless two pictures have one shape and dtype, and finite values."""
    if clean.shape != denoised.shape or clean.dtype != denoised.dtype:
        raise ValueError(
            f"{metric} compares pictures of one shape and dtype. Received: "
            f"{clean.shape} {clean.dtype} and {denoised.shape} {denoised.dtype}"
        )
    if not (np.isfinite(clean).all() and np.isfinite(denoised).all()):
        raise ValueError(f"{metric} compares finite values. Received: NaN or infinity")


def _made_smaller(picture: np.ndarray) -> np.ndarray:
    """Averages f × f pixels around every f-th one, with f as many times as 256 px fit in a side."""
    factor = max(1, int(min(picture.shape[:2]) / 256 + 0.5))
    if factor == 1:
        return picture
    # MATLAB's filters of an even side reach one pixel less to the left, SciPy's to the right.
    origin = -1 if factor % 2 == 0 else 0
    averaged = scipy.ndimage.uniform_filter(
        picture.astype(np.float64), (factor, factor, 1), mode="reflect", origin=(origin, origin, 0)
    )
    return averaged[::factor, ::factor]


@dataclasses.dataclass(frozen=True)
class Conventions:
    """How a denoised picture is made comparable with the clean one, and compared.

    Args:
        rounding: of results that are floats: `"round"` to the levels of the clean picture (of 8
            bits, if that is of floats), as the AP-BSN code and `infer.py` do; `"floor"` to the
            level below, as the C-BSN code does; or `"none"`. Default `"round"`.
        clip: whether values beyond the range are clipped to it. Default True.
        data_range: the peak of PSNR, and of the constants of SSIM: `"dtype"`, the full range (255,
            65535, or 1 for floats), `"clean"`, highest less lowest value of each clean picture, as
            is usual in microscopy, or a number in the units of the pictures, such as 4095 for 12
            bits in files of 16. Default `"dtype"`.
        color: `"rgb"`, all channels together, or `"luma"`, Y of BT.601 in 16 to 235, as MATLAB's
            `rgb2ycbcr` has it, but not rounded. Default `"rgb"`.
        ssim: a key of `SSIMS`. Default `"uniform"`.
        border: int ≥ 0, pixels that are cut off on each side. Default 0.

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
        for field, known in (("rounding", _ROUNDINGS), ("color", ("rgb", "luma")), ("ssim", SSIMS)):
            value = getattr(self, field)
            if value not in known:
                accepted = ", ".join(known)
                raise ConfigError(f"--{field} takes {accepted}. Received: --{field} {value}")
        check_number("--border", self.border, 0)
        if self.data_range not in ("dtype", "clean"):
            try:
                peak = float(self.data_range)
            except ValueError:
                peak = np.nan
            if not 0 < peak <= _LARGEST_RANGE:
                raise ConfigError(
                    "--data_range takes dtype, clean, or a number above 0 in the units of the "
                    f"pictures, such as 255. Received: --data_range {self.data_range}"
                )

    @classmethod
    def choose(cls, synthetic: bool, **settings: str | bool | int | None) -> "Conventions":
        """Returns the usual conventions for real or synthetic noise, but for settings not None.

        Floats of synthetic noise stand for no file, and are neither rounded nor clipped.
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
        """Returns a picture in floats, unless its results are to be rounded as files are."""
        is_fit = picture.dtype.kind == "f" or self.rounding == "round"
        return picture if is_fit else to_unit(picture)

    def levels(self, picture: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Returns a denoised picture as float64 in the units of the clean one, rounded and clipped.

        It is of the clean one's dtype, or floats in units of [0, 1].
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
        """Returns these for pictures of a dtype that were stretched from another range."""
        if self.data_range in ("dtype", "clean") or found.is_of(dtype):
            return self
        peak = float(self.data_range) * value_range(dtype) / (found.white - found.black)
        return dataclasses.replace(self, data_range=repr(peak))

    def psnr_and_ssim(self, clean: np.ndarray, denoised: np.ndarray) -> tuple[float, float]:
        """Returns PSNR in dB, infinite where equal, and SSIM, of pictures [H, W, 1 or 3].

        It raises a ValueError if they cannot be compared, or a flat one's range is asked for.
        """
        denoised, reference = self.levels(denoised, clean.dtype), clean.astype(np.float64)
        check_comparable("PSNR", reference, denoised)
        peak = value_range(clean.dtype)
        reference, denoised = self.cut(reference), self.cut(denoised)
        if self.color == "luma" and clean.shape[-1] == 3:
            reference, denoised = (
                skimage.color.rgb2ycbcr(each / peak)[..., :1] * (peak / 255)
                for each in (reference, denoised)
            )
        if reference.size == 0:
            raise ValueError(f"--border {self.border} leaves nothing of a picture of {clean.shape}")
        if self.data_range == "clean":
            peak = float(np.ptp(reference))
            if peak == 0:
                raise ValueError("the clean picture is flat, so --data_range clean has no value")
        elif self.data_range != "dtype":
            peak = float(self.data_range)
        return psnr(reference, denoised, peak), ssim(reference, denoised, peak, self.ssim)

    def cut(self, picture: np.ndarray) -> np.ndarray:
        """Returns a picture [H, W, C] without its border."""
        border = self.border
        return picture[border:-border, border:-border] if border else picture
