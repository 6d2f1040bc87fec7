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

# What is exported in each format, below the folder of the model, with the version for the braces.
FORMATS = {
    "saved_model": ["{}"],
    "litert": ["model-{}.tflite", "model-{}-float16.tflite"],
    "onnx": ["model-{}.onnx"],
}
_VERSIONED = re.compile(r"(?:model-)?(\d+)(?:-float16)?(?:\.tflite|\.onnx)?")


def export(
    model_path: str | Path,
    out: str | Path,
    *,
    formats: str,
    version: int | None,
    warmup: bool,
    max_megapixels: float,
    options: DenoiseOptions,
) -> None:
    """Exports a trained model, and prints what was written.

    Args:
        model_path: as for `Denoiser.load`.
        out: folder of the model, made if it is not there.
        formats: some of `FORMATS`, with commas.
        version: int ≥ 1; None for one more than the last in `out`.
        warmup: whether the SavedModel has warm-up requests.
        max_megapixels: of an encoded picture that the SavedModel takes.
        options: how it denoises. `precision` is that of the SavedModel; the others are float32.
            The strengths are those of requests that say none. `engine` is ignored.

    Raises:
        ConfigError: if a format is unknown or cannot have the model, or the version is there
            already, or a package is missing.
        ModelError: if the model cannot be loaded, or an export cannot be written.
    """
    names = [name.strip() for name in formats.split(",")]
    if not {*names} <= FORMATS.keys():
        raise ConfigError(f"--format is some of {', '.join(FORMATS)}. Received: {formats!r}")
    if version is not None:
        check_number("--version", version, 1, 2**63 - 1)  # TensorFlow Serving knows no more
    # A SavedModel counts pixels in int32.
    check_number("--max_megapixels", max_megapixels, 0, 2147, above=True)
    out = expanded(out).absolute()
    if str(out).encode(errors="replace").decode() != str(out) or "\0" in str(out):
        raise ConfigError(f"TensorFlow writes to no path that is not UTF-8. Received: --out {out}")
    if version is None:
        version = _last_version(out) + 1
    paths = {
        name: [out / file.format(version) for file in files]
        for name, files in FORMATS.items()
        if name in names
    }
    written = [path for of_format in paths.values() for path in of_format]
    for path in written:
        if path.exists():
            raise ConfigError(
                f"{path} is there already, and may be in use; give another --version, or none "
                f"for the next one. Received: --version {version}"
            )
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
            folder, most = paths["saved_model"][0], int(max_megapixels * 1e6)
            write_saved_model(folder, denoiser, warmup=warmup, max_pixels=most)
        if options.precision != "float32" and names != ["saved_model"]:
            denoiser = Denoiser.load(model_path, dataclasses.replace(options, precision="float32"))
        if "litert" in names:
            whole, half = paths["litert"]
            write_litert(whole, denoiser, float16=False)
            write_litert(half, denoiser, float16=True)
        if "onnx" in names:
            write_onnx(paths["onnx"][0], denoiser)
    except (OSError, tf.errors.OpError) as error:
        raise ModelError(f"{out}: the model cannot be written ({plain_reason(error)}).") from error
    print(*written, sep="\n")


def _last_version(out: Path) -> int:
    """The highest number of what was exported to a folder, 0 if nothing was."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    versions = [int(match[1]) for match in map(_VERSIONED.fullmatch, names) if match]
    return max(versions, default=0)
