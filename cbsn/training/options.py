"""What the user of a run decides, besides its recipe."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cbsn.errors import ConfigError, check_number
from cbsn.noise.synthetic import Noise
from cbsn.value_range import check_white


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What is learned from, and measured on."""

    dataset: str  # this and the next two as `cbsn.training.dataset.open_records` takes them
    source: Path = Path("dataset")
    second_shots: str | None = None
    noise: Noise | None = None  # added to the pictures, which are clean then, or to the teacher's
    own_noise: tuple[float, float] | None = None  # times that of the pictures; lowest and highest
    white: float | None = None  # in the files, those to validate on too; None as they show it
    gray: bool | None = None  # a network for gray pictures; None if the pictures are gray
    skip_bad_records: bool = False  # whether to go on without damaged ones
    val_noisy: str | None = None  # a folder or glob; with `noise`, the clean pictures are enough
    val_clean: str | None = None  # of the same names
    val_images: int = 0  # pairs to take of these; 0 for all


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What other models give to the one that is trained; each is named as for `--modelpath`."""

    teacher: Sequence[str] = ()  # the mean of their pictures is learned, by what is taught
    rounds: int = 1  # in each further one the model of the one before teaches, and goes on
    init: str | None = None  # whose weights the training starts with
    perceptual_weights: Path | None = None  # VGG-16's file; None for what Keras fetches


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How it is computed; `None` and `accumulate=0` leave it to the trainer."""

    precision: str = "auto"  # or one of `cbsn.precision.PRECISIONS`
    deterministic: bool = False  # whether to compute the same bits each time; slower on GPUs
    cpu_devices: int = 1  # logical ones to split the CPU into, where there is no GPU
    accumulate: int = 0  # parts of a batch on each device
    xla: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How often the training loop does what."""

    max_bad_steps: int = 20  # not finite and in a row, after which it ends
    print_every: int = 0  # steps; 0 for 1/500 of the training, but at least 20
    val_every: int = 0  # steps; 0 for 1/50 of the training, but at least 200
    save_every: int = 0  # the same

    def intervals(self, max_steps: int) -> tuple[int, int, int]:
        """Steps between log lines, validations and checkpoints in a training of that length."""
        return (
            self.print_every or max(20, max_steps // 500),
            self.val_every or max(200, max_steps // 50),
            self.save_every or max(200, max_steps // 50),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(DataOptions, ModelOptions, ComputeOptions, LoopOptions):
    """Everything about a run that is not its recipe: the flags of `train.py`, by their names.

    Raises:
        ConfigError: if a value is out of range or does not go with another one.

    Example:
        >>> train("cbsn", {"max_steps": 1000}, RunOptions(name="mine", dataset="pictures"))
    """

    name: str  # the run's folder is `checkpoints / name`
    checkpoints: Path = Path("checkpoints")
    resume: bool = True  # whether to go on where a run of that name stopped
    epochs: int = 0  # passes over the patches; 0 for the recipe's steps
    seed: int = 0  # of everything random
    ema: float | None = None  # decay of the averaged weights; 0 for none, None as the recipe has it

    def __post_init__(self):
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise ConfigError(
                "--name must be a plain folder name; say with --checkpoints where it goes. "
                f"Received: --name {self.name!r}"
            )
        try:
            str(self.folder).encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                "TensorFlow writes to no path that is not UTF-8: take another --name, or another "
                f"folder. Received: {self.folder}"
            ) from error
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ConfigError(f"--ema must be 0 or above, and below 1. Received: {self.ema}")
        if self.teacher and self.second_shots:
            raise ConfigError(
                "What is learned from comes from --teacher, or from --second_shots: omit one of "
                f"them. Received: --teacher {' '.join(self.teacher)} --second_shots "
                f"{self.second_shots}"
            )
        if self.noise and self.second_shots:
            raise ConfigError(
                "Noise is added to clean pictures, which need no second shots: omit one of them. "
                f"Received: {self.noise}, --second_shots {self.second_shots}"
            )
        if self.own_noise and (self.noise or not self.teacher):
            given = f"--noise: {self.noise}" if self.noise else "no --teacher"
            raise ConfigError(
                "--own_noise is added to the pictures of a --teacher, in place of any other. "
                f"Received: {given}"
            )
        if self.val_noisy is not None and self.val_clean is None:
            raise ConfigError("Validation needs pairs: give --val_clean along with --val_noisy.")
        if self.val_clean is not None and self.val_noisy is None and self.noise is None:
            raise ConfigError("Validation needs pairs: give --val_noisy along with --val_clean.")
        check_white(self.white)
        check_number("--seed", self.seed, 0, 2**32 - 1)
        check_number("--cpu_devices", self.cpu_devices, 1, 256)
        check_number("--max_bad_steps", self.max_bad_steps, 1)
        check_number("--rounds", self.rounds, 1, 100)
        every = ("print_every", "val_every", "save_every")
        for flag in ("epochs", "accumulate", "val_images", *every):
            check_number(f"--{flag}", getattr(self, flag), 0)

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.checkpoints / self.name
