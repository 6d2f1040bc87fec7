"""Running one method over all pictures, and measuring what comes out."""

import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from cbsn.errors import CbsnError, DataError, ImageError
from cbsn.evaluation.conventions import Conventions
from cbsn.evaluation.diagnosis import SMALLEST, Diagnosis, diagnose
from cbsn.evaluation.lpips import LPIPS
from cbsn.evaluation.lpips_weights import cached_weights
from cbsn.evaluation.methods import Method
from cbsn.evaluation.picture_pairs import PicturePairs
from cbsn.evaluation.scores import Scores
from cbsn.files import expanded
from cbsn.memory import peak_memory, reset_peak_memory
from cbsn.value_range import value_range

Metric = Callable[[np.ndarray, np.ndarray], float | None]


def choose_lpips(wanted: bool | None, weights: Path | None) -> Metric | None:
    """Returns what takes LPIPS of a pair, or None for a gray one that has none; or no metric.

    Args:
        wanted: whether to take it; None to take it of pictures in colour, if there are weights.
        weights: their file; None for those in the cache, which are fetched if it is wanted.

    Raises:
        ModelError: if the weights cannot be used, or not be fetched.
    """
    if wanted is False or (wanted is None and weights is None and not cached_weights().exists()):
        return None
    metric = LPIPS.load(None if weights is None else expanded(weights))

    def measure(clean: np.ndarray, denoised: np.ndarray) -> float | None:
        return None if clean.shape[-1] == 1 and not wanted else metric(clean, denoised)

    return measure


def score(
    method: Method,
    pairs: PicturePairs,
    conventions: Conventions,
    lpips: Metric | None,
    keep: Collection[int] = (),
) -> tuple[Scores, dict[int, np.ndarray]]:
    """Denoises all pictures by a method, and measures them where there are clean ones.

    Args:
        method: one of those compared.
        pairs: the pictures.
        conventions: how they are compared.
        lpips: from `choose_lpips`.
        keep: places in the list of those denoised pictures to return.

    Returns:
        The scores, and the denoised pictures that were to be kept, by their places.

    Raises:
        DataError: if pictures cannot be compared, or are too small for a metric; it names one.
        ImageError: if one cannot be read or denoised; likewise.
    """
    figures: dict[str, list] = {key: [] for key in ("psnr", "ssim", "lpips", "seconds", "pixels")}
    diagnoses: list[Diagnosis] = []
    kept = {}
    peak = 0.0
    for index, (name, (noisy, clean)) in enumerate(zip(pairs.names, pairs, strict=True)):
        given = unrounded(noisy, conventions)
        try:
            if method.computes and index == 0:
                method.denoise(name, given, clean)  # the first time is slow, as graphs are built
            reset_peak_memory()
            started = time.perf_counter()
            denoised = method.denoise(name, given, clean)
            seconds = time.perf_counter() - started
            peak = max(peak, peak_memory())
            if not np.isfinite(denoised).all():
                raise ImageError("The result holds values that are not finite.")
        except CbsnError as error:
            raise type(error)(f"{name}, by {method.name}: {error}") from error
        if method.computes:
            figures["seconds"].append(seconds)
        figures["pixels"].append(denoised.shape[0] * denoised.shape[1])
        if index in keep:
            kept[index] = denoised
        if clean is not None:
            here = conventions.stretched(pairs.ranges[name], clean.dtype)
            for key, value in _measure(name, clean, denoised, here, lpips).items():
                figures[key].append(value)
        # Nothing can be said of what was left as it was, nor of what is too small.
        if noisy is not None and denoised is not given and min(noisy.shape[:2]) >= SMALLEST:
            diagnoses.append(_diagnose(name, noisy, denoised, method))
    scores = Scores(
        method.name,
        method.parameters,
        pairs.names,
        **figures,
        peak_gib=peak if method.computes else None,
        diagnosis=Diagnosis.mean_of(diagnoses) if diagnoses else None,
    )
    return scores, kept


def unrounded(picture: np.ndarray | None, conventions: Conventions) -> np.ndarray | None:
    """Returns a picture in floats, unless its results are to be rounded as files are."""
    if picture is None or picture.dtype.kind == "f" or conventions.rounding == "round":
        return picture
    return _to_unit(picture)


def _to_unit(picture: np.ndarray) -> np.ndarray:
    return (picture / value_range(picture.dtype)).astype(np.float32)


def _diagnose(name: str, noisy: np.ndarray, denoised: np.ndarray, method: Method) -> Diagnosis:
    if noisy.dtype != denoised.dtype:
        noisy, denoised = _to_unit(noisy), _to_unit(denoised)
    try:
        return diagnose(noisy, denoised, method.strides)
    except ValueError as error:
        raise DataError(f"{name}, by {method.name}: {error}. Take it away.") from error


def _measure(
    name: str,
    clean: np.ndarray,
    denoised: np.ndarray,
    conventions: Conventions,
    lpips: Metric | None,
) -> dict[str, float | None]:
    try:
        psnr, ssim = conventions.psnr_and_ssim(clean, denoised)
    except ValueError as error:
        raise DataError(f"{name}: {error}. Take it away.") from error
    figures = {"psnr": psnr, "ssim": ssim, "lpips": None}
    if lpips:
        peak = value_range(clean.dtype)
        # In units of [0, 1], in which LPIPS needs them whatever the conventions are.
        pair = (clean, np.clip(conventions.levels(denoised, clean.dtype), 0, peak))
        try:
            figures["lpips"] = lpips(*(conventions.cut(x / peak).astype(np.float32) for x in pair))
        except ValueError as error:
            raise DataError(f"{name}: {error}. Take it away, or say --no-lpips.") from error
    return figures
