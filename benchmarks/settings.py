"""What is measured: sizes of networks, batches and pictures, and how often."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cbsn.errors import ConfigError, check_number

SUITES = (
    *("step", "roofline", "inference", "engines", "exports", "recipes", "pipeline", "startup"),
    *("uncertainty", "gpu"),
)
"""The suites; each is a module of this package with `TITLE`, `COLUMNS` and `run(settings)`."""


_LARGEST_BATCH = 4096
_LARGEST_SIDE = 1 << 16
"""Far more than fits into the memory of any machine."""


class Size(NamedTuple):
    """A size of the network: number of channels, and of dilated modules in each branch."""

    name: str
    filters: int
    num_modules: int


SIZES = {size.name: size for size in (Size("full", 128, 9), Size("small", 32, 5))}
SIZES["tiny"] = Size("tiny", 8, 2)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        sizes: sizes of the networks, in all suites except `pipeline`.
        batches: numbers of patches in a training step.
        patch_size: side of a training patch.
        augmented_batch: number of patches in a training step with augmentation.
        augmented_patch_size: side of these patches, a multiple of 16.
        pictures: (height, width) of the pictures to denoise.
        tile: side of the one-tile picture whose convolutions are the roofline of inference.
        records: number of patches in the data set of `pipeline`.
        crops: number of crops taken from it in one measurement.
        repeats: number of measurements of each side, after a warm-up.
        memory: whether peak memory is measured, in a separate process for each side.
        sides: names of the sides of `step`, `inference`, `engines`, `exports`, `recipes` and `gpu`,
            and of the models of `uncertainty`, that take part; empty for all.
        clean: folder of the clean pictures of `uncertainty`; None for photographs of scikit-image.
        clean_count: number of them, evenly spread.

    Raises:
        ConfigError: if a number is too low or too high.
    """

    sizes: tuple[Size, ...] = (SIZES["full"], SIZES["small"])
    batches: tuple[int, ...] = (1, 4)
    patch_size: int = 120
    augmented_batch: int = 32
    augmented_patch_size: int = 128
    pictures: tuple[tuple[int, int], ...] = ((256, 256), (1024, 1024))
    tile: int = 342
    records: int = 512
    crops: int = 4096
    repeats: int = 5
    memory: bool = True
    sides: tuple[str, ...] = ()
    clean: Path | None = None
    clean_count: int = 8

    def __post_init__(self):
        check_number("--repeats", self.repeats, 1)
        for batch in self.batches:
            check_number("--batches", batch, 1, _LARGEST_BATCH)
        for picture in self.pictures:
            for side in picture:
                check_number("--pictures", side, 1, _LARGEST_SIDE)

    @classmethod
    def make(
        cls,
        *,
        quick: bool,
        huge: bool,
        repeats: int | None,
        memory: bool | None,
        sizes: Sequence[str] | None,
        batches: Sequence[str] | None,
        pictures: Sequence[str] | None,
        sides: Sequence[str] | None,
        clean: Path | None = None,
    ) -> "Settings":
        """Makes settings from flags. None keeps the default, which depends on `quick`.

        Raises:
            ConfigError: if a flag's value is unknown or cannot be read.
        """
        settings = _QUICK if quick else cls()
        changes: dict[str, Any] = {"repeats": repeats, "memory": memory}
        if sizes is not None:
            changes["sizes"] = tuple(_size(name) for name in sizes)
        if batches is not None:
            changes["batches"] = tuple(_integer("--batches", value) for value in batches)
        if pictures is not None:
            changes["pictures"] = tuple(_picture(value) for value in pictures)
        changes["sides"] = None if sides is None else tuple(sides)
        changes["clean"] = clean
        changes = {key: value for key, value in changes.items() if value is not None}
        settings = dataclasses.replace(settings, **changes)
        if huge:
            settings = dataclasses.replace(settings, pictures=(*settings.pictures, (3000, 4000)))
        return settings

    def select(self, names: Iterable[str]) -> list[str]:
        """Returns the names of a suite's sides that take part.

        Raises:
            ConfigError: if none of them does.
        """
        names = [*names]
        chosen = [name for name in names if not self.sides or name in self.sides]
        if not chosen:
            raise ConfigError(f"--sides are of {', '.join(names)}. Received: {self.sides}")
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, fit for JSON."""
        clean = None if self.clean is None else str(self.clean)
        sizes = [size._asdict() for size in self.sizes]
        return {**dataclasses.asdict(self), "sizes": sizes, "clean": clean}


_QUICK = Settings(
    sizes=(SIZES["tiny"],),
    batches=(1,),
    patch_size=60,
    augmented_batch=2,
    augmented_patch_size=32,
    pictures=((64, 64),),
    tile=64,
    records=32,
    crops=512,
    repeats=3,
    memory=False,
    clean_count=1,
)


def parse_list(flag: str, value: str | None) -> list[str] | None:
    """Splits a flag's value at its commas.

    Raises:
        ConfigError: if a part is empty.
    """
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):
        raise ConfigError(f"{flag} takes values with commas between them. Received: {value!r}")
    return parts


def _size(name: str) -> Size:
    if name not in SIZES:
        raise ConfigError(f"--sizes are of {', '.join(SIZES)}. Received: {name}")
    return SIZES[name]


def _integer(flag: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"{flag} takes whole numbers. Received: {value}") from None


def _picture(value: str) -> tuple[int, int]:
    parts = [_integer("--pictures", part) for part in value.split("x")]
    if len(parts) != 2:
        raise ConfigError(f"--pictures takes HEIGHTxWIDTH. Received: {value}")
    return parts[0], parts[1]
