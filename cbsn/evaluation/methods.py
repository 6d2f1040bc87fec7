"""What is scored: models, folders of denoised pictures, and classic denoisers."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import skimage

from cbsn.data.pairs import PicturePairs, find_named_pictures
from cbsn.errors import ConfigError, DataError, ImageError, in_one_line
from cbsn.evaluation.conventions import psnr
from cbsn.evaluation.diagnosis import STRIDES
from cbsn.files import expanded
from cbsn.images.finding import are_single
from cbsn.images.image_files import to_rgb
from cbsn.images.picture import Picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models.folder import METRICS_FILE
from cbsn.noise.synthetic import Noise
from cbsn.progress import say
from cbsn.value_range import ValueRange, from_unit, to_unit, value_range


@dataclasses.dataclass(frozen=True)
class Method:
    """A denoiser to score.

    `denoise` takes a picture's name, the noisy picture and the clean one, each [H, W, 1 or 3] or
    None if missing. It returns the denoised picture, with the noisy one's shape and dtype.
    """

    name: str
    denoise: Callable[..., np.ndarray]
    parameters: int | None = None
    computes: bool = True  # whether its run time is meaningful
    strides: Sequence[int] = STRIDES  # periods in pixels of patterns that it may leave
    log: Path | None = None  # metrics of its training run


Denoise = Callable[..., np.ndarray]


def _of_pictures(model: Denoiser) -> Denoise:
    return lambda _, noisy, clean: model(noisy, white=value_range(noisy.dtype))


def load_model_method(
    path: str, options: DenoiseOptions, use: Callable[[Denoiser], Denoise] = _of_pictures
) -> Method:
    """Loads a model (see `Denoiser.load`) and prints what it computes with.

    `use` returns `Method.denoise` for a model. Default: that of pictures.
    """
    model = Denoiser.load(path, options)
    name = f"{model.recipe.name} ({in_one_line(path)})"
    say(f"{name}: {model.choices}")
    used = (model.recipe.denoise_stride, model.recipe.objective_config.get("stride_b", 1))
    # The path is a run's folder, or that of a model inside it.
    logs = (place / METRICS_FILE for place in (expanded(path), expanded(path).parent))
    return Method(
        name,
        use(model),
        parameters=model.network.count_params(),
        computes=not model.of_volumes,  # as planes come many at a time, or wait for that
        strides=sorted({*STRIDES, *used} - {1}),
        log=next((log for log in logs if log.is_file()), None),
    )


def find_denoised(folder: str, pairs: PicturePairs, white: float | None) -> Method:
    """Finds the already denoised pictures in a folder, one for each name."""
    found = find_named_pictures(folder, white)
    if len(pairs) == 1 and are_single(folder):
        found = dict(zip(pairs.names, found.values(), strict=True))
    if missing := [name for name in pairs.names if name not in found]:
        raise DataError(
            f"{folder} has no denoised picture for {len(missing)} of {len(pairs.names)} names, "
            f"such as {missing[0]}. Denoise them with cbsn denoise --out {folder}, or score fewer."
        )

    def read(name: str, noisy: np.ndarray | None, clean: np.ndarray | None) -> np.ndarray:
        picture = found[name].read()
        expected = noisy if clean is None else clean
        assert expected is not None  # a pair has at least one side
        if picture.pixels.dtype == expected.dtype:
            picture = _in_range(picture, pairs.ranges[name])
        pixels = picture.color if expected.shape[-1] == 1 else to_rgb(picture)
        if pixels.shape != expected.shape:
            raise DataError(
                f"{found[name].place} is not the denoised picture of {name}: its shape is "
                f"{pixels.shape}, expected {expected.shape}."
            )
        return pixels

    return Method(f"denoised ({in_one_line(folder)})", read, computes=False)


def _in_range(picture: Picture, common: ValueRange) -> Picture:
    """Rescales a picture, stretched from its own range, as if stretched from that of its pair.

    Integers that may be brighter than the pair's white become floats, which can be: whether they
    are clipped is one of the conventions.
    """
    own, pixels = picture.range_in_file, picture.color  # a view of pixels that nothing else uses
    if pixels.dtype.kind == "u" and own.white > common.white:
        own.stretch(pixels, undo=True)
        full = value_range(pixels.dtype)
        return picture.with_pixels(np.rint(pixels * (full / common.white)) / full)
    own.change(pixels, common)
    return picture


BASELINES = ("noisy", "bm3d", "nlm")  # "noisy" is the pictures as they are
BEST = "best"

# Multiples of the true σ, of which the best is taken. BM3D assumes white noise; correlated noise is
# weaker at fine scales than its σ says, and stronger at coarse ones.
_MULTIPLES = (1.0, 1.5, 2.0, 3.0)
_SMALLEST = 9  # BM3D refuses pictures below 8 px a side, and crashes the process on 8 × 8


def make_baselines(
    names: str, noise: Noise | None, sigma: str | None, *, clips: bool = True
) -> list[Method]:
    """Makes the classic denoisers that `names` lists, from `BASELINES`, separated by commas.

    bm3d (Dabov et al. 2007) and nlm (non-local means, Buades et al. 2005) need the strength of the
    noise. It is `sigma`, in 8-bit levels; by default the σ of Gaussian `noise`, or else an estimate
    from each picture. `"best"` tries a few multiples of the true σ and takes the one with the best
    PSNR. It needs the clean picture, and shows what the method can do at most. Results are clipped
    to the pictures' range, unless `clips` is False, which is for floats in units of [0, 1].
    """
    told = _parse_sigma(sigma)  # checked even if no baseline uses it
    methods = []
    for name in dict.fromkeys(name.strip() for name in names.split(",") if name.strip()):
        if name not in BASELINES:
            raise ConfigError(
                f"--baselines takes any of {', '.join(BASELINES)}, separated by commas. "
                f"Received: {name}"
            )
        if name == "noisy":
            methods.append(Method(name, lambda _, noisy, clean: noisy, computes=False))
        else:
            label = f"{name} (sigma {sigma})" if sigma else name
            methods.append(Method(label, _classic(name, noise, told, sigma == BEST, clips)))
    return methods


def _classic(
    name: str, noise: Noise | None, sigma: float | None, best: bool, clips: bool
) -> Callable[..., np.ndarray]:
    remove = _load_bm3d() if name == "bm3d" else _non_local_means
    if sigma is None and not best and noise and noise.kind == "gaussian" and noise.sigma:
        if noise.sigma[0] != noise.sigma[1]:
            raise ConfigError(
                f"--baselines {name} needs the same σ for all pictures: give a single "
                f"--noise_sigma, such as 25, or --baseline_sigma best. Received: {noise}"
            )
        sigma = noise.sigma[0] / 255

    def finished(result: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return from_unit(result, dtype) if clips else result.astype(dtype)

    def denoise(_: str, noisy: np.ndarray, clean: np.ndarray) -> np.ndarray:
        if min(noisy.shape[:2]) < _SMALLEST:
            raise ImageError(
                f"{name} needs pictures of at least {_SMALLEST} px a side. Received: {noisy.shape}"
            )
        unit, told = to_unit(noisy, np.float64), sigma
        if best:
            reference = to_unit(clean, np.float64)
            true = float(np.std(unit - reference))
            results = [remove(unit, true * m) for m in _MULTIPLES]
            if clips:
                results = [np.clip(each, 0, 1) for each in results]
            return finished(max(results, key=lambda each: psnr(reference, each)), noisy.dtype)
        if told is None:
            estimate = skimage.restoration.estimate_sigma
            told = float(estimate(unit, average_sigmas=True, channel_axis=-1))
        return finished(remove(unit, told), noisy.dtype)

    return denoise


def _parse_sigma(text: str | None) -> float | None:
    """Parses `--baseline_sigma`, in units of [0, 1]; returns None if it is missing or `"best"`."""
    if text is None or text == BEST:
        return None
    try:
        sigma = float(text)
    except (TypeError, ValueError):
        sigma = np.nan
    if not 0 < sigma <= 255:
        raise ConfigError(
            "--baseline_sigma must be best, or σ in 8-bit levels, above 0 and at most 255. "
            f"Received: --baseline_sigma {text}"
        )
    return sigma / 255


def _load_bm3d() -> Callable[[np.ndarray, float], np.ndarray]:
    try:
        import bm3d
    except ImportError as error:
        raise ConfigError(
            "--baselines bm3d needs the package bm3d, which is not installed: "
            f"pip install 'cbsn[bm3d]', or pip install bm3d ({error})"
        ) from error

    def denoise(unit: np.ndarray, sigma: float) -> np.ndarray:
        if unit.shape[-1] == 3:
            return bm3d.bm3d_rgb(unit, sigma)
        return bm3d.bm3d(unit[..., 0], sigma)[..., None]

    return denoise


def _non_local_means(unit: np.ndarray, sigma: float) -> np.ndarray:
    # Patches of 5 × 5 in windows of 13 × 13; h as scikit-image recommends for its fast mode.
    denoised = skimage.restoration.denoise_nl_means(
        unit, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, channel_axis=-1
    )
    return denoised.reshape(unit.shape)  # a single channel comes back without its axis
