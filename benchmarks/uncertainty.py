"""How often the truth lies within the uncertainty that `cbsn denoise --uncertainty` states.

Clean pictures get noise of a known kind, in 8 bits, and are denoised; so the errors are known. The
denoiser gets nothing but the noisy pictures. `--clean` gives the clean ones; without it, they are
photographs that scikit-image ships. The columns of the lowest and the highest fifth are of pixels
sorted by what was predicted for them, predicted over actual: 1 if the prediction is right.

The models are those that ship, which have learned from photographs of cameras, whose noise is
correlated; and a small one of Noise2Void, trained for a minute on the noisy pictures, made gray.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data

from benchmarks.report import Column
from benchmarks.settings import Settings
from cbsn.colors import luma
from cbsn.errors import CbsnError, ConfigError
from cbsn.images.finding import find_images
from cbsn.images.image_files import read_picture, write_picture
from cbsn.images.picture import Picture
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.uncertainty import Calibration, Uncertainty
from cbsn.models import SHIPPED
from cbsn.noise.synthetic import Noise

TITLE = "Uncertainty"
COLUMNS = (
    Column("within_1", "within ±1, %", ".0f"),
    Column("within_2", "within ±2, %", ".0f"),
    Column("predicted", "predicted", ".1f"),
    Column("actual", "actual", ".1f"),
    Column("lowest", "lowest fifth", ".2f"),
    Column("highest", "highest fifth", ".2f"),
    Column("ence", "ENCE, %", ".0f"),
    Column("flat", "flat enough", "d"),
)

NOISES = {
    "gaussian 10": Noise("gaussian", sigma=(10, 10)),
    "gaussian 25": Noise("gaussian", sigma=(25, 25)),
    "gaussian 50": Noise("gaussian", sigma=(50, 50)),
    "poisson-gaussian": Noise("poisson-gaussian", sigma=(5, 5), peak=(30, 30)),
}
NOISE2VOID = "n2v-unet"

_MODELS = ("photo", "photo_large", NOISE2VOID)
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # that scikit-image ships
_BINS = 10
_STEPS, _FILTERS = 800, 16  # of Noise2Void
_QUICK_STEPS = 20
_LEAST_SIDE = 128  # of a picture in which noise can be measured
_ROOT = Path(__file__).resolve().parent.parent


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases, a model and a noise each, and yields the results of each."""
    names = settings.select(_MODELS)
    pictures = clean_pictures(settings)
    for model in names:
        for kind, noise in NOISES.items():
            clean = [_gray(each) for each in pictures] if model == NOISE2VOID else pictures
            noisy = [add_noise(each, noise, n) for n, each in enumerate(clean)]
            with contextlib.ExitStack() as stack:
                path = SHIPPED / model
                if model == NOISE2VOID:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    path = _train(folder, noisy, _QUICK_STEPS if settings.repeats < 5 else _STEPS)
                yield compare(f"{model}, {kind}", Denoiser.load(path), clean, noisy)


def clean_pictures(settings: Settings) -> list[np.ndarray]:
    """Returns the clean pictures, uint8 [H, W, C], evenly spread over those that there are.

    Raises:
        ConfigError: if there are none of 8 bits.
    """
    height, width = (max(side, _LEAST_SIDE) for side in settings.pictures[-1])
    if settings.clean is None:
        found = [getattr(skimage.data, name)() for name in _PHOTOGRAPHS]
    else:
        paths = find_images(settings.clean)
        count = min(settings.clean_count, len(paths))
        chosen = [paths[n * len(paths) // count] for n in range(count)]
        found = [read_picture(path).color for path in chosen]
    if any(each.dtype != np.uint8 for each in found):
        raise ConfigError(f"--clean takes pictures of 8 bits. Received: --clean {settings.clean}")
    return [each[:height, :width] for each in found[: settings.clean_count]]


def add_noise(clean: np.ndarray, noise: Noise, seed: int) -> np.ndarray:
    """Returns a picture with noise, rounded and clipped to 8 bits."""
    noisy = noise(clean, np.random.default_rng(seed))
    return np.clip(np.rint(noisy * 255), 0, 255).astype(np.uint8)


def compare(
    case: str, denoiser: Denoiser, clean: Sequence[np.ndarray], noisy: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Returns the results of a case: of the calibrated uncertainty, and of the spread alone."""
    errors, sigmas, spreads, flat = [], [], [], 0
    for truth, picture in zip(clean, noisy, strict=True):
        with denoiser.estimating() as found:
            result = denoiser(picture)
        sigmas.append(found.of_picture(result))
        assert found.calibration is not None
        flat += not found.calibration.note
        with denoiser.estimating(Uncertainty(Calibration())) as alone:
            denoiser(picture)
        spreads.append(alone.of_picture(result))
        errors.append(result.astype(np.float32) - truth)
    sides = [
        {"side": "calibrated", **score(errors, sigmas), "flat": flat},
        {"side": "spread alone", **score(errors, spreads)},
    ]
    return {"case": case, "pictures": len(clean), "sides": sides}


def score(errors: Sequence[np.ndarray], sigmas: Sequence[np.ndarray]) -> dict[str, Any]:
    """Returns how well standard deviations describe errors.

    Args:
        errors: of each picture, in levels.
        sigmas: what was predicted for them.

    Returns:
        The shares within one and two in per cent; the root mean squares of both; the quotients of
        these (predicted over actual) in the fifths with the lowest and the highest predictions;
        and, over ten bins of equal size, the mean relative difference: the expected normalized
        calibration error, ENCE (Levi et al., "Evaluating and calibrating uncertainty prediction in
        regression tasks", Sensors 2022).
    """
    error, sigma = (np.concatenate([e.ravel() for e in each]) for each in (errors, sigmas))
    size = np.abs(error)
    ordered = np.argsort(sigma, kind="stable")
    bins = [(_rms(sigma[i]), _rms(error[i])) for i in np.array_split(ordered, _BINS)]
    fifths = np.array_split(ordered, 5)
    return {
        "within_1": 100 * float(np.mean(size <= sigma)),
        "within_2": 100 * float(np.mean(size <= 2 * sigma)),
        "predicted": _rms(sigma),
        "actual": _rms(error),
        "lowest": _rms(sigma[fifths[0]]) / _rms(error[fifths[0]]),
        "highest": _rms(sigma[fifths[-1]]) / _rms(error[fifths[-1]]),
        "ence": 100 * float(np.mean([abs(p - a) / max(p, 1e-9) for p, a in bins])),
        "bins": bins,
    }


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _gray(picture: np.ndarray) -> np.ndarray:
    if picture.shape[-1] == 1:
        return picture
    return luma(picture)


def _train(folder: Path, noisy: Sequence[np.ndarray], steps: int) -> Path:
    """Trains Noise2Void on pictures in a process of its own; returns the run's folder."""
    (folder / "noisy").mkdir()
    for number, picture in enumerate(noisy):
        write_picture(folder / "noisy" / f"{number}.png", Picture(picture, "PNG"))
    flags = ("--recipe", NOISE2VOID, "--steps", steps, "--channels", _FILTERS, "--batch_size", 4)
    process = subprocess.run(
        [sys.executable, "-m", "cbsn", "train", "noisy", "--name", "n2v", *map(str, flags)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
    )
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:]
        status = f"Training Noise2Void ended with status {process.returncode}."
        raise CbsnError(" ".join([status, *last]))
    return folder / "checkpoints" / "n2v"
