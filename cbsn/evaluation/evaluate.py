"""Scoring denoisers on pairs of noisy and clean pictures."""

import functools
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from cbsn.data.noise import Noise
from cbsn.errors import CbsnError, ConfigError, DataError
from cbsn.evaluation.baselines import BASELINES, Denoise
from cbsn.evaluation.lpips import LPIPS
from cbsn.evaluation.lpips_weights import cached_weights
from cbsn.evaluation.metrics import psnr, ssim
from cbsn.evaluation.picture_pairs import PicturePairs
from cbsn.evaluation.scores import Scores, format_table
from cbsn.files import write_json
from cbsn.inference.denoiser import Denoiser

Metric = Callable[[np.ndarray, np.ndarray], float | None]

_SEEDS = 1 << 64


def evaluate(
    clean: str | Path,
    model_paths: Iterable[str | Path] = (),
    *,
    noisy: str | Path | None = None,
    noise: Noise | None = None,
    seed: int = 0,
    baselines: str = "noisy",
    images: int = 0,
    lpips: bool | None = None,
    lpips_weights: Path | None = None,
    json_path: Path | None = None,
    **options: str,
) -> list[Scores]:
    """Scores baselines and models on pairs of pictures, and prints a table.

    Everything is in the dtype of the pictures. PSNR and SSIM of the noisy pictures are of their
    values as they are, which synthetic noise may take beyond [0, 1]; LPIPS is of the clipped ones.

    Args:
        clean: folder or glob of the clean pictures.
        model_paths: each as for `Denoiser.load`.
        noisy: folder or glob of noisy ones with the same names; or else
        noise: noise for the clean ones, the same on every run.
        seed: int in [0, 2⁶⁴), of that noise.
        baselines: keys of `BASELINES`, with commas between them.
        images: int ≥ 0, take that many pairs, spread evenly over the list; 0 for all.
        lpips: whether to take LPIPS, and to fetch its weights if need be. None to take it of
            pictures in colour, if the weights are given or in the cache.
        lpips_weights: as for `LPIPS.load`.
        json_path: file for the scores; its folder is made if it is not there.
        **options: `precision` and `tile`, as for `Denoiser.load`.

    Returns:
        The baselines' scores, then the models', in the order in which they were given.

    Raises:
        ConfigError: if the arguments do not fit each other, or bm3d is not installed.
        DataError: if there are no pairs, or one of them is too small for a metric.
        ImageError: if a picture cannot be read or denoised.
        ModelError: if a model cannot be loaded, or LPIPS's weights neither.
    """
    if (noisy is None) == (noise is None):
        raise ConfigError(
            "Give the noisy pictures by --noisy, or noise for the clean ones by --noise: the one "
            f"or the other. Received: {'neither' if noise is None else f'--noisy {noisy}, {noise}'}"
        )
    if not 0 <= seed < _SEEDS:
        raise ConfigError(f"--seed must be 0 or above, and below 2**64. Received: --seed {seed}")
    if images < 0:
        raise ConfigError(f"--images must be 0 (all) or above. Received: --images {images}")
    model_paths, denoisers = [*model_paths], _make_baselines(baselines, noise)
    if not model_paths and not denoisers:
        raise ConfigError("There is nothing to score: give a --modelpath, or --baselines noisy.")
    pairs = PicturePairs(noisy if noise is None else noise, clean, images, seed)
    if json_path is not None:
        json_path = _writable(json_path)
    parameters: dict[str, int] = {}
    # All are loaded before the first is scored, so that a wrong path is told at once.
    for path in model_paths:
        model = Denoiser.load(path, **options)
        name = f"{model.recipe.name} ({path})"
        print(f"{name}: {model.choices}", flush=True)
        denoisers[name] = functools.partial(model, any_range=pairs.any_range)
        parameters[name] = model.network.count_params()
    perceptual = _choose_lpips(lpips, lpips_weights)

    what = f"noisy pictures of {noisy}" if noise is None else f"{noise}, seed {seed}"
    print(f"{len(pairs)} pictures of {clean}, {what}", flush=True)
    scores = []
    for name, denoise in denoisers.items():
        scores.append(_score(name, denoise, parameters.get(name), pairs, perceptual))
        cells = [f"{head} {text}" for head, text in scores[-1].cells().items() if head != "method"]
        print(f"{name}: {', '.join(cells)}", flush=True)
    print(f"\n{format_table(scores)}")
    if json_path is not None:
        compared = {
            "clean": str(clean),
            "noisy": None if noisy is None else str(noisy),
            "noise": None if noise is None else str(noise),
            "seed": None if noise is None else seed,
            "names": pairs.names,
        }
        _write(json_path, {**compared, "methods": [each.to_dict() for each in scores]})
    return scores


def _make_baselines(names: str, noise: Noise | None) -> dict[str, Denoise]:
    wanted = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    for name in wanted:
        if name not in BASELINES:
            raise ConfigError(
                f"--baselines takes {' and '.join(BASELINES)}, with commas between them. "
                f"Received: {name}"
            )
    return {name: BASELINES[name](noise) for name in wanted}


def _choose_lpips(wanted: bool | None, weights: Path | None) -> Metric | None:
    """Returns what takes LPIPS of a pair, or None for a gray one that has none; or no metric."""
    if wanted is False or (wanted is None and weights is None and not cached_weights().exists()):
        return None
    metric = LPIPS.load(None if weights is None else weights.expanduser())

    def measure(clean: np.ndarray, denoised: np.ndarray) -> float | None:
        if clean.shape[-1] == 1 and not wanted:
            return None
        if denoised.dtype.kind == "f":
            denoised = np.clip(denoised, 0, 1)
        return metric(clean, denoised)

    return measure


def _score(
    name: str,
    denoise: Denoise,
    parameters: int | None,
    pairs: PicturePairs,
    perceptual: Metric | None,
) -> Scores:
    metrics: dict[str, Metric] = {"psnr": psnr, "ssim": ssim, "lpips": perceptual or _no_metric}
    figures: dict[str, list] = {key: [] for key in (*metrics, "seconds")}
    for picture, (noisy, clean) in zip(pairs.names, pairs, strict=True):
        try:
            if not figures["seconds"]:
                denoise(noisy)  # the first time is slow, as graphs are built
            started = time.perf_counter()
            denoised = denoise(noisy)
            figures["seconds"].append(time.perf_counter() - started)
        except CbsnError as error:
            raise type(error)(f"{picture}, by {name}: {error}") from error
        for key, metric in metrics.items():
            try:
                figures[key].append(metric(clean, denoised))
            except ValueError as error:
                way_out = "Take it away" + (", or say --no-lpips" if key == "lpips" else "")
                raise DataError(f"{picture}: {error}. {way_out}.") from error
    return Scores(name, parameters, **figures)


def _no_metric(clean: np.ndarray, denoised: np.ndarray) -> None:
    return None


def _writable(path: Path) -> Path:
    """Makes the folder of the results before the work, rather than finding it amiss after it."""
    path = path.expanduser()
    if path.is_dir():
        raise ConfigError(f"--json takes a file, and this is a folder. Received: --json {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"No folder can be made at {path.parent}: {error.strerror}.") from error
    return path


def _write(path: Path, content: dict) -> None:
    try:
        write_json(path, content)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error
