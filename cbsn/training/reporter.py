"""What there is to see of a training while it runs."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from cbsn.memory import peak_memory
from cbsn.training.metrics_log import METRICS_FILE, MetricsLog
from cbsn.training.summaries import Summaries


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
