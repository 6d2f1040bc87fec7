"""How much of what a network takes from a picture is really taken."""

import dataclasses

import numpy as np

from cbsn.errors import ConfigError

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue count for in the luma of Rec. 601."""


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
        """Whether the result is what the network returns."""
        return self.luma == self.color == 1

    @property
    def is_none(self) -> bool:
        """Whether the result is the noisy picture."""
        return self.luma == self.color == 0

    def blend(self, noisy: np.ndarray, denoised: np.ndarray) -> np.ndarray:
        """Returns noisy values without the shares of what was removed.

        Args:
            noisy: float [..., 1 or 3].
            denoised: of the same shape, in the same units.
        """
        removed = noisy - denoised
        if removed.shape[-1] == 1 or self.luma == self.color:
            return noisy - self.luma * removed
        # Channel by channel, so that a pixel does not depend on how many there are at once.
        luma = sum(weight * removed[..., i, None] for i, weight in enumerate(LUMA))
        return noisy - (self.color * removed + (self.luma - self.color) * luma)
