"""How a method's results are compared with clean pictures; stacks have a way of their own."""

import abc
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cbsn.data.pairs import PicturePairs
from cbsn.errors import ConfigError, DataError
from cbsn.evaluation.conventions import Conventions, psnr, ssim
from cbsn.evaluation.lpips import LPIPS
from cbsn.evaluation.methods import Method, find_denoised, load_model_method
from cbsn.evaluation.microscopy import micro_ssim, si_psnr
from cbsn.evaluation.report.pictures import ReportPicture
from cbsn.inference.options import DenoiseOptions
from cbsn.noise.advice import advise
from cbsn.noise.estimate import estimate_noise
from cbsn.value_range import to_unit, value_range

Pair = tuple[np.ndarray | None, np.ndarray | None]

FITTED = {"si_psnr": si_psnr, "micro_ssim": micro_ssim}
"""The metrics that are fitted to each picture."""


class Comparison(abc.ABC):
    """Pictures, how methods denoise them, and how results are compared with the clean ones.

    Args:
        pairs: the pictures, or the planes of stacks.
        conventions: how they are compared.
        metrics: some of `cbsn.evaluation.scores.METRICS`.
    """

    def __init__(self, pairs: Any, conventions: Conventions, metrics: Collection[str]):
        self._pairs = pairs
        self.conventions = conventions
        self._metrics = metrics

    @property
    def names(self) -> Sequence[str]:
        """Of the pairs."""
        return self._pairs.names

    def pairs(self) -> Iterator[Pair]:
        """Yields (noisy, clean), each [H, W, 1 or 3] or None."""
        return iter(self._pairs)

    def given(self, noisy: np.ndarray) -> np.ndarray:
        """Returns a noisy picture as the methods get it."""
        return noisy

    @abc.abstractmethod
    def measure(self, name: str, clean: np.ndarray, denoised: np.ndarray) -> dict[str, Any]:
        """Returns the metrics of a result by name; None for one that is undefined.

        Raises:
            DataError: if the picture is too small for a metric.
        """

    @abc.abstractmethod
    def diagnosed(
        self, name: str, noisy: np.ndarray, denoised: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns a picture and its result as `diagnose` takes them; None to omit them."""

    def baseline(self, method: Method) -> Method:
        """Returns a method of `make_baselines` for these pictures."""
        return method

    @abc.abstractmethod
    def denoised(self, folder: str) -> Method:
        """Returns results that are denoised already; a DataError if some are missing."""

    @abc.abstractmethod
    def model(self, path: str, options: DenoiseOptions) -> Method:
        """Returns a model as a method."""

    def facts(self) -> list[str]:
        """Returns lines on how results are compared."""
        return [f"Conventions: {self.conventions}."]

    def record(self) -> dict[str, Any]:
        """Returns the same for JSON."""
        return {}

    def noise_notes(self) -> Sequence[str]:
        """Returns lines on the noise; none unless all pictures share it."""
        return []

    @abc.abstractmethod
    def report_picture(
        self,
        name: str,
        pair: Pair,
        denoised: Mapping[str, np.ndarray],
        captions: Mapping[str, str],
    ) -> ReportPicture:
        """Returns what a report shows."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes all files."""


class PictureComparison(Comparison):
    """The comparison of pictures; see `Comparison`.

    Args:
        pairs: the pictures.
        conventions: how they are compared.
        metrics: some of `cbsn.evaluation.scores.METRICS`.
        lpips: the metric of this name, if it is measured.
        lpips_of_gray: whether it is also of gray pictures. Default False.
        white: the value of white in the files; see `read_picture`. Default None.
    """

    def __init__(
        self,
        pairs: PicturePairs,
        conventions: Conventions,
        metrics: Collection[str],
        lpips: LPIPS | None = None,
        lpips_of_gray: bool = False,
        white: float | None = None,
    ):
        super().__init__(pairs, conventions, metrics)
        self._lpips, self._lpips_of_gray = lpips, lpips_of_gray
        self._white = white

    def given(self, noisy: np.ndarray) -> np.ndarray:  # noqa: D102
        return self.conventions.unrounded(noisy)

    def measure(  # noqa: D102
        self, name: str, clean: np.ndarray, denoised: np.ndarray
    ) -> dict[str, Any]:
        conventions = self.conventions.stretched(self._pairs.ranges[name], clean.dtype)
        lpips = self._lpips if self._lpips_of_gray or clean.shape[-1] == 3 else None
        advice = ""
        try:
            white = value_range(clean.dtype)
            compared = conventions.compared(clean, denoised)
            figures = {
                each: figure(
                    each, *compared, conventions.ssim, lambda c: conventions.peak(c, white)
                )
                for each in self._metrics
            }
            figures["lpips"] = None
            if lpips:
                advice = ", or use --no-lpips"
                # LPIPS needs units of [0, 1], whatever the conventions are.
                pair = (clean, np.clip(conventions.levels(denoised, clean.dtype), 0, white))
                units = (conventions.cut(each / white).astype(np.float32) for each in pair)
                figures["lpips"] = lpips(*units)
        except ConfigError as error:  # which says what to do
            raise ConfigError(f"{name}: {error}") from error
        except ValueError as error:
            raise DataError(f"{name}: {error}. Remove this picture{advice}.") from error
        return figures

    def diagnosed(  # noqa: D102
        self, name: str, noisy: np.ndarray, denoised: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if noisy.dtype != denoised.dtype:
            return to_unit(noisy), to_unit(denoised)
        return noisy, denoised

    def denoised(self, folder: str) -> Method:  # noqa: D102
        return find_denoised(folder, self._pairs, self._white)

    def model(self, path: str, options: DenoiseOptions) -> Method:  # noqa: D102
        return load_model_method(path, options)

    def noise_notes(self) -> Sequence[str]:  # noqa: D102
        try:
            estimate = estimate_noise(noisy for noisy, _ in self.pairs() if noisy is not None)
        except DataError as error:
            return [str(error)]
        return ["\n".join(estimate.lines()), *advise(estimate).lines()]

    def report_picture(  # noqa: D102
        self,
        name: str,
        pair: Pair,
        denoised: Mapping[str, np.ndarray],
        captions: Mapping[str, str],
    ) -> ReportPicture:
        noisy, clean = (each if each is None else self.conventions.unrounded(each) for each in pair)
        assert noisy is not None
        return ReportPicture(name, noisy, denoised, clean, captions)

    def close(self) -> None:
        """Does nothing, as no file stays open."""


def figure(
    metric: str,
    clean: np.ndarray,
    denoised: np.ndarray,
    ssim_flavour: str,
    peak: Callable[[np.ndarray], float | None],
) -> float | None:
    """Returns a metric of two pictures as they are compared; None if it is undefined.

    Args:
        metric: one of `cbsn.evaluation.scores.METRICS`.
        clean: [H, W, C], float64.
        denoised: of the same shape and dtype.
        ssim_flavour: see `ssim`.
        peak: returns the data range for the clean picture; None if it has none.
    """
    if metric in FITTED:
        value = FITTED[metric](clean, denoised)
        return None if math.isnan(value) else value
    data_range = peak(clean)
    if data_range is None:
        return None
    if metric == "psnr":
        return psnr(clean, denoised, data_range)
    return ssim(clean, denoised, data_range, ssim_flavour)
