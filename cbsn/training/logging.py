"""Reports on a run: on the terminal, for scripts, and for TensorBoard."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.plugins.image import metadata as image
from tensorboard.plugins.scalar import metadata as scalar

from cbsn.devices import peak_memory
from cbsn.files import write_text
from cbsn.models.folder import METRICS_FILE
from cbsn.progress import say
from cbsn.value_range import to_unit


class Reporter:
    """Prints lines, and writes TensorBoard's `events` and `metrics.jsonl`.

    Removes lines of `metrics.jsonl` after the step `start`, which an earlier part of the run wrote,
    because these steps are repeated.
    """

    def __init__(self, folder: Path, start: int, batch_size: int):
        self._events = tf.summary.create_file_writer(str(folder / "events"))
        self._metrics = folder / METRICS_FILE
        self._batch_size = batch_size
        self._clock = (time.monotonic(), start)
        self._psnr: float | None = None
        self._held_out: float | None = None
        if self._metrics.exists():
            lines = self._metrics.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step(line) <= start]
            if kept != lines:
                write_text(self._metrics, "".join(f"{line}\n" for line in kept))

    def log(
        self, step: int, metrics: Mapping[str, tf.Tensor], *, skipped: int, bad_records: int
    ) -> None:
        """Reports a step, and the number of steps and damaged records skipped so far."""
        flags = ("learning_rate", "skipped", "stop")
        terms = {name: float(value) for name, value in metrics.items() if name not in flags}
        learning_rate = float(metrics["learning_rate"])
        now, (then, earlier) = time.monotonic(), self._clock
        speed = (step - earlier) / max(now - then, 1e-9)
        self._clock = (now, step)
        others = {
            "learning_rate": learning_rate,
            "steps_per_second": speed,
            "patches_per_second": speed * self._batch_size,
            "skipped_steps": skipped,
            "bad_records": bad_records,
            "peak_memory_gib": peak_memory(),
        }
        if gpus := tf.config.list_logical_devices("GPU"):
            peaks = [tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus]
            others["peak_gpu_memory_gib"] = max(peaks) / 2**30
        losses = {f"loss/{name}": value for name, value in terms.items()}
        self._write_scalars(step, {**losses, **others})
        line = {"step": step, **terms, **others}
        if self._psnr is not None:
            line["validation_psnr"] = self._psnr
            self._psnr = None
        if self._held_out is not None:
            line["held_out_loss"] = self._held_out
            self._held_out = None
        finite = {name: value if math.isfinite(value) else None for name, value in line.items()}
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")
        text = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
        note = f", {skipped} steps skipped (loss or gradient not finite)" if skipped else ""
        say(f"step {step}: {text}, lr {learning_rate:.2e}, {speed:.2f} steps/s{note}")

    def validation(self, step: int, psnr: float, triples: Sequence[Sequence[np.ndarray]]) -> None:
        """Reports a validation: its PSNR in dB, and pictures to show side by side."""
        self._psnr = psnr
        self._write_scalars(step, {"validation/psnr": psnr})
        for i, triple in enumerate(triples):
            self.pictures(step, triple, f"validation/{i}")
        say(f"step {step}: validation PSNR {psnr:.3f} dB")

    def held_out(self, step: int, loss: float) -> None:
        """Reports the loss on the planes that are held out."""
        self._held_out = loss
        self._write_scalars(step, {"validation/held_out_loss": loss})
        say(f"step {step}: held-out loss {loss:.5f}")

    def pictures(self, step: int, pictures: Sequence[np.ndarray], name: str = "training") -> None:
        """Writes pictures of the same size, [H, W, C], side by side to TensorBoard."""
        unit = [np.clip(to_unit(p), 0, 1) for p in pictures]
        with self._events.as_default(step):
            _write_image(name, np.concatenate(unit, axis=1))

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the block's duration from the steps per second."""
        started = time.monotonic()
        yield
        then, earlier = self._clock
        self._clock = (then + time.monotonic() - started, earlier)

    def flush(self) -> None:
        """Writes buffered events to disk."""
        self._events.flush()

    def close(self) -> None:
        """Writes out the rest; ignores errors, as a log should not fail a finished run."""
        with contextlib.suppress(tf.errors.OpError):
            self._events.close()

    def _write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self._events.as_default(step):
            for name, value in values.items():
                _write_scalar(name, value)


# As `tf.summary.scalar` and `tf.summary.image` do, which would first import all of TensorFlow's
# public modules. That takes a second or more, and some of them write lines into the progress bar.


def _write_scalar(name: str, value: float) -> None:
    metadata = scalar.create_summary_metadata(display_name=None, description=None)
    tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)


def _write_image(name: str, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    levels = tf.image.convert_image_dtype(picture, tf.uint8, saturate=True)
    content = tf.stack([str(width), str(height), tf.image.encode_png(levels)])
    metadata = image.create_summary_metadata(display_name=None, description=None)
    tf.summary.write(name, content, metadata=metadata)


def _step(line: str) -> float:
    """Returns the step of a line; infinity if the line is incomplete, as after a crash."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf
