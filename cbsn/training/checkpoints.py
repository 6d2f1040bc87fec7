"""A run's folder and its checkpoints."""

import contextlib
import itertools
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import tensorflow as tf

from cbsn.errors import ConfigError, ModelError, TrainingError, plain_reason
from cbsn.files import (
    atomic_folder,
    remove_folder,
    shortened,
    tidy,
    verify_checksums,
    write_checksums,
    write_json,
    write_text,
)
from cbsn.models.folder import is_model_folder
from cbsn.models.loading import RUN_MODELS
from cbsn.progress import say, say_fault
from cbsn.training.trainer import Trainer

KEEP = 3  # newest checkpoints of a run; older ones are deleted
_CHECKPOINTS, _RUN_FILE = "checkpoints", "run.json"  # in a run's folder
_STEP = re.compile(r"step-([0-9]+)")
_STATE = "state"
_FILES = (f"{_STATE}.index", f"{_STATE}.data-00000-of-00001")


class Checkpoints:
    """Saves and restores everything that a training changes: weights, averages, slots, the step.

    The step also determines the position in the data and the random numbers. Each checkpoint is a
    folder with checksums that gets its name, `step-N`, once it is complete. If a killed process, a
    crash or a bad disk has damaged one, this is detected, and the checkpoint before it is used.
    (Keras' `BackupAndRestore` keeps a single checkpoint and verifies nothing; TensorFlow's
    `CheckpointManager` does not verify either.)

    Checkpoints also hold `best_score`, the highest validation PSNR so far in dB, or without clean
    pictures minus the lowest loss on what is held out, and `validated`, the step of the last
    validation.
    """

    def __init__(self, folder: Path, trainer: Trainer):
        self._folder = folder / _CHECKPOINTS
        self._step = trainer.step
        self._saved: tuple[int, int] | None = None
        self._damaged: list[int] = []
        self.best_score = tf.Variable(float("-inf"), dtype=tf.float32, name="best_psnr")
        self.validated = tf.Variable(0, dtype=tf.int64, name="validated")
        average = trainer.average.weights if trainer.average is not None else []
        # Lists the variables one by one: TensorFlow silently misses those of layers that a Keras 3
        # model keeps in a list.
        self._values = {
            "network": [variable.value for variable in trainer.network.weights],
            "average": [variable.value for variable in average],
            "optimizer": [variable.value for variable in trainer.optimizer.variables],
        }
        self._state = tf.train.Checkpoint(
            **self._values,
            step=trainer.step,
            skipped=trainer.skipped,
            skipped_in_row=trainer.skipped_in_row,
            loss_scale=trainer.loss_scale,
            best_psnr=self.best_score,  # named as in earlier versions
            validated=self.validated,
        )

    def restore(self) -> int:
        """Restores the newest intact checkpoint; returns its step, or 0 without any checkpoint."""
        steps = _steps(self._folder)
        for step in reversed(steps):
            path = self._path(step)
            try:
                verify_checksums(path, _FILES)
                self._read(path)
            except ModelError as error:
                self._damaged.append(step)
                instead = "; using the one before it" if step != steps[0] else ""
                say_fault(f"The checkpoint of step {step} is damaged{instead}: {error}")
                continue
            self._saved = self._now()
            return step
        if steps:
            raise ModelError(
                f"No checkpoint in {self._folder} is intact. Copy the folder again, or start over "
                "with --no-resume, which sets the run aside."
            )
        if (self._folder / "checkpoint").exists():
            raise ConfigError(
                f"{self._folder} was written by an earlier version, whose checkpoints this one "
                "does not read. Use another --name, or start over with --no-resume, which sets "
                "the earlier run aside. Its models can still be used."
            )
        return 0

    def save(self) -> None:
        """Writes a checkpoint, unless there is already one with this step and its validation.

        Earlier checkpoints stay intact if a value is not finite (`TrainingError`) or if the
        checkpoint cannot be written (`OSError`, `tf.errors.OpError`).
        """
        now = self._now()
        if now == self._saved:
            return
        self.check_finite()
        self._folder.mkdir(exist_ok=True)
        step, _ = now
        with atomic_folder(self._path(step)) as temporary:
            self._state.write(str(temporary / _STATE))
            write_checksums(temporary)
        self._saved = now
        # Damaged ones would count among the newest; this intact one replaces them.
        useless = {each for each in self._damaged if each != step}
        self._damaged.clear()
        whole = [each for each in _steps(self._folder) if each not in useless]
        for old in useless.union(whole[:-KEEP]):
            remove_folder(self._path(old))

    def check_finite(self) -> None:
        """Raises a `TrainingError` if a weight, an average or a slot is not finite."""
        for kind, variables in self._values.items():
            for variable in variables:
                if not np.isfinite(variable.numpy()).all():
                    raise TrainingError(
                        f"After step {self._now()[0]} the {kind} holds values that are not finite "
                        f"({variable.name}); it was not saved. {self.newest()}. Start again with a "
                        "smaller --learning_rate, with --clip_norm, or with --precision float32."
                    )

    @property
    def exist(self) -> bool:
        """Whether there is a checkpoint of this run."""
        return self._saved is not None

    def newest(self) -> str:
        """Describes the newest checkpoint, for messages."""
        if self._saved is None:
            return "There is no checkpoint yet"
        return f"The newest checkpoint is of step {self._saved[0]}"

    def _now(self) -> tuple[int, int]:
        return int(self._step.numpy()), int(self.validated.numpy())

    def _read(self, path: Path) -> None:
        try:
            self._state.read(str(path / _STATE)).assert_consumed()
        except (AssertionError, ValueError) as error:  # other variables, or others of their shapes
            raise ConfigError(
                f"{path} was written by another version or for another training: its "
                "contents differ. Give the same flags and pictures, use another --name, or start "
                "over with --no-resume, which sets the earlier run aside."
            ) from error
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes make TensorFlow raise almost anything
            raise ModelError(f"{path} cannot be read ({plain_reason(error)})") from error

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step}"


def _steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, which need not exist."""
    try:
        # `glob` would find nothing in an unreadable folder, and the run would start over.
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be read ({plain_reason(error)}). Make it readable, or start over "
            "with --no-resume, which sets the run aside."
        ) from error
    return sorted(int(match[1]) for match in map(_STEP.fullmatch, names) if match)


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Keeps other processes from training the run in a folder until the block ends.

    The operating system releases the lock when the process that holds it ends, however it ends.
    """
    # These are next to the folder, not in it, as --no-resume renames it.
    path, owner_path = (
        folder.with_name(shortened(f".{folder.name}{suffix}", suffix))
        for suffix in (".lock", ".owner")
    )
    lock = filelock.FileLock(path)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        owner = "another process"
        with contextlib.suppress(OSError):
            owner = owner_path.read_text(encoding="utf-8")
        raise ConfigError(
            f"The run {folder} is being trained by {owner}. Wait for it, stop it, or use another "
            "--name."
        ) from None
    # Older versions of filelock raise NotImplementedError if the file system has no locks. Newer
    # ones use a file that names the owner's process instead.
    except (OSError, NotImplementedError) as error:
        raise ConfigError(
            f"{path} cannot be locked: {error}. Use another folder, with --out or --checkpoints."
        ) from error
    try:
        # Only for the message above: with a full disk, the run reports its own errors.
        with contextlib.suppress(OSError):
            write_text(owner_path, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        owner_path.unlink(missing_ok=True)
        lock.release()


def open_run(folder: Path, facts: dict[str, Any], *, resume: bool = True) -> None:
    """Creates the folder of a run, or checks that an earlier run in it can go on.

    Removes files that a killed process left half written. With `resume=False`, renames the folder
    of an earlier run to set it aside. `facts` go into `run.json` and say what is trained and how: a
    recipe's `to_dict` and more. An earlier run must have the same network and must agree on whether
    its weights are averaged. Other differences are allowed, and printed, unless the run has more
    steps already, so that nothing is left to do.

    Raises:
        ConfigError: if the folder holds something else, or models without the checkpoints to go on
            from, or a run that cannot go on so; or if it cannot be written.
    """
    path = folder / _RUN_FILE
    try:
        if folder.exists():
            _check_is_run(folder)
        if folder.exists() and not resume:
            suffixes = (f".{number}" for number in itertools.count(1))
            paths = (folder.with_name(shortened(folder.name + s, s)) for s in suffixes)
            aside = next(path for path in paths if not path.exists())
            folder.rename(aside)
            say_fault(f"The earlier run {folder.name} is kept as {aside}.")
        folder.mkdir(parents=True, exist_ok=True)
        for each in (folder, folder / _CHECKPOINTS):
            if each.exists():
                tidy(each)
        is_longer = max(_steps(folder / _CHECKPOINTS), default=0) > facts["max_steps"]
        _check_models(folder)
        if path.exists():
            _check_earlier(path, facts, tells=not is_longer)
        if not (is_longer and path.exists()):
            write_json(path, facts)
    except OSError as error:
        raise ConfigError(
            f"The folder of the run cannot be written: {error}. Free some space, or use another "
            "folder, with --out or --checkpoints (an earlier run can be moved there)."
        ) from error


def _check_is_run(folder: Path) -> None:
    """Raises a ConfigError if a folder holds something, but no run."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is a file. Use another --name, or another folder, with --out or "
            "--checkpoints."
        )
    names = [each.name for each in folder.iterdir() if not each.name.startswith(".")]
    if names and not {_RUN_FILE, _CHECKPOINTS} & {*names}:
        raise ConfigError(
            f"The folder {folder} holds something else than a run, such as {min(names)}. Use "
            "another --name, or another folder, with --out or --checkpoints."
        )


def _check_models(folder: Path) -> None:
    """Raises a ConfigError if a run has models, but no checkpoint, so that it would start over."""
    models = [name for name in RUN_MODELS if is_model_folder(folder / name)]
    checkpoints = folder / _CHECKPOINTS
    if models and not (checkpoints.exists() and any(checkpoints.iterdir())):
        raise ConfigError(
            f"The run {folder} has a trained model, {models[0]}, but no checkpoint to go on from. "
            f"Use another --name, with --init {folder} to start with its weights; or start over "
            "with --no-resume, which sets the run aside."
        )


def check_rounds(folder: Path, rounds: int) -> None:
    """Raises a ConfigError if the run in a folder, if any, has another number of rounds.

    Its weights are those of the last round, whose teacher is the round before it.
    """
    path = folder / _RUN_FILE
    before = _facts(path).get("rounds", rounds) if path.exists() else rounds
    if before != rounds:
        raise ConfigError(
            f"The run {folder} was started with --rounds {before}. Use another --name, the same "
            f"--rounds, or start over with --no-resume. Received: --rounds {rounds}"
        )


def _facts(path: Path) -> dict[str, Any]:
    """Returns what `open_run` wrote."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}). Delete it to continue from the run's checkpoints "
            "with these flags, or start over with --no-resume."
        ) from error


def _check_earlier(path: Path, now: dict[str, object], *, tells: bool) -> None:
    """Checks that the run that wrote this file can go on; prints what has changed if it `tells`."""
    before = _facts(path)
    for key in ("network", "network_config", "average"):
        if before.get(key) != now[key]:
            found, received = _differences(key, before.get(key), now[key])
            raise ConfigError(
                f"The run {path.parent} was started with {found}. Use another --name, give the "
                f"same flags and pictures, or start over with --no-resume. Received: {received}"
            )
    for key in now if tells else ():
        if key == "scaling" and key in before and before[key] != now[key]:
            say(
                "The stacks' values, and so their scaling, have changed since the run began. "
                "--no-resume starts over."
            )
        elif key in before and before[key] != now[key]:
            found, received = _differences(key, before[key], now[key])
            say(f"Continuing with other settings: {found} → {received}")


def _differences(key: str, before: object, now: object) -> tuple[str, str]:
    """Returns two values of a setting as texts, of dictionaries only where they differ."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return f"{key}={_text(before)}", f"{key}={_text(now)}"
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    first, second = (
        ", ".join(f"{name}={_text(each.get(name))}" for name in names) for each in (before, now)
    )
    return first, second


def _text(value: object) -> str:
    return "none" if value is None or value == [] else str(value)
