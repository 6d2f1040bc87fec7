"""The training loop, and all that happens around a step."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cbsn.data.pipeline import PatchPipeline
from cbsn.devices import make_strategy
from cbsn.errors import ConfigError
from cbsn.inference.denoiser import Denoiser
from cbsn.model_folder import save_model
from cbsn.precision import choose_precision
from cbsn.recipes import customised
from cbsn.training.checkpoints import Checkpoints, open_run
from cbsn.training.dataset import open_records
from cbsn.training.summaries import Summaries
from cbsn.training.trainer import Trainer
from cbsn.training.validation import ValidationPairs


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Everything about a run that is not its recipe.

    Args:
        name: str, the run lives in `checkpoints / name`.
        dataset: str, as `cbsn.training.dataset.open_records` takes it.
        source: folder of the prepared SIDD and DND.
        checkpoints: folder of all runs.
        resume: whether to go on where a run of that name stopped.
        epochs: int, train for that many passes over the patches; 0 for the recipe's steps.
        seed: int ≥ 0, seed of everything random.
        precision: "auto" or one of `cbsn.precision.PRECISIONS`, the Keras dtype policy of the
            layers.
        accumulate: int, parts of a batch whose gradients are taken one after the other on each
            device; 0 leaves it to the trainer.
        ema: float in [0, 1), decay of the averaged weights; 0 for none.
        val_noisy: folder or glob of noisy pictures to validate on; None for no validation.
        val_clean: the clean ones of the same names.
        val_images: int, how many of them to take; 0 for all.
        print_every: int, steps between log lines and scalars; 0 for 1/500 of the training, but
            at least 20.
        val_every: int, steps between validations; 0 for 1/50 of the training, but at least 200.
        save_every: int, steps between checkpoints; likewise.

    Raises:
        ConfigError: if a value is out of range or does not go with another one.
    """

    name: str
    dataset: str
    source: Path = Path("dataset")
    checkpoints: Path = Path("checkpoints")
    resume: bool = True
    epochs: int = 0
    seed: int = 0
    precision: str = "auto"
    accumulate: int = 0
    ema: float = 0.0
    val_noisy: str | None = None
    val_clean: str | None = None
    val_images: int = 0
    print_every: int = 0
    val_every: int = 0
    save_every: int = 0

    def __post_init__(self):
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise ConfigError(
                "--name must be a plain folder name; say with --checkpoints where it goes. "
                f"Received: --name {self.name!r}"
            )
        if not 0 <= self.ema < 1:
            raise ConfigError(f"--ema must be 0 or above, and below 1. Received: {self.ema}")
        if (self.val_noisy is None) != (self.val_clean is None):
            given, missing = "--val_noisy", "--val_clean"
            if self.val_noisy is None:
                given, missing = missing, given
            raise ConfigError(f"Validation needs pairs: give {missing} along with {given}.")
        for flag in ("epochs", "seed", "val_images", "print_every", "val_every", "save_every"):
            if getattr(self, flag) < 0:
                raise ConfigError(f"--{flag} must be 0 or above. Received: {getattr(self, flag)}")

    def intervals(self, max_steps: int) -> tuple[int, int, int]:
        """Steps between log lines, validations and checkpoints in a training of that length."""
        return (
            self.print_every or max(20, max_steps // 500),
            self.val_every or max(200, max_steps // 50),
            self.save_every or max(200, max_steps // 50),
        )


def train(recipe_name: str, changes: Mapping[str, Any], options: RunOptions) -> Path:
    """Trains a recipe, from its start or from where the run of that name stopped.

    The run's folder holds `checkpoints/` to go on from, the saved models `last` and, with
    validation, `best`, TensorBoard's `events/`, and `run.json`.

    Args:
        recipe_name: str, what to train.
        changes: settings of the recipe to change, as `cbsn.recipes.customised` takes them.
        options: all that is not the recipe's.

    Returns:
        The run's folder.

    Raises:
        ConfigError: if settings do not fit each other, the data, or an earlier run.
        DataError: if the data set or the validation pictures cannot be used.
    """
    if options.epochs and changes.get("max_steps"):
        raise ConfigError(
            "--epochs and --maxiter both say how long to train; leave one of them away. "
            f"Received: --epochs {options.epochs} --maxiter {changes['max_steps']}"
        )
    precision, why = choose_precision(options.precision)
    recipe = customised(recipe_name, **changes)
    validation = None
    if options.val_noisy is not None:
        validation = ValidationPairs(options.val_noisy, options.val_clean, options.val_images)
    records = open_records(options.dataset, options.source)
    pipeline = PatchPipeline(records, recipe.patch_size, recipe.batch_size, options.seed)
    if options.epochs:
        steps = options.epochs * pipeline.steps_per_epoch
        recipe = customised(recipe_name, **{**changes, "max_steps": steps})
    trainer = Trainer(
        recipe,
        precision=precision,
        ema=options.ema,
        seed=options.seed,
        accumulate=options.accumulate,
        strategy=make_strategy(),
    )
    folder = options.checkpoints / options.name
    settings = {"average": bool(options.ema), "seed": options.seed, "dataset": options.dataset}
    open_run(folder, recipe, settings, resume=options.resume)
    _say(f"Precision {precision}: {why}. Gradients in {trainer.accumulate} parts.")
    _Run(folder, trainer, pipeline, validation, options).loop()
    return folder


class _Run:
    """The loop and its book-keeping."""

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        pipeline: PatchPipeline,
        validation: ValidationPairs | None,
        options: RunOptions,
    ):
        self._folder = folder
        self._trainer = trainer
        self._pipeline = pipeline
        self._validation = validation
        self._max_steps = trainer.recipe.max_steps
        self._print_every, self._val_every, self._save_every = options.intervals(self._max_steps)
        self._denoiser = Denoiser(trainer.recipe, trainer.model)
        self._checkpoints = Checkpoints(folder, trainer)
        self._summaries = Summaries(folder / "events")

    def loop(self) -> None:
        """Trains to the last step. Interrupted, it saves and passes the interrupt on."""
        start = self._checkpoints.restore()
        self._print_start(start)
        if start >= self._max_steps:
            return
        dataset = self._trainer.distribute(self._pipeline.dataset(start))
        with (
            # Closed in any case: a process may hang at its end while tf.data reads on.
            contextlib.closing(self._pipeline.guard(iter(dataset))) as batches,
            tqdm(total=self._max_steps, initial=start, unit="step", disable=None) as bar,
        ):
            try:
                for step in range(start + 1, self._max_steps + 1):
                    metrics = self._trainer.train_step(next(batches))
                    if bar.update():
                        bar.set_postfix(loss=f"{float(metrics['total']):.4f}", refresh=False)
                    last = step == self._max_steps
                    if step % self._print_every == 0 or last:
                        self._log(step, metrics)
                    if step % self._val_every == 0 or last:
                        self._validate(step)
                    if step % self._save_every == 0 or last:
                        self._save(step)
            except KeyboardInterrupt:
                step = int(self._trainer.step.numpy())
                self._save(step)
                _say(f"Stopped and saved at step {step}; the same command goes on from here.")
                raise
            finally:
                self._summaries.flush()

    def _print_start(self, start: int) -> None:
        records, recipe = self._pipeline.records, self._trainer.recipe
        size = ", ".join(f"{key} {value}" for key, value in recipe.network_config.items())
        _say(
            f"{recipe.name}: {self._trainer.network.count_params():,} parameters ({size}); "
            f"{len(records):,} patches of {records.patch_size} px, {records.dtype}; steps "
            f"{start:,} to {self._max_steps:,}; {self._folder}"
        )
        self._clock = (time.monotonic(), start)

    def _log(self, step: int, metrics: Mapping[str, Any]) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        now, (then, earlier) = time.monotonic(), self._clock
        speed = (step - earlier) / max(now - then, 1e-9)
        self._clock = (now, step)
        skipped = int(self._trainer.skipped.numpy())
        learning_rate = values.pop("learning_rate")
        values.pop("skipped")
        self._summaries.scalars(
            step,
            {
                **{f"loss/{name}": value for name, value in values.items()},
                "learning_rate": learning_rate,
                "steps_per_second": speed,
                "patches_per_second": speed * self._trainer.recipe.batch_size,
                "skipped_steps": skipped,
            },
        )
        terms = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        note = f", {skipped} steps skipped (loss or gradient not finite)" if skipped else ""
        _say(f"step {step}: {terms}, lr {learning_rate:.2e}, {speed:.2f} steps/s{note}")

    def _validate(self, step: int) -> None:
        started = time.monotonic()
        if self._validation is None:
            noisy = self._pipeline.crop(step * self._trainer.recipe.batch_size)
            self._summaries.pictures(step, "training", (noisy, self._denoiser(noisy)))
        else:
            psnr, triples = self._validation.measure(self._denoiser)
            self._summaries.scalars(step, {"validation/psnr": psnr})
            for i, triple in enumerate(triples):
                self._summaries.pictures(step, f"validation/{i}", triple)
            _say(f"step {step}: validation PSNR {psnr:.3f} dB")
            if psnr > float(self._checkpoints.best_psnr):
                self._checkpoints.best_psnr.assign(psnr)
                self._save_model("best", step)
        # Not to be counted as training time in the next line.
        then, earlier = self._clock
        self._clock = (then + time.monotonic() - started, earlier)

    def _save(self, step: int) -> None:
        self._save_model("last", step)
        self._checkpoints.save()

    def _save_model(self, name: str, step: int) -> None:
        facts = {"step": step}
        if np.isfinite(best := float(self._checkpoints.best_psnr)):
            facts["best_validation_psnr"] = round(best, 4)
        save_model(self._folder / name, self._trainer.recipe, self._trainer.model, facts)


def _say(line: str) -> None:
    """Prints above the progress bar, at once even into a file."""
    tqdm.write(line)
    sys.stdout.flush()
