"""How pictures are denoised: the options of `Denoiser`, as one value."""

import dataclasses
from collections.abc import MutableMapping
from typing import Any

import numpy as np

from cbsn.colors import LUMA
from cbsn.errors import LARGEST_SEED, ConfigError

ROUNDINGS = {"round": np.rint, "truncate": np.floor}
"""How integer pixels are made; the original C-BSN code truncates."""


@dataclasses.dataclass(frozen=True)
class Strength:
    """The shares of luma and of colour that are removed.

    What a network removes from a pixel is a vector, noisy − denoised. Its luma part is its Rec. 601
    luma in all three channels, and its colour part is the rest. Gray has no colour.

    Args:
        luma: float from 0 to 1. Default 1.
        color: float from 0 to 1. Default None, the same.

    Raises:
        ConfigError: if one of them is not such a number.

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
            if not 0 <= share <= 1:
                raise ConfigError(f"{flag} takes a number from 0 to 1. Received: {flag} {share}")

    @property
    def is_whole(self) -> bool:
        """Whether all is removed."""
        return self.luma == self.color == 1

    def blend(self, noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
        """Returns noisy values, float [..., 1 or 3], less the shares of what denoising removes."""
        assert self.color is not None  # since __post_init__
        removed = noisy - denoised
        if removed.shape[-1] == 1 or self.luma == self.color:
            return noisy - self.luma * removed
        # Channel by channel, so that a pixel does not depend on how many there are at once.
        luma = sum(weight * removed[..., i, None] for i, weight in enumerate(LUMA))
        return noisy - (self.color * removed + (self.luma - self.color) * luma)


@dataclasses.dataclass(frozen=True)
class DenoiseOptions:
    """How a model is loaded, and how it denoises.

    Args:
        recipe_name: str, name of the recipe; only bare weights need it, and the next two.
        channel: int, channels of the network.
        num_block: int, dilated modules in each branch.
        precision: as `cbsn.precision.choose_precision` takes it. "float32" gives the original
            code's numbers; bfloat16 differs by a level here and there. Default "auto".
        engine: as `cbsn.inference.engines.choose_engine` takes it. Default "auto".
        tile: "auto" (at most 342 × 342 pixels at a time; for U-Nets, which see further, about
            500 × 500), the side of the tiles in pixels, or 0 or None for the whole picture at once.
            The halo comes on top. Default "auto".
        rounding: "round" to the nearest integer, or "truncate" as the original code does. Default
            "round".
        r3: whether to refine by R3: eight more passes of the blind network. Default None, as the
            recipe has it.
        self_ensemble: whether to denoise the picture in its eight orientations and average.
            Default False.
        seed: int in [0, 2⁶⁴), of R3's random choices. Default 0.
        strength: float from 0 to 1, how much is removed of what the network would remove, 0 being
            nothing. Default 1.
        color_strength: the same for colour, `strength` being that for luma then; see `Strength`.
            Default None, as `strength`.

    Raises:
        ConfigError: if `tile`, `rounding`, `seed` or a strength is none of these.

    Example:
        >>> options = DenoiseOptions(tile=512, self_ensemble=True)
        >>> denoise = Denoiser.load("checkpoints/my-run", options)
    """

    recipe_name: str | None = None
    channel: int | None = None
    num_block: int | None = None
    precision: str = "auto"
    engine: str = "auto"
    tile: str | int | None = "auto"
    rounding: str = "round"
    r3: bool | None = None
    self_ensemble: bool = False
    seed: int = 0
    strength: float = 1.0
    color_strength: float | None = None

    def __post_init__(self):
        if self.rounding not in ROUNDINGS:
            accepted = " or ".join(ROUNDINGS)
            raise ConfigError(f"rounding is {accepted}. Received: {self.rounding!r}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ConfigError(f"--seed must be 0 or above, and below 2^64. Received: {self.seed}")
        Strength(self.strength, self.color_strength)
        if self.tile != "auto":
            try:
                side = int(self.tile or 0)
            except ValueError:
                side = -1
            if side < 0:
                raise ConfigError(
                    "tile is auto, the side of the tiles in pixels, or 0 for the whole picture at "
                    f"once. Received: {self.tile!r}"
                )

    @classmethod
    def pop(cls, flags: MutableMapping[str, Any]) -> "DenoiseOptions":
        """Takes the options out of a command's flags, which may lack some of them."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: flags.pop(name) for name in names if name in flags})
