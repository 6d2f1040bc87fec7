"""What a run reports: on the terminal, for scripts, for TensorBoard."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from cbsn.devices import peak_memory
from cbsn.files import write_text
from cbsn.models.folder import METRICS_FILE
from cbsn.value_range import value_range


class MetricsLog:
    """Appends a line of JSON for each logged step.

    Args:
        path: the file. Lines of an earlier run of it are kept up to the step at which it goes on;
            those after it will come again.
        start: int, that step.
    """

    def __init__(self, path: Path, start: int):
        self._path = path
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step(line) <= start]
            if kept != lines:
                write_text(path, "".join(f"{line}\n" for line in kept))

    def write(self, values: Mapping[str, float]) -> None:
        """Appends a line; values that are not finite become null.

        Args:
            values: by name, `step` among them.
        """
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")


def _step(line: str) -> float:
    """The step of a line; infinite where the line is incomplete, as after a crash."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf


class Summaries:
    """Writes scalars and pictures for TensorBoard.

    Args:
        folder: where the event files go; made if need be.
    """

    def __init__(self, folder: Path):
        self._writer = tf.summary.create_file_writer(str(folder))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes named scalars, such as `{"loss/total": 1.2}`, of a step."""
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def pictures(self, step: int, name: str, pictures: Sequence[np.ndarray]) -> None:
        """Writes pictures side by side as one.

        Args:
            step: of the training.
            name: such as "validation/0".
            pictures: each [H, W, C] of one size; uint8, uint16 or float in [0, 1], which is
                clipped to that.
        """
        rows = [np.clip(p.astype(np.float32) / value_range(p.dtype), 0, 1) for p in pictures]
        with self._writer.as_default(step):
            tf.summary.image(name, np.concatenate(rows, axis=1)[None])

    def flush(self) -> None:
        """Writes out what is still in memory."""
        self._writer.flush()

    def close(self) -> None:
        """Writes out the rest, if it can: the log is not worth an error after all else."""
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()


def say(line: str) -> None:
    """Prints above the progress bar, at once even into a file."""
    tqdm.write(line)
    sys.stdout.flush()


class Reporter:
    """Prints lines, and writes TensorBoard's `events` and `metrics.jsonl`.

    Args:
        folder: of the run.
        start: int, step at which the training goes on.
        batch_size: int, patches in a step.
    """

    def __init__(self, folder: Path, start: int, batch_size: int):
        self._summaries = Summaries(folder / "events")
        self._metrics_log = MetricsLog(folder / METRICS_FILE, start)
        self._batch_size = batch_size
        self._clock = (time.monotonic(), start)
        self._psnr: float | None = None

    def log(
        self, step: int, metrics: Mapping[str, tf.Tensor], *, skipped: int, bad_records: int
    ) -> None:
        """Reports a step.

        Args:
            step: int, its number.
            metrics: what the trainer returned for it.
            skipped: int, number of steps so far that changed nothing.
            bad_records: int, number of damaged records that were skipped.
        """
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
            **_gpu_memory(),
        }
        validated = {} if self._psnr is None else {"validation_psnr": self._psnr}
        self._psnr = None
        losses = {f"loss/{name}": value for name, value in terms.items()}
        self._summaries.scalars(step, {**losses, **others})
        self._metrics_log.write({"step": step, **terms, **others, **validated})
        text = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
        note = f", {skipped} steps skipped (loss or gradient not finite)" if skipped else ""
        say(f"step {step}: {text}, lr {learning_rate:.2e}, {speed:.2f} steps/s{note}")

    def validation(self, step: int, psnr: float, triples: Sequence[Sequence[np.ndarray]]) -> None:
        """Reports a validation: its PSNR in dB, and pictures to be shown side by side."""
        self._psnr = psnr
        self._summaries.scalars(step, {"validation/psnr": psnr})
        for i, triple in enumerate(triples):
            self._summaries.pictures(step, f"validation/{i}", triple)
        say(f"step {step}: validation PSNR {psnr:.3f} dB")

    def pictures(self, step: int, pictures: Sequence[np.ndarray]) -> None:
        """Shows a patch of the training, before and after."""
        self._summaries.pictures(step, "training", pictures)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves what the block takes out of the steps per second."""
        started = time.monotonic()
        yield
        then, earlier = self._clock
        self._clock = (then + time.monotonic() - started, earlier)

    def flush(self) -> None:
        """Writes out what is still in memory."""
        self._summaries.flush()

    def close(self) -> None:
        """Ends the events."""
        self._summaries.close()


def _gpu_memory() -> dict[str, float]:
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        return {}
    peaks = [tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus]
    return {"peak_gpu_memory_gib": max(peaks) / 2**30}
