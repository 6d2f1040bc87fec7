"""What is scored: models, folders of denoised pictures, and classic denoisers."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.data.image_io import to_rgb
from cbsn.data.noise import Noise
from cbsn.errors import ConfigError, DataError, in_one_line
from cbsn.evaluation.baselines import BASELINES, Baseline
from cbsn.evaluation.diagnosis import STRIDES
from cbsn.evaluation.named_pictures import find_named_pictures
from cbsn.evaluation.picture_pairs import PicturePairs
from cbsn.files import expanded
from cbsn.inference.denoiser import Denoiser
from cbsn.training.metrics_log import METRICS_FILE
from cbsn.value_range import value_range

Denoise = Callable[[str, np.ndarray | None, np.ndarray | None], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Method:
    """One of those that are compared.

    Args:
        name: str, what tables call it.
        denoise: from a picture's name, the noisy one and the clean one, each [H, W, 1 or 3], or
            None where there is none, to the denoised one, of the noisy one's shape and dtype.
        parameters: int, of its network; None if it has none.
        computes: bool, whether the time that it takes says anything.
        strides: periods of the patterns that it may leave, its pixel-shuffle strides among them.
        log: the metrics of the run that it was trained in, or None.
    """

    name: str
    denoise: Denoise
    parameters: int | None = None
    computes: bool = True
    strides: Sequence[int] = STRIDES
    log: Path | None = None


def load_models(paths: Iterable[str | Path], **options: Any) -> list[Method]:
    """Loads models, and says what they compute with.

    Args:
        paths: each as for `Denoiser.load`.
        **options: of `Denoiser.load`.

    Raises:
        ConfigError: if options cannot be had.
        ModelError: if one cannot be loaded.
    """
    methods = []
    for path in dict.fromkeys(map(str, paths)):
        model = Denoiser.load(path, **options)
        name = f"{model.recipe.name} ({in_one_line(path)})"
        print(f"{name}: {model.choices}", flush=True)
        used = (model.recipe.denoise_stride, model.recipe.objective_config.get("stride_b", 1))
        methods.append(
            Method(
                name,
                lambda _, noisy, clean, model=model: model(noisy, white=value_range(noisy.dtype)),
                parameters=model.network.count_params(),
                strides=sorted({*STRIDES, *used} - {1}),
                log=_log_of(expanded(path)),
            )
        )
    return methods


def make_baselines(names: str, noise: Noise | None, sigma: str | None) -> list[Method]:
    """Makes the classic denoisers.

    Args:
        names: of `BASELINES`, with commas between them.
        noise: as for `Baseline`.
        sigma: likewise.

    Raises:
        ConfigError: if a name is unknown, or as `Baseline` says.
    """
    methods = []
    for name in dict.fromkeys(name.strip() for name in names.split(",") if name.strip()):
        if name not in BASELINES:
            raise ConfigError(
                f"--baselines takes {', '.join(BASELINES)}, with commas between them. "
                f"Received: {name}"
            )
        if name == "noisy":
            methods.append(Method(name, lambda _, noisy, clean: noisy, computes=False))
        else:
            baseline = Baseline(name, noise, sigma)
            told = f" (sigma {sigma})" if sigma else ""
            methods.append(
                Method(name + told, lambda _, noisy, clean, run=baseline: run(noisy, clean))
            )
    return methods


def find_denoised(
    folders: Iterable[str | Path], pairs: PicturePairs, white: float | None = None
) -> list[Method]:
    """Finds pictures that were denoised before.

    Args:
        folders: each with a picture of each name.
        pairs: what they are scored on.
        white: as for `find_named_pictures`.

    Raises:
        DataError: if a folder has none of a name, or two.
    """
    methods = []
    for folder in dict.fromkeys(map(str, folders)):
        found = find_named_pictures(folder, white)
        names = pairs.names
        missing = [name for name in names if name not in found]
        if missing:
            raise DataError(
                f"{folder} has no denoised picture for {len(missing)} of {len(names)} names, such "
                f"as {missing[0]}. Denoise them by infer.py --savepath {folder}, or score fewer."
            )

        def read(
            name: str, noisy: np.ndarray | None, clean: np.ndarray | None, found: dict = found
        ) -> np.ndarray:
            picture = found[name].read()
            expected = noisy if clean is None else clean
            if picture.pixels.dtype == expected.dtype:
                picture.range_in_file.change(picture.color, pairs.ranges[name])
            pixels = picture.color if expected.shape[-1] == 1 else to_rgb(picture)
            if pixels.shape != expected.shape:
                raise DataError(
                    f"{found[name].place} is no denoised picture of that name: it is "
                    f"{pixels.shape}, and that is {expected.shape}."
                )
            return pixels

        methods.append(Method(f"denoised ({in_one_line(folder)})", read, computes=False))
    return methods


def _log_of(path: Path) -> Path | None:
    """The log of the run that a model's path is, or is in."""
    candidates = [folder / METRICS_FILE for folder in (path, path.parent)]
    return next((log for log in candidates if log.is_file()), None)
