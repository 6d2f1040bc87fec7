"""What the user of a run decides, beside its recipe."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cbsn.errors import ConfigError, check_number
from cbsn.noise.synthetic import Noise
from cbsn.value_range import check_white

_LARGEST_SEED = 2**32 - 1
_MOST_DEVICES = 256
_MOST_ROUNDS = 100


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Everything about a run that is not its recipe.

    Args:
        name: str, the run lives in `checkpoints / name`.
        dataset: str, as `cbsn.training.dataset.open_records` takes it.
        source: folder of the prepared SIDD and DND.
        second_shots: likewise, a second noisy shot of each picture of `dataset`, by equal names;
            for objectives that take two.
        teacher: models whose pictures of the dataset's are learned from, each as `--modelpath`
            takes it; for objectives that are taught. With an augmentation, by default the small
            model that ships.
        rounds: int ≥ 1, how often to train: in each further round the model of the one before
            teaches, and goes on; for recipes with an augmentation.
        init: model whose weights the training starts with, as `--modelpath` takes it; None for
            fresh ones.
        noise: what is added to the pictures, which are clean then; with a teacher, to its
            pictures; None for noisy pictures.
        own_noise: lowest and highest > 0, how many times as strong as in the pictures the noise is
            that is added to the teacher's: `MeasuredNoise`; None for none.
        white: what white is in the files of pictures, those to validate on too, as for
            `cbsn.images.image_files.read_picture`; None as they show it.
        gray: whether to train a network for gray pictures; None if the pictures are gray.
        checkpoints: folder of all runs.
        resume: whether to go on where a run of that name stopped.
        epochs: int, train for that many passes over the patches; 0 for the recipe's steps.
        seed: int in [0, 2³²), seed of everything random.
        precision: "auto" or one of `cbsn.precision.PRECISIONS`, the Keras dtype policy of the
            layers.
        deterministic: whether TensorFlow may use operations only that give the same bits each
            time; slower on GPUs.
        cpu_devices: int ≥ 1, logical devices to split the CPU into, where there is no GPU.
        accumulate: int, parts of a batch whose gradients are taken one after the other on each
            device; 0 leaves it to the trainer.
        xla: whether XLA compiles the step; None leaves it to the trainer.
        ema: float in [0, 1), decay of the averaged weights; 0 for none, None as the recipe has it.
        perceptual_weights: file of VGG-16's weights; None for those that Keras fetches.
        max_bad_steps: int ≥ 1, stop after so many steps in a row whose loss or gradients are not
            finite.
        skip_bad_records: whether to go on without damaged records.
        val_noisy: folder or glob of noisy pictures to validate on; None for no validation or, with
            `noise`, for clean ones with noise of a fixed seed.
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
    second_shots: str | None = None
    teacher: Sequence[str] = ()
    rounds: int = 1
    init: str | None = None
    noise: Noise | None = None
    own_noise: tuple[float, float] | None = None
    white: float | None = None
    gray: bool | None = None
    checkpoints: Path = Path("checkpoints")
    resume: bool = True
    epochs: int = 0
    seed: int = 0
    precision: str = "auto"
    deterministic: bool = False
    cpu_devices: int = 1
    accumulate: int = 0
    xla: bool | None = None
    ema: float | None = None
    perceptual_weights: Path | None = None
    max_bad_steps: int = 20
    skip_bad_records: bool = False
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
        try:
            str(self.checkpoints / self.name).encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                "TensorFlow writes to no path that is not UTF-8: take another --name, or another "
                f"folder. Received: {self.checkpoints / self.name}"
            ) from error
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ConfigError(f"--ema must be 0 or above, and below 1. Received: {self.ema}")
        if self.teacher and self.second_shots:
            raise ConfigError(
                "What is learned from comes from --teacher, or from --second_shots: omit one "
                f"of them. Received: --teacher {' '.join(self.teacher)} --second_shots "
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
        made = self.noise is not None and self.val_noisy is None
        if (self.val_noisy is None) != (self.val_clean is None) and not made:
            given, missing = "--val_noisy", "--val_clean"
            if self.val_noisy is None:
                given, missing = missing, given
            raise ConfigError(f"Validation needs pairs: give {missing} along with {given}.")
        check_white(self.white)
        check_number("--seed", self.seed, 0, _LARGEST_SEED)
        check_number("--cpu_devices", self.cpu_devices, 1, _MOST_DEVICES)
        check_number("--max_bad_steps", self.max_bad_steps, 1)
        check_number("--rounds", self.rounds, 1, _MOST_ROUNDS)
        counts = ("epochs", "accumulate", "val_images", "print_every", "val_every", "save_every")
        for flag in counts:
            check_number(f"--{flag}", getattr(self, flag), 0)

    def intervals(self, max_steps: int) -> tuple[int, int, int]:
        """Steps between log lines, validations and checkpoints in a training of that length."""
        return (
            self.print_every or max(20, max_steps // 500),
            self.val_every or max(200, max_steps // 50),
            self.save_every or max(200, max_steps // 50),
        )
