"""The options of a run, besides its recipe."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cbsn.errors import (
    LARGEST,
    ConfigError,
    check_hole,
    check_names,
    check_number,
    check_paths,
    check_texts,
    is_number,
)
from cbsn.noise.synthetic import Noise, parse_range
from cbsn.recipes import RANGES
from cbsn.value_range import check_white
from data_prep.stack_sources import ReadingOptions

SETTINGS = {
    "steps": ("max_steps", 1),
    "channels": ("filters", 1),
    "modules": ("num_modules", 1),
    "attention": ("num_attention", 0),
    "depth": ("depth", 1),
    "mask_cell": ("mask_cell", 2),
    "struct_mask": ("mask_shape", None),
    "z_halvings": ("z_halvings", 0),
    "patch_size": ("patch_size", 1),
    "patch_depth": ("patch_depth", 1),
    "batch_size": ("batch_size", 1),
    "learning_rate": ("learning_rate", 0),
    "lr_steps": ("lr_decay_steps", 1),
    "lmbda": ("lmbda", 0),
    "ramp_steps": ("ramp_steps", 0),
    "noise_model": ("noise_model", None),
    "samples": ("samples", 2),
    "bootstrap_steps": ("bootstrap_steps", 0),
    "stride_b": ("stride_b", 1),
    "stride_i": ("stride_i", 1),
    "denoise_stride": ("denoise_stride", 1),
    "hole": ("hole", None),
    "denoise_hole": ("denoise_hole", None),
    "clip_norm": ("clip_norm", 0),
}
"""The recipe's settings by flag, with minima; None for text. `RANGES` has the maxima, and the
recipe itself rejects unknown text."""


_MOST_HELD_OUT = 0.5

MEAN, ONE = "mean", "one"
"""What is learned of several teachers, or holes: the mean of their pictures, or for each crop the
picture of one of them, drawn at random."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The data to train on and to validate on."""

    dataset: str  # this and the next two: see `cbsn.training.dataset.open_records`
    source: Path = Path("dataset")
    second_shots: str | None = None  # or "next": of stacks, the next frame
    noise: Noise | None = None  # added to clean pictures, or to the teacher's
    own_noise: tuple[float, float] | None = None  # lowest and highest factor of the pictures' noise
    white: float | None = None  # value of white in all files; None to take it from them
    axes: str | None = None  # of stacks, this and the next three: see `ReadingOptions`
    select: str | None = None
    normalize: str = "auto"  # by the recipe: deviation where it standardises, else range
    nan: str = "refuse"
    repair: str | None = None  # of pictures, too
    hold_out: float = 0.1  # share of the planes of stacks that the loss is validated on
    gray: bool | None = None  # whether to train for gray pictures; None to detect it
    skip_bad_records: bool = False  # whether to skip damaged records
    val_noisy: str | None = None  # a folder or glob; not needed with `noise`
    val_clean: str | None = None  # files of the same names
    val_images: int = 0  # number of pairs to use; 0 for all

    @property
    def stacks(self) -> ReadingOptions:
        """How stacks are read."""
        return ReadingOptions(self.axes, self.select, self.normalize, self.nan, self.repair)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Other models that the training uses, each named as for `--model`."""

    teacher: Sequence[str] = ()  # a student learns from their pictures
    teacher_holes: Sequence[int] = ()  # of each teacher; see `cbsn.training.teachers.Teacher`
    targets: str = MEAN  # or `ONE`
    rounds: int = 1  # each further round starts with the last model, and learns from it
    init: str | None = None  # a model whose weights the training starts with
    perceptual_weights: Path | None = None  # VGG-16's file; None to let Keras fetch it


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How to compute; `None` and `accumulate=0` leave the choice to the trainer."""

    precision: str = "auto"  # or one of `cbsn.precision.PRECISIONS`
    deterministic: bool = False  # whether every run gives the same bits; slower on GPUs
    cpu_devices: int = 1  # logical devices to split the CPU into, without a GPU
    accumulate: int = 0  # parts into which each device splits its share of a batch
    xla: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How often the training loop logs, validates and saves, and when it gives up."""

    max_bad_steps: int = 20  # consecutive non-finite steps that end the run
    print_every: int = 0  # steps; 0 for 1/500 of the training, but at least 20
    val_every: int = 0  # steps; 0 for 1/50 of the training, but at least 200
    save_every: int = 0  # as `val_every`

    def intervals(self, max_steps: int) -> tuple[int, int, int]:
        """Returns the steps between log lines, between validations, and between checkpoints."""
        return (
            self.print_every or max(20, max_steps // 500),
            self.val_every or max(200, max_steps // 50),
            self.save_every or max(200, max_steps // 50),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(DataOptions, ModelOptions, ComputeOptions, LoopOptions):
    """Everything about a run except its recipe: the flags of `cbsn train`, by name.

    Raises:
        ConfigError: if a value is out of range or conflicts with another one.

    Example:
        >>> train("cbsn", {"max_steps": 1000}, RunOptions(name="mine", dataset="pictures"))
    """

    name: str  # the run's folder is `checkpoints / name`
    checkpoints: Path = Path("checkpoints")
    resume: bool = True  # whether to go on where a run with this name stopped
    epochs: int = 0  # passes over the patches; 0 for the recipe's epochs or steps
    seed: int = 0  # for all random numbers
    ema: float | None = None  # decay of the averaged weights; 0 for none, None for the recipe's

    def __post_init__(self):
        texts = ("name", "precision", "axes", "select", "normalize", "nan", "repair")
        check_texts({name: getattr(self, name) for name in texts})
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise ConfigError(
                "--name must be a plain folder name; --checkpoints sets the folder above it. "
                f"Received: --name {self.name!r}"
            )
        try:
            str(self.folder).encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                "TensorFlow cannot write to a path that is not UTF-8: use another --name or "
                f"folder. Received: {self.folder}"
            ) from error
        if self.ema is not None and not (is_number(self.ema) and 0 <= self.ema < 1):
            raise ConfigError(
                f"--ema must be a number, 0 or above, and below 1. Received: --ema {self.ema!r}"
            )
        if self.teacher and self.second_shots:
            raise ConfigError(
                "The targets come from either --teacher or --second_shots: omit one of them. "
                f"Received: --teacher {' '.join(self.teacher)} --second_shots {self.second_shots}"
            )
        if self.teacher_holes and not self.teacher:
            raise ConfigError(
                "--teacher_holes are those of a --teacher, from which the recipes distill, photo "
                "and photo-large learn: name one, or omit them. "
                f"Received: --teacher_holes {' '.join(map(str, self.teacher_holes))}"
            )
        for hole in self.teacher_holes:
            check_hole("--teacher_holes", hole)
        if self.targets not in (MEAN, ONE):
            raise ConfigError(f"--targets is {MEAN} or {ONE}. Received: --targets {self.targets}")
        if self.targets == ONE and len(self.teacher) * max(1, len(self.teacher_holes)) < 2:
            raise ConfigError(
                f"--targets {ONE} draws one of several pictures for each crop: give more than one "
                f"--teacher or --teacher_holes, or omit it. Received: --targets {ONE}"
            )
        if self.noise and self.second_shots:
            raise ConfigError(
                "Clean pictures with added noise need no second shots: omit one of them. "
                f"Received: {self.noise}, --second_shots {self.second_shots}"
            )
        if self.own_noise and (self.noise or not self.teacher):
            given = f"--noise: {self.noise}" if self.noise else "no --teacher"
            raise ConfigError(
                "--own_noise is added to the pictures of a --teacher (--recipe distill), in place "
                f"of any other noise. Received: {given}"
            )
        if self.val_noisy is not None and self.val_clean is None:
            raise ConfigError("Validation needs pairs: give --val_clean along with --val_noisy.")
        if self.val_clean is not None and self.val_noisy is None and self.noise is None:
            raise ConfigError("Validation needs pairs: give --val_noisy along with --val_clean.")
        if self.val_images and self.val_clean is None:
            raise ConfigError(
                "--val_images is the number of pairs of --val_clean to validate on: give that "
                f"folder, too, or omit it. Received: --val_images {self.val_images}"
            )
        check_white(self.white)
        _ = self.stacks  # raises an error for what is wrong with them
        if not (is_number(self.hold_out) and 0 <= self.hold_out <= _MOST_HELD_OUT):
            raise ConfigError(
                f"--hold_out is a share of the planes, from 0 (none) to {_MOST_HELD_OUT}. "
                f"Received: --hold_out {self.hold_out!r}"
            )
        check_number("--seed", self.seed, 0, 2**32 - 1, whole=True)
        check_number("--cpu_devices", self.cpu_devices, 1, 256, whole=True)
        check_number("--max_bad_steps", self.max_bad_steps, 1, whole=True)
        check_number("--rounds", self.rounds, 1, 100, whole=True)
        every = ("print_every", "val_every", "save_every")
        for flag in ("epochs", "accumulate", "val_images", *every):
            check_number(f"--{flag}", getattr(self, flag), 0, whole=True)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.checkpoints / self.name


def parse_settings(values: Mapping[str, Any]) -> tuple[dict[str, Any], RunOptions]:
    """Returns the changes to a recipe, and the options, for values by the names of the flags.

    Values are as from the flags, or numbers and paths where these are text.

    Raises:
        ConfigError: if a name is unknown, or a value is out of range or conflicts with another.

    Example:
        >>> parse_settings({"name": "mine", "dataset": "photos", "steps": 100})
    """
    fields = {field.name for field in dataclasses.fields(RunOptions)}
    noise_names = ("noise", "noise_sigma", "noise_peak")
    check_names("setting of a training", values, {*SETTINGS, *fields, *noise_names})
    changes = {}
    for flag, (setting, least) in SETTINGS.items():
        changes[setting] = value = values.get(flag)
        if least is not None and value not in (None, "auto"):
            most = RANGES.get(setting, (0, LARGEST))[1]
            check_number(f"--{flag}", value, least, most, above=flag == "learning_rate")
    for flag, least in ("hole", 1), ("denoise_hole", 0):
        if (value := values.get(flag)) not in (None, "auto"):
            check_hole(f"--{flag}", value, least)
    given = {name: value for name, value in values.items() if name in fields}
    given["noise"] = Noise.parse(*(_text(values.get(name)) for name in noise_names))
    if (own_noise := _text(values.get("own_noise"))) is not None:
        accepted = "a factor above 0, to 1e9, such as 1, or a range, such as 0.4-2.5"
        given["own_noise"] = parse_range("--own_noise", own_noise, accepted, positive=True)
    if "dataset" in given:
        check_paths({"dataset": given["dataset"]})
    for name in ("checkpoints", "source", "perceptual_weights"):
        if given.get(name) is not None:
            check_paths({name: given[name]})
            given[name] = Path(given[name])
    for name in ("second_shots", "val_noisy", "val_clean", "init", "axes", "select"):
        given[name] = _text(given.get(name))
    for teacher in (teachers := _several(given.get("teacher"))):
        check_paths({"teacher": teacher})
    given["teacher"] = [os.fspath(teacher) for teacher in teachers]
    given["teacher_holes"] = _several(given.get("teacher_holes"))
    return changes, RunOptions(**given)


def _several(given: Any) -> list[Any]:
    """Returns one value, several of them, or None, as a list."""
    if given is None:
        return []
    is_one = isinstance(given, str) or not isinstance(given, Iterable)
    return [given] if is_one else [*given]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
