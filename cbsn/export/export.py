"""Exporting a trained model in one or several formats."""

import dataclasses
import re
from pathlib import Path

import tensorflow as tf

from cbsn.errors import ConfigError, ModelError, check_number, plain_reason
from cbsn.export.formats import (
    check_litert,
    check_onnx,
    write_litert,
    write_onnx,
    write_saved_model,
)
from cbsn.files import expanded
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions

FORMATS = ("saved_model", "litert", "onnx")

_LARGEST_VERSION = 2**63 - 1
"""That TensorFlow Serving knows."""

_LARGEST_PICTURE = 2147
"""Megapixels that a SavedModel can count."""

_VERSIONED = re.compile(r"(?:model-)?(\d+)(?:-float16)?(?:\.tflite|\.onnx)?")
"""Names of what is exported."""

_DEFAULTS = DenoiseOptions(precision="float32")


def export(
    model_path: str | Path,
    out: str | Path,
    *,
    formats: str = "saved_model",
    version: int | None = None,
    warmup: bool = True,
    max_megapixels: float = 134,
    options: DenoiseOptions = _DEFAULTS,
) -> list[Path]:
    """Exports a trained model, and says what was written.

    Args:
        model_path: as for `Denoiser.load`.
        out: folder of the model, made if it is not there.
        formats: some of `FORMATS`, with commas.
        version: int ≥ 1. Default: one more than the last in `out`.
        warmup: whether the SavedModel has warm-up requests.
        max_megapixels: of an encoded picture that the SavedModel takes.
        options: how it denoises. `precision` is that of the SavedModel; the others are float32.
            The strengths are those of requests that say none. `engine` is ignored.

    Returns:
        The files and folders.

    Raises:
        ConfigError: if a format is unknown or cannot have the model, or the version is there
            already, or a package is missing.
        ModelError: if the model cannot be loaded, or an export cannot be written.
    """
    names = [name.strip() for name in formats.split(",")]
    if not {*names} <= {*FORMATS}:
        raise ConfigError(f"--format is some of {', '.join(FORMATS)}. Received: {formats!r}")
    if version is not None:
        check_number("--version", version, 1, _LARGEST_VERSION)
    check_number("--max_megapixels", max_megapixels, 0, _LARGEST_PICTURE, above=True)
    out = expanded(out).absolute()
    if str(out).encode(errors="replace").decode() != str(out) or "\0" in str(out):
        raise ConfigError(f"TensorFlow writes to no path that is not UTF-8. Received: --out {out}")
    if version is None:
        version = _last_version(out) + 1
    paths = _plan(out, names, version)
    options = dataclasses.replace(options, engine="tensorflow")
    denoiser = Denoiser.load(model_path, options)
    # What cannot be is said before anything is written.
    if "onnx" in names:
        check_onnx()
    if "litert" in names:
        check_litert(denoiser)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if "saved_model" in names:
            max_pixels = int(max_megapixels * 1e6)
            write_saved_model(paths["saved_model"], denoiser, warmup=warmup, max_pixels=max_pixels)
        if options.precision != "float32" and names != ["saved_model"]:
            options = dataclasses.replace(options, precision="float32")
            denoiser = Denoiser.load(model_path, options)
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


def _last_version(out: Path) -> int:
    """The highest number of what was exported to a folder, 0 if nothing was."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    versions = [int(match[1]) for match in map(_VERSIONED.fullmatch, names) if match]
    return max(versions, default=0)


def _plan(out: Path, names: list[str], version: int) -> dict[str, Path]:
    """Where everything will stand; nothing of it may be there."""
    paths = {}
    if "saved_model" in names:
        paths["saved_model"] = out / f"{version}"
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
