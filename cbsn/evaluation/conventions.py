"""What makes published figures differ by tenths of a dB, named."""

import dataclasses
from typing import Any

import numpy as np
import skimage

from cbsn.errors import ConfigError, check_number
from cbsn.evaluation.metrics import SSIMS, check_comparable, psnr, ssim
from cbsn.value_range import ValueRange, value_range

ROUNDINGS = {"round": np.rint, "floor": np.floor, "none": None}
COLORS = ("rgb", "luma")

_LARGEST_RANGE = 1e9
"""Beyond all that files hold."""

_FLOAT_STEPS = 255.0
"""Pictures of floats are rounded to so many steps, as if they were saved in 8 bits."""


@dataclasses.dataclass(frozen=True)
class Conventions:
    """How a denoised picture is made comparable with the clean one, and compared.

    Args:
        rounding: str, what becomes of results that are floats: `"round"` to the levels of the
            clean picture (of 8 bits, if that is of floats), `"floor"` to the level below, as the
            C-BSN code does, or `"none"`. Default `"round"`, as in the AP-BSN code and in what
            `infer.py` writes.
        clip: bool, whether values beyond the range are clipped to it. Default True.
        data_range: what the peak of PSNR and the constants of SSIM are taken from: `"dtype"`, the
            full range (255, 65535, or 1 for floats), `"clean"`, highest less lowest value of
            each clean picture, as is usual in microscopy, or a number in the units of the pictures,
            such as 4095 for 12 bits in files of 16. Default `"dtype"`.
        color: str, `"rgb"`, all channels together, or `"luma"`, Y of BT.601 in 16 to 235, as
            MATLAB's `rgb2ycbcr` has it, but not rounded. Default `"rgb"`.
        ssim: str, a key of `cbsn.evaluation.metrics.SSIMS`. Default `"uniform"`.
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
        for field, known in (("rounding", ROUNDINGS), ("color", COLORS), ("ssim", SSIMS)):
            if getattr(self, field) not in known:
                raise ConfigError(
                    f"--{field} takes {', '.join(known)}. "
                    f"Received: --{field} {getattr(self, field)}"
                )
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
    def choose(cls, synthetic: bool, **settings: Any) -> "Conventions":
        """Returns the usual conventions for a kind of pictures.

        Args:
            synthetic: whether noise is added to clean pictures. Such floats stand for no file, and
                are neither rounded nor clipped, unless the settings say so.
            **settings: of this class; None leaves one as is usual.

        Raises:
            ConfigError: likewise.
        """
        usual = {"rounding": "none", "clip": False} if synthetic else {}
        given = {name: value for name, value in settings.items() if value is not None}
        return cls(**{**usual, **given})

    def __str__(self) -> str:
        cut = f", {self.border} px cut off" if self.border else ""
        return (
            f"rounding {self.rounding}, {'clipped' if self.clip else 'not clipped'}, data range "
            f"{self.data_range}, {self.color}, SSIM {self.ssim}{cut}"
        )

    def levels(self, picture: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Returns a denoised picture in the units of the clean one, rounded and clipped.

        Args:
            picture: [H, W, C], of the clean one's dtype, or floats in units of [0, 1].
            dtype: of the clean picture.

        Returns:
            float64, same shape.

        Raises:
            ValueError: if it is of 8 bits and the clean one of 16, or the like.
        """
        peak = value_range(dtype)
        values = picture.astype(np.float64)
        if picture.dtype.kind == "f":
            steps = peak if peak > 1 else _FLOAT_STEPS
            rounded = ROUNDINGS[self.rounding]
            values = rounded(values * steps) * (peak / steps) if rounded else values * peak
        elif picture.dtype != dtype:
            raise ValueError(
                f"a result of {picture.dtype} cannot be compared with a clean picture of {dtype}"
            )
        return np.clip(values, 0, peak) if self.clip else values

    def stretched(self, found: ValueRange, dtype: np.dtype) -> "Conventions":
        """Returns these for pictures that were stretched from their own range of values.

        Args:
            found: what black and white were in the files.
            dtype: of the pictures.
        """
        if self.data_range in ("dtype", "clean") or found.is_of(dtype):
            return self
        peak = float(self.data_range) * value_range(dtype) / (found.white - found.black)
        return dataclasses.replace(self, data_range=repr(peak))

    def psnr_and_ssim(self, clean: np.ndarray, denoised: np.ndarray) -> tuple[float, float]:
        """Compares two pictures.

        Args:
            clean: [H, W, 1 or 3], uint8, uint16 or float in [0, 1].
            denoised: same shape; as for `levels`.

        Returns:
            PSNR in dB, infinite where equal, and SSIM.

        Raises:
            ValueError: if shapes or depths differ, the pictures are too small, or the clean one is
                flat and its range is asked for.
        """
        denoised, reference = self.levels(denoised, clean.dtype), clean.astype(np.float64)
        check_comparable("PSNR", reference, denoised)
        peak = value_range(clean.dtype)
        reference, denoised = (self._seen(picture, peak) for picture in (reference, denoised))
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

    def _seen(self, picture: np.ndarray, peak: float) -> np.ndarray:
        picture = self.cut(picture)
        if self.color == "luma" and picture.shape[-1] == 3:
            picture = skimage.color.rgb2ycbcr(picture / peak)[..., :1] * (peak / 255)
        return picture
