"""Exporting a trained model in one or several formats."""

import re
from pathlib import Path
from typing import Any

import tensorflow as tf

import cbsn
from cbsn.errors import ConfigError, ModelError, check_number, plain_reason
from cbsn.export.litert import check_supported, write_litert
from cbsn.export.onnx import check_installed, write_onnx
from cbsn.export.saved_model import write_saved_model
from cbsn.files import expanded
from cbsn.inference.denoiser import Denoiser

FORMATS = ("saved_model", "litert", "onnx")

_LARGEST_VERSION = 2**63 - 1
"""That TensorFlow Serving knows."""

_LARGEST_PICTURE = 2147
"""Megapixels that a SavedModel can count."""

_VERSIONED = re.compile(r"(?:model-)?(\d+)(?:-float16)?(?:\.tflite|\.onnx)?")
"""Names of what is exported."""


def export(
    model_path: str | Path,
    out: str | Path,
    *,
    formats: str = "saved_model",
    version: int | None = None,
    warmup: bool = True,
    max_megapixels: float = 134,
    precision: str = "float32",
    **options: Any,
) -> list[Path]:
    """Exports a trained model, and says what was written.

    Args:
        model_path: as for `Denoiser.load`.
        out: folder of the model, made if it is not there.
        formats: some of `FORMATS`, with commas.
        version: int ≥ 1. Default: one more than the last in `out`.
        warmup: whether the SavedModel has warm-up requests.
        max_megapixels: of an encoded picture that the SavedModel takes.
        precision: a Keras dtype policy, for the SavedModel; the others are float32.
        **options: of `Denoiser.load`: `r3`, `self_ensemble`, `tile`, `rounding`, `seed`, `strength`
            and `color_strength`. The strengths are those of requests that say none.

    Returns:
        The files and folders.

    Raises:
        ConfigError: if a format is unknown or cannot have the model, or the version is there
            already, or a package is missing.
        ModelError: if the model cannot be loaded, or what is made of it cannot be written.
    """
    names = [name.strip() for name in formats.split(",")]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise ConfigError(f"--format is some of {', '.join(FORMATS)}. Received: {formats!r}")
    if version is not None:
        check_number("--version", version, 1, _LARGEST_VERSION)
    check_number("--max_megapixels", max_megapixels, 0, _LARGEST_PICTURE, above=True)
    out = expanded(out).absolute()
    if str(out).encode(errors="replace").decode() != str(out) or "\0" in str(out):
        raise ConfigError(f"TensorFlow writes to no path that is not UTF-8. Received: --out {out}")
    if version is None:
        version = max(_versions(out), default=0) + 1
    paths = _plan(out, names, version)

    def load(precision: str) -> Denoiser:
        return Denoiser.load(model_path, precision=precision, engine="tensorflow", **options)

    denoiser = load(precision)
    # What cannot be is said before anything is written.
    if "onnx" in names:
        check_installed()
    if "litert" in names:
        check_supported(denoiser)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if "saved_model" in names:
            write_saved_model(
                paths["saved_model"],
                denoiser,
                facts=_facts(denoiser),
                warmup=warmup,
                max_pixels=int(max_megapixels * 1e6),
            )
        if precision != "float32" and names != ["saved_model"]:
            denoiser = load("float32")
        if "litert" in names:
            write_litert(paths["litert"], denoiser, float16=False)
            write_litert(paths["float16"], denoiser, float16=True)
        if "onnx" in names:
            write_onnx(paths["onnx"], denoiser)
    except (OSError, tf.errors.OpError) as error:
        raise ModelError(f"{out}: the model cannot be written ({plain_reason(error)}).") from error
    for path in paths.values():
        print(path)
    return [*paths.values()]


def _versions(out: Path) -> list[int]:
    """Numbers of what was exported to a folder."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    return [int(match[1]) for match in map(_VERSIONED.fullmatch, names) if match]


def _plan(out: Path, names: list[str], version: int) -> dict[str, Path]:
    """Where everything will stand; nothing of it may be there."""
    paths = {}
    if "saved_model" in names:
        paths["saved_model"] = out / str(version)
    if "litert" in names:
        paths["litert"] = out / f"model-{version}.tflite"
        paths["float16"] = out / f"model-{version}-float16.tflite"
    if "onnx" in names:
        paths["onnx"] = out / f"model-{version}.onnx"
    for path in paths.values():
        if path.exists():
            raise ConfigError(
                f"{path} is there already, and may be in use; give another --version, or none "
                f"for the next one. Received: --version {version}"
            )
    return paths


def _facts(denoiser: Denoiser) -> dict[str, Any]:
    """What a SavedModel is, for a reader."""
    return {
        "cbsn": cbsn.__version__,
        "recipe": denoiser.recipe.to_dict(),
        "precision": denoiser.network.dtype_policy.name,
        "tile": denoiser.side,
        "rounding": denoiser.rounding,
        "r3": denoiser.r3,
        "self_ensemble": denoiser.self_ensemble,
        "seed": denoiser.seed,
        "strength": denoiser.strength.luma,
        "color_strength": denoiser.strength.color,
    }
