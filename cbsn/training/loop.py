"""The training loop: logs, validations and checkpoints around the steps."""

import contextlib
import dataclasses
import functools
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import tensorflow as tf

from cbsn.data.pairs import PicturePairs
from cbsn.data.pipeline import PatchPipeline
from cbsn.data.records import size_text
from cbsn.devices import has_gpu
from cbsn.errors import DataError, TrainingError, TrainingStopped, plain_reason
from cbsn.evaluation.conventions import psnr
from cbsn.images.stacks.scaling import Scale
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.models.folder import is_model_folder, read_facts, save_model
from cbsn.progress import progress_bar, say, say_fault
from cbsn.signals import STOPPING
from cbsn.training.checkpoints import Checkpoints
from cbsn.training.distribution import Workers
from cbsn.training.held_out import HeldOutLoss
from cbsn.training.logging import Reporter
from cbsn.training.options import LoopOptions
from cbsn.training.trainer import Trainer
from cbsn.value_range import value_range

_SAVE_SECONDS = 900  # since the last checkpoint, after which another one is due
_STEPS_AT_ONCE = 16  # queued on a GPU before the loop reads their results, which means waiting
_SHOWN_RANGE = (0.1, 99.9)  # percentiles of a stack's values, shown as black and white
_SOURCES_SHOWN, _PICTURES_SHOWN = 8, 4


class TrainingLoop:
    """Trains to the last step, and writes the run's models, checkpoints and logs into its folder.

    With several workers, only the chief writes.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        pipeline: PatchPipeline,
        validation: PicturePairs | None,
        options: LoopOptions,
        workers: Workers,
        held_out: HeldOutLoss | None = None,
    ):
        self._folder = folder
        self._trainer = trainer
        self._pipeline = pipeline
        self._validation = validation
        self._held_out = held_out
        self._workers = workers
        self._max_steps = trainer.recipe.max_steps
        self._max_bad_steps = options.max_bad_steps
        self._print_every, self._val_every, self._save_every = options.intervals(self._max_steps)
        # R3 would take another eight times as long, and does not change which model is best.
        self._denoiser = Denoiser(
            trainer.recipe, trainer.model, DenoiseOptions(r3=False, engine="tensorflow")
        )
        self._checkpoints = Checkpoints(folder, trainer)
        self._starts_best_anew = False
        self._signals = StopSignals()
        self._bad_records_told = 0
        # Created once, as each new tensor is copied to the device.
        self._stop_flags = tf.constant(False), tf.constant(True)

    def run(self) -> bool:
        """Trains from the newest checkpoint on; raises `TrainingStopped` if it was asked to stop.

        Returns whether a request to stop came too late to skip anything.
        """
        start = self._checkpoints.restore()
        self._bad_in_row = int(self._trainer.skipped_in_row.numpy())
        self._workers.agree(start, "newest checkpoint")
        if self._workers.is_chief:
            self._print_start(start)
            self._check_best()
            with self._writing(start):
                self._reporter = Reporter(self._folder, start, self._trainer.recipe.batch_size)
        self._saved_at = time.monotonic()
        with self._signals:
            try:
                if start in self._trainer.milestones:
                    self._fit(start)  # again, if a run was stopped just before
                if start and self._is_due(start, self._val_every) and self._unvalidated(start):
                    # The run was stopped during this validation.
                    self._validate(start)
                    self._save(start)
                if start < self._max_steps and not self._must_stop():
                    self._take_steps(start)
            except DataError:
                # A damaged record; the steps before it are good.
                if (step := int(self._trainer.step.numpy())) > start:
                    self._save(step)
                raise
            finally:
                if self._workers.is_chief:
                    self._reporter.close()
        # Waits for the chief, which may still be writing and needs the others until it is done.
        stopped = self._workers.any(bool(self._signals.received))
        step = int(self._trainer.step.numpy())
        if step < self._max_steps or (self._signals.received and self._unvalidated(step)):
            raise TrainingStopped(
                f"{self._signals.received or 'Another worker'} stopped the run; it is saved at "
                f"step {step}. Run the same command again to continue."
            )
        return stopped

    def _take_steps(self, start: int) -> None:
        dataset = self._pipeline.dataset(start)
        quiet = None if self._workers.is_chief else True
        with (
            # Closed in any case: a process may hang at its end while tf.data reads on.
            contextlib.closing(self._pipeline.guard(iter(dataset))) as batches,
            progress_bar(total=self._max_steps, initial=start, unit="step", disable=quiet) as bar,
        ):
            shares = self._trainer.distribute(batches)
            at_once = _STEPS_AT_ONCE if has_gpu() else 1
            pending: dict[int, Mapping[str, tf.Tensor]] = {}
            asked = False
            for step in range(start + 1, self._max_steps + 1):
                pending[step] = metrics = self._take_step(next(shares))
                if step in self._trainer.milestones:
                    self._fit(step)
                validating = self._is_due(step, self._val_every)
                logging = self._is_due(step, self._print_every)
                saving = self._is_due(step, self._save_every)
                late = time.monotonic() - self._saved_at > _SAVE_SECONDS
                # After these steps all workers read the results, so all stop after the same one.
                agreed = validating or logging or saving or step % at_once == 0
                if not (agreed or late or self._must_stop()):
                    continue
                for number, found in pending.items():
                    self._check_finite(number, found)
                    asked = asked or bool(found["stop"])
                if bar.update(len(pending)):
                    bar.set_postfix(loss=f"{float(metrics['total']):.4f}", refresh=False)
                pending.clear()
                if validating:
                    self._validate(step)
                if logging:
                    self._log(step, metrics)
                stopping = (agreed and asked) or self._must_stop()
                if stopping or late or saving:
                    self._save(step)
                if stopping:
                    return

    def _take_step(self, batch: Any) -> Mapping[str, tf.Tensor]:
        before = self._trainer.accumulate
        metrics = self._trainer.train_step(batch, self._stop_flags[bool(self._signals.received)])
        parts = self._trainer.accumulate
        if parts != before and self._workers.is_chief:
            say(
                f"Out of memory: from now on each device computes its share of a batch in {parts} "
                f"parts, with the same results; --accumulate {parts} does so from the start."
            )
        return metrics

    def _fit(self, step: int) -> None:
        """Lets the objective fit weights to patches; all workers get those of the chief."""
        values = [each.numpy() for each in self._trainer.network.non_trainable_variables]
        if self._workers.is_chief:
            whole = dataclasses.replace(self._pipeline, worker=0, workers=1)
            values, text = self._trainer.fit(map(whole.batch, itertools.count()))
            say(f"step {step}: {text}")
        self._trainer.set_fitted(self._workers.of_chief(values))

    def _must_stop(self) -> bool:
        """Returns whether to stop at once. Several workers stop together, in `_take_steps`."""
        return self._workers.count == 1 and bool(self._signals.received)

    def _is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self._max_steps

    def _unvalidated(self, step: int) -> bool:
        return self._workers.is_chief and int(self._checkpoints.validated.numpy()) < step

    def _print_start(self, start: int) -> None:
        records, recipe = self._pipeline.records, self._trainer.recipe
        size = ", ".join(f"{key} {value}" for key, value in recipe.network_config.items())
        patches = f"{len(records):,} patch{'es' * (len(records) != 1)}"
        whole = size_text(records.patch_size, records.patch_depth)
        crop = size_text(recipe.patch_size, recipe.patch_depth)
        is_cropped = crop != whole and not self._pipeline.whole
        crops = f", of which crops of {crop} are taken" if is_cropped else ""
        say(
            f"{recipe.name}: {self._trainer.network.count_params():,} parameters ({size}); "
            f"{patches} of {whole}, {records.dtype}{crops}; "
            f"steps {start:,} to {max(start, self._max_steps):,}; {self._folder}"
        )
        if start >= self._max_steps:
            more = (
                f", more than the {self._max_steps:,} asked for" if start > self._max_steps else ""
            )
            say(
                f"This run already has {start:,} steps{more}, so nothing is left to train. Give "
                "more --steps to go on, or another --name or --no-resume to start over."
            )
        elif self._trainer.xla:
            say("XLA compiles the step first, which takes a minute or two (--no-xla avoids this).")

    def _check_finite(self, step: int, metrics: Mapping[str, tf.Tensor]) -> None:
        """Reports a step that changed nothing; ends the run after too many of them in a row."""
        if not metrics["skipped"]:
            self._bad_in_row = 0
            return
        self._bad_in_row += 1
        if self._workers.is_chief:
            say(f"step {step}: loss or gradient not finite, nothing changed")
        if self._bad_in_row < self._max_bad_steps:
            return
        sources = self._pipeline.sources(step - 1)
        if len(sources) > _SOURCES_SHOWN:
            sources[_SOURCES_SHOWN:] = [f"and {len(sources) - _SOURCES_SHOWN} more"]
        batch = "\n  ".join(sources)
        raise TrainingError(
            f"In {self._bad_in_row} steps in a row, up to step {step}, the loss or a gradient was "
            f"not finite; these steps changed nothing. The batch of step {step} was:\n  {batch}\n"
            f"{self._checkpoints.newest()}. Fix the data, or start again with a smaller "
            "--learning_rate, with --clip_norm, or with --precision float32; --max_bad_steps "
            "allows more."
        )

    def _log(self, step: int, metrics: Mapping[str, tf.Tensor]) -> None:
        bad_records = [*self._pipeline.bad_records.values()]
        for error in bad_records[self._bad_records_told :]:
            say_fault(f"skipped: {error}")
        if len(bad_records) > self._bad_records_told:
            say_fault(f"Damaged records skipped so far: {len(bad_records)}.")
        self._bad_records_told = len(bad_records)
        if self._workers.is_chief:
            skipped = int(self._trainer.skipped.numpy())
            with self._writing(step):
                self._reporter.log(step, metrics, skipped=skipped, bad_records=len(bad_records))

    def _validate(self, step: int) -> None:
        """Measures the PSNR on the pairs; without pairs, logs a denoised training patch.

        Of stacks, also computes the loss on the planes that are held out.
        """
        if not self._workers.is_chief:
            return
        with self._reporter.pause():
            if self._validation is None:
                if self._held_out is not None:
                    loss = self._held_out()
                    with self._writing(step):
                        self._reporter.held_out(step, loss)
                        self._keep_best(step, -loss)
                pictures = self._example(step)
                with self._writing(step):
                    self._reporter.pictures(step, pictures)
            elif result := validate(self._validation, self._denoiser, self._must_stop):
                mean, triples = result
                with self._writing(step):
                    self._reporter.validation(step, mean, triples)
                    self._keep_best(step, mean)
            else:
                return
        self._checkpoints.validated.assign(step)

    def _example(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a training patch, and what the model makes of it; their middle planes if deep."""
        noisy = self._pipeline.example(step * self._trainer.recipe.batch_size)
        if not self._trainer.recipe.scaling:
            return noisy, self._denoiser(noisy, white=value_range(noisy.dtype))
        # A stack's patches are scaled already, to no certain range.
        planes = noisy if noisy.ndim == 4 else noisy[None]
        denoised = self._denoiser.scaled(planes, Scale(0.0, 1.0, 0.0, 1.0))
        middle = len(planes) // 2
        noisy, denoised = planes[middle], denoised[middle]
        low, high = np.percentile(noisy, _SHOWN_RANGE)
        span = max(high - low, np.finfo(np.float32).tiny)
        return (noisy - low) / span, (denoised - low) / span

    @functools.cached_property
    def _validated_on(self) -> int | None:
        """A checksum of what models are validated on; None if they are not."""
        if self._validation is not None:
            return self._validation.checksum
        return None if self._held_out is None else self._held_out.checksum()

    def _check_best(self) -> None:
        """Lets `best` start anew if it was chosen by its scores on other pictures."""
        best = self._folder / "best"
        if not is_model_folder(best):
            return
        try:
            facts = read_facts(best)
        except (OSError, ValueError, AttributeError):  # damaged: the next best one replaces it
            return
        if self._validated_on is None:
            say(
                f"Nothing is validated on now: {best} stays the model of step {facts.get('step')}, "
                f"which is the one that {self._folder} stands for; the newest is "
                f"{self._folder / 'last'}."
            )
        elif facts.get("validation_checksum", self._validated_on) != self._validated_on:
            say(
                "What is validated on has changed since the model of step "
                f"{facts.get('step')} was the best, so {best} starts anew."
            )
            self._checkpoints.best_score.assign(-np.inf)
            self._starts_best_anew = True

    def _keep_best(self, step: int, score: float) -> None:
        """Saves the model if no earlier one has a higher score."""
        best = float(self._checkpoints.best_score)
        # A loss is no PSNR: the run may go on with other data.
        if score > best or (score <= 0 < best):
            # A run with a model, but no checkpoint, would not go on; and one that starts anew with
            # its best must not go on from a checkpoint that has the score of the one before.
            if self._checkpoints.exist and not self._starts_best_anew:
                self._checkpoints.check_finite()
            else:
                self._checkpoints.save()
            self._starts_best_anew = False
            self._checkpoints.best_score.assign(score)
            self._save_model("best", step)

    def _save(self, step: int) -> None:
        self._saved_at = time.monotonic()
        if self._workers.is_chief:
            with self._writing(step):
                self._checkpoints.save()
                self._save_model("last", step)
                self._reporter.flush()

    def _save_model(self, name: str, step: int) -> None:
        facts: dict[str, float | None] = {"step": step}
        if np.isfinite(best := float(self._checkpoints.best_score)):
            if best > 0:
                facts["best_validation_psnr"] = round(best, 4)
            else:
                facts["best_held_out_loss"] = round(-best, 6)
            facts["validation_checksum"] = self._validated_on
        save_model(self._folder / name, self._trainer.recipe, self._trainer.model, facts)

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        """Turns the errors of a full disk or a lost folder into a `TrainingError`."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            raise TrainingError(
                f"Step {step} cannot be saved in {self._folder}: {plain_reason(error)}. "
                f"{self._checkpoints.newest()}; earlier files are intact. Free some space or "
                "check the disk, then run the same command again to continue from there."
            ) from error


class StopSignals:
    """Records signals that stop a process during its `with` block, instead of acting on them.

    They are `cbsn.signals.STOPPING`. A second signal has its usual effect, for users who cannot
    wait. Outside the main thread this does nothing, as other threads receive no signals.
    """

    def __init__(self):
        self.received = ""  # name of the signal, once there is one
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                # Ignored signals stay ignored, as some shells set for background processes.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self.__exit__()
        # Not `print`: the signal may have interrupted one.
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, f"\n{self.received}: finishing the step, then saving.\n".encode())


def validate(
    pairs: PicturePairs, denoise: Callable[..., np.ndarray], stop: Callable[[], bool]
) -> tuple[float, list[tuple[np.ndarray, ...]]] | None:
    """Denoises pairs; returns the mean PSNR in dB, and (noisy, denoised, clean) of the first four.

    Calls `stop` before each pair, and returns None if it is true.
    """
    values: list[float] = []
    triples: list[tuple[np.ndarray, ...]] = []
    for noisy, clean in pairs:
        assert noisy is not None and clean is not None
        if stop():
            return None
        denoised = denoise(noisy, white=value_range(noisy.dtype))
        values.append(psnr(clean, denoised))
        if len(triples) < _PICTURES_SHOWN:
            triples.append((noisy, denoised, clean))
    return float(np.mean(values)), triples
