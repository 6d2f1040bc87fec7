"""What is measured on blocks of pictures."""

import dataclasses
from collections.abc import Sequence

import numpy as np

STEP = 16
"""Distance of neighbouring blocks in pixels: they overlap by half."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """What was measured on n blocks of 32 × 32 pixels, in C channels.

    Args:
        content: [n], energy of the smooth part, apart from brightness and shading, in units of
            the noise's variance. That is where content is, far above the noise. All other
            measurements are made without it, so that choosing by it does not bias them.
        quiet: [n, C], variance in 8-bit levels² that the quietest blocks of this brightness have
            in this picture: a first guess of the noise.
        brightness: [n, C], mean in 8-bit levels.
        covariance: [n, C, REACH + 1, 2·REACH + 1], from `autocovariance`, in 8-bit levels².
        picture: int [n], of which it is a block.
        corner: int [n, 2], row and column of the first pixel, in units of `STEP` pixels.
    """

    content: np.ndarray
    quiet: np.ndarray
    brightness: np.ndarray
    covariance: np.ndarray
    picture: np.ndarray
    corner: np.ndarray

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, index: np.ndarray | slice) -> "Blocks":
        return Blocks(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))

    @classmethod
    def joined(cls, parts: Sequence["Blocks"]) -> "Blocks":
        """Returns the blocks of several pictures together; at least one, of equal channels."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
