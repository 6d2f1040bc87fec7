"""What a run keeps on disk so that it can go on: `DIR/NAME/checkpoints`."""

import json
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from cbsn.errors import ConfigError
from cbsn.files import write_json
from cbsn.recipes import Recipe
from cbsn.training.trainer import Trainer

RUN_FILE = "run.json"
KEEP = 3
"""Checkpoints kept of a run; older ones are deleted."""


class Checkpoints:
    """Saves and restores all that a training changes: weights, averages, slots, and the step.

    The step is also the place in the data and the state of the random numbers, as both are
    functions of it.

    Args:
        folder: the run's folder; it must exist.
        trainer: whose state it is.
    """

    def __init__(self, folder: Path, trainer: Trainer):
        self._step = trainer.step
        self.best_psnr = tf.Variable(float("-inf"), dtype=tf.float32, name="best_psnr")
        """Highest validation PSNR so far, in dB."""
        average = trainer.average.weights if trainer.average is not None else []
        # Variables one by one: TensorFlow does not find those of layers in a list of a Keras 3
        # model, and says nothing.
        state = tf.train.Checkpoint(
            network=[variable.value for variable in trainer.network.weights],
            average=[variable.value for variable in average],
            optimizer=[variable.value for variable in trainer.optimizer.variables],
            step=trainer.step,
            skipped=trainer.skipped,
            loss_scale=trainer.loss_scale,
            best_psnr=self.best_psnr,
        )
        self._state = state
        self._manager = tf.train.CheckpointManager(state, str(folder / "checkpoints"), KEEP)

    def restore(self) -> int:
        """Goes back to the newest checkpoint, if there is one; returns the step.

        Raises:
            ConfigError: if it does not hold what this training keeps.
        """
        newest = self._manager.latest_checkpoint
        if newest:
            try:
                self._state.restore(newest).assert_consumed()
            except AssertionError as error:
                raise ConfigError(
                    f"{newest} was written by another version, or for another training: it does "
                    "not hold what this one keeps. Take another --name, or start over with "
                    "--no-resume, which sets the earlier run aside."
                ) from error
        return int(self._step.numpy())

    def save(self) -> None:
        """Writes a checkpoint of the current step, unless there is one already."""
        if not (self._manager.latest_checkpoint or "").endswith(f"-{int(self._step)}"):
            self._manager.save(checkpoint_number=int(self._step))


def open_run(
    folder: Path, recipe: Recipe, settings: dict[str, Any], *, resume: bool = True
) -> None:
    """Makes the folder of a run, or checks that an earlier run in it can go on.

    Args:
        folder: `DIR/NAME`. With `resume=False` an earlier run there is set aside under a new
            name; nothing is deleted.
        recipe: what is to be trained. The network must be the earlier run's; other differences
            are allowed, and printed.
        settings: further facts for `run.json` that change what is trained.
        resume: whether to go on where an earlier run of this name stopped.

    Raises:
        ConfigError: if the earlier run is one of another network, or of another average.
    """
    if folder.exists() and not resume:
        number = 1
        while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        folder.rename(aside)
        print(f"The earlier run {folder.name} is kept as {aside}.", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    now = {**recipe.to_dict(), **settings}
    path = folder / RUN_FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for key in ("network", "network_config", "average"):
            if before.get(key) != now[key]:
                raise ConfigError(
                    f"The run {folder} was started with {key}={before.get(key)}. Take another "
                    "--name, give the same flags, or start over with --no-resume. "
                    f"Received: {key}={now[key]}"
                )
        for key in now:
            if before.get(key) != now[key]:
                print(f"Going on with another {key}: {before.get(key)} → {now[key]}")
    write_json(path, now)
