"""Exporting a trained model in one or several formats."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import cbsn
from cbsn.client.api import (
    BYTES,
    COLOR_STRENGTH,
    FILES,
    FLOATS,
    IMAGE_BYTES,
    IMAGES,
    STRENGTH,
    WARMUP,
    WITH_STRENGTH,
)
from cbsn.errors import ConfigError, ModelError, check_number, plain_reason
from cbsn.export.formats import check_installed, check_supported, write_litert, write_onnx
from cbsn.export.signatures import MAX_PIXELS, ServedDenoiser
from cbsn.files import atomic_folder, expanded, write_json
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions

_SIDE = 64


def write_warmup(folder: Path, model_name: str) -> None:
    """Writes a request for each signature: without them, the first of a client would wait.

    Args:
        folder: of the SavedModel.
        model_name: what the server will call the model.

    Raises:
        ConfigError: if tensorflow-serving-api is not installed.
    """
    try:
        from cbsn.client.messages import predict_pb2, prediction_log_pb2
    except ConfigError as error:
        raise ConfigError(
            "Warm-up requests are messages of TensorFlow Serving; make them with its package, or "
            f"export with --no-warmup. {error}"
        ) from error
    picture = np.full((1, _SIDE, _SIDE, 3), 128, np.uint8)
    files = [tf.io.encode_png(picture[0]).numpy()]
    inputs = {
        FLOATS: {IMAGES: tf.make_tensor_proto(picture / np.float32(255))},
        BYTES: {IMAGES: tf.make_tensor_proto(picture)},
        FILES: {IMAGE_BYTES: tf.make_tensor_proto(files)},
    }
    share = tf.make_tensor_proto([0.5], tf.float32)
    shares = {STRENGTH: share, COLOR_STRENGTH: share}
    inputs |= {name + WITH_STRENGTH: tensors | shares for name, tensors in inputs.items()}
    path = folder / WARMUP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, tensors in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            for name, tensor in tensors.items():
                request.inputs[name].CopyFrom(tensor)
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


FACTS = "assets.extra/cbsn.json"
"""What the model is, for a reader; the server does not look at it."""


def write_saved_model(
    folder: Path,
    denoiser: Denoiser,
    *,
    facts: dict[str, Any] | None = None,
    warmup: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Writes a denoiser with the signatures of `ServedDenoiser`.

    It needs nothing of this package to run. While it is written, the folder has a name that the
    server does not take for a version.

    Args:
        folder: where to, `MODEL/VERSION`; its parent must exist.
        denoiser: what to export; its tiles are those of the graph.
        facts: what to say of it in `FACTS`.
        warmup: whether to write warm-up requests. Default True.
        max_pixels: int, of an encoded picture.

    Raises:
        ConfigError: if warm-up requests cannot be made.
        OSError: it cannot be written; nothing is left of it. Or TensorFlow's own error.
    """
    served = ServedDenoiser(denoiser, max_pixels)
    with atomic_folder(folder) as temporary:
        (temporary / FACTS).parent.mkdir()
        write_json(temporary / FACTS, facts or {})
        if warmup:
            write_warmup(temporary, folder.parent.name)
        tf.saved_model.save(served, str(temporary), signatures=served.functions)


FORMATS = ("saved_model", "litert", "onnx")

_LARGEST_VERSION = 2**63 - 1
"""That TensorFlow Serving knows."""

_LARGEST_PICTURE = 2147
"""Megapixels that a SavedModel can count."""

_VERSIONED = re.compile(r"(?:model-)?(\d+)(?:-float16)?(?:\.tflite|\.onnx)?")
"""Names of what is exported."""


_DEFAULT_OPTIONS = DenoiseOptions(precision="float32")


def export(
    model_path: str | Path,
    out: str | Path,
    *,
    formats: str = "saved_model",
    version: int | None = None,
    warmup: bool = True,
    max_megapixels: float = 134,
    options: DenoiseOptions = _DEFAULT_OPTIONS,
) -> list[Path]:
    """Exports a trained model, and says what was written.

    Args:
        model_path: as for `Denoiser.load`.
        out: folder of the model, made if it is not there.
        formats: some of `FORMATS`, with commas.
        version: int ≥ 1. Default: one more than the last in `out`.
        warmup: whether the SavedModel has warm-up requests.
        max_megapixels: of an encoded picture that the SavedModel takes.
        options: of `Denoiser.load`. `precision` is a Keras dtype policy, for the SavedModel; the
            others are float32. The strengths are those of requests that say none. `engine` is of
            no account.

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
        changed = dataclasses.replace(options, precision=precision, engine="tensorflow")
        return Denoiser.load(model_path, changed)

    precision = options.precision
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
        "rounding": denoiser.options.rounding,
        "r3": denoiser.r3,
        "self_ensemble": denoiser.options.self_ensemble,
        "seed": denoiser.options.seed,
        "strength": denoiser.strength.luma,
        "color_strength": denoiser.strength.color,
    }
