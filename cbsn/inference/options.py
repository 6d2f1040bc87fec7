"""The options of `Denoiser`: how a model is loaded and how it denoises."""

import dataclasses
import numbers
from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from cbsn.colors import LUMA
from cbsn.errors import LARGEST_SEED, ConfigError, brief, check_hole, check_names, check_texts
from cbsn.noise.repair import parse_repairs

QUALITIES = {"fast": "photo", "default": "photo-large", "best": "photo-large"}
"""The shipped model by `--quality`; "best" also uses the self-ensemble."""

ROUNDINGS = {"round": np.rint, "truncate": np.floor}
"""How results become integer pixels. The original C-BSN code truncates."""


@dataclasses.dataclass(frozen=True)
class Strength:
    """How much of a network's change to luma and to colour is applied.

    A network removes the vector noisy − denoised from each pixel. The luma part of this vector is
    its Rec. 601 luma in all three channels. The colour part is the rest; gray has none.

    Args:
        luma: float from 0 to 1, the share of the luma part to remove. Default 1.
        color: float from 0 to 1, the share of the colour part. Default None, the same as `luma`.

    Raises:
        ConfigError: if one of them is not in this range.

    Example:
        >>> noisy, denoised = np.array([[0.25]]), np.array([[0.5]])
        >>> Strength(0.5).blend(noisy, denoised)
        array([[0.375]])
    """

    luma: float = 1.0
    color: float | None = None

    def __post_init__(self):
        if self.color is None:
            object.__setattr__(self, "color", self.luma)
        for flag, share in (("--strength", self.luma), ("--color_strength", self.color)):
            if not (isinstance(share, numbers.Real) and 0 <= share <= 1):
                raise ConfigError(f"{flag} takes a number from 0 to 1. Received: {flag} {share}")

    @property
    def is_whole(self) -> bool:
        """Whether both shares are 1."""
        return self.luma == self.color == 1

    def blend(self, noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
        """Returns noisy values, float [..., 1 or 3], minus the shares of noisy − denoised."""
        assert self.color is not None  # since __post_init__
        removed = noisy - denoised
        if removed.shape[-1] == 1 or self.luma == self.color:
            return noisy - self.luma * removed
        # Channel by channel, so that a result does not depend on the number of pixels.
        luma = sum(weight * removed[..., i, None] for i, weight in enumerate(LUMA))
        return noisy - (self.color * removed + (self.luma - self.color) * luma)


@dataclasses.dataclass(frozen=True)
class DenoiseOptions:
    """How a model is loaded, and how it denoises.

    Args:
        recipe: str, name of the recipe. Only bare weights need this and the next two options.
        channels: int, channels of the network.
        modules: int, dilated convolution modules in each branch.
        hole: int, width in pixels of the hole that the network does not see around each pixel, odd,
            or 0 for none; of models of the recipes `tmbsn` and `cbsn-hole`. Default None, as the
            model has it.
        precision: see `cbsn.precision.choose_precision`. "float32" reproduces the original code's
            numbers; results in bfloat16 differ by one level in places. Default "auto".
        engine: "auto", "auto!" or one of `cbsn.inference.engines.ENGINES`, see
            `cbsn.inference.engines.choice.choose_engine`. Default "auto".
        tile: "auto" (what fits into about 0.3 GB, but at least 342 × 342 pixels; of a volume, into
            about 3 GB), the side of the tiles in pixels, and of volumes in planes, too, or 0 or
            None for the whole picture at once. The halo is added to this. Default "auto".
        rounding: "round" to the nearest integer, or "truncate" as the original code does. Default
            "round".
        r3: whether to refine the result by R3, eight more passes of the blind network. Default
            None, the recipe's setting.
        self_ensemble: whether to denoise the picture in its eight orientations and average; of a
            volume, all planes alike. With a network whose mask is not the same in all of them, only
            those in which it is. Default False.
        seed: int in [0, 2⁶⁴), for R3's random choices. Default 0.
        strength: float from 0 to 1, the share to remove of what the network would remove; 0 removes
            nothing. Default 1.
        color_strength: the share for colour; `strength` is then the share for luma. See `Strength`.
            Default None, the same as `strength`.
        repair: str, what is repaired before: "pixels" that are hot, dead or stuck (of a picture,
            isolated outliers), the offsets of "rows" or of "columns", or several of them, such as
            "pixels,rows". Default None, nothing.

    Raises:
        ConfigError: if `tile`, `rounding`, `seed`, `repair` or a strength has no such value.

    Example:
        >>> options = DenoiseOptions(tile=512, self_ensemble=True)
        >>> denoise = Denoiser.load("checkpoints/my-run", options)
    """

    recipe: str | None = None
    channels: int | None = None
    modules: int | None = None
    hole: int | None = None
    precision: str = "auto"
    engine: str = "auto"
    tile: str | int | None = "auto"
    rounding: str = "round"
    r3: bool | None = None
    self_ensemble: bool = False
    seed: int = 0
    strength: float = 1.0
    color_strength: float | None = None
    repair: str | None = None

    def __post_init__(self):
        texts = ("recipe", "precision", "engine", "rounding", "repair")
        check_texts({name: getattr(self, name) for name in texts})
        parse_repairs(self.repair)
        if not isinstance(self.self_ensemble, bool | np.bool_):
            received = brief(self.self_ensemble)
            raise ConfigError(f"self_ensemble is True or False. Received: self_ensemble={received}")
        if not isinstance(self.r3, bool | np.bool_ | None):
            raise ConfigError(f"r3 is True, False or None. Received: r3={brief(self.r3)}")
        if self.rounding not in ROUNDINGS:
            accepted = " or ".join(ROUNDINGS)
            raise ConfigError(f"rounding must be {accepted}. Received: {self.rounding!r}")
        if not isinstance(self.seed, numbers.Integral) or not 0 <= self.seed <= LARGEST_SEED:
            received = brief(self.seed)
            raise ConfigError(
                f"--seed must be an integer, 0 or above, and below 2^64. Received: {received}"
            )
        if self.hole is not None:
            check_hole("--hole", self.hole)
        Strength(self.strength, self.color_strength)
        if self.tile != "auto":
            try:
                side = int(self.tile or 0)
            except (TypeError, ValueError):
                side = -1
            if side < 0:
                raise ConfigError(
                    "tile must be auto, the side of the tiles in pixels, or 0 for the whole "
                    f"picture at once. Received: {brief(self.tile)}"
                )

    @classmethod
    def from_names(cls, options: Mapping[str, Any]) -> "DenoiseOptions":
        """Returns the options with these names; raises a ConfigError for an unknown one."""
        check_names("option", options, [field.name for field in dataclasses.fields(cls)])
        return cls(**options)

    @classmethod
    def pop(cls, flags: MutableMapping[str, Any]) -> "DenoiseOptions":
        """Removes the options from a command's flags, which may lack some, and returns them."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: flags.pop(name) for name in names if name in flags})


def given_flags(options: Any) -> list[str]:
    """Returns the flags, with their values, that make options differ from their defaults.

    Args:
        options: a dataclass whose fields have the names of flags.
    """
    given = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, bool) and value != field.default:
            given.append(f"--{field.name}" if value else f"--no-{field.name}")
        elif value != field.default:
            given.append(f"--{field.name} {value}")
    return given
