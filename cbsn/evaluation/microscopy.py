"""Metrics for microscopy, where brightness is arbitrary: scale-invariant PSNR, and MicroSSIM."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import scipy  # loads its submodules on use

from cbsn.evaluation.conventions import check_comparable
from cbsn.value_range import magnitude

_BACKGROUND = 3.0  # percentile of the values that is taken for the background
_K1, _K2 = 0.01, 0.03  # of the constants of SSIM
_UNIFORM, _GAUSSIAN = 7, 11  # sides of the windows in pixels
_SIGMA = 1.5
_DOUBLINGS = 5  # how often the first guess of the scale is doubled and halved
_TOLERANCE = 1e-7  # of the logarithm of the scale
_BLOCK = 2**15  # windows at a time, so that intermediate results stay in the processor's cache
_ROUNDING = 16 * float(np.finfo(np.float64).eps)

_Planes = list[tuple[np.ndarray, np.ndarray]]


def si_psnr(clean: np.ndarray, denoised: np.ndarray) -> float:
    """Returns the scale-invariant PSNR in dB: that of the best fit of `denoised` to `clean`.

    With the means subtracted, c = clean − mean(clean) and d = denoised − mean(denoised), it is

        20 log₁₀((max(clean) − min(clean)) / √mean((c − s d)²)),  where s = Σ c d / Σ d².

    The scale s, and the offset mean(clean) − s mean(denoised), minimise the squared error, so the
    result is the same for any a · denoised + b where a is not 0. A negative scale is possible. A
    constant `denoised` has the scale 0.

    The fit is that of CARE. The code of the Noise2Void family, where the metric is called
    RangeInvariantPsnr, and that of CAREamics (`scale_invariant_psnr`) also divide by the standard
    deviation of `clean`, which changes nothing.

    Args:
        clean: [H, W] or [H, W, C], in any dtype, range and unit. Each channel counts by itself.
        denoised: of the same shape; its dtype, range and unit may be others.

    Returns:
        The mean over the channels; infinite if the fit is exact up to rounding. Channels where
        `clean` is constant do not count; if all are, it is NaN.

    Raises:
        ValueError: if the shapes differ, or a value is not finite.

    Reference:
        Weigert et al., "Content-aware image restoration: pushing the limits of fluorescence
        microscopy", Nature Methods 2018.

    Example:
        >>> clean = np.array([[0, 2], [4, 2]])
        >>> denoised = np.array([[10, 10], [30, 30]], np.float32)  # the best fit: 1, 1, 3, 3
        >>> round(si_psnr(clean, denoised), 3)  # 20 log₁₀(4 / 1)
        12.041
    """
    return _mean([_si_psnr(*plane) for plane in _planes("SI-PSNR", clean, denoised)])


def _si_psnr(clean: np.ndarray, denoised: np.ndarray) -> float:
    span = np.ptp(clean)
    if span == 0:
        return math.nan
    clean, denoised = (each / magnitude(each) for each in (clean, denoised))
    span = np.ptp(clean)
    wanted, given = clean - clean.mean(), denoised - denoised.mean()
    scale = float(np.vdot(wanted, given) / np.vdot(given, given)) if np.ptp(denoised) else 0.0
    error = float(np.sqrt(np.mean((wanted - scale * given) ** 2)))
    largest = np.abs(clean).max() + abs(scale) * np.abs(denoised).max()
    return math.inf if error <= _ROUNDING * largest else float(20 * np.log10(span / error))


@dataclasses.dataclass(frozen=True)
class MicroSSIMFit:
    """What MicroSSIM fits to a set of pictures, for one channel; made by `fit_micro_ssim`.

    Args:
        clean_offset, denoised_offset: the background, which is subtracted.
        peak: what is left of the highest clean value; both pictures are divided by it.
        scale: α, the factor of the denoised picture.
    """

    clean_offset: float
    denoised_offset: float
    peak: float
    scale: float

    def score(self, clean: np.ndarray, denoised: np.ndarray) -> float:
        """Returns MicroSSIM of a channel, [H, W]; NaN if `clean` is constant."""
        if np.ptp(clean) == 0:
            return math.nan
        windows = _Windows.gaussian(*self.normalized(clean, denoised))
        return windows.sum_of_ssim(self.scale) / windows.count

    def normalized(self, clean: np.ndarray, denoised: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns both without their background, in units of the peak."""
        return (
            (clean - self.clean_offset) / self.peak,
            (denoised - self.denoised_offset) / self.peak,
        )


def micro_ssim(
    clean: np.ndarray, denoised: np.ndarray, fits: Sequence[MicroSSIMFit | None] | None = None
) -> float:
    """Returns MicroSSIM: SSIM after subtraction of the background and the best scaling.

    - From `clean` and from `denoised`, the 3rd percentile of its values is subtracted.
    - Both are divided by the highest value that is left of `clean`.
    - `denoised` is multiplied by the α > 0 that maximises the mean SSIM. This SSIM has windows of
      7 × 7, as scikit-image's by default.
    - The result is the mean SSIM over all windows of 11 × 11 that lie inside the picture, with
      Gaussian weights of σ 1.5, sample covariance, and the range of `clean` in its constants.

    These are the choices of the authors' package microssim 0.0.5, and so are the different windows.
    The figures are the same, except for sets of pictures of different contrast: to find α, the
    package takes the range of the last picture for all, and this function that of each.

    Args:
        clean: [H, W] or [H, W, C], at least 11 px a side, in any dtype, range and unit. Each
            channel counts by itself.
        denoised: of the same shape; its dtype, range and unit may be others.
        fits: what was fitted to a whole set of pictures, as the paper does it; see
            `fit_micro_ssim`. Default: fitted to this picture.

    Returns:
        The mean over the channels. Those where nothing is left of `clean`, such as constant ones,
        do not count; if none is left, it is NaN.

    Raises:
        ValueError: if the shapes differ, a value is not finite, or a picture is too small.

    Reference:
        Ashesh, Deschamps and Jug, "MicroSSIM: Improved Structural Similarity for Comparing
        Microscopy Data", 2024, arXiv:2408.08747.

    Example:
        >>> clean = np.add.outer(np.arange(20.0), np.arange(20.0))
        >>> round(micro_ssim(clean, 5 * clean + 100), 6)
        1.0
    """
    planes = _planes("MicroSSIM", clean, denoised, _GAUSSIAN)
    if fits is None:
        fits = [_fit([plane]) for plane in planes]
    elif len(fits) != len(planes):
        raise ValueError(
            f"MicroSSIM was fitted to {len(fits)} channels. Received: {len(planes)} channels"
        )
    return _mean(
        [fit.score(*plane) if fit else math.nan for fit, plane in zip(fits, planes, strict=True)]
    )


def fit_micro_ssim(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
) -> tuple[MicroSSIMFit | None, ...]:
    """Fits the offsets, the peak and the scale of `micro_ssim` to a whole set of pictures.

    All pictures must be in the same units. They are held in memory, with 40 bytes for each value.

    Args:
        pairs: clean and denoised pictures, as for `micro_ssim`; at least one pair, all with the
            same number of channels.

    Returns:
        For each channel what was fitted; None where nothing is left of the clean pictures.

    Raises:
        ValueError: as `micro_ssim`, or if there is no pair, or channels differ in number.

    Example:
        >>> clean = np.add.outer(np.arange(20.0), np.arange(20.0))
        >>> pairs = [(clean, clean), (clean, clean / 2)]  # the second is too dark
        >>> fits = fit_micro_ssim(pairs)
        >>> [round(micro_ssim(*pair, fits), 2) for pair in pairs]
        [0.87, 0.86]
    """
    pictures = [_planes("MicroSSIM", *pair, _GAUSSIAN) for pair in pairs]
    counts = {len(planes) for planes in pictures}
    if len(counts) != 1:
        received = ", ".join(map(str, sorted(counts))) or "no pictures"
        raise ValueError(
            "MicroSSIM is fitted to one or more pairs with the same number of channels. "
            f"Received: {received}"
        )
    return tuple(_fit(channel) for channel in zip(*pictures, strict=True))


def _fit(planes: Sequence[tuple[np.ndarray, np.ndarray]]) -> MicroSSIMFit | None:
    """Fits to the planes of one channel."""
    clean_offset, denoised_offset = (
        float(np.percentile(np.concatenate([plane.ravel() for plane in side]), _BACKGROUND))
        for side in zip(*planes, strict=True)
    )
    peak = max(float(clean.max()) for clean, _ in planes) - clean_offset
    if peak <= 0:
        return None
    fit = MicroSSIMFit(clean_offset, denoised_offset, peak, 1.0)
    pairs = [fit.normalized(*plane) for plane in planes if np.ptp(plane[0])]
    wanted, given = (sum(float(np.vdot(pair[i], pair[i])) for pair in pairs) for i in (0, 1))
    if not given:  # any scale gives the same
        return fit
    windows = [_Windows.uniform(*pair) for pair in pairs]
    scale = _best_scale(
        lambda scale: (
            sum(each.sum_of_ssim(scale) for each in windows) / sum(each.count for each in windows)
        ),
        math.sqrt(wanted / given),
    )
    return dataclasses.replace(fit, scale=scale)


def _best_scale(quality: Callable[[float], float], guess: float) -> float:
    """Returns the scale that maximises a quality, which may have several maxima."""
    doubling = math.log(2)
    logarithms = math.log(guess) + doubling * np.arange(-_DOUBLINGS, _DOUBLINGS + 1)
    about = max(logarithms, key=lambda logarithm: quality(math.exp(logarithm)))
    found = scipy.optimize.minimize_scalar(
        lambda logarithm: -quality(math.exp(logarithm)),
        bounds=(about - doubling, about + doubling),
        method="bounded",
        options={"xatol": _TOLERANCE},
    )
    return math.exp(found.x)


@dataclasses.dataclass(frozen=True, eq=False)
class _Windows:
    """The statistics of all windows that lie inside a channel, of which SSIM is made."""

    statistics: np.ndarray  # [5, windows]: two means, two variances, and the covariance
    span: float  # of the clean values

    @property
    def count(self) -> int:
        return self.statistics.shape[1]

    @classmethod
    def uniform(cls, clean: np.ndarray, denoised: np.ndarray) -> "_Windows":
        return cls._of(clean, denoised, scipy.ndimage.uniform_filter, _UNIFORM, size=_UNIFORM)

    @classmethod
    def gaussian(cls, clean: np.ndarray, denoised: np.ndarray) -> "_Windows":
        radius = _GAUSSIAN // 2
        smooth = scipy.ndimage.gaussian_filter
        return cls._of(clean, denoised, smooth, _GAUSSIAN, sigma=_SIGMA, radius=radius)

    @classmethod
    def _of(
        cls,
        clean: np.ndarray,
        denoised: np.ndarray,
        smooth: Callable[..., np.ndarray],
        side: int,
        **settings: float,
    ) -> "_Windows":
        inside = slice(side // 2, -(side // 2))
        x, y, xx, yy, xy = (
            smooth(each, **settings)[inside, inside].ravel()
            for each in (clean, denoised, clean**2, denoised**2, clean * denoised)
        )
        sample = side**2 / (side**2 - 1)
        spread = (sample * each for each in (xx - x * x, yy - y * y, xy - x * y))
        return cls(np.stack([x, y, *spread]), float(np.ptp(clean)))

    def sum_of_ssim(self, scale: float) -> float:
        """Returns the sum of SSIM over the windows, the denoised values being scaled."""
        c1, c2 = (_K1 * self.span) ** 2, (_K2 * self.span) ** 2
        total = 0.0
        for start in range(0, self.count, _BLOCK):
            x, y, xx, yy, xy = self.statistics[:, start : start + _BLOCK]
            y = scale * y
            means = (2 * x * y + c1) / (x * x + y * y + c1)
            spread = (2 * scale * xy + c2) / (xx + scale**2 * yy + c2)
            total += float(np.vdot(means, spread))
        return total


def _planes(metric: str, clean: np.ndarray, denoised: np.ndarray, smallest: int = 1) -> _Planes:
    """Returns the channels of two pictures in float64, after checking that they fit."""
    clean, denoised = np.asarray(clean, np.float64), np.asarray(denoised, np.float64)
    check_comparable(metric, clean, denoised)
    if clean.ndim not in (2, 3) or not clean.size:
        raise ValueError(f"{metric} takes [H, W] or [H, W, C]. Received: {clean.shape}")
    if min(clean.shape[:2]) < smallest:
        raise ValueError(
            f"{metric} needs pictures of at least {smallest} px a side. Received: {clean.shape}"
        )
    if clean.ndim == 2:
        return [(clean, denoised)]
    sides = (np.ascontiguousarray(np.moveaxis(side, -1, 0)) for side in (clean, denoised))
    return [*zip(*sides, strict=True)]


def _mean(values: Iterable[float]) -> float:
    """Returns the mean of the values that are not NaN; NaN if there is none."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
