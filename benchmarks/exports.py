"""Exported models in their runtimes: seconds per megapixel and peak memory.

TensorFlow is loaded in all processes whose memory is measured, needed or not; see "GiB before".
"""

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import Sample, Side, compare, timed_per_megapixel
from benchmarks.inference import denoiser, picture
from benchmarks.memory import measure_memory
from benchmarks.report import Column
from benchmarks.settings import Settings, Size
from benchmarks.step import OURS, describe
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions

TITLE = "Exported models"
COLUMNS = (
    Column("seconds_per_megapixel", "s per MP"),
    Column("cpu_seconds_per_megapixel", "CPU s per MP"),
    Column("seconds", "median s"),
    Column("seconds_min", "min s"),
    Column("ratio", "times as fast", ".2f"),
    Column("start_gib", "GiB before", ".2f"),
    Column("peak_gib", "peak GiB", ".2f"),
)

Denoise = Callable[[np.ndarray], Any]
"""Denoises float32 [1, H, W, 3] in [0, 1]."""


class _Way(NamedTuple):
    """A way to run a model from a file or folder; omitted if a required module is missing."""

    load: Callable[[str], Denoise]
    file: str
    requires: tuple[str, ...] = ()
    max_pixels: float = float("inf")


def _infer(precision: str) -> Callable[[str], Denoise]:
    def load(path: str) -> Denoise:
        denoise = Denoiser.load(path, DenoiseOptions(precision=precision, engine="tensorflow"))
        return lambda images: denoise(images[0])

    return load


def _saved_model(path: str) -> Denoise:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)  # would be freed if only its signature were kept
    return lambda images: loaded.signatures["serving_default"](images=tf.constant(images))


def _litert(path: str) -> Denoise:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=_cores())
    denoise = interpreter.get_signature_runner()
    return lambda images: denoise(images=images)


def _onnx(path: str) -> Denoise:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _cores()
    session = onnxruntime.InferenceSession(path, options)
    return lambda images: session.run(None, {"images": images})


_LITERT, _ONNX = ("ai_edge_litert",), ("onnxruntime", "tf2onnx")
_WHOLE = 2**20
"""Pixels of the largest picture for runtimes that take a picture in one piece."""

SIDES = {
    "cbsn denoise float32": _Way(_infer("float32"), "model"),
    "cbsn denoise bfloat16": _Way(_infer("mixed_bfloat16"), "model"),
    "SavedModel float32": _Way(_saved_model, "1"),
    "SavedModel bfloat16": _Way(_saved_model, "2"),
    "LiteRT": _Way(_litert, "model.tflite", _LITERT, _WHOLE),
    "LiteRT, float16 weights": _Way(_litert, "float16.tflite", _LITERT, _WHOLE),
    "ONNX Runtime": _Way(_onnx, "model.onnx", _ONNX, _WHOLE),
}
"""The sides by name, with the names that `_write` gives their files."""


def make(spec: Mapping[str, Any]) -> Callable[[], Sample]:
    """Returns a measurement; `spec` has the keys side, folder, height and width."""
    way = SIDES[spec["side"]]
    denoise = way.load(f"{spec['folder']}/{way.file}")
    images = picture(spec["height"], spec["width"])[None].astype(np.float32) / 255
    return timed_per_megapixel(lambda: denoise(images), spec["height"] * spec["width"])


def run(settings: Settings) -> Iterator[dict[str, Any]]:
    """Measures all cases and yields the results of each."""
    for size in settings.sizes:
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder), size)
            for height, width in settings.pictures:
                names = settings.select(
                    name
                    for name, way in SIDES.items()
                    if height * width <= way.max_pixels
                    and all(map(importlib.util.find_spec, way.requires))
                )
                sides = []
                for name in names:
                    spec = {"side": name, "folder": folder, "height": height, "width": width}
                    facts = measure_memory("exports", spec) if settings.memory else {}
                    sides.append(Side(name, make(spec), base=names[0], facts=facts))
                yield compare(f"{describe(size)}, {height}x{width}", sides, settings.repeats)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _write(folder: Path, size: Size) -> None:
    """Writes a model with fresh weights in every format."""
    from cbsn.export.export import write_litert, write_onnx, write_saved_model
    from cbsn.models.folder import save_model

    whole = denoiser(size.filters, size.num_modules, network=OURS, precision="float32")
    save_model(folder / "model", whole.recipe, whole.network, {})
    half = Denoiser.load(
        folder / "model", DenoiseOptions(precision="mixed_bfloat16", engine="tensorflow")
    )
    write_saved_model(folder / "1", whole, warmup=False)
    write_saved_model(folder / "2", half, warmup=False)
    write_litert(folder / "model.tflite", whole, float16=False)
    write_litert(folder / "float16.tflite", whole, float16=True)
    if importlib.util.find_spec("tf2onnx"):
        write_onnx(folder / "model.onnx", whole)
